"""Pictures and labels as arrays in a .npz file."""

import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sweep.common.errors import InputError
from sweep.data.formats import guards
from sweep.data.formats.guards import checked, gibibytes, reading
from sweep.data.pool import Pictures, Pool

BLOCK: Final = 1000
"""Pictures converted at once."""


def npz(path: Path) -> Pool:
    """Arrays `images` and `labels` of a .npz file.

    Images are `[n, height, width]`, with an optional fourth axis of 1 or 3 channels, last or second: bytes, booleans,
    integers from 0 to 255, or floats from 0 to 1, which are rounded to 256 levels. Labels are integers from 0.
    """
    with reading(path, "a .npz file with images and labels"), zipfile.ZipFile(path) as archive:
        if sum(each.file_size for each in archive.infolist()) > guards.MAX_BYTES:
            raise InputError(f"{path}: unpacks to more than {gibibytes()}")
    with reading(path, "a .npz file with images and labels"), np.load(path, allow_pickle=False) as arrays:
        for name in ("images", "labels"):
            if name not in arrays:
                raise InputError(f"{path}: holds no array {name!r}; it holds {', '.join(arrays) or 'none'}")
        images, labels = np.asarray(arrays["images"]), np.asarray(arrays["labels"])
    pictures = _as_bytes(images, path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: labels are {labels.dtype} {list(labels.shape)}; expected integers [n]")
    if len(labels) != len(pictures):
        raise InputError(f"{path}: {len(pictures):,} images and {len(labels):,} labels")
    if len(labels) and (labels.min() < 0 or labels.max() >= len(labels)):
        raise InputError(f"{path}: labels from {labels.min()} to {labels.max()}; expected 0, 1, 2 …, one per class")
    classes = int(labels.max()) + 1 if len(labels) else 0
    return checked(Pool(pictures, labels.astype(np.int64), tuple(map(str, range(classes)))), path)


def _as_bytes(images: NDArray[Any], path: Path) -> Pictures:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(
            f"{path}: images are {list(images.shape)}; "
            "expected [n, height, width], or a fourth axis of 1 or 3 channels, last or second"
        )
    if images.dtype.kind not in "fbiu":
        raise InputError(f"{path}: images are {images.dtype}; expected bytes, or floats from 0 to 1")
    if not images.size:
        raise InputError(f"{path}: images are {list(images.shape)}; expected at least one")
    least, most = images.min(), images.max()  # NaN if any value is
    match images.dtype.kind:
        case "f":
            if np.isnan(least):
                raise InputError(f"{path}: {int(np.isnan(images).sum()):,} values of images are NaN")
            if least < 0 or most > 1:
                raise InputError(f"{path}: images from {least:g} to {most:g}; expected floats from 0 to 1")
        case "i" | "u":
            if least < 0 or most > 255:
                raise InputError(f"{path}: images from {least} to {most}; expected integers from 0 to 255")
    factor = 1 if images.dtype.kind in "iu" else 255
    pictures = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), BLOCK):  # converting all pictures at once would need several times their memory
        block = images[start : start + BLOCK]
        pictures[start : start + BLOCK] = block if factor == 1 else np.rint(block * np.float64(factor))
    return pictures
