"""Whether the subfolders of a folder are classes, not parts of a data set or pictures and their masks."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from sweep.common.errors import InputError
from sweep.data.formats.folders import Tree, printable
from sweep.data.formats.left_out import is_hidden

FILLERS: Final = r"set|data|dataset|images?|imgs?|pictures|pics|split"
"""Words in the name of a part that carry no meaning, as in `train_set` or `TestImages`."""

PART: Final = re.compile(
    r"(?:(?P<train>train|training|trn|trainval)|(?P<validation>val|valid|validation|dev|eval|evaluation)"
    r"|(?P<test>test|testing|tst|holdout|pred|predict|prediction)|(?P<rest>unlabell?ed)"
    r"|(?P<pictures>images?|imgs?|pictures|pics)|(?P<masks>masks?|labels?|annotations?|segmentations?|gt))"
    rf"(?:{FILLERS}|\d+)*"
)
"""Words for the parts of a data set, and for what is kept beside its pictures, in lower case."""

ORDER: Final = tuple(PART.groupindex)

WORDS: Final = re.compile(r"[\W\d_]+|(?<=[^\W\d_])(?<![A-Z])(?=[A-Z])")
"""Where the words of a name begin, in `seg_train`, `train-2017` and `trainA`."""


def check_classes(tree: Tree) -> None:
    """Raises InputError if the subfolders are parts of a data set, or hold such parts, instead of classes."""
    if not tree.classes:
        raise InputError(f"{printable(str(tree.root))}: has no subfolder; expected one per class, with its pictures")
    if parts := parts_of(tree.classes):
        raise InputError(_not_classes(tree.root, parts))
    for name in tree.classes:
        if parts := parts_of(subfolders(tree.root / name)):
            where = tree.root / name
            if len(tree.classes) == 1:
                raise InputError(_not_classes(where, parts))
            raise InputError(
                f"{printable(str(where))}: its subfolders {_quoted(parts)} are parts of a data set; "
                "put the pictures of a class, and nothing else, into one folder: the split is drawn by this program"
            )


def notes(tree: Tree) -> list[str]:
    """Signs that the subfolders may not be the intended classes."""
    inner = [tuple(subfolders(tree.root / name)) for name in tree.classes]
    if len(inner) < 2 or len(inner[0]) < 2 or len(set(inner)) > 1:
        return []
    more = f" and {len(inner[0]) - 3:,} more" if len(inner[0]) > 3 else ""
    return [f"every class holds the same subfolders, {_quoted(inner[0][:3])}{more}: are these the classes?"]


def alike(names: Iterable[str]) -> list[str]:
    """A note for every group of names that differ only in case or in Unicode normalization."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFKC", name).casefold(), []).append(name)
    return [f"classes that differ only in case: {_quoted(group)}" for group in groups.values() if len(group) > 1]


def parts_of(names: Iterable[str]) -> list[str]:
    """The names that differ only in the words for parts, training first: `seg_train` and `seg_test`."""
    groups: dict[tuple[str, ...], dict[str, frozenset[str]]] = {}
    for name in names:
        kinds, rest = _kinds(name)
        if kinds:
            groups.setdefault(rest, {})[name] = kinds
    for found in groups.values():
        if len(set(found.values())) > 1:
            return sorted(found, key=lambda name: (min(map(ORDER.index, found[name])), name))
    return []


def _kinds(name: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """The parts that a name mentions, and its other words."""
    words = [word.casefold() for word in WORDS.split(name) if word]
    found = {word: match.lastgroup or "" for word in words if (match := PART.fullmatch(word))}
    kinds = frozenset(found.values())
    rest = tuple(word for word in words if word not in found and not re.fullmatch(FILLERS, word))
    return kinds, rest


def innermost(folder: Path) -> tuple[Path, list[str]]:
    """The first folder from this one down that does not have exactly one subfolder, and its subfolders."""
    inner = subfolders(folder)
    while len(inner) == 1:
        folder = folder / inner[0]
        inner = subfolders(folder)
    return folder, inner


def subfolders(folder: Path) -> list[str]:
    """The visible subfolders of a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    except OSError:
        return []


def _not_classes(where: Path, parts: Sequence[str]) -> str:
    return (
        f"{printable(str(where))}: its subfolders {_quoted(parts)} are parts of a data set, not classes; "
        f"name one of them (folder:{printable(str(where / parts[0]))}), or put the pictures of all of them into "
        "one folder per class: the split is drawn by this program"
    )


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{printable(name)}'" for name in names)
