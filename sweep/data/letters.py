"""Letters A to J, rendered from fonts: a substitute for notMNIST where it is not available."""

import hashlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sweep.common.errors import InputError
from sweep.data.download import NotHere
from sweep.data.pool import Pool

LETTERS: Final = tuple("ABCDEFGHIJ")

SIZE: Final = 28
"""Side of a picture, in pixels."""

DRAWN: Final = 112
"""Font size at which a letter is drawn before it is scaled down."""

FEWEST: Final = 20
"""Smallest number of pictures per letter."""


def fonts(folder: Path | None) -> list[Path]:
    """The outline fonts in `folder`, or in this system's font folders."""
    from matplotlib.font_manager import findSystemFonts

    if folder is not None and not folder.is_dir():
        raise InputError(f"--fonts {folder}: there is no such folder")
    found = findSystemFonts(None if folder is None else [str(folder)])
    return sorted(Path(path) for path in found if Path(path).suffix.lower() in (".ttf", ".otf", ".ttc", ".otc"))


def render(files: Sequence[Path], where: str) -> Pool:
    """One picture per letter and face: white on black, as large as fits, centred in 28 x 28 pixels.

    Faces that lack a letter are left out, as are duplicates of another face's pictures. Order and pixels depend only on
    the contents of the font files. `where` names the fonts in errors.
    """
    by_letter: dict[str, dict[bytes, NDArray[np.uint8]]] = {letter: {} for letter in LETTERS}
    skipped = 0
    for content in sorted({path.read_bytes() for path in files}, key=lambda each: hashlib.sha256(each).digest()):
        faces = _faces(content)
        skipped += not faces
        for face in faces:
            for letter, picture in zip(LETTERS, face, strict=True):
                by_letter[letter].setdefault(picture.tobytes(), picture)
    fewest = min(len(pictures) for pictures in by_letter.values())
    if fewest < FEWEST:
        raise NotHere(
            f"data set 'letters': {len(files):,} font files in {where} give {fewest} different pictures per letter; "
            f"expected at least {FEWEST}. Install more fonts (Debian: fonts-* packages), or name a folder with --fonts"
        )
    found = [(label, picture) for label, letter in enumerate(LETTERS) for picture in by_letter[letter].values()]
    notes = [f"{skipped:,} font files left out: unreadable, or without A to J"] if skipped else []
    return Pool(
        np.stack([picture for _, picture in found])[:, None],
        np.array([label for label, _ in found], dtype=np.int64),
        LETTERS,
        notes=tuple(notes),
    )


def _faces(content: bytes) -> list[list[NDArray[np.uint8]]]:
    """The ten pictures of every usable face in a font file."""
    drawn = (_face(content, index) for index in range(_face_count(content)))
    return [face for face in drawn if face is not None]


def _face(content: bytes, index: int) -> list[NDArray[np.uint8]] | None:
    from PIL import ImageFont

    try:
        with warnings.catch_warnings(action="ignore"):
            if not _has_letters(content, index):
                return None
            # Without the basic layout, pixels would depend on whether this machine has libraqm.
            font = ImageFont.truetype(io.BytesIO(content), DRAWN, index, layout_engine=ImageFont.Layout.BASIC)
            return [_drawn(font, letter) for letter in LETTERS]
    except Exception:  # fonts are untrusted: their readers raise nearly anything
        return None


def _face_count(content: bytes) -> int:
    """Number of faces in a collection (TrueType's `ttcf`, a version, then the number); any other file has one."""
    return min(int.from_bytes(content[8:12], "big"), 64) if content[:4] == b"ttcf" else 1


def _has_letters(content: bytes, index: int) -> bool:
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools").setLevel(logging.CRITICAL)
    with TTFont(io.BytesIO(content), fontNumber=index, lazy=True) as font:
        return set(map(ord, LETTERS)) <= (font.getBestCmap() or {}).keys()


def _drawn(font: Any, letter: str) -> NDArray[np.uint8]:
    """The letter, centred and scaled so that its larger side fills the picture; ValueError if it is blank."""
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (4 * DRAWN, 4 * DRAWN))
    ImageDraw.Draw(canvas).text((DRAWN, DRAWN), letter, fill=255, font=font)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"{letter} is blank")
    glyph = canvas.crop(box)
    scale = SIZE / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    picture = Image.new("L", (SIZE, SIZE))
    shrunk = glyph.resize((width, height), Image.Resampling.LANCZOS)
    picture.paste(shrunk, ((SIZE - width) // 2, (SIZE - height) // 2))
    return np.array(picture, dtype=np.uint8)
