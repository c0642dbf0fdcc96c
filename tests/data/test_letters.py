"""Letters rendered from fonts: the same fonts give the same pixels, whatever else differs."""

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from sweep.common.errors import InputError
from sweep.data import letters

# Fonts that come with matplotlib: some with A to J, some with other signs only.
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="module")
def faces() -> list[Path]:
    return letters.fonts(FONTS)


def test_fonts_are_found_in_the_folder_that_is_named_and_nowhere_else(faces: list[Path]) -> None:
    assert len(faces) > 20 and all(path.parent == FONTS for path in faces)
    with pytest.raises(InputError, match="--fonts /nowhere: there is no such folder"):
        letters.fonts(Path("/nowhere"))


def test_letters_are_pictures_of_ten_classes_as_large_as_fits_and_none_stands_twice(faces: list[Path]) -> None:
    pool = letters.render(faces, "a folder")
    assert pool.pictures.shape[1:] == (1, 28, 28) and pool.class_names == tuple("ABCDEFGHIJ")
    assert min(np.bincount(pool.labels)) >= letters.FEWEST
    for label in range(10):
        of_letter = [picture.tobytes() for picture in pool.pictures[pool.labels == label]]
        assert len(of_letter) == len(set(of_letter))
    inked = pool.pictures[:, 0] > 0
    spans = np.maximum(inked.any(axis=1).sum(axis=1), inked.any(axis=2).sum(axis=1))
    assert spans.min() >= 26  # one side reaches from edge to edge, but for what is too faint to see
    assert pool.pictures.max(axis=(1, 2, 3)).min() > 60


def test_a_letter_looks_like_itself(faces: list[Path]) -> None:
    """The mean picture of a letter is nearest to the pictures of that letter, for most of them."""
    pool = letters.render(faces, "a folder")
    flat = pool.pictures.reshape(len(pool.labels), -1).astype(float)
    means = np.stack([flat[pool.labels == label].mean(axis=0) for label in range(10)])
    nearest = ((flat[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == pool.labels).mean() > 0.7


def test_names_places_and_order_of_the_font_files_do_not_matter(faces: list[Path], tmp_path: Path) -> None:
    for number, path in enumerate(reversed(faces)):
        shutil.copy(path, tmp_path / f"{number}{path.suffix}")
    shutil.copy(faces[0], tmp_path / "again.ttf")
    elsewhere = letters.render(letters.fonts(tmp_path), "elsewhere")
    assert elsewhere.fingerprint == letters.render(faces, "here").fingerprint
    fewer = letters.render([path for path in faces if "DejaVuSans-Bold" not in path.name], "here")
    assert fewer.fingerprint != elsewhere.fingerprint


def test_what_is_no_font_or_lacks_letters_is_left_out_and_counted(faces: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(faces[0].read_bytes()[:5000])
    empty = tmp_path / "empty.otf"
    empty.write_bytes(b"")
    whole = letters.render(faces, "here")
    pool = letters.render([*faces, broken, empty], "here")
    assert pool.fingerprint == whole.fingerprint
    without = int(whole.notes[0].split()[0]) if whole.notes else 0
    assert pool.notes == (f"{without + 2} font files left out: unreadable, or without A to J",)


def test_too_few_fonts_are_refused_with_the_way_out(faces: list[Path]) -> None:
    sans = [path for path in faces if path.name == "DejaVuSans.ttf"]
    with pytest.raises(
        InputError, match=r"1 font files in /x give 1 different pictures .* fonts-\* packages.* --fonts"
    ):
        letters.render(sans, "/x")
