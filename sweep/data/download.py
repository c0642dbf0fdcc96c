"""The files of public data sets: where they are to be had, their checksums, and getting them.

Addresses and checksums are torchvision's, and so is the layout below the data folder: a folder that torchvision has
filled is found as it is.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from sweep.common.errors import InputError

LEFT: Final = 24 * 3600.0
"""Age in seconds at which an unfinished download is removed."""

TIMEOUT: Final = 30.0
"""Seconds without a byte after which a download has failed."""

_IDX: Final = tuple(
    f"{part}-{content}-ubyte.gz" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1")
)

FILES: Final = {
    "notmnist": ("notMNIST_small.tar.gz",),
    "mnist": tuple(f"MNIST/raw/{name}" for name in _IDX),
    "fashion_mnist": tuple(f"FashionMNIST/raw/{name}" for name in _IDX),
    "kmnist": tuple(f"KMNIST/raw/{name}" for name in _IDX),
    "emnist_letters": ("EMNIST/raw/gzip.zip",),
    "svhn": ("train_32x32.mat", "test_32x32.mat"),
    "cifar10": ("cifar-10-python.tar.gz",),
    "cifar100": ("cifar-100-python.tar.gz",),
}
"""The files of every set that is downloaded, below the data folder, in the order in which its reader takes them."""

UNPACKED: Final = {"notmnist": "notMNIST_small", "cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
"""The folders that archives unpack to, which serve as well."""

NOTMNIST: Final = ("https://commondatastorage.googleapis.com/books1000/", "http://yaroslavvb.com/upload/notMNIST/")
"""Folders that notMNIST's archive was published in."""


class NotHere(InputError):
    """The files of a data set are not on this machine."""


@dataclasses.dataclass(frozen=True)
class Resource:
    """One file: its place below the data folder, its addresses, and its MD5 (None: several copies circulate)."""

    path: str
    urls: tuple[str, ...]
    md5: str | None


def resources(dataset: str) -> tuple[Resource, ...]:
    """The `FILES` of a data set with their addresses and checksums."""
    paths = FILES[dataset]
    if dataset == "notmnist":
        return (Resource(paths[0], tuple(folder + paths[0] for folder in NOTMNIST), None),)
    known: Any = _torchvision()
    match dataset:
        case "mnist" | "fashion_mnist" | "kmnist":
            cls = {"mnist": known.MNIST, "fashion_mnist": known.FashionMNIST, "kmnist": known.KMNIST}[dataset]
            found = [(tuple(mirror + name for mirror in cls.mirrors), md5) for name, md5 in cls.resources]
        case "emnist_letters":
            found = [((known.EMNIST.url,), known.EMNIST.md5)]
        case "svhn":
            parts = (known.SVHN.split_list[part] for part in ("train", "test"))
            found = [((url,), md5) for url, _, md5 in parts]
        case _:
            cls = _cifar(dataset)
            found = [((cls.url,), cls.tgz_md5)]
    return tuple(Resource(path, urls, md5) for path, (urls, md5) in zip(paths, found, strict=True))


@dataclasses.dataclass(frozen=True)
class CifarLayout:
    """The folder inside CIFAR's archive, and its files: batches for training and testing, and the classes' names."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    md5: dict[str, str]


def cifar_layout(dataset: str) -> CifarLayout:
    """Which files `cifar10` or `cifar100` consists of."""
    cls = _cifar(dataset)
    train, test = ([name for name, _ in part] for part in (cls.train_list, cls.test_list))
    checksums = dict([*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])])
    return CifarLayout(cls.base_folder, tuple(train), tuple(test), cls.meta["filename"], checksums)


def check(dataset: str, file: Path, wanted: str | None) -> None:
    """Raises InputError if the file has another checksum than it should."""
    if wanted and (found := md5(file)) != wanted:
        raise InputError(
            f"data set {dataset!r}: {file} is truncated or altered (MD5 {found}, wanted {wanted}); "
            "remove it to have it downloaded again"
        )


def fetch(
    dataset: str, resource: Resource, data_dir: Path, download: bool, whole: Callable[[Path], None] = lambda _: None
) -> Path:
    """The file of a resource, checked against its checksum, downloaded if need be and `download` says so.

    `whole` raises InputError where a file that has no checksum did not come whole. Raises NotHere where the file cannot
    be had, InputError where what lies there is another one.
    """
    target = data_dir / resource.path
    if target.exists():
        check(dataset, target, resource.md5)
        return target
    tried = [f"{url}: {_downloaded(url, resource, target, whole)}" for url in resource.urls] if download else []
    if target.exists():
        return target
    checksum = f" (MD5 {resource.md5})" if resource.md5 else ""
    if download:
        raise NotHere(
            f"data set {dataset!r}: {target.name} could not be downloaded ({'; '.join(tried)}). "
            f"Get it by hand and put it at {target}{checksum}"
        )
    raise NotHere(
        f"data set {dataset!r} is not here: there is no {target}{checksum}; "
        f"sweep datasets --download {dataset} gets it from {resource.urls[0]}"
    )


def _downloaded(url: str, resource: Resource, target: Path, whole: Callable[[Path], None]) -> str:
    """Tries one address, unless an earlier one has served; returns what went wrong."""
    from torchvision.datasets.utils import download_url

    if target.exists():
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".download-*"):
        if time.time() - left.stat().st_mtime > LEFT:  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    elsewhere = Path(tempfile.mkdtemp(prefix=".download-", dir=target.parent))
    try:
        with _timeout(TIMEOUT):
            download_url(url, elsewhere, target.name, resource.md5)
        if resource.md5 is None:
            whole(elsewhere / target.name)
        os.replace(elsewhere / target.name, target)
    except InputError as error:
        return str(error).replace(str(elsewhere / target.name), "what came")
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        partly = (elsewhere / target.name).exists()
        return "what came has another checksum" if partly and isinstance(error, RuntimeError) else str(error)
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
    return ""


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def md5(path: Path) -> str:
    """The MD5 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _torchvision() -> Any:
    """torchvision's data sets; importing them takes seconds."""
    from torchvision import datasets

    return datasets


def _cifar(dataset: str) -> Any:
    return getattr(_torchvision(), {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[dataset])
