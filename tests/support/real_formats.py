"""Small files in the formats of the public data sets, written as their publishers did."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from sweep.space.catalogue import CATALOGUE


def pictures(count: int, classes: int, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures `[count, *shape]`, no two alike, with labels that take turns; a class shows in the mean."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    noise = generator.integers(0, 56, (count, *shape))
    bright = labels.reshape(-1, *[1] * len(shape)) * (200 // classes)
    return (noise + bright).astype(np.uint8), labels.astype(np.int64)


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as a gzipped IDX file."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def write_mnist(folder: Path, name: str = "MNIST", train: int = 100, test: int = 40) -> list[Path]:
    """The four files of MNIST below a data folder, in the order in which they are read."""
    paths = []
    for prefix, count in (("train", train), ("t10k", test)):
        images, labels = pictures(count, 10, (28, 28), seed=count)
        for content, array in (("images-idx3", images), ("labels-idx1", labels)):
            paths.append(folder / name / "raw" / f"{prefix}-{content}-ubyte.gz")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            paths[-1].write_bytes(idx(array))
    return paths


def write_emnist(folder: Path, train: int = 104, test: int = 52) -> Path:
    """EMNIST's archive of archives, letters only; pictures lie on their side, labels start at 1."""
    path = folder / "EMNIST" / "raw" / "gzip.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for part, count in (("train", train), ("test", test)):
            images, labels = pictures(count, 26, (28, 28), seed=count)
            archive.writestr(f"gzip/emnist-letters-{part}-images-idx3-ubyte.gz", idx(images.transpose(0, 2, 1)))
            archive.writestr(f"gzip/emnist-letters-{part}-labels-idx1-ubyte.gz", idx(labels + 1))
    return path


def write_svhn(folder: Path, train: int = 60, test: int = 30) -> list[Path]:
    """SVHN's two .mat files: pictures last, labels 1 to 10."""
    paths = [folder / "train_32x32.mat", folder / "test_32x32.mat"]
    folder.mkdir(parents=True, exist_ok=True)
    for path, count in zip(paths, (train, test), strict=True):
        images, labels = pictures(count, 10, (32, 32, 3), seed=count)
        scipy.io.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
    return paths


def cifar_files(classes: int = 10, each: int = 40, protocol: int = 2) -> dict[str, bytes]:
    """The files of CIFAR-10 (or -100) by name, pickled."""
    fine = classes > 10
    names = [f"class {label}" for label in range(classes)]
    batches = ["train"] if fine else [f"data_batch_{number}" for number in range(1, 6)]
    found = {}
    for number, name in enumerate([*batches, "test" if fine else "test_batch"]):
        images, labels = pictures(each, classes, (3, 32, 32), seed=number)
        batch = {"data": images.reshape(each, -1), "fine_labels" if fine else "labels": labels.tolist()}
        found[name] = pickle.dumps(batch, protocol)
    found["meta" if fine else "batches.meta"] = pickle.dumps(
        {"fine_label_names" if fine else "label_names": names}, protocol
    )
    return found


def write_tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """A .tar.gz of these names and contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if isinstance(member, str):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_cifar(folder: Path, classes: int = 10, **options: Any) -> Path:
    """CIFAR's archive."""
    inside, name = ("cifar-10-batches-py", "cifar-10-python") if classes == 10 else ("cifar-100-python",) * 2
    members = cifar_files(classes, **options)
    return write_tar(folder / f"{name}.tar.gz", ((f"{inside}/{name}", content) for name, content in members.items()))


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture `[height, width]` or `[height, width, 3]` as a file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def deep_png(array: np.ndarray, transparent: tuple[int, ...] | None = None) -> bytes:
    """A PNG of 16 bits per value, `[height, width]` or with 1 to 4 channels last; one colour may be transparent."""
    height, width = array.shape[:2]
    rows = array.reshape(height, width, -1).astype(">u2")
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[rows.shape[2]]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if transparent:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    chunks.append((b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))))
    chunks.append((b"IEND", b""))
    packed = (struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def deep_tiff(array: np.ndarray, order: str = "<", packed: bool = False) -> bytes:
    """A TIFF `[height, width, 3]` of 16 bits per value, little-endian or (`>`) big-endian, deflated if `packed`."""
    height, width, _ = array.shape
    pixels = array.astype(f"{order}u2").tobytes()
    if packed:
        pixels = zlib.compress(pixels)
        pixels += bytes(len(pixels) % 2)
    short, long = 3, 4
    tags = [
        (256, short, 1, width),
        (257, short, 1, height),
        (258, short, 3, 8),
        (259, short, 1, 8 if packed else 1),
        (262, short, 1, 2),
    ]
    tags += [(273, long, 1, 14), (277, short, 1, 3), (278, short, 1, height), (279, long, 1, len(pixels))]
    tags += [(284, short, 1, 1)]
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        single = kind == short and count == 1
        directory += struct.pack(
            f"{order}HHI" + ("HH" if single else "I"), tag, kind, count, *((value, 0) if single else (value,))
        )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 14 + len(pixels))
    return head + bits + pixels + directory + bytes(4)


def retagged(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of one of its tags, a short number."""
    place = content.index(struct.pack("<HHI", tag, 3, 1)) + 8
    return content[:place] + struct.pack("<H", value) + content[place + 2 :]


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file of this kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def letter_files(each: int = 30) -> dict[str, bytes]:
    """Pictures of A to J as notMNIST names them, two of them unreadable."""
    images, labels = pictures(10 * each, 10, (28, 28), seed=each)
    found = {
        f"notMNIST_small/{'ABCDEFGHIJ'[label]}/{number:04}.png": png(image)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }
    return found | {"notMNIST_small/A/broken.png": b"", "notMNIST_small/F/broken.png": b"\x89PNG nothing"}


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """Files by name below `root`."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def trust(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes the catalogue's checksums those of the files below `folder`."""

    def md5(path: Path, wanted: str | None) -> str | None:
        return hashlib.md5(path.read_bytes()).hexdigest() if wanted and path.exists() else wanted

    for name, source in CATALOGUE.items():
        files = tuple(dataclasses.replace(each, md5=md5(folder / each.path, each.md5)) for each in source.files)
        inside = source.unpacked
        if inside:
            found = tuple((name, md5(folder / inside.folder / name, wanted) or "") for name, wanted in inside.files)
            inside = dataclasses.replace(inside, files=found)
        monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(source, files=files, unpacked=inside))


def publish(monkeypatch: pytest.MonkeyPatch, name: str, *folders: str) -> None:
    """Makes the files of a data set come from these addresses, by their names."""
    source = CATALOGUE[name]
    files = tuple(
        dataclasses.replace(each, urls=tuple(folder + Path(each.path).name for folder in folders))
        for each in source.files
    )
    monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(source, files=files))
