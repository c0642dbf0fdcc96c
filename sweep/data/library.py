"""The data sets that this machine can read: found, read once, and kept as arrays in a cache."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sweep.common.atomic_files import replacing
from sweep.common.errors import InputError
from sweep.data import download, letters, splits
from sweep.data.download import NotHere
from sweep.data.formats import archives, arrays, cifar, idx, mat, trees
from sweep.data.pool import Pool
from sweep.data.splits import Data
from sweep.space import catalogue
from sweep.space.catalogue import CATALOGUE, Facts

CACHE_VERSION: Final = 1
"""Raised when the same files would be read to other arrays."""

EMBEDDED: Final = ("mnist5k", "digits")


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where a pool comes from: the files that it depends on, as far as they are there, and how to read them.

    `key` is its name in the cache, None where reading it is as fast; what is `lasting` stays there without its files.
    """

    root: Path
    files: list[Path]
    read: Callable[[], Pool]
    key: str | None
    lasting: bool = False

    def signature(self) -> str:
        """Stands for the names below `root`, the sizes and the times of change of the files."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(os.fsencode(os.path.relpath(path, self.root)))
            with contextlib.suppress(OSError):  # a link to nothing
                status = path.stat()
                digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}".encode())
            digest.update(b"\0\0")
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Listing:
    """A line of `sweep datasets`; sizes that depend on files which are not here are None."""

    name: str
    channels: int
    height: int
    width: int
    classes: int
    train: int | None
    validation: int | None
    test: int | None
    here: bool
    licence: str
    source: str


class Library:
    """The data sets below one folder, with the fonts that `letters` is rendered from.

    What is read once is kept as arrays in `cache/` for as long as its files stay as they are. Files that are missing
    are downloaded if `downloads` says so; else NotHere is raised.
    """

    def __init__(self, folder: Path, fonts: Path | None = None, downloads: bool = True) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--data-dir {folder}: is a file; wanted is a folder")
        if fonts is not None and not fonts.is_dir():
            raise InputError(f"--fonts {fonts}: there is no such folder")
        self.folder, self.fonts, self.downloads = folder, fonts, downloads
        self._last: tuple[tuple[str, int | None], Pool] | None = None

    def load(self, dataset: str, split: int = 0, image_size: int | None = None) -> Data:
        """The data set under one of its splits; its files are read, or downloaded, if need be.

        Raises NotHere where its files cannot be had, InputError where they are damaged or hold nothing to train on.
        """
        if dataset in EMBEDDED:
            return splits.load(dataset, split)
        return splits.divided(catalogue.kind(dataset), self.pool(dataset, image_size), split)

    def pool(self, dataset: str, image_size: int | None = None) -> Pool:
        """All pictures of a data set that is not embedded; the last one asked for is kept in memory."""
        if self._last is None or self._last[0] != (dataset, image_size):
            self._last = (dataset, image_size), self._read(self._source(dataset, image_size), catalogue.kind(dataset))
        return self._last[1]

    def facts(self, dataset: str, image_size: int | None = None) -> Facts:
        """What planning needs; reads files only where no constant can stand for them."""
        entry = CATALOGUE.get(dataset)
        if entry and entry.facts:
            return entry.facts
        about = self._about(self._source(dataset, image_size)) or _described(
            self.pool(dataset, image_size), catalogue.kind(dataset)
        )
        return Facts(about["fingerprint"], tuple(about["picture"]), about["classes"], about["sizes"][0])

    def here(self, dataset: str) -> bool:
        """Whether the data set can be read without a download; one with damaged files is here too."""
        if dataset in EMBEDDED:
            return True
        try:
            source = self._source(dataset, None)
            if dataset == "letters":
                self.facts(dataset)
        except NotHere:
            return False
        return len(source.files) >= len(download.FILES.get(dataset, "1")) or self._about(source) is not None

    def listing(self) -> list[Listing]:
        """Every named data set."""
        return [self._listed(name) for name in CATALOGUE]

    def _listed(self, name: str) -> Listing:
        entry, here = CATALOGUE[name], self.here(name)
        about = self._about(self._source(name, None)) if entry.train is None and here else None
        train, validation, test = about["sizes"] if about else (entry.train, entry.validation, entry.test)
        channels, height, width = entry.picture
        return Listing(
            name=name,
            channels=channels,
            height=height,
            width=width,
            classes=entry.classes,
            train=train,
            validation=validation,
            test=test,
            here=here,
            licence=entry.licence,
            source=entry.source,
        )

    def _source(self, dataset: str, image_size: int | None) -> _Source:
        path = Path(os.path.expanduser(catalogue.path_of(dataset) or ""))
        match catalogue.kind(dataset):
            case "folder":
                read = functools.partial(trees.picture_folder, path, image_size)
                if not path.is_dir():
                    raise NotHere(f"data set {dataset!r}: there is no folder {path}")
                key = f"folder-{_short(os.fsencode(path.absolute()), image_size)}"
                return _Source(path, _below(path), read, key)
            case "npz":
                if not path.is_file():
                    raise NotHere(f"data set {dataset!r}: there is no such file")
                return _Source(path.parent, [path], functools.partial(arrays.npz, path), None)
            case "letters":
                where = str(self.fonts or "the folders of this system")
                files = letters.fonts(self.fonts)
                return _Source(self.folder, files, lambda: letters.render(files, where), f"letters-{_short(where)}")
        read_public = functools.partial(self._read_public, dataset)
        return _Source(self.folder, self._files(dataset), read_public, dataset, lasting=True)

    def _files(self, dataset: str) -> list[Path]:
        """The files of a public set that are there; where its archive is not, those that it was unpacked to."""
        files = [self.folder / name for name in download.FILES[dataset] if (self.folder / name).exists()]
        unpacked = self.folder / download.UNPACKED.get(dataset, "?")
        if files or not unpacked.is_dir():
            return files
        return _below(unpacked) if dataset == "notmnist" else sorted(unpacked.iterdir())

    def _read_public(self, dataset: str) -> Pool:
        unpacked = self.folder / download.UNPACKED.get(dataset, "?")
        if unpacked.is_dir() and not (self.folder / download.FILES[dataset][0]).exists():
            if dataset == "notmnist":
                return trees.picture_folder(unpacked, None, letters.LETTERS)
            return self._read_unpacked_cifar(dataset)
        each = download.resources(dataset)
        files = [
            download.fetch(dataset, resource, self.folder, self.downloads, archives.check_tar) for resource in each
        ]
        match dataset:
            case "notmnist":
                try:
                    return trees.picture_archive(files[0], letters.LETTERS)
                except InputError as error:
                    raise InputError(f"{error}; remove it to have it downloaded again") from error
            case "emnist_letters":
                return idx.emnist_letters(files[0])
            case "svhn":
                return mat.svhn(files[0], files[1])
            case "cifar10" | "cifar100":
                return cifar.cifar_archive(files[0], download.cifar_layout(dataset))
        return idx.mnist(files)

    def _read_unpacked_cifar(self, dataset: str) -> Pool:
        layout, contents = download.cifar_layout(dataset), {}
        for name, checksum in layout.md5.items():
            file = self.folder / layout.folder / name
            if not file.is_file():
                raise InputError(
                    f"data set {dataset!r}: there is no {file}; remove {file.parent} to have it downloaded"
                )
            download.check(dataset, file, checksum)
            contents[name] = file.read_bytes()
        return cifar.cifar(contents, layout, self.folder / layout.folder)

    def _read(self, source: _Source, kind: str) -> Pool:
        """The pool out of the cache, or out of its files, and then into the cache."""
        kept = self._kept(source)
        if kept is not None:
            return kept
        pool = source.read()
        if source.key is not None:
            # Files that were downloaded just now are part of what the cache stands for.
            files = self._files(kind) if kind in download.FILES and not source.files else source.files
            about = _described(pool, kind) | {"signature": dataclasses.replace(source, files=files).signature()}
            path = self._cache(source.key)
            # A data folder that others own, or that is full: what is not kept is read again the next time.
            with contextlib.suppress(OSError, SafetensorError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary:
                    tensors: dict[str, NDArray[Any]] = {
                        "pictures": np.ascontiguousarray(pool.pictures),
                        "labels": pool.labels,
                    }
                    save_file(tensors, temporary, {"sweep": json.dumps(about)})
        return pool

    def _kept(self, source: _Source) -> Pool | None:
        about = self._about(source)
        if about is None or source.key is None:
            return None
        try:
            with safe_open(self._cache(source.key), framework="numpy") as file:
                pictures, labels = file.get_tensor("pictures"), file.get_tensor("labels")
        except (SafetensorError, OSError):
            return None
        pool = Pool(pictures, labels, tuple(about["class_names"]), about["own_test"], tuple(about["notes"]))
        return pool if pool.fingerprint == about["fingerprint"] else None

    def _about(self, source: _Source) -> dict[str, Any] | None:
        """What the cache says of a pool, if it is there and its files are still the same."""
        if source.key is None:
            return None
        try:
            with safe_open(self._cache(source.key), framework="numpy") as file:
                about: dict[str, Any] = json.loads((file.metadata() or {}).get("sweep", "{}"))
        except (SafetensorError, OSError, ValueError):
            return None
        if about.get("version") != CACHE_VERSION:
            return None
        gone = source.lasting and not source.files
        return about if gone or about["signature"] == source.signature() else None

    def _cache(self, key: str) -> Path:
        return self.folder / "cache" / f"{key}.safetensors"


def _described(pool: Pool, kind: str) -> dict[str, Any]:
    return {
        "version": CACHE_VERSION,
        "fingerprint": pool.fingerprint,
        "picture": pool.pictures.shape[1:],
        "classes": len(pool.class_names),
        "sizes": splits.sizes(kind, pool),
        "class_names": pool.class_names,
        "own_test": pool.own_test,
        "notes": pool.notes,
    }


def _below(root: Path) -> list[Path]:
    """The class folders and the pictures in them."""
    return [path for name, paths in trees.class_folders(root).items() for path in (root / name, *paths)]


def _short(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]
