"""Pools of pictures in one folder per class, on disk or in an archive."""

import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sweep.common.errors import InputError
from sweep.data.formats import decoding, folders, guards, layouts
from sweep.data.formats.archives import tar_members
from sweep.data.formats.folders import Tree, printable
from sweep.data.formats.guards import checked, gibibytes
from sweep.data.formats.left_out import Kind, LeftOut, is_hidden, kind_of, listed
from sweep.data.formats.tones import Rule, Seen, as_bytes
from sweep.data.pool import Pool

Entry = tuple[str, str, Callable[[], IO[bytes]]]
"""A file's class, its path below the root, and how to open it."""

Found = list[tuple[str, str, NDArray[np.uint8]]]
"""A picture's class, its file's path, and its pixels `[1 or 3, height, width]`."""


def picture_folder(root: Path, image_size: int | None, wanted: Sequence[str] | None = None) -> Pool:
    """The pictures below `root`, one subfolder per class; resized to squares if `image_size` is given.

    `wanted` names the required classes; without it, every subfolder with pictures is a class.
    """
    return pool_of(folders.scan(root, wanted), image_size, wanted)


def pool_of(tree: Tree, image_size: int | None, wanted: Sequence[str] | None = None) -> Pool:
    """The pictures of a scanned tree."""
    if wanted is None:
        layouts.check_classes(tree)

    def entries(_: LeftOut) -> Iterable[Entry]:
        for name, paths in tree.classes.items():
            for path in paths:
                yield name, tree.name(path), lambda path=path: open(path, "rb")  # type: ignore[misc]

    pool = _pool(tree.root, entries, wanted or list(tree.classes), image_size, tree.left, wanted is not None)
    return dataclasses.replace(pool, notes=(*pool.notes, *layouts.notes(tree)))


def picture_archive(path: Path, wanted: Sequence[str]) -> Pool:
    """The pictures of a tar archive, in folders named after their class, wherever these are."""

    def entries(left: LeftOut) -> Iterable[Entry]:
        for name, content in tar_members(path):
            file = f"{name.parent.name}/{name.name}"
            if name.parent.name not in wanted:
                continue
            if any(map(is_hidden, name.parts)):
                left.add(Kind.HIDDEN, file)
            else:
                yield name.parent.name, file, lambda content=content: io.BytesIO(content())  # type: ignore[misc]

    return _pool(path, entries, wanted, None, LeftOut(), True)


def _pool(
    where: Path,
    entries: Callable[[LeftOut], Iterable[Entry]],
    classes: Sequence[str],
    image_size: int | None,
    left: LeftOut,
    all_wanted: bool,
) -> Pool:
    """Pictures sorted by class, then name, so that a folder and its archive give the same pool.

    The rule for reading them depends on all of them: if it is not the default one, they are read again.
    """
    rule, found = Rule(), Found()
    for _ in range(3):  # which pictures are blank on white is known only once the values are right
        seen, unread = Seen(), left.copy()
        found.clear()
        _decode(where, entries(unread), image_size, rule, found, seen, unread)
        if seen.rule() == rule:
            break
        rule = seen.rule()
    there = {name for name, *_ in found}
    places = {name: place for place, name in enumerate(name for name in classes if name in there)}
    _check_classes(where, [name for name in classes if name not in there], list(places), unread, all_wanted)
    found.sort(key=lambda each: (places[each[0]], each[1]))
    _check_sizes(where, found)
    notes = [*unread.notes(), *seen.notes(), *layouts.alike(places)]
    return checked(
        Pool(
            _stacked(where, found),
            np.array([places[name] for name, *_ in found], dtype=np.int64),
            tuple(map(printable, places)),
            notes=tuple(map(printable, notes)),
        ),
        printable(str(where)),
    )


def _decode(
    where: Path, entries: Iterable[Entry], image_size: int | None, rule: Rule, found: Found, seen: Seen, left: LeftOut
) -> None:
    """Adds the pictures among the files to `found`, their properties to `seen`, and other files to `left`."""
    size = 0
    for name, path, opened in entries:
        try:
            with opened() as file:
                picture = _picture(file, path, image_size, rule, seen, left)
        except OSError as error:
            left.add(kind_of(error, path, b""), path)
            continue
        if picture is not None:
            size += picture.nbytes
            _check_size(where, size)
            found.append((name, path, picture))


def _picture(
    file: IO[bytes], path: str, image_size: int | None, rule: Rule, seen: Seen, left: LeftOut
) -> NDArray[np.uint8] | None:
    """The picture `[1 or 3, height, width]` in an open file; None, and noted, if it is not one."""
    from PIL import Image

    try:
        pixels = as_bytes(decoding.read(file), rule, seen)
    except Exception as error:  # decoders raise nearly anything
        file.seek(0)
        left.add(kind_of(error, path, file.read(64)), path)
        return None
    if image_size is not None and pixels.shape[:2] != (image_size, image_size):
        plain = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        resized = np.asarray(plain.resize((image_size, image_size), Image.Resampling.LANCZOS))
        pixels = resized.reshape(image_size, image_size, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _stacked(where: Path, found: Found) -> NDArray[np.uint8]:
    """All pictures in one array, in colour if any of them is."""
    colour = any(len(picture) == 3 for *_, picture in found)
    if colour:
        _check_size(where, 3 * found[0][2][0].size * len(found))
    return np.stack([np.broadcast_to(picture, (3, *picture.shape[1:])) if colour else picture for *_, picture in found])


def _check_size(where: Path, size: int) -> None:
    if size > guards.MAX_BYTES:
        raise InputError(
            f"{printable(str(where))}: more than {gibibytes()} of pixels; image_size makes pictures smaller"
        )


def _check_classes(where: Path, missing: Sequence[str], there: Sequence[str], left: LeftOut, all_wanted: bool) -> None:
    """Notes folders without pictures; InputError if there should have been some, or fewer than two classes are left."""
    root = printable(str(where))
    for name in missing:
        lost = left.pictures_of(name)
        if lost.names or all_wanted:
            why = f" ({printable('; '.join(lost.counts()))})" if lost.names else ""
            raise InputError(f"{root}: class '{printable(name)}' has no readable picture{why}")
        left.add(Kind.NO_PICTURES, name)
    if len(there) < 2:
        found = f" ({printable('; '.join(left.counts()))})" if left.names else ""
        what = f"only one class ('{printable(there[0])}')" if there else f"no picture in any subfolder{found}"
        others = f"; no pictures in {printable(listed(missing))}" if missing and there else ""
        inside, inner = layouts.innermost(where / there[0]) if there else (where, [])
        hint = f"; are the classes in folder:{printable(str(inside))}?" if inner else ""
        raise InputError(f"{root}: {what}; expected at least two classes{others}{hint}")


def _check_sizes(where: Path, found: Found) -> None:
    """Raises InputError if pictures differ in height or width."""
    _, name, first = found[0]
    for _, path, picture in found:
        if picture.shape[1:] != first.shape[1:]:
            one, other = (" x ".join(map(str, each.shape[1:])) for each in (first, picture))
            raise InputError(
                f"{printable(str(where))}: pictures of several sizes ({printable(name)} is {one}, "
                f"{printable(path)} {other}); image_size resizes the pictures of a folder"
            )
