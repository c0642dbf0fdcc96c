"""Reads pictures and labels out of files that others made: IDX, CIFAR's pickles, SVHN's .mat, trees of pictures, .npz.

Nothing is unpacked to the disk and nothing in a file is executed. Whatever is wrong with a file is one InputError.
"""

import contextlib
import dataclasses
import functools
import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from sweep.common.errors import InputError
from sweep.data.download import CifarLayout
from sweep.data.splits import DIGITS, Labels, Pictures, Pool

MAX_BYTES: Final = 4 * 2**30
"""Most that an archive may unpack to, and that the pixels of a data set may take."""

MAX_READ: Final = 2**30
"""Most that is read out of a compressed archive at once."""

BLOCK: Final = 1000
"""Pictures that are converted at once."""

SUFFIXES: Final = (".png", ".jpg", ".jpeg")
"""Names of picture files, in either case."""

MAX_NAMED: Final = 10
"""Unreadable files that a note names."""


@contextlib.contextmanager
def reading(where: object, what: str) -> Iterator[None]:
    """Turns whatever a decoder of foreign bytes raises into one InputError: `where` is damaged or is not `what`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd in a file and readable all the same
            yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{where}: there is no such file") from None
    except PermissionError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    except Exception as error:  # decoders raise nearly everything
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{where}: is damaged, or is not {what} ({words})") from error


# MNIST and its kin


def idx_pair(images: bytes, labels: bytes, where: object) -> tuple[Pictures, Labels]:
    """Pictures and labels of two gzipped IDX files (http://yann.lecun.com/exdb/mnist/)."""
    pictures, found = idx(images, where, 3), idx(labels, where, 1)
    if len(pictures) != len(found):
        raise InputError(f"{where}: {len(pictures):,} pictures and {len(found):,} labels")
    return pictures[:, None], found.astype(np.int64)


def idx(content: bytes, where: object, dimensions: int) -> NDArray[np.uint8]:
    """The unsigned bytes of one gzipped IDX file of so many dimensions."""
    with reading(where, "a gzipped IDX file"), gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        magic = file.read(4)
        if magic != bytes([0, 0, 8, dimensions]):
            raise ValueError(f"it begins with {magic.hex()}, wanted 000008{dimensions:02x}")
        shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(dimensions))
        wanted = int(np.prod([float(size) for size in shape]))
        if wanted > MAX_BYTES:
            raise ValueError(f"it claims {wanted:,} bytes, at most {MAX_BYTES:,}")
        pixels = file.read(wanted + 1)
        if len(pixels) != wanted:
            raise ValueError(f"its shape is {shape}, but it holds {'more' if len(pixels) > wanted else 'less'}")
        return np.frombuffer(pixels, np.uint8).reshape(shape)


def mnist(files: Sequence[Path]) -> Pool:
    """MNIST, Fashion-MNIST or KMNIST of its four files: training pictures and labels, then those for testing."""
    contents = [path.read_bytes() for path in files]
    train = idx_pair(contents[0], contents[1], files[0])
    test = idx_pair(contents[2], contents[3], files[2])
    return with_own_test(train, test, DIGITS, files[0])


def emnist_letters(path: Path) -> Pool:
    """The letters of EMNIST out of the archive of all its parts; pictures are turned upright, labels start at 0."""

    def part(archive: zipfile.ZipFile, name: str) -> tuple[Pictures, Labels]:
        contents = []
        for suffix in ("images-idx3", "labels-idx1"):
            member = f"gzip/emnist-letters-{name}-{suffix}-ubyte.gz"
            if member not in archive.namelist():
                raise InputError(f"{path}: holds no {member}")
            if archive.getinfo(member).file_size > MAX_BYTES:
                raise InputError(f"{path}: {member} unpacks to more than {_gibibytes()}")
            contents.append(archive.read(member))
        pictures, labels = idx_pair(contents[0], contents[1], f"{path}, {name}")
        return pictures.transpose(0, 1, 3, 2), labels - 1

    with reading(path, "EMNIST's gzip.zip"), zipfile.ZipFile(path) as archive:
        train, test = part(archive, "train"), part(archive, "test")
    return with_own_test(train, test, tuple("abcdefghijklmnopqrstuvwxyz"), path)


# CIFAR


def cifar_archive(path: Path, layout: CifarLayout) -> Pool:
    """CIFAR-10 or -100 out of its .tar.gz."""
    wanted = {f"{layout.folder}/{name}": name for name in layout.md5}
    contents = {wanted[str(name)]: content() for name, content in tar_members(path) if str(name) in wanted}
    missing = sorted(layout.md5.keys() - contents.keys())
    if missing:
        raise InputError(f"{path}: holds no {layout.folder}/{missing[0]}")
    return cifar(contents, layout, path)


def cifar(contents: dict[str, bytes], layout: CifarLayout, where: object) -> Pool:
    """CIFAR-10 or -100 of the contents of its files, by name."""
    meta = unpickled(contents[layout.meta], f"{where}, {layout.meta}")
    names = meta.get("fine_label_names", meta.get("label_names"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}, {layout.meta}: names no classes")
    parts = []
    for batches in (layout.train, layout.test):
        found = [_cifar_batch(contents[name], f"{where}, {name}") for name in batches]
        parts.append((np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found])))
    return with_own_test(parts[0], parts[1], tuple(names), where)


def _cifar_batch(content: bytes, where: object) -> tuple[Pictures, Labels]:
    batch = unpickled(content, where)
    pixels, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise InputError(f"{where}: data is no array [n, 3072] of bytes")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise InputError(f"{where}: labels is no list of numbers from 0 on")
    if len(labels) != len(pixels):
        raise InputError(f"{where}: {len(pixels):,} pictures and {len(labels):,} labels")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def unpickled(content: bytes, where: object) -> dict[str, Any]:
    """The mapping in a pickle of numbers, text, lists and NumPy arrays; anything else in it is refused, not run."""
    with reading(where, "a pickle of arrays"):
        found = _Arrays(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(found, dict):
            raise ValueError("it holds no mapping")
        return found


class _Arrays(pickle.Unpickler):
    """Knows the names that a NumPy array is pickled with, and no other."""

    def find_class(self, module: str, name: str) -> Any:
        modern = module.replace("numpy.core", "numpy._core")
        match modern, name:
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return _plain_dtype
            case "numpy._core.multiarray", "_reconstruct":
                return _empty_array
            case "numpy._core.numeric", "_frombuffer":
                return _from_buffer
            case "_codecs", "encode":
                return _encoded
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _plain_dtype(name: Any, *_: Any) -> np.dtype[Any]:
    if name not in ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8"):
        raise pickle.UnpicklingError(f"it holds an array of {name!r}")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _empty_array(kind: Any, shape: Any, code: Any) -> NDArray[Any]:
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array in it is pickled in an unusual way")
    return np.ndarray((0,), np.int8)


def _from_buffer(buffer: Any, dtype: np.dtype[Any], shape: Any, order: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes as {encoding!r}")
    return text.encode("latin1")


# SVHN


def svhn(train: Path, test: Path) -> Pool:
    """SVHN's cropped digits of its two .mat files; the label 10 stands for the digit 0."""
    return with_own_test(_mat(train), _mat(test), DIGITS, train)


def _mat(path: Path) -> tuple[Pictures, Labels]:
    import scipy.io

    with reading(path, "a MATLAB file with X and y"):
        found = scipy.io.loadmat(path, variable_names=["X", "y"])
        pixels, labels = np.asarray(found["X"]), np.asarray(found["y"]).reshape(-1)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[2] != 3:
            raise ValueError(f"X is {pixels.dtype} {list(pixels.shape)}, wanted bytes [height, width, 3, n]")
        if labels.dtype.kind not in "iuf" or not np.isin(labels, np.arange(1, 11)).all():
            raise ValueError("y holds other labels than 1 to 10")
        if len(labels) != pixels.shape[3]:
            raise ValueError(f"{pixels.shape[3]:,} pictures and {len(labels):,} labels")
        return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels.astype(np.int64) % 10


# Trees of pictures: a folder a class


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


def tar_members(path: Path) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    """Names and contents of the files in a tar archive, gzipped or not; a content can be had while its file is current.

    Refused are names that lead out of the archive's own folder, links, devices, and more than 4 GiB in all.
    """
    guard = functools.partial(reading, path, "a .tar.gz archive")
    with contextlib.ExitStack() as stack:
        with guard():
            raw = stack.enter_context(open(path, "rb"))
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw
            limited = _Limited(stream, path)
            archive = stack.enter_context(tarfile.open(fileobj=limited, mode="r|"))
        total = 0
        while True:
            with guard():
                member = archive.next()
                if member is None:
                    while limited.read(2**20):
                        pass  # gzip's checksum stands at its end
                    return
                name = PurePosixPath(member.name)
                _check_member(path, member, name)
                total += member.size
                if total > MAX_BYTES:
                    raise InputError(f"{path}: unpacks to more than {_gibibytes()}; is it the right archive?")
                file = archive.extractfile(member) if member.isfile() else None
            if file is not None:

                def content(file: IO[bytes] = file) -> bytes:
                    with guard():
                        return file.read()

                yield name, content


def check_tar(path: Path) -> None:
    """Raises InputError unless the archive can be read to its end."""
    for _ in tar_members(path):
        pass


def _check_member(path: Path, member: tarfile.TarInfo, name: PurePosixPath) -> None:
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        raise InputError(f"{path}: holds {member.name!r}, which leads out of it; nothing was unpacked")
    if not member.isfile() and not member.isdir():
        raise InputError(f"{path}: holds {member.name!r}, which is a link or a device; nothing was unpacked")


class _Limited(io.RawIOBase):
    """A stream that ends in an error after `MAX_BYTES` and some: headers may lie about what is to come."""

    def __init__(self, stream: Any, path: Path) -> None:
        self.stream, self.path, self.left = stream, path, MAX_BYTES + 2**28

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_READ:
            raise InputError(f"{self.path}: holds a file of more than {MAX_READ / 2**30:.0f} GiB")
        found: bytes = self.stream.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise InputError(f"{self.path}: unpacks to more than {_gibibytes()}; is it the right archive?")
        return found


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
        if bytes_in_all > MAX_BYTES:
            raise InputError(f"{where}: more than {_gibibytes()} of pixels; image_size makes pictures smaller")
        found.append((places[name], file, picture))
    found.sort(key=lambda each: each[:2])
    _check_tree(where, found, classes, unreadable)
    colour = any(picture.shape[0] == 3 for *_, picture in found)
    if colour and 3 * found[0][2][0].size * len(found) > MAX_BYTES:
        raise InputError(f"{where}: more than {_gibibytes()} of pixels; image_size makes pictures smaller")
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


# Arrays


def npz(path: Path) -> Pool:
    """Arrays `images` and `labels` of a .npz file.

    Images are `[n, height, width]`, with 1 or 3 channels last or second where there is a fourth axis: bytes, truth
    values, integers from 0 to 255, or floats from 0 to 1, which are kept in 256 levels. Labels are integers from 0 on.
    """
    with reading(path, "a .npz file with images and labels"), zipfile.ZipFile(path) as archive:
        if sum(each.file_size for each in archive.infolist()) > MAX_BYTES:
            raise InputError(f"{path}: unpacks to more than {_gibibytes()}")
    with reading(path, "a .npz file with images and labels"), np.load(path, allow_pickle=False) as arrays:
        for name in ("images", "labels"):
            if name not in arrays:
                raise InputError(f"{path}: holds no array {name!r}; there are {', '.join(arrays) or 'none'}")
        images, labels = np.asarray(arrays["images"]), np.asarray(arrays["labels"])
    pictures = _as_bytes(images, path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: labels are {labels.dtype} {list(labels.shape)}; wanted integers [n]")
    if len(labels) != len(pictures):
        raise InputError(f"{path}: {len(pictures):,} images and {len(labels):,} labels")
    if len(labels) and (labels.min() < 0 or labels.max() >= len(labels)):
        raise InputError(f"{path}: labels from {labels.min()} to {labels.max()}; wanted are 0, 1, 2 …, one a class")
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
            "wanted [n, height, width], or a fourth axis of 1 or 3 channels, last or second"
        )
    if images.dtype.kind not in "fbiu":
        raise InputError(f"{path}: images are {images.dtype}; wanted are bytes, or floats from 0 to 1")
    if not images.size:
        raise InputError(f"{path}: images are {list(images.shape)}: there is none")
    least, most = images.min(), images.max()  # of NaN where there is one
    match images.dtype.kind:
        case "f":
            if np.isnan(least):
                raise InputError(f"{path}: {int(np.isnan(images).sum()):,} numbers of images are NaN")
            if least < 0 or most > 1:
                raise InputError(f"{path}: images from {least:g} to {most:g}; floats must be 0 to 1")
        case "i" | "u":
            if least < 0 or most > 255:
                raise InputError(f"{path}: images from {least} to {most}; integers must be 0 to 255")
    factor = 1 if images.dtype.kind in "iu" else 255
    pictures = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), BLOCK):  # floats of all pictures at once would need several times their memory
        block = images[start : start + BLOCK]
        pictures[start : start + BLOCK] = block if factor == 1 else np.rint(block * np.float64(factor))
    return pictures


# All of them


def with_own_test(
    train: tuple[Pictures, Labels], test: tuple[Pictures, Labels], names: tuple[str, ...], where: object
) -> Pool:
    """One pool of a training and a test set."""
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(
            f"{where}: training pictures are {list(train[0].shape[1:])}, test pictures {list(test[0].shape[1:])}"
        )
    pictures, labels = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])
    return checked(Pool(pictures, labels, names, own_test=len(test[1])), where)


def checked(pool: Pool, where: object) -> Pool:
    """The pool, if it can be trained on: two classes or more, each there, in pictures of at least one pixel."""
    if not pool.pictures.size:
        raise InputError(f"{where}: holds no picture")
    counts = np.bincount(pool.labels[pool.labels >= 0], minlength=len(pool.class_names))
    if pool.labels.min() < 0 or len(counts) > len(pool.class_names):
        allowed = f"0 to {len(pool.class_names) - 1}"
        raise InputError(f"{where}: labels from {pool.labels.min()} to {pool.labels.max()}; allowed are {allowed}")
    if len(counts) < 2:
        raise InputError(f"{where}: one class only ({pool.class_names[0]!r}); there is nothing to tell apart")
    if not counts.all():
        missing = pool.class_names[int(np.argmin(counts))]
        raise InputError(f"{where}: no picture of class {missing!r}; labels must be 0, 1, 2 …, one a class")
    if pool.own_test and not 0 < pool.own_test < len(pool.labels):
        raise InputError(f"{where}: {pool.own_test:,} of {len(pool.labels):,} pictures are for testing")
    # In the order of memory in which workers can share them.
    return dataclasses.replace(pool, pictures=np.ascontiguousarray(pool.pictures))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _gibibytes() -> str:
    return f"{MAX_BYTES / 2**30:.0f} GiB"
