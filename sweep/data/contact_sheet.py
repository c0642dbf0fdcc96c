"""A contact sheet of a data set: ten pictures of every class in one PNG."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sweep.common.atomic_files import replacing
from sweep.data.splits import Data

PER_CLASS: Final = 10

_CELL: Final = 56
"""Pixels to which a small picture is enlarged, by a whole factor."""

_GAP: Final = 4
_PAGE: Final = 255


def write(data: Data, path: Path) -> None:
    """Writes the first ten training pictures of every class as a PNG: one row per class, with its name."""
    from PIL import Image, ImageDraw, ImageFont

    _, height, width = data.picture_shape
    scale = max(1, _CELL // max(height, width))
    row, column = height * scale + _GAP, width * scale + _GAP
    font = ImageFont.load_default(12)
    margin = 12 + max(round(font.getlength(_short(name))) for name in data.pool.class_names)
    page = Image.new("RGB", (margin + PER_CLASS * column + _GAP, data.classes * row + _GAP), (_PAGE,) * 3)
    draw = ImageDraw.Draw(page)
    pictures, labels = data.train
    for label, name in enumerate(data.pool.class_names):
        top = _GAP + label * row
        draw.text((margin - 6, top + height * scale // 2), _short(name), fill=0, font=font, anchor="rm")
        for place, index in enumerate(np.flatnonzero(labels == label)[:PER_CLASS]):
            picture = Image.fromarray(_enlarged(pictures[index], scale))
            page.paste(picture, (margin + place * column, top))
    with replacing(path) as temporary:
        page.save(temporary, format="PNG")


def _enlarged(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """`[channels, height, width]` as `[height, width, 3]`, each pixel a square."""
    colour = np.broadcast_to(picture, (3, *picture.shape[1:])).transpose(1, 2, 0)
    return np.ascontiguousarray(colour.repeat(scale, axis=0).repeat(scale, axis=1))


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"
