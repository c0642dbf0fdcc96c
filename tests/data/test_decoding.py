"""Pictures are read as a viewer shows them, by one rule for all pictures of a data set, and the rule is said."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from support.real_formats import deep_png, deep_tiff, pictures, png, retagged, saved, write_folder

from sweep.data.formats import decoding
from sweep.data.formats.trees import picture_folder
from sweep.data.pool import Pool

GREY = pictures(1, 1, (6, 8), seed=1)[0][0]
COLOUR = np.random.default_rng(2).integers(0, 256, (6, 8, 3)).astype(np.uint8)
SHAPE = np.zeros((6, 8), np.uint8)
SHAPE[1:4, 2:7] = 255
"""What is there of a picture whose shape stands in its transparency: 15 pixels."""


def pool_of(folder: Path, *files: bytes, name: str = "{}") -> Pool:
    """The pool of these files, in two classes; the second holds them a second time."""
    named = {f"{each}/{name.format(n)}": content for each in "ab" for n, content in enumerate(files)}
    return picture_folder(write_folder(folder, named), None)


def black(kind: str) -> Image.Image:
    """A black shape on nothing, in a mode of Pillow's."""
    image = Image.new("LA", (8, 6))
    image.putalpha(Image.fromarray(SHAPE))
    return image if kind == "LA" else image.convert(kind)


def with_palette() -> Image.Image:
    """Mode PA: two colours, both black, and an alpha channel."""
    image = Image.fromarray((SHAPE > 0).astype(np.uint8), "P")
    image.putpalette([0, 0, 0] * 2)
    image.putalpha(Image.fromarray(SHAPE))
    assert image.mode == "PA"
    return image


def palette(transparency: int | bytes) -> bytes:
    """A picture of a palette whose two colours are black; the first of them, or what it names, is transparent."""
    image = Image.fromarray((SHAPE > 0).astype(np.uint8), "P")
    image.putpalette([0, 0, 0] * 2)
    return saved(image, transparency=transparency)


def two_bits() -> bytes:
    """A grey PNG of two bits a pixel: value 3 is transparent, 0 is not."""
    rows = np.where(SHAPE > 0, 0, 3).astype(np.uint8).reshape(6, 2, 4)
    packed = (rows[..., 0] << 6 | rows[..., 1] << 4 | rows[..., 2] << 2 | rows[..., 3]).astype(np.uint8)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 6, 2, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", 3)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))),
        (b"IEND", b""),
    ]
    written = (struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


TRANSPARENT: dict[str, bytes] = {
    "RGBA": saved(black("RGBA")),
    "LA": saved(black("LA")),
    "PA": saved(with_palette(), "TIFF"),
    "a palette, one index": palette(0),
    "a palette, bytes": palette(b"\x00\xff"),
    "a colour key": saved(
        Image.fromarray(np.where(SHAPE[..., None] > 0, 0, [9, 0, 0]).astype(np.uint8)), transparency=(9, 0, 0)
    ),
    "a grey key": saved(Image.fromarray(np.where(SHAPE > 0, 0, 7).astype(np.uint8)), transparency=7),
    "a grey key of two bits": two_bits(),
    "a grey key of 16 bits": deep_png(np.where(SHAPE > 0, 0, 300), (300,)),
    "a colour key of 16 bits": deep_png(np.where(SHAPE[..., None] > 0, [0, 0, 0], [257, 0, 0]), (257, 0, 0)),
    "grey and alpha of 16 bits": deep_png(np.stack([SHAPE * 0, SHAPE.astype(int) * 257], axis=2)),
    "colour and alpha of 16 bits": deep_png(np.stack([SHAPE * 0] * 3 + [SHAPE.astype(int) * 257], axis=2)),
    "RGBA in WebP": saved(black("RGBA"), "WEBP", lossless=True, exact=True),
    "RGBA in TIFF": saved(black("RGBA"), "TIFF"),
    "GIF": saved(black("RGBA"), "GIF"),
    "ICO": saved(black("RGBA").resize((16, 16), Image.Resampling.NEAREST), "ICO", sizes=[(16, 16)]),
}


@pytest.mark.parametrize("content", TRANSPARENT.values(), ids=TRANSPARENT)
def test_a_shape_that_stands_in_the_transparency_alone_is_seen_on_white(content: bytes, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, content)
    shape = (
        SHAPE
        if pool.pictures.shape[2:] == (6, 8)
        else np.asarray(Image.fromarray(SHAPE).resize((16, 16), Image.Resampling.NEAREST))
    )
    for channel in pool.pictures[0]:
        np.testing.assert_array_equal(channel, 255 - shape)
    assert "2 transparent pictures laid on white" in pool.notes


def test_half_transparent_pixels_are_mixed_with_the_background(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = 100, np.arange(8) * 255 // 7
    pool = pool_of(tmp_path, png(pixels))
    wanted = np.rint((100.0 * pixels[0, :, 3] + 255.0 * (255 - pixels[0, :, 3])) / 255)
    np.testing.assert_array_equal(pool.pictures[0, 0, 0], wanted)


def test_white_shapes_on_nothing_lie_on_black_in_all_pictures_of_the_data_set(tmp_path: Path) -> None:
    white = np.stack([np.full_like(SHAPE, 255)] * 3 + [SHAPE], axis=2)
    grey = np.stack([np.full_like(SHAPE, 128)] * 3 + [SHAPE], axis=2)
    pool = pool_of(tmp_path, png(white), png(grey))
    np.testing.assert_array_equal(pool.pictures[0, 0], SHAPE)
    np.testing.assert_array_equal(pool.pictures[1, 0], np.where(SHAPE > 0, 128, 0))
    assert "4 transparent pictures laid on black, since 2 of them show nothing on white" in pool.notes


def test_black_and_white_shapes_on_nothing_lie_on_grey(tmp_path: Path) -> None:
    white = np.stack([np.full_like(SHAPE, 255)] * 3 + [SHAPE], axis=2)
    pool = pool_of(tmp_path, png(white), TRANSPARENT["RGBA"])
    np.testing.assert_array_equal(pool.pictures[0, 0], np.where(SHAPE > 0, 255, 128))
    np.testing.assert_array_equal(pool.pictures[1, 0], np.where(SHAPE > 0, 0, 128))
    why = "since 2 of them show nothing on white and 2 of them show nothing on black"
    assert pool.notes == (f"4 transparent pictures laid on grey, {why}",)


def test_opaque_alpha_changes_nothing_and_is_not_spoken_of(tmp_path: Path) -> None:
    opaque = np.concatenate([COLOUR, np.full((6, 8, 1), 255, np.uint8)], axis=2)
    with_alpha, without = pool_of(tmp_path / "1", png(opaque)), pool_of(tmp_path / "2", png(COLOUR))
    assert with_alpha.fingerprint == without.fingerprint and with_alpha.notes == ()
    grey = np.stack([GREY, np.full_like(GREY, 255)], axis=2)
    assert pool_of(tmp_path / "3", png(grey)).fingerprint == pool_of(tmp_path / "4", png(GREY)).fingerprint


def test_eight_bit_pictures_have_the_fingerprint_that_they_always_had(tmp_path: Path) -> None:
    """Written down: runs in people's stores have it in their ids."""
    ramp = (np.arange(48, dtype=np.uint8) * 5).reshape(6, 8)
    grey, colour = (
        pool_of(tmp_path / "1", png(ramp)),
        pool_of(tmp_path / "2", png(np.stack([ramp, 255 - ramp, ramp // 2], axis=2))),
    )
    assert (grey.fingerprint, colour.fingerprint) == ("1d5c8d455b6b5848", "c93a2af3ff821ba3")
    assert grey.notes == colour.notes == ()


# More than eight bits


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_files_are_scaled_to_the_bits_that_the_whole_data_set_uses(bits: int, tmp_path: Path) -> None:
    wide = np.arange(48).reshape(6, 8) * (2**bits - 1) // 47
    dark = wide // 4
    pool = pool_of(tmp_path, deep_png(wide), deep_png(dark))
    np.testing.assert_array_equal(pool.pictures[0, 0], wide >> (bits - 8))
    np.testing.assert_array_equal(pool.pictures[1, 0], dark >> (bits - 8))  # by the same rule as the bright one
    kept = f"the upper 8 of {bits} bits are kept" if bits > 8 else "the lowest 8 bits are kept"
    assert pool.notes == (f"4 pictures of more than 8 bits per value: the highest is {wide.max():,}, so {kept}",)


@pytest.mark.parametrize(
    "write",
    [
        deep_png,
        lambda pixels: deep_png(np.concatenate([pixels, np.full((6, 8, 1), 65535)], axis=2)),
        deep_tiff,
        lambda pixels: deep_tiff(pixels, ">"),
        lambda pixels: deep_tiff(pixels, packed=True),
        lambda pixels: deep_tiff(pixels, ">", packed=True),
    ],
    ids=["PNG", "PNG with alpha", "TIFF", "big-endian TIFF", "packed TIFF", "packed big-endian TIFF"],
)
def test_sixteen_bit_colours_keep_their_levels_too(write: Callable[[np.ndarray], bytes], tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 4096, (6, 8, 3))
    pixels[0, 0, 0] = 4095
    pool = pool_of(tmp_path, write(pixels))
    np.testing.assert_array_equal(pool.pictures[0], (pixels >> 4).transpose(2, 0, 1))


def test_sixteen_bit_colours_in_planes_are_left_out_since_pillow_reads_something_else(tmp_path: Path) -> None:
    content = saved(Image.fromarray(COLOUR), "TIFF")
    planes = retagged(deep_tiff(np.full((6, 8, 3), 300)), PLANES, 2)
    files = {f"{name}/{n}.tif": content for name in "ab" for n in range(2)} | {"a/planes.tif": planes}
    pool = picture_folder(write_folder(tmp_path, files), None)
    assert pool.notes == ("1 picture that cannot be decoded left out: a/planes.tif",) and len(pool.labels) == 4


def test_twelve_bit_grey_with_alpha_keeps_its_levels_and_its_transparency(tmp_path: Path) -> None:
    grey = np.arange(48).reshape(6, 8) * 4095 // 47
    pool = pool_of(tmp_path, deep_png(np.stack([grey, SHAPE.astype(int) * 4095 // 255], axis=2)))
    np.testing.assert_array_equal(pool.pictures[0, 0], np.where(SHAPE > 0, grey >> 4, 255))


COUNT = np.arange(48).reshape(6, 8)
DEEP = COUNT * 5000 // 47
EVEN = np.rint(COUNT * 255 / 47)


SAMPLES, LEAST, PLANES = 339, 262, 284
"""Tags of a TIFF: what its numbers are, whether the least is white, and whether each channel has a plane."""


def tiff(array: np.ndarray, dtype: str) -> bytes:
    return saved(Image.fromarray(array.astype(dtype)), "TIFF")


OF_OTHER_NUMBERS: dict[str, tuple[bytes, np.ndarray, str]] = {
    "I;16B": (saved(Image.frombytes("I;16B", (8, 6), DEEP.astype(">u2").tobytes()), "TIFF"), DEEP >> 5, "13 bits"),
    "I;16 in JPEG 2000": (saved(Image.fromarray(DEEP.astype("u2")), "JPEG2000"), DEEP >> 5, "13 bits"),
    "I": (tiff(DEEP * 1000, "i4"), DEEP * 1000 >> 15, "23 bits"),
    "I with negative numbers": (tiff(COUNT * 100 - 2000, "i4"), EVEN, "-2,000 is black, 2,700 white"),
    "I without a sign": (retagged(tiff(DEEP * 800_000, "u4"), SAMPLES, 1), DEEP * 800_000 >> 24, "32 bits"),
    "I;16, white is zero": (retagged(tiff(DEEP, "u2"), LEAST, 0), 255 - (DEEP >> 5), "13 bits"),
    "F, white is zero": (retagged(tiff(COUNT / 47, "f4"), LEAST, 0), 255 - EVEN, "0 is black, 1 white"),
    "bytes, white is zero": (retagged(saved(Image.fromarray(GREY), "TIFF"), LEAST, 0), 255 - GREY, ""),
    "F from 0 to 1": (tiff(COUNT / 47, "f4"), EVEN, "0 is black, 1 white"),
    "F of bytes": (tiff(GREY, "f4"), GREY, "0 is black, 255 white"),
    "F of anything": (tiff(COUNT * 10.0 - 100, "f4"), EVEN, "-100 is black, 370 white"),
}


@pytest.mark.parametrize(("content", "wanted", "said"), OF_OTHER_NUMBERS.values(), ids=OF_OTHER_NUMBERS)
def test_integers_and_floats_are_scaled_by_a_rule_that_is_said(
    content: bytes, wanted: np.ndarray, said: str, tmp_path: Path
) -> None:
    pool = pool_of(tmp_path, content)
    np.testing.assert_array_equal(pool.pictures[0, 0], wanted)
    assert said in "; ".join(pool.notes)


def test_pictures_of_eight_bits_beside_deeper_ones_stay_as_they_are(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, png(GREY), deep_png(DEEP))
    np.testing.assert_array_equal(pool.pictures[0, 0], GREY)
    np.testing.assert_array_equal(pool.pictures[1, 0], DEEP >> 5)


# Modes, formats, frames


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "RGBX", "1", "P"])
def test_every_mode_is_read_as_pillow_shows_it(mode: str, tmp_path: Path) -> None:
    from PIL import ImageCms

    image = Image.fromarray(COLOUR)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB") or image
    elif mode != "HSV":
        image = image.convert(mode)
    content = saved(image, "TIFF" if mode != "HSV" else "PNG")
    pool = pool_of(tmp_path, content)
    wanted = np.asarray(Image.open(io.BytesIO(content)).convert("L" if mode == "1" else "RGB"))
    np.testing.assert_array_equal(pool.pictures[0], wanted[None] if mode == "1" else wanted.transpose(2, 0, 1))


FORMATS = ("PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "JPEG2000")
LOSSLESS: dict[str, dict[str, bool]] = {"WEBP": {"lossless": True}}


def test_every_format_that_pillow_reads_is_used_whatever_the_names_of_the_files(tmp_path: Path) -> None:
    grey, _ = pictures(len(FORMATS), 1, (16, 16))
    given = zip(grey, FORMATS, strict=True)
    files = [saved(Image.fromarray(each), kind, **LOSSLESS.get(kind, {})) for each, kind in given]
    for place, name in enumerate(("{}.dat", "{}", "{}.PNG", "{}.jpg.bak")):
        pool = pool_of(tmp_path / str(place), *files, name=name)
        np.testing.assert_array_equal(pool.pictures[:, 0], np.concatenate([grey, grey]))
        assert pool.notes == ()


def test_a_class_in_another_format_counts_as_much_as_the_others(tmp_path: Path) -> None:
    """37 of 40 of one class as `.webp`: it was 3 against 40."""
    one, other = pictures(40, 1, (8, 8), seed=4)[0], pictures(40, 1, (8, 8), seed=5)[0]
    files = {f"a/{n}.png": png(each) for n, each in enumerate(one)}
    for n, each in enumerate(other):
        kind = "WEBP" if n < 37 else "PNG"
        files[f"b/{n}.{kind.lower()}"] = saved(Image.fromarray(each), kind, **LOSSLESS.get(kind, {}))
    pool = picture_folder(write_folder(tmp_path, files), None)
    assert np.bincount(pool.labels).tolist() == [40, 40] and pool.notes == () and pool.pictures.shape[1] == 1


def test_of_an_animation_or_a_book_the_first_picture_is_read_and_that_is_said(tmp_path: Path) -> None:
    frames = [Image.fromarray(each) for each in pictures(3, 1, (8, 8))[0]]
    files = [
        saved(frames[0], kind, save_all=True, append_images=frames[1:], **LOSSLESS.get(kind, {}))
        for kind in ("GIF", "TIFF", "WEBP", "PNG")
    ]
    pool = pool_of(tmp_path, *files)
    for picture in pool.pictures:
        np.testing.assert_array_equal(picture[0], np.asarray(frames[0]))
    assert pool.notes == ("8 files with several pictures (animations, pages): the first is read",)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_pictures_stand_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(COLOUR), kind, exif=exif, **LOSSLESS.get(kind, {}))
    raw = decoding.read(io.BytesIO(content))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(raw.values, np.asarray(upright.convert("RGB")))
    assert raw.turned


def test_transparent_and_deep_pictures_stand_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pool = pool_of(tmp_path, saved(black("RGBA"), exif=exif), saved(Image.fromarray(DEEP.astype(np.uint16)), exif=exif))
    np.testing.assert_array_equal(pool.pictures[0, 0], np.rot90(255 - SHAPE, -1))
    np.testing.assert_array_equal(pool.pictures[1, 0], np.rot90(DEEP >> 5, -1))
    assert "4 pictures turned upright, as EXIF says" in pool.notes


def test_damaged_exif_is_no_hindrance(tmp_path: Path) -> None:
    content = saved(Image.fromarray(GREY), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    np.testing.assert_array_equal(pool_of(tmp_path, content).pictures[0, 0], GREY)


def test_what_would_run_a_program_is_not_read() -> None:
    """Pillow hands Encapsulated PostScript to Ghostscript."""
    page = Image.new("L", (8, 8))
    ImageDraw.Draw(page).line((0, 0, 7, 7), fill=255)
    with pytest.raises(Image.UnidentifiedImageError):
        decoding.read(io.BytesIO(saved(page, "EPS")))
