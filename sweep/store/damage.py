"""Files of a store that cannot be read: each is named once and left out; nobody rewrites, moves or removes it."""

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
    "looks": "it counts as a look all the same",
    "sweeps": "that sweep is not shown",
    "failures": "what failed is not known from it",
    "checkpoints": "no training is taken up from it",
}
"""What follows for the reader, by folder."""


class Damaged(InputError):
    """A file of a store whose content cannot be used, or only by a newer version of this program."""


def parsed(content: bytes) -> Any:
    """What JSON a file holds; Damaged where it holds none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"is no JSON ({str(error).splitlines()[0]})") from error


class Damages(dict[str, str]):
    """What was left out of what lies in one place, and why, by name."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    def leave_out(self, name: str, error: Exception) -> None:
        """Names a file on standard error, the first time. Raises `error` where what is wrong is not the file."""
        if not self.is_of_the_file(error):
            raise error
        if name in self:
            return
        where, why = self.place.path(name), reason(error)
        self[name] = why if why.startswith(where) else f"{where}: {why}"
        said = f"{self[name]}. It is left out: {_MEANING[PurePosixPath(name).parts[0]]}."
        print(without_secrets(said), file=sys.stderr)

    def is_of_the_file(self, error: Exception) -> bool:
        """Whether what went wrong lies with one file: a store that lets nobody read is no damaged file."""
        if isinstance(error, PermissionError):
            return self.place.local is not None
        return isinstance(error, InputError | IsADirectoryError) or getattr(error, "errno", None) == errno.ELOOP


def reason(error: Exception) -> str:
    """Why a file cannot be used, in one line."""
    if isinstance(error, IsADirectoryError):
        return "is a folder; a file is expected"
    if isinstance(error, PermissionError):
        return "may not be read"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).splitlines()[0]
