"""Files of a store that cannot be read: each is named once and skipped, and never rewritten, moved or removed."""

import errno
import json
import sys
from pathlib import PurePosixPath
from typing import Any, Final

from sweep.common.errors import InputError
from sweep.common.redaction import without_secrets
from sweep.store.storage import Place

_MEANING: Final = {
    "runs": "its runs count as missing",
    "curves": "its learning curves are missing",
    "looks": "it still counts as a look",
    "sweeps": "that sweep is not shown",
    "failures": "what failed is unknown",
    "checkpoints": "no training resumes from it",
}
"""The consequence for the user, by folder."""


class Damaged(InputError):
    """A file of a store whose content is unusable, or needs a newer version of this program."""


def parsed(content: bytes) -> Any:
    """The JSON in a file; Damaged if it holds none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"is not JSON ({str(error).splitlines()[0]})") from error


class Damages(dict[str, str]):
    """The files of one place that were left out, each with the reason."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    def leave_out(self, name: str, error: Exception) -> None:
        """Names a file on standard error, once. Raises `error` if the file is not to blame."""
        if not self.is_of_the_file(error):
            raise error
        if name in self:
            return
        where, why = self.place.path(name), reason(error)
        self[name] = why if why.startswith(where) else f"{where}: {why}"
        said = f"{self[name]}. It is left out: {_MEANING[PurePosixPath(name).parts[0]]}."
        print(without_secrets(said), file=sys.stderr)

    def is_of_the_file(self, error: Exception) -> bool:
        """Whether one file is to blame: a store that denies access is not a damaged file."""
        if isinstance(error, PermissionError):
            return self.place.local is not None
        return isinstance(error, InputError | IsADirectoryError) or getattr(error, "errno", None) == errno.ELOOP


def reason(error: Exception) -> str:
    """Why a file cannot be used, in one line."""
    if isinstance(error, IsADirectoryError):
        return "is a folder; expected a file"
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied)"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).splitlines()[0]
