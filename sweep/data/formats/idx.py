"""IDX, the format of MNIST and its kin (http://yann.lecun.com/exdb/mnist/)."""

import gzip
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweep.common.errors import InputError
from sweep.data.formats import guards
from sweep.data.formats.guards import gibibytes, reading, with_own_test
from sweep.data.pool import Labels, Pictures, Pool


def idx_pair(images: bytes, labels: bytes, where: object) -> tuple[Pictures, Labels]:
    """Pictures and labels of two gzipped IDX files (http://yann.lecun.com/exdb/mnist/)."""
    pictures, found = idx(images, where, 3), idx(labels, where, 1)
    if len(pictures) != len(found):
        raise InputError(f"{where}: {len(pictures):,} pictures and {len(found):,} labels")
    return pictures[:, None], found.astype(np.int64)


def idx(content: bytes, where: object, dimensions: int) -> NDArray[np.uint8]:
    """The unsigned bytes of one gzipped IDX file with this number of dimensions."""
    with reading(where, "a gzipped IDX file"), gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        magic = file.read(4)
        if magic != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it begins with {magic.hex()}, expected 000008{dimensions:02x}")
        shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(dimensions))
        wanted = int(np.prod([float(size) for size in shape]))
        if wanted > guards.MAX_BYTES:
            raise ValueError(f"it claims {wanted:,} bytes; at most {guards.MAX_BYTES:,} are read")
        pixels = file.read(wanted + 1)
        if len(pixels) != wanted:
            raise ValueError(f"its shape is {shape}, but it holds {'more' if len(pixels) > wanted else 'less'}")
        return np.frombuffer(pixels, np.uint8).reshape(shape)


def mnist(files: Sequence[Path], class_names: tuple[str, ...]) -> Pool:
    """MNIST, Fashion-MNIST or KMNIST from its four files: training pictures and labels, then test ones."""
    contents = [path.read_bytes() for path in files]
    train = idx_pair(contents[0], contents[1], files[0])
    test = idx_pair(contents[2], contents[3], files[2])
    return with_own_test(train, test, class_names, files[0])


def emnist_letters(path: Path, class_names: tuple[str, ...]) -> Pool:
    """The letters of EMNIST from the archive of all its parts; pictures are turned upright, labels start at 0."""

    def part(archive: zipfile.ZipFile, name: str) -> tuple[Pictures, Labels]:
        contents = []
        for suffix in ("images-idx3", "labels-idx1"):
            member = f"gzip/emnist-letters-{name}-{suffix}-ubyte.gz"
            if member not in archive.namelist():
                raise InputError(f"{path}: holds no {member}")
            if archive.getinfo(member).file_size > guards.MAX_BYTES:
                raise InputError(f"{path}: {member} unpacks to more than {gibibytes()}")
            contents.append(archive.read(member))
        pictures, labels = idx_pair(contents[0], contents[1], f"{path}, {name}")
        return pictures.transpose(0, 1, 3, 2), labels - 1

    with reading(path, "EMNIST's gzip.zip"), zipfile.ZipFile(path) as archive:
        train, test = part(archive, "train"), part(archive, "test")
    return with_own_test(train, test, class_names, path)
