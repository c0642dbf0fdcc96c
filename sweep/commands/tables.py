"""Tables from elsewhere: where their files lie, and where their report goes."""

import dataclasses
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from sweep.common import addresses
from sweep.common.errors import InputError
from sweep.store.storage import Place

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES: Final = (".parquet", ".csv", ".tsv")
KEPT: Final = ("runs", "curves", "sweeps", "leases", "failures", "checkpoints", "looks", "trackers")
"""Folders of a store, whatever is in them being read, counted or removed."""


def is_table(what: str) -> bool:
    """Whether this is, or is meant as, an address of a table rather than the name of a sweep."""
    if not what.strip() or "://" in what:
        return True
    return Path(what).suffix.lower() in SUFFIXES or os.path.exists(os.path.expanduser(what))


def load(what: str) -> "pd.DataFrame":
    """The checked rows of a table: a file or a folder of Parquet files, here or below `s3://` or `gs://`."""
    from analysis.run_table import load_files

    local = _local(what)
    return load_files(what, _fetched(what)) if local is None else load_files(local)


def report_folder(what: str) -> Path:
    """Where the report of a table goes: beside it, or here where it lies far away or among the files of a store."""
    local, name = _local(what), f"{stem(what)}-report"
    beside = local.with_name(name) if local is not None and local.name not in ("", "..") else Path(name)
    folder = beside if store_around(beside) is None else Path(name)
    refuse_store(folder, f"{what}: --out is needed, here")
    return folder


def stem(what: str) -> str:
    """The name of a table without its suffix, which a report can print."""
    local = _local(what)
    path = PurePosixPath(_there(what)[1] if local is None else os.path.abspath(local))
    return path.stem.encode("utf-8", "replace").decode()


def store_around(path: Path) -> Path | None:
    """The store that a file or folder would lie in, among what it keeps; its `reports/` are for people."""
    path = Path(os.path.abspath(path))
    for folder in path.parents:
        if path.relative_to(folder).parts[0] in KEPT and sum((folder / name).is_dir() for name in KEPT) > 1:
            return folder
    return None


def refuse_store(path: Path, where: str) -> None:
    """Raises InputError where what is to be written, as `where` says, would lie among the files of a store."""
    store = store_around(path)
    if store is not None:
        raise InputError(f"{where}: lies among the files of the store {store}, which are read as such; name another")


def _local(what: str) -> Path | None:
    """The path of a table on this machine, as it was given."""
    address = addresses.parse(what, "report", addresses.STORES)
    return None if address.local is None else addresses.local(what, "report")


def _there(what: str) -> tuple[str, str]:
    """The address of the folder that a table lies in, options and all, and the table's name there."""
    address = addresses.parse(what, "report", addresses.STORES)
    folder, _, name = address.path.rpartition("/")
    if not name:
        raise InputError(f"report {address.below()}: names a bucket, and no table in it")
    return str(dataclasses.replace(address, path=folder)), name


def _fetched(what: str) -> dict[str, Path | bytes]:
    folder, name = _there(what)
    place = Place(folder)
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        try:
            return {name: place.read(name)}
        except FileNotFoundError as error:
            raise InputError(f"{place.path(name)}: no such file") from error
    files = place.files(name, ".parquet")
    return {PurePosixPath(file).name: place.read(file) for file in files if PurePosixPath(file).name[0] not in "._"}
