"""Readers of foreign files: real formats give the right arrays, damaged ones a clear error, and nothing is executed."""

import functools
import gzip
import io
import os
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import real_formats
from support.real_formats import (
    cifar_files,
    letter_files,
    pictures,
    png,
    write_cifar,
    write_emnist,
    write_folder,
    write_mnist,
    write_svhn,
    write_tar,
)

from sweep.common.errors import InputError
from sweep.data import readers
from sweep.data.formats import guards, idx, mat, trees
from sweep.data.formats.arrays import npz
from sweep.data.formats.cifar import _cifar_batch, unpickled
from sweep.data.letters import LETTERS
from sweep.data.pool import Pool
from sweep.space.catalogue import CATALOGUE


def assert_own_test(pool: Pool, train: int, test: int, shape: tuple[int, ...]) -> None:
    assert pool.pictures.shape == (train + test, *shape) and pool.pictures.dtype == np.uint8
    assert pool.labels.dtype == np.int64 and pool.own_test == test


def emnist(path: Path) -> Pool:
    return readers.READERS["emnist"](CATALOGUE["emnist_letters"], [path])


def cifar(path: Path, name: str = "cifar10") -> Pool:
    return readers.READERS["cifar"](CATALOGUE[name], [path])


# MNIST, EMNIST, CIFAR, SVHN


def test_mnist_s_files_give_training_pictures_then_test_pictures(tmp_path: Path) -> None:
    pool = idx.mnist(write_mnist(tmp_path, train=100, test=40), tuple("0123456789"))
    assert_own_test(pool, 100, 40, (1, 28, 28))
    for part, count in ((slice(0, 100), 100), (slice(100, 140), 40)):
        images, labels = pictures(count, 10, (28, 28), seed=count)
        np.testing.assert_array_equal(pool.pictures[part, 0], images)
        np.testing.assert_array_equal(pool.labels[part], labels)


def test_emnist_s_letters_stand_upright_and_count_from_zero(tmp_path: Path) -> None:
    pool = emnist(write_emnist(tmp_path))
    assert_own_test(pool, 104, 52, (1, 28, 28))
    images, labels = pictures(104, 26, (28, 28), seed=104)
    np.testing.assert_array_equal(pool.pictures[:104, 0], images)
    np.testing.assert_array_equal(pool.labels[:104], labels)
    assert pool.class_names[0] == "a" and len(pool.class_names) == 26


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_s_batches_give_pictures_channels_first(tmp_path: Path, classes: int, protocol: int) -> None:
    path = write_cifar(tmp_path, classes, each=100, protocol=protocol)
    pool = cifar(path, f"cifar{classes}")
    batches = 5 if classes == 10 else 1
    assert_own_test(pool, 100 * batches, 100, (3, 32, 32))
    images, labels = pictures(100, classes, (3, 32, 32), seed=0)
    np.testing.assert_array_equal(pool.pictures[:100], images)
    np.testing.assert_array_equal(pool.labels[:100], labels)
    assert pool.class_names[1] == "class 1"


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """As the published batches are: text as bytes, arrays by the name that NumPy's core had then."""
    images, labels = pictures(4, 2, (3, 32, 32))
    pixels = images.reshape(4, -1)
    state = pickle.dumps(pixels, 2).replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    inner = state[2:-1]  # less the protocol's mark and the stop
    content = b"\x80\x02}(U\x04data" + inner + b"U\x06labels](" + b"".join(b"K" + bytes([x]) for x in labels) + b"eu."
    found = unpickled(content, "a batch")
    np.testing.assert_array_equal(found["data"], pixels)
    assert found["labels"] == labels.tolist()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo executed > executed",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"data": Evil()}),
        pickle.dumps({"data": np.array([Evil()], dtype=object)}),
        b"cos\nsystem\n(S'echo executed > executed'\ntR.",
        b'cbuiltins\neval\n(S\'open("executed", "w")\'\ntR.',
        b"csweep.formats\nos.system\n(S'echo executed > executed'\ntR.",
        pickle.dumps({"data": np.zeros(3, dtype=object)}),
        pickle.dumps({"data": np.datetime64("2020-01-01")}),
        pickle.dumps(np.zeros(3)),
        pickle.dumps([1, 2]),
        b"cnumpy\nndarray\n((I99999999999\nttR.",
    ],
)
def test_a_pickle_that_holds_more_than_arrays_is_refused_and_nothing_is_executed(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^x: is damaged, or is not a pickle of arrays"):
        unpickled(content, "x")
    assert list(tmp_path.iterdir()) == []


def test_svhn_s_ten_is_the_digit_zero(tmp_path: Path) -> None:
    pool = mat.svhn(*write_svhn(tmp_path), tuple("0123456789"))
    assert_own_test(pool, 60, 30, (3, 32, 32))
    images, labels = pictures(60, 10, (32, 32, 3), seed=60)
    np.testing.assert_array_equal(pool.pictures[:60], images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(pool.labels[:60], labels)


# Trees of pictures


def test_notmnist_s_archive_and_its_folder_give_the_same_pool_and_name_what_is_unreadable(tmp_path: Path) -> None:
    files = letter_files()
    archive = trees.picture_archive(write_tar(tmp_path / "x.tar.gz", list(files.items())[::-1]), LETTERS)
    folder = trees.picture_folder(write_folder(tmp_path, files) / "notMNIST_small", None, LETTERS)
    assert archive.fingerprint == folder.fingerprint
    assert archive.notes == folder.notes
    assert archive.notes == (
        "1 empty file left out: A/broken.png",
        "1 picture that cannot be decoded left out: F/broken.png",
    )
    assert archive.pictures.shape == (300, 1, 28, 28) and np.bincount(archive.labels).tolist() == [30] * 10


def test_a_plain_tar_and_what_an_operating_system_leaves_behind_are_no_hindrance(tmp_path: Path) -> None:
    files = letter_files()
    odd = {
        "__MACOSX/notMNIST_small/A/._0001.png": b"x",
        "notMNIST_small/A/.DS_Store": b"x",
        "notMNIST_small/README": b"",
    }
    packed = write_tar(tmp_path / "x.tar.gz", (files | odd).items())
    plain = tmp_path / "x.tar"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    pools = [trees.picture_archive(path, LETTERS) for path in (packed, plain)]
    assert pools[0].fingerprint == pools[1].fingerprint and len(pools[0].labels) == 300


def test_grey_pictures_become_colour_where_others_have_it_and_every_mode_is_read(tmp_path: Path) -> None:
    grey, _ = pictures(4, 2, (6, 6))
    colour = np.stack([grey[3]] * 3, axis=2)
    deep = io.BytesIO()
    Image.fromarray(grey[1].astype(np.uint16) * 256 + 7).save(deep, "PNG")
    palette = io.BytesIO()
    Image.fromarray(grey[2]).convert("P").save(palette, "PNG")
    files = {"one/a.png": png(grey[0]), "one/b.PNG": deep.getvalue(), "two/c.png": palette.getvalue()}
    only_grey = trees.picture_folder(write_folder(tmp_path / "1", {**files, "two/d.png": png(grey[3])}), None)
    assert only_grey.pictures.shape == (4, 3, 6, 6)  # a palette may hold any colour
    for place in (0, 1, 3):
        np.testing.assert_array_equal(only_grey.pictures[place], np.stack([grey[place]] * 3))
    mixed = trees.picture_folder(write_folder(tmp_path / "2", {**files, "two/d.png": png(colour)}), None)
    np.testing.assert_array_equal(mixed.pictures[3], np.stack([grey[3]] * 3))
    del files["two/c.png"]
    grey_only = trees.picture_folder(write_folder(tmp_path / "3", {**files, "two/d.png": png(grey[3])}), None)
    np.testing.assert_array_equal(grey_only.pictures[:, 0], grey[[0, 1, 3]])
    assert grey_only.class_names == ("one", "two") and grey_only.labels.tolist() == [0, 0, 1]


def test_pictures_are_resized_to_squares_on_request(tmp_path: Path) -> None:
    wide = np.repeat(np.array([[0, 255]], dtype=np.uint8), 8, axis=1).repeat(4, axis=0)  # left black, right white
    files = {"a/1.png": png(wide), "b/2.jpeg": png(np.full((10, 10), 100, np.uint8), "JPEG")}
    pool = trees.picture_folder(write_folder(tmp_path, files), 4)
    assert pool.pictures.shape == (2, 1, 4, 4)
    assert pool.pictures[0, 0, :, 0].max() < 20 and pool.pictures[0, 0, :, 3].min() > 235
    assert abs(int(pool.pictures[1].mean()) - 100) <= 1


BAD_TREES: dict[str, tuple[dict[str, bytes], str]] = {
    "no class": ({"a.png": png(np.zeros((4, 4), np.uint8))}, "has no subfolder"),
    "one class": ({f"a/{n}.png": png(np.full((4, 4), n, np.uint8)) for n in range(9)}, "only one class ('a')"),
    "an empty class": (
        {"a/1.png": png(np.zeros((4, 4), np.uint8)), "b/readme.txt": b"x"},
        "only one class ('a'); expected at least two classes; no pictures in b",
    ),
    "a class of unreadable files": (
        {"a/1.png": png(np.zeros((4, 4), np.uint8)), "b/1.png": b"x", "b/2.png": b"y"},
        "class 'b' has no readable picture (2 pictures that cannot be decoded)",
    ),
    "mixed sizes": (
        {"a/1.png": png(np.zeros((4, 4), np.uint8)), "b/2.png": png(np.zeros((5, 4), np.uint8))},
        "pictures of several sizes (a/1.png is 4 x 4, b/2.png 5 x 4); image_size resizes",
    ),
}


@pytest.mark.parametrize(("files", "said"), BAD_TREES.values(), ids=BAD_TREES)
def test_a_folder_that_cannot_be_trained_on_is_refused(files: dict[str, bytes], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        trees.picture_folder(write_folder(tmp_path, files), None)
    assert str(refused.value).startswith(f"{tmp_path}: ") and said in str(refused.value)


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


BAD_MEMBERS = {
    "up": (member("notMNIST_small/../../evil.png"), "a path outside it"),
    "absolute": (member("/tmp/evil.png"), "a path outside it"),
    "backslashes": (member("A\\..\\evil.png"), "a path outside it"),
    "symbolic link": (member("notMNIST_small/A/x.png", tarfile.SYMTYPE, link="/etc/passwd"), "a link or a device"),
    "hard link": (member("notMNIST_small/A/x.png", tarfile.LNKTYPE, link="../../x"), "a link or a device"),
    "device": (member("notMNIST_small/A/x.png", tarfile.CHRTYPE), "a link or a device"),
    "pipe": (member("notMNIST_small/A/x.png", tarfile.FIFOTYPE), "a link or a device"),
}


@pytest.mark.parametrize(("bad", "said"), BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_an_archive_that_leads_out_of_itself_is_refused_and_nothing_is_written(
    bad: tarfile.TarInfo, said: str, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "in" / "x.tar.gz", [*letter_files(2).items(), (bad, b"")])
    with pytest.raises(InputError, match=said):
        trees.picture_archive(path, LETTERS)
    assert [each.name for each in tmp_path.rglob("*")] == ["in", "x.tar.gz"]


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MAX_BYTES", 500_000)
    path = write_tar(tmp_path / "x.tar.gz", [*letter_files(10).items(), ("notMNIST_small/README", bytes(500_000))])
    with pytest.raises(InputError, match="unpacks to more than"):
        trees.picture_archive(path, LETTERS)


def test_an_archive_that_claims_five_gigabytes_is_refused_before_they_are_read(tmp_path: Path) -> None:
    head = member("notMNIST_small/A/x.png", size=5 * 2**30).tobuf()
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(head + bytes(10_000)))
    with pytest.raises(InputError, match="unpacks to more than 4 GiB"):
        trees.picture_archive(tmp_path / "x.tar.gz", LETTERS)


# Arrays


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


GREY, LABELS = pictures(20, 2, (5, 4))


@pytest.mark.parametrize(
    "images",
    [
        GREY,
        GREY[:, None],
        GREY[..., None],
        GREY.astype(np.int64),
        GREY / 255,
        (GREY / 255).astype(np.float32),
    ],
    ids=["plain", "channels second", "channels last", "integers", "floats", "float32"],
)
def test_every_way_to_write_the_same_grey_pictures_gives_the_same_pool(images: np.ndarray, tmp_path: Path) -> None:
    pool = npz(write_npz(tmp_path / "x.npz", images=images, labels=LABELS))
    np.testing.assert_array_equal(pool.pictures, GREY[:, None])
    assert pool.labels.tolist() == LABELS.tolist() and pool.class_names == ("0", "1")


def test_colours_are_found_last_or_second_and_truth_values_are_black_and_white(tmp_path: Path) -> None:
    colour, labels = pictures(6, 2, (4, 5, 3))
    last = npz(write_npz(tmp_path / "x.npz", images=colour, labels=labels))
    second = npz(write_npz(tmp_path / "x.npz", images=colour.transpose(0, 3, 1, 2), labels=labels))
    assert last.pictures.shape == (6, 3, 4, 5) and last.fingerprint == second.fingerprint
    black = npz(write_npz(tmp_path / "x.npz", images=GREY > 100, labels=LABELS))
    assert set(np.unique(black.pictures)) == {0, 255}


NAN = np.where(GREY == GREY[3, 2, 1], np.nan, GREY / 255)
BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"images": GREY}, "holds no array 'labels'; it holds images"),
    "NaN": ({"images": NAN, "labels": LABELS}, "values of images are NaN"),
    "floats beyond 1": ({"images": GREY * 1.0, "labels": LABELS}, "expected floats from 0 to 1"),
    "integers beyond 255": ({"images": GREY.astype(int) * 2, "labels": LABELS}, "expected integers from 0 to 255"),
    "text": ({"images": GREY.astype(str), "labels": LABELS}, "expected bytes, or floats"),
    "objects": ({"images": GREY.astype(object), "labels": LABELS}, "is damaged, or is not"),
    "two axes": ({"images": GREY[0], "labels": LABELS}, "images are [5, 4]"),
    "four channels": ({"images": np.zeros((6, 4, 4, 4), np.uint8), "labels": LABELS[:6]}, "1 or 3 channels"),
    "no pictures": ({"images": GREY[:0], "labels": LABELS[:0]}, "expected at least one"),
    "more labels": ({"images": GREY, "labels": LABELS.repeat(2)}, "20 images and 40 labels"),
    "negative labels": ({"images": GREY, "labels": LABELS - 1}, "labels from -1 to 0"),
    "huge labels": ({"images": GREY, "labels": LABELS * 10**12}, "labels from 0 to 1000000000000"),
    "a class without pictures": ({"images": GREY, "labels": LABELS * 2}, "no picture of class '1'"),
    "one class": ({"images": GREY, "labels": LABELS * 0}, "only one class"),
    "float labels": ({"images": GREY, "labels": LABELS / 2}, "labels are float64"),
    "labels with two axes": ({"images": GREY, "labels": LABELS[:, None]}, "expected integers [n]"),
}


@pytest.mark.parametrize(("arrays", "said"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be_trained_on_are_refused(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError) as refused:
        npz(path)
    assert str(refused.value).startswith(f"{path}: ") and said in str(refused.value)


def test_arrays_that_unpack_to_more_than_the_limit_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MAX_BYTES", 10**6)
    monkeypatch.setattr(np, "load", None)
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("images", "labels"):
            archive.writestr(f"{name}.npy", bytes(600_000))
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match="unpacks to more than"):
        npz(path)


# Damage: every reader, and whatever may happen to a file


def written(write: Callable[[Path], object]) -> Callable[[Path], bytes]:
    """What `write` puts into one file of a folder."""

    def content(folder: Path) -> bytes:
        found = write(folder)
        path = found[0] if isinstance(found, list) else found
        assert isinstance(path, Path)
        return path.read_bytes()

    return content


def idx_file(folder: Path) -> Path:
    return write_folder(folder, {"images.gz": real_formats.idx(pictures(8, 2, (6, 6))[0])}) / "images.gz"


READERS: dict[str, tuple[Callable[[Path], bytes], Callable[[Path], object]]] = {
    "idx": (written(idx_file), lambda path: idx.idx(path.read_bytes(), path, 3)),
    "emnist": (written(write_emnist), emnist),
    "cifar": (written(lambda folder: write_cifar(folder, each=10)), cifar),
    "cifar batch": (
        lambda folder: cifar_files(each=3)["test_batch"],
        lambda path: _cifar_batch(path.read_bytes(), path),
    ),
    "svhn": (written(lambda folder: write_svhn(folder, 10, 10)), mat._mat),
    "tar": (
        written(lambda folder: write_tar(folder / "x.tar.gz", letter_files(3).items())),
        lambda path: trees.picture_archive(path, LETTERS),
    ),
    "plain tar": (
        lambda folder: gzip.decompress(write_tar(folder / "x.tar.gz", letter_files(3).items()).read_bytes()),
        lambda path: trees.picture_archive(path, LETTERS),
    ),
    "npz": (written(lambda folder: write_npz(folder / "x.npz", images=GREY, labels=LABELS)), npz),
    "deep picture": (
        lambda folder: real_formats.deep_png(np.stack([GREY[0].astype(int) * 16] * 4, axis=2)),
        lambda path: trees.picture_folder(
            write_folder(path.parent / "tree", {"a/1.png": path.read_bytes(), "b/2.png": png(GREY[1])}), None
        ),
    ),
    "picture": (
        lambda folder: png(GREY[0]),
        lambda path: trees.picture_folder(
            write_folder(path.parent / "tree", {"a/1.png": path.read_bytes(), "b/2.png": png(GREY[1])}), None
        ),
    ),
}


@functools.cache
def whole(reader: str) -> bytes:
    """The reader's file, undamaged."""
    make, read = READERS[reader]
    with tempfile.TemporaryDirectory() as folder:
        content = make(Path(folder))
        (Path(folder) / "copy").write_bytes(content)
        read(Path(folder) / "copy")
    return content


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Cuts, flips, repeats, swaps or replaces parts of a file, at places given as shares of its length."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["cut", "flip", "insert", "remove", "zero", "swap"]),
                st.floats(0, 1),
                st.floats(0, 1),
                st.binary(min_size=1, max_size=8),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def apply(content: bytes) -> bytes:
        for kind, one, other, data in steps:
            start, stop = sorted((int(one * len(content)), int(other * len(content))))
            near = min(start + len(data), len(content))
            match kind:
                case "cut":
                    content = content[:start]
                case "flip":
                    content = (
                        content[:start]
                        + bytes(a ^ b for a, b in zip(content[start:near], data, strict=False))
                        + content[near:]
                    )
                case "insert":
                    content = content[:start] + data + content[start:]
                case "remove":
                    content = content[:start] + content[near:]
                case "zero":
                    content = content[:start] + bytes(near - start) + content[near:]
                case "swap":
                    content = content[stop:] + content[start:stop] + content[:start]
        return content

    return apply


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(damage=damage())
def test_damaged_files_are_read_or_refused_with_one_clear_error(
    reader: str, damage: Callable[[bytes], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ten readers, eighty files each: 800 a run."""
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "file"
    path.write_bytes(damage(whole(reader)))
    try:
        READERS[reader][1](path)
    except InputError as refused:
        assert str(refused).startswith(str(folder)) and "\n" not in str(refused)


def array(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["u1", "i8", "f4", "f8", "?", "U3", "c16", "M8[s]"]))
    shape = draw(st.lists(st.integers(0, 4), max_size=5))
    values = draw(st.lists(st.integers(-300, 300), min_size=1, max_size=4))
    found = np.resize(np.array(values, dtype=float), shape)
    if draw(st.booleans()):
        found = np.abs(found) / 300
    with np.errstate(all="ignore"):
        return found.astype(np.int64).astype(kind) if kind in ("M8[s]", "u1") else found.astype(kind)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_arrays_of_any_kind_and_shape_are_read_or_refused_with_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "x.npz"
    arrays = {name: array(data.draw) for name in ("images", "labels")}  # type: ignore[arg-type]
    try:
        pool = npz(write_npz(path, **arrays))
    except InputError as refused:
        assert str(refused).startswith(str(path)) and "\n" not in str(refused)
    else:
        assert len(pool.class_names) >= 2 and pool.pictures.dtype == np.uint8
