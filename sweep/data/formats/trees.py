"""Trees of pictures, a folder a class, on the disk or in an archive."""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sweep.common.errors import InputError
from sweep.data.formats import guards
from sweep.data.formats.archives import tar_members
from sweep.data.formats.guards import checked, gibibytes
from sweep.data.pool import Pool

SUFFIXES: Final = (".png", ".jpg", ".jpeg")
"""Names of picture files, in either case."""


MAX_NAMED: Final = 10
"""Unreadable files that a note names."""


def picture_folder(root: Path, image_size: int | None, wanted: Sequence[str] | None = None) -> Pool:
    """The PNG and JPEG files below `root`, one subfolder a class; resized to squares where `image_size` says so.

    `wanted` names the classes that there have to be; without it every subfolder is one.
    """
    found = class_folders(root, wanted)
    entries = (
        (name, path.relative_to(root).as_posix(), path.read_bytes) for name, paths in found.items() for path in paths
    )
    return _picture_pool(root, entries, wanted or list(found), image_size)


def class_folders(root: Path, wanted: Sequence[str] | None = None) -> dict[str, list[Path]]:
    """The picture files below each subfolder, in order; links are followed, be it into nothing."""
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return {
        folder.name: sorted(
            path for path in folder.rglob("*") if is_picture(PurePosixPath(path.name)) and not path.is_dir()
        )
        for folder in folders
        if wanted is None or folder.name in wanted
    }


def picture_archive(path: Path, wanted: Sequence[str]) -> Pool:
    """The pictures of a tar archive, in folders named by their class, whatever folder these are in."""
    entries = (
        (name.parent.name, f"{name.parent.name}/{name.name}", content)
        for name, content in tar_members(path)
        if is_picture(name) and name.parent.name in wanted and "__MACOSX" not in name.parts
    )
    return _picture_pool(path, entries, wanted, None)


def is_picture(name: PurePosixPath) -> bool:
    """Whether the name is that of a picture, not of something that an operating system left behind."""
    return name.suffix.lower() in SUFFIXES and not name.name.startswith(".")


def _picture_pool(
    where: Path, entries: Iterable[tuple[str, str, Callable[[], bytes]]], classes: Sequence[str], image_size: int | None
) -> Pool:
    """Pictures by class, then name, whatever order they come in: a folder and its archive give the same pool."""
    found: list[tuple[int, str, NDArray[np.uint8]]] = []
    unreadable: list[str] = []
    bytes_in_all, places = 0, {name: place for place, name in enumerate(classes)}
    for name, file, content in entries:
        try:
            picture = decoded(content(), image_size)
        except InputError:
            raise  # the archive around it
        except Exception:  # decoders raise nearly everything
            unreadable.append(file)
            continue
        bytes_in_all += picture.nbytes
        if bytes_in_all > guards.MAX_BYTES:
            raise InputError(f"{where}: more than {gibibytes()} of pixels; image_size makes pictures smaller")
        found.append((places[name], file, picture))
    found.sort(key=lambda each: each[:2])
    _check_tree(where, found, classes, unreadable)
    colour = any(picture.shape[0] == 3 for *_, picture in found)
    if colour and 3 * found[0][2][0].size * len(found) > guards.MAX_BYTES:
        raise InputError(f"{where}: more than {gibibytes()} of pixels; image_size makes pictures smaller")
    pictures = np.stack(
        [np.broadcast_to(picture, (3, *picture.shape[1:])) if colour else picture for *_, picture in found]
    )
    notes = [f"{len(unreadable):,} unreadable files skipped: {_listed(sorted(unreadable))}"] if unreadable else []
    labels = np.array([label for label, *_ in found], dtype=np.int64)
    return checked(Pool(pictures, labels, tuple(map(printable, classes)), notes=tuple(map(printable, notes))), where)


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no UTF-8 as backslashes and digits."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def decoded(content: bytes, image_size: int | None) -> NDArray[np.uint8]:
    """One picture `[1 or 3, height, width]`, grey where the file is; raises whatever Pillow does."""
    from PIL import Image

    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as image:
        deep = image.mode.startswith("I")  # sixteen bits a pixel
        mode = "L" if deep or image.mode in ("L", "1", "LA") else "RGB"
        if deep:
            plain = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        else:
            plain = image.convert(mode)
    if image_size is not None and plain.size != (image_size, image_size):
        plain = plain.resize((image_size, image_size), Image.Resampling.LANCZOS)
    pixels = np.asarray(plain, dtype=np.uint8)
    return pixels[None] if mode == "L" else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_tree(
    where: Path, found: Sequence[tuple[int, str, NDArray[np.uint8]]], classes: Sequence[str], unreadable: Sequence[str]
) -> None:
    if not classes:
        raise InputError(f"{where}: has no subfolder; wanted is one a class, with PNG or JPEG files in it")
    there = {label for label, *_ in found}
    for label, name in enumerate(classes):
        if label not in there:
            damaged = sum(file.startswith(f"{name}/") for file in unreadable)
            why = f", and {damaged:,} unreadable" if damaged else ""
            raise InputError(f"{where}: class {name!r} has no readable picture (PNG or JPEG{why})")
    first = found[0]
    for _, file, picture in found:
        if picture.shape[1:] != first[2].shape[1:]:
            one, other = (" x ".join(map(str, each.shape[1:])) for each in (first[2], picture))
            raise InputError(
                f"{where}: pictures of several sizes ({first[1]} is {one}, {file} {other}); "
                "image_size resizes the pictures of a folder"
            )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
