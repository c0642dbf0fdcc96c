"""The header of a checkpoint, read without torch."""

import json
from typing import Any, Final

SUFFIX: Final = ".safetensors"
"""The suffix of checkpoint files."""


def read_header(content: bytes) -> dict[str, Any]:
    """The JSON in the header of a checkpoint. Safetensors: eight bytes of length, then JSON."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(json.loads(header["__metadata__"]["sweep"]))
