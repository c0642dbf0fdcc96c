"""The tree below a folder of pictures: which subfolders are classes, and which files belong to them."""

import dataclasses
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from sweep.common.errors import InputError
from sweep.data.formats.left_out import Kind, LeftOut, is_hidden


@dataclasses.dataclass(frozen=True)
class Tree:
    """The class folders below a root, and the files below each, in order; none has been opened."""

    root: Path
    classes: dict[str, list[Path]]
    left: LeftOut

    def all_of_it(self) -> list[Path]:
        """Every path whose change would change the pictures."""
        below = (path for name, paths in self.classes.items() for path in (self.root / name, *paths))
        return [self.root, *below]

    def name(self, path: Path) -> str:
        """A path relative to the root."""
        return path.relative_to(self.root).as_posix()


def scan(root: Path, wanted: Sequence[str] | None = None) -> Tree:
    """The classes below `root`: all its subfolders, or only those in `wanted`.

    Links are followed, but no folder is read twice. Hidden and system files and folders are left out everywhere.
    """
    if not root.is_dir():
        raise InputError(f"{printable(str(root))}: there is no such folder")
    left = LeftOut()
    tree = Tree(root, {}, left)
    for entry in _entries(root, tree):
        status = _status(entry, tree)
        if status is None or (wanted is not None and entry.name not in wanted):
            continue
        if stat.S_ISDIR(status.st_mode):
            tree.classes[entry.name] = []
        else:
            left.add(Kind.BESIDE, entry.name)
    _fill(tree)
    return tree


def _fill(tree: Tree) -> None:
    """Finds the files of all classes: those below real folders first, then those that links lead to."""
    above = (tree.root.resolve(), *tree.root.resolve().parents)
    known = {_identity(path) for path in above}
    links: list[tuple[str, Path]] = []
    for name in sorted(tree.classes, key=lambda name: (tree.root / name).is_symlink()):
        identity = _identity(tree.root / name)
        if identity in known:
            tree.left.add(Kind.LOOP, name)
            del tree.classes[name]
        known.add(identity)
    for name in tree.classes:
        links += _walk(tree, name, tree.root / name, known)
    while links:
        name, folder = links.pop(0)
        if _identity(folder) in known:
            tree.left.add(Kind.LOOP, tree.name(folder))
            continue
        known.add(_identity(folder))
        links += _walk(tree, name, folder, known)
    for paths in tree.classes.values():
        paths.sort()


def _walk(tree: Tree, name: str, top: Path, known: set[tuple[int, int]]) -> list[tuple[str, Path]]:
    """Adds the files below a folder to a class; returns the links to folders found there."""
    folders, links = [top], []
    while folders:
        folder = folders.pop()
        for entry in _entries(folder, tree):
            status = _status(entry, tree)
            if status is None:
                continue
            if stat.S_ISREG(status.st_mode):
                tree.classes[name].append(folder / entry.name)
            elif not stat.S_ISDIR(status.st_mode):
                tree.left.add(Kind.SPECIAL, tree.name(folder / entry.name))
            elif entry.is_symlink():
                links.append((name, folder / entry.name))
            else:
                known.add((status.st_dev, status.st_ino))
                folders.append(folder / entry.name)
    return links


def _entries(folder: Path, tree: Tree) -> list["os.DirEntry[str]"]:
    """The visible entries of a folder, by name."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        if folder == tree.root:
            raise InputError(f"{printable(str(folder))}: cannot be read ({error.strerror})") from error
        tree.left.add(Kind.FORBIDDEN, tree.name(folder))
        return []
    for entry in entries:
        if is_hidden(entry.name):
            tree.left.add(Kind.HIDDEN, tree.name(folder / entry.name))
    return [entry for entry in entries if not is_hidden(entry.name)]


def _status(entry: "os.DirEntry[str]", tree: Tree) -> os.stat_result | None:
    """The status of an entry, or of a link's target; None, and noted, if it cannot be read."""
    try:
        return entry.stat()
    except OSError:
        tree.left.add(Kind.DEAD_LINK if entry.is_symlink() else Kind.FORBIDDEN, tree.name(Path(entry.path)))
        return None


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def printable(name: str) -> str:
    """A file's name as one line of printable text; everything else is escaped with backslashes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(_escaped(text))


def _escaped(text: str) -> Iterator[str]:
    for letter in text:
        yield letter if unicodedata.category(letter) not in ("Cc", "Zl", "Zp") else f"\\x{ord(letter):02x}"
