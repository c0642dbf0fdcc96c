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

from sweep.common import addresses
from sweep.common.atomic_files import replacing
from sweep.common.errors import InputError
from sweep.data import download, letters, splits
from sweep.data.download import NotHere
from sweep.data.formats import archives, arrays, folders, trees
from sweep.data.pool import Pool
from sweep.data.readers import OF_FOLDERS, READERS
from sweep.data.splits import Data
from sweep.space import catalogue
from sweep.space.catalogue import CATALOGUE, Facts, Source

CACHE_VERSION: Final = 1
"""Incremented when the same files would be read into different arrays."""

READINGS: Final = {"folder": 3}
"""Likewise for a single kind of data set; 1 for all others."""


@dataclasses.dataclass(frozen=True)
class _Input:
    """What a pool is made from: those of its files that exist, and how to read them.

    `key` is its name in the cache, None if reading it is as fast; a `lasting` one stays cached without its files.
    """

    kind: str
    root: Path
    files: list[Path]
    read: Callable[[], Pool]
    key: str | None
    lasting: bool = False

    def signature(self) -> str:
        """A digest of the file names below `root` and of each file's status: a file that was moved counts as changed.

        Unlike the modification time, the change time cannot be set by users.
        """
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(os.fsencode(os.path.relpath(path, self.root)))
            with contextlib.suppress(OSError):  # a broken link
                status = path.stat()
                known = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
                digest.update(repr(known).encode())
            digest.update(b"\0\0")
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Verified:
    """A data set that was read again: its fingerprint, and that of the cached copy (None if there was none)."""

    name: str
    fingerprint: str
    kept: str | None


@dataclasses.dataclass(frozen=True)
class Listing:
    """A line of `sweep datasets`; sizes that depend on files that are not here are None."""

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

    Once read, a data set is kept as arrays in `cache/` until its files change. Missing files are downloaded if
    `downloads` is set; otherwise NotHere is raised.
    """

    def __init__(self, folder: Path, fonts: Path | None = None, downloads: bool = True) -> None:
        folder = addresses.local(folder, "--data-dir")
        fonts = None if fonts is None else addresses.local(fonts, "--fonts")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--data-dir {folder}: is a file; expected a folder")
        if fonts is not None and not fonts.is_dir():
            raise InputError(f"--fonts {fonts}: there is no such folder")
        self.folder, self.fonts, self.downloads = folder, fonts, downloads
        self._last: tuple[tuple[str, int | None], Pool] | None = None

    def load(self, dataset: str, split: int = 0, image_size: int | None = None) -> Data:
        """The data set under one of its splits; its files are read, or downloaded, if necessary.

        Raises NotHere if its files cannot be obtained, InputError if they are damaged or hold nothing to train on.
        """
        if catalogue.embedded(dataset):
            return splits.load(dataset, split)
        return splits.divided(catalogue.kind(dataset), self.pool(dataset, image_size), split)

    def pool(self, dataset: str, image_size: int | None = None) -> Pool:
        """All pictures of a data set that is not embedded; the last one asked for is kept in memory."""
        if self._last is None or self._last[0] != (dataset, image_size):
            self._last = (dataset, image_size), self._read(self._input(dataset, image_size))
        return self._last[1]

    def facts(self, dataset: str, image_size: int | None = None) -> Facts:
        """What planning needs; reads files only if the catalogue has no constant for it."""
        source = CATALOGUE.get(dataset)
        if source and source.facts:
            return source.facts
        about = self._about(self._input(dataset, image_size)) or _described(
            self.pool(dataset, image_size), catalogue.kind(dataset)
        )
        return Facts(about["fingerprint"], tuple(about["picture"]), about["classes"], about["sizes"][0])

    def here(self, dataset: str) -> bool:
        """Whether the data set can be read without a download; True even if its files are damaged."""
        if catalogue.embedded(dataset):
            return True
        named = CATALOGUE.get(dataset)
        try:
            found = self._input(dataset, None)
            if named and not named.files:
                self.facts(dataset)  # there may be too few fonts
        except NotHere:
            return False
        wanted = len(named.files) if named and named.files else 1
        return len(found.files) >= wanted or self._about(found) is not None

    def verify(self, dataset: str, image_size: int | None = None) -> Verified:
        """Reads the files, even if they seem unchanged, and replaces their cached copy.

        Raises what `load` does, and InputError if a stale cache cannot be replaced.
        """
        if catalogue.embedded(dataset):
            fingerprint = splits.load(dataset).fingerprint
            return Verified(dataset, fingerprint, CATALOGUE[dataset].identity)
        found = self._input(dataset, image_size)
        before = self._cached(found)
        pool = self._read_anew(found)
        after = self._about(found)
        if found.key and after and after["fingerprint"] != pool.fingerprint:
            raise InputError(f"{self._cache(found.key)}: is stale and cannot be replaced; remove it")
        self._last = (dataset, image_size), pool
        return Verified(dataset, pool.fingerprint, before["fingerprint"] if before else None)

    def listing(self) -> list[Listing]:
        """Every named data set."""
        return [self._listed(name) for name in CATALOGUE]

    def _listed(self, name: str) -> Listing:
        source, here = CATALOGUE[name], self.here(name)
        about = self._about(self._input(name, None)) if source.train is None and here else None
        train, validation, test = about["sizes"] if about else (source.train, source.validation, source.test)
        channels, height, width = source.picture
        return Listing(
            name=name,
            channels=channels,
            height=height,
            width=width,
            classes=source.classes,
            train=train,
            validation=validation,
            test=test,
            here=here,
            licence=source.licence,
            source=source.origin,
        )

    def _input(self, dataset: str, image_size: int | None) -> _Input:
        path = Path(os.path.expanduser(catalogue.path_of(dataset) or ""))
        match catalogue.kind(dataset):
            case "folder":
                if not path.is_dir():
                    is_file = "is a file; expected a folder (unpack an archive first)"
                    why = f"{path} {is_file}" if path.exists() else f"there is no folder {path}"
                    raise NotHere(f"data set {dataset!r}: {why}")
                key = f"folder-{_short(os.fsencode(path.absolute()), image_size)}"
                tree = folders.scan(path)
                return _Input("folder", path, tree.all_of_it(), functools.partial(trees.pool_of, tree, image_size), key)
            case "npz":
                if not path.is_file():
                    why = f"{path} is a folder; expected a file" if path.is_dir() else f"there is no file {path}"
                    raise NotHere(f"data set {dataset!r}: {why}")
                return _Input("npz", path.parent, [path], functools.partial(arrays.npz, path), None)
        if CATALOGUE[dataset].format == "fonts":
            where = str(self.fonts or "the folders of this system")
            files = letters.fonts(self.fonts)
            key = f"{dataset}-{_short(where)}"
            return _Input(dataset, self.folder, files, lambda: letters.render(files, where), key)
        read_public = functools.partial(self._read_public, dataset)
        return _Input(dataset, self.folder, self._files(CATALOGUE[dataset]), read_public, dataset, lasting=True)

    def _files(self, source: Source) -> list[Path]:
        """The existing files of a public set; without its archive, those that it was unpacked to."""
        files = [self.folder / each.path for each in source.files if (self.folder / each.path).exists()]
        unpacked = self._unpacked(source)
        if unpacked is None:
            return files
        flat = source.unpacked is not None and source.unpacked.files
        return sorted(unpacked.iterdir()) if flat else folders.scan(unpacked).all_of_it()

    def _unpacked(self, source: Source) -> Path | None:
        """The folder that a set's archive was unpacked to, if it exists and the archive does not."""
        if source.unpacked is None or (self.folder / source.files[0].path).exists():
            return None
        folder = self.folder / source.unpacked.folder
        return folder if folder.is_dir() else None

    def _read_public(self, dataset: str) -> Pool:
        source = CATALOGUE[dataset]
        unpacked = self._unpacked(source)
        if unpacked is not None:
            return self._read_unpacked(dataset, source, unpacked)
        whole = archives.check_tar
        files = [download.fetch(dataset, each, self.folder, self.downloads, whole) for each in source.files]
        try:
            return READERS[source.format](source, files)
        except InputError as error:
            if all(each.md5 for each in source.files):
                raise
            raise InputError(f"{error}; remove it to download it again") from error

    def _read_unpacked(self, dataset: str, source: Source, folder: Path) -> Pool:
        for name, checksum in source.unpacked.files if source.unpacked else ():
            file = folder / name
            if not file.is_file():
                raise InputError(f"data set {dataset!r}: there is no {file}; remove {folder} to download it again")
            download.check(dataset, file, checksum)
        return OF_FOLDERS[source.format](source, folder)

    def _read(self, found: _Input) -> Pool:
        """The pool from the cache, or from its files, in which case it is cached."""
        kept = self._kept(found)
        return self._read_anew(found) if kept is None else kept

    def _read_anew(self, found: _Input) -> Pool:
        signature = found.signature()  # before reading, since the files may change meanwhile
        pool = found.read()
        if found.key is not None:
            if found.lasting and found.files != (files := self._files(CATALOGUE[found.kind])):  # downloaded just now
                signature = dataclasses.replace(found, files=files).signature()
            about = _described(pool, found.kind) | {"signature": signature}
            path = self._cache(found.key)
            # The data folder may be read-only or full: without a cached copy, files are read again next time.
            with contextlib.suppress(OSError, SafetensorError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary:
                    tensors: dict[str, NDArray[Any]] = {
                        "pictures": np.ascontiguousarray(pool.pictures),
                        "labels": pool.labels,
                    }
                    save_file(tensors, temporary, {"sweep": json.dumps(about)})
        return pool

    def _kept(self, found: _Input) -> Pool | None:
        about = self._about(found)
        if about is None or found.key is None:
            return None
        try:
            with safe_open(self._cache(found.key), framework="numpy") as file:
                pictures, labels = file.get_tensor("pictures"), file.get_tensor("labels")
        except (SafetensorError, OSError):
            return None
        pool = Pool(pictures, labels, tuple(about["class_names"]), about["own_test"], tuple(about["notes"]))
        return pool if pool.fingerprint == about["fingerprint"] else None

    def _about(self, found: _Input) -> dict[str, Any] | None:
        """The metadata of a cached pool, if it is cached and its files are unchanged."""
        about, gone = self._cached(found), found.lasting and not found.files
        return about if about and (gone or about.get("signature") == found.signature()) else None

    def _cached(self, found: _Input) -> dict[str, Any] | None:
        """The metadata of a cached pool, even if its files have changed."""
        if found.key is None:
            return None
        try:
            with safe_open(self._cache(found.key), framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get("sweep", "{}"))
        except (SafetensorError, OSError, ValueError):
            return None
        known = isinstance(about, dict) and (about.get("version"), about.get("reading", 1))
        return about if known == (CACHE_VERSION, READINGS.get(found.kind, 1)) else None

    def _cache(self, key: str) -> Path:
        return self.folder / "cache" / f"{key}.safetensors"


def _described(pool: Pool, kind: str) -> dict[str, Any]:
    return {
        "version": CACHE_VERSION,
        "reading": READINGS.get(kind, 1),
        "fingerprint": pool.fingerprint,
        "picture": pool.pictures.shape[1:],
        "classes": len(pool.class_names),
        "sizes": splits.sizes(kind, pool),
        "class_names": pool.class_names,
        "own_test": pool.own_test,
        "notes": pool.notes,
    }


def _short(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]
