"""What a checkpoint says of itself: read without torch, by whoever finds the file."""

import json
from typing import Any, Final

SUFFIX: Final = ".safetensors"
"""How the names of checkpoints end."""


def read_header(content: bytes) -> dict[str, Any]:
    """What JSON the header of a checkpoint holds. Safetensors: eight bytes of length, then JSON."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(json.loads(header["__metadata__"]["sweep"]))
