"""One picture file as numbers: its first frame, upright, with all levels of its values and its transparency."""

import dataclasses
import functools
import sys
import warnings
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

NOT_READ: Final = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
"""Formats that Pillow leaves to other programs: Ghostscript, which runs code in the file, or none at all."""

UNREAD: Final = {".heic", ".heif", ".jxl", ".svg", ".eps", ".wmf", ".emf", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
"""Suffixes of pictures that Pillow does not read."""

_GREY: Final = ("1", "L", "LA", "La")

_SWAPPED: Final = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
"""For each way to unpack the upper bytes of 16-bit colours, the way to unpack their lower bytes."""

_UNSIGNED: Final = "I;32N"
"""How a TIFF's unsigned 32-bit integers are packed, which Pillow reads as signed."""

_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284
"""Tags of a TIFF."""

_KEY_SCALES: Final = {"1": 255, "L;2": 85, "L;4": 17}
"""Factors by which Pillow scales grey values of less than 8 bits, but not the transparent value."""


@dataclasses.dataclass(frozen=True)
class Raw:
    """A picture as stored in its file: `values` `[height, width, 1 or 3]`, and `alpha` `[height, width]` if it has any.

    Both are bytes or integers of more than 8 bits; values may be floats. `turned`: it was rotated or flipped upright;
    `frames`: the file holds more pictures than this one; `inverted`: its lowest value is white.
    """

    values: NDArray[Any]
    alpha: NDArray[Any] | None
    turned: bool
    frames: bool
    inverted: bool = False


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that Pillow decodes itself."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_READ)


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes of pictures, including those that are not read."""
    from PIL import Image

    known = {suffix for suffix, name in Image.registered_extensions().items() if name in formats()}
    return frozenset(known | UNREAD)


def read(file: IO[bytes]) -> Raw:
    """The picture in an open file, whatever its name; raises whatever Pillow does."""
    from PIL import Image

    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats()) as image:
        rawmode, lay, inverted = _rawmode(image), False, False
        if image.format == "TIFF":
            lay, inverted = _orientation(image) > 1, _is_inverted(image)
            _check_planes(image)
        image.load()
        values, alpha = _deep_colour(image, file, rawmode) or _plain(image, rawmode)
        orientation = _orientation(image)  # 1 if Pillow has already turned the picture
        values, alpha = _turned(values, orientation), None if alpha is None else _turned(alpha, orientation)
        # PNG and JPEG say whether they are grey; WebP and GIF cannot.
        if values.shape[2] == 3 and image.format not in ("PNG", "JPEG", "MPO") and _is_grey(values):
            values = values[..., :1]
        # The layers of a PSD make up its first picture.
        frames = image.format != "PSD" and _has_more(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    return Raw(values, alpha, lay or orientation > 1, frames, inverted)


def _is_inverted(image: Any) -> bool:
    """Whether the lowest value of a TIFF is white (scanners, X-rays) and still is: Pillow inverts only bytes."""
    return image.mode in ("I;16", "I;16B", "I", "F") and image.tag_v2.get(_PHOTOMETRIC, 0) == 0


def _check_planes(image: Any) -> None:
    """Raises ValueError for a TIFF of 16-bit colours with one plane per channel, which Pillow misreads."""
    deep = max(image.tag_v2.get(_BITS, (1,))) > 8
    if deep and len(image.getbands()) > 1 and image.tag_v2.get(_PLANES) == 2:
        raise ValueError("has a plane of 16 bits for each channel")


def _rawmode(image: Any) -> str:
    """How the bytes of a picture that is not yet loaded are packed."""
    if not image.tile:
        return ""
    arguments = image.tile[0][3]
    first = arguments[0] if isinstance(arguments, tuple | list) and arguments else arguments
    return first if isinstance(first, str) else ""


def _plain(image: Any, rawmode: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Values and alpha of a picture that Pillow has loaded without loss."""
    mode, key = image.mode, image.info.get("transparency")
    if mode == "F" or mode.startswith("I"):
        values = np.asarray(image)[..., None]
        if mode != "F":
            values = values.astype(np.int64) & (0xFFFFFFFF if rawmode == _UNSIGNED else -1)
        return values, _keyed(values, key)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode == "P" and image.has_transparency_data):
        pixels = np.asarray(image.convert("LA" if mode in _GREY else "RGBA"))
        return pixels[..., :-1], pixels[..., -1]
    values = np.asarray(image.convert("L" if mode in _GREY else "RGB"))
    values = values if values.ndim == 3 else values[..., None]
    scale = _KEY_SCALES.get(rawmode, 1)
    if isinstance(key, int) and key <= 255 // scale:
        key *= scale
    return values, _keyed(values, key) if mode in ("1", "L", "RGB") else None


def _deep_colour(image: Any, file: IO[bytes], rawmode: str) -> tuple[NDArray[Any], NDArray[Any] | None] | None:
    """Values and alpha of a picture with 16 bits per channel, of which Pillow keeps the upper 8; None for any other.

    To get the lower 8, the same file is unpacked a second time as if its bytes were swapped; grey with alpha, as if
    its four bytes were four channels.
    """
    pair = rawmode == "LA;16B" and image.mode == "RGBA"
    other = "RGBA" if pair else rawmode[:-4] + _SWAPPED.get(rawmode[-4:], "")
    if not pair and (rawmode[:-4] not in ("RGB", "RGBX", "RGBA") or other == rawmode[:-4]):
        return None
    from PIL import Image

    file.seek(0)
    with Image.open(file, formats=[image.format]) as again:
        again.tile = [_repacked(tile, other) for tile in again.tile]
        again.load()
        lower = np.asarray(again).astype(np.int64)
    if pair:
        return lower[..., :1] * 256 + lower[..., 1:2], lower[..., 2] * 256 + lower[..., 3]
    pixels = np.asarray(image).astype(np.int64) * 256 + lower
    if image.mode == "RGBA":
        return pixels[..., :3], pixels[..., 3]
    return pixels, _keyed(pixels, image.info.get("transparency"))


def _repacked(tile: Any, rawmode: str) -> Any:
    """A tile of a file, to be unpacked in another way."""
    arguments = tile[3]
    arguments = rawmode if isinstance(arguments, str) else (rawmode, *arguments[1:])
    return getattr(tile, "_make", tuple)((*tile[:3], arguments))


def _keyed(values: NDArray[Any], key: Any) -> NDArray[np.uint8] | None:
    """An alpha channel if one value or colour marks transparent pixels."""
    if not isinstance(key, int | tuple):
        return None
    return np.where((values == np.array(key)).all(axis=2), 0, 255).astype(np.uint8)


def _is_grey(values: NDArray[Any]) -> bool:
    return bool((values == values[..., :1]).all())


def _orientation(image: Any) -> int:
    """The orientation in EXIF, 1 to 8; 1 is upright."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF does not make the picture unreadable
        return 1
    return found if found in range(1, 9) else 1


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undoes an EXIF orientation: 5 to 8 are transposed; all but 1 and 5 are flipped."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def _has_more(image: Any) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what comes after the first frame is damaged
        return True
