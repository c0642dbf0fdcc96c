"""Files and folders left out of a tree of pictures, by kind: counted, and named in the notes of the data set."""

import collections
import enum
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from sweep.data.formats import decoding
from sweep.data.formats.tones import counted

MAX_NAMED: Final = 10
"""Most files or suffixes that a note names."""

POINTER: Final = b"version https://git-lfs"
"""The beginning of a file that Git LFS has not fetched."""

SYSTEM: Final = {
    *("__macosx", "lost+found", "$recycle.bin", "system volume information", "recycler", "@eadir", "#recycle"),
    *("#snapshot", "@recycle", "@recently-snapshot", "network trash folder", "temporary items"),
    *("thevolumesettingsfolder", "lost.dir", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
    *("__pycache__", "node_modules", "site-packages", "venv"),
}
"""Names that operating systems and programs use beside users' files, in lower case."""

BACKUP: Final = re.compile(r".*~|#.+#|found\.\d{3}", re.DOTALL)
"""Backup files of editors, and folders of recovered files."""


class Kind(enum.Enum):
    """Why something is left out: in the singular, and in the plural."""

    EMPTY = "empty file", "empty files"
    DAMAGED = "picture that cannot be decoded", "pictures that cannot be decoded"
    TOO_LARGE = "picture with too many pixels", "pictures with too many pixels"
    POINTER = "Git LFS pointer whose picture was not fetched", "Git LFS pointers whose pictures were not fetched"
    DEAD_LINK = "link to nothing", "links to nothing"
    LOOP = "link to a folder that is already read", "links to folders that are already read"
    FORBIDDEN = "file or folder without read permission", "files or folders without read permission"
    SPECIAL = "pipe, socket or device", "pipes, sockets or devices"
    NOT_READ = "file of a kind that is not read", "files of kinds that are not read"
    BESIDE = "file beside the class folders", "files beside the class folders"
    NO_PICTURES = "folder without pictures", "folders without pictures"
    HIDDEN = "hidden or system file or folder", "hidden or system files or folders"


class LeftOut:
    """Names of what is left out, by kind."""

    def __init__(self) -> None:
        self.names: dict[Kind, list[str]] = collections.defaultdict(list)

    def add(self, kind: Kind, name: str) -> None:
        """Notes one file or folder by its path relative to the root."""
        self.names[kind].append(name)

    def copy(self) -> "LeftOut":
        """The same names, to add others to."""
        other = LeftOut()
        for kind, names in self.names.items():
            other.names[kind] = list(names)
        return other

    def pictures_of(self, folder: str) -> "LeftOut":
        """What should have been pictures of a class, judging by the names."""
        found = LeftOut()
        for kind, names in self.names.items():
            for name in names:
                inside = name == folder or name.startswith(f"{folder}/")
                if inside and (kind is Kind.FORBIDDEN or suffix(name) in decoding.suffixes()):
                    found.add(kind, name)
        return found

    def counts(self) -> list[str]:
        """How many there are of every kind, and the suffixes of files of unknown kinds."""
        return [
            counted(len(names), *kind.value) + (f": {suffixes(names)}" if kind is Kind.NOT_READ else "")
            for kind in Kind
            if (names := self.names.get(kind))
        ]

    def notes(self) -> list[str]:
        """A line for every kind, with names, or only with suffixes for files that are clearly not pictures."""
        by_suffix = (Kind.NOT_READ, Kind.BESIDE)
        return [
            f"{counted(len(names), *kind.value)} left out: "
            + (suffixes(names) if kind in by_suffix else listed(sorted(names)))
            for kind in Kind
            if (names := self.names.get(kind))
        ]


def is_hidden(name: str) -> bool:
    """Whether a name is hidden, an editor's backup, or one that the system uses."""
    folded = name.casefold()
    return folded.startswith((".", "~$")) or folded in SYSTEM or BACKUP.fullmatch(folded) is not None


def kind_of(error: Exception, name: str, head: bytes) -> Kind:
    """Why a file that begins with `head` could not be read as a picture."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, PermissionError):
        return Kind.FORBIDDEN
    if isinstance(error, FileNotFoundError):
        return Kind.DEAD_LINK
    if isinstance(error, Image.DecompressionBombError):
        return Kind.TOO_LARGE
    if head.startswith(POINTER):
        return Kind.POINTER
    if isinstance(error, UnidentifiedImageError) and suffix(name) not in decoding.suffixes() - decoding.UNREAD:
        return Kind.NOT_READ
    return Kind.DAMAGED if head else Kind.EMPTY


def suffix(name: str) -> str:
    """The suffix of a name, in lower case."""
    return PurePosixPath(name).suffix.lower()


def suffixes(names: list[str]) -> str:
    """The suffixes of the names, with their counts."""
    found = collections.Counter(suffix(name) or "without suffix" for name in names).most_common()
    return listed([f"{count:,} {ending}" for ending, count in found])


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
