"""Merges small files of a store into larger ones, while others read and write.

A merged file is written and read back before any file that it was made of is removed. Its name is a hash of what it
holds, so that it is never written with other content, and what was made of it always holds more: whatever dies, and
however many do this at once, every row stands in at least one file. Rows that stand in two for a while are the same.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.common.errors import InputError
from sweep.store import leases, merged_files
from sweep.store.rows import CURVES_SCHEMA, RUNS_SCHEMA, SCHEMA_VERSION, Store

SMALL: Final = 8 * 2**20
"""Bytes below which a file is merged with others."""

TARGET: Final = 16 * 2**20
"""Bytes of rows that are enough for one file."""

LEASE: Final = "compact"
"""The lease of who merges; only spares double work."""

ROUNDS: Final = 20
"""Times that the files are listed anew because somebody else removed some of them meanwhile."""

READERS: Final = 8
"""Files that are read at once."""

_EXAMPLES: Final = b"validation_examples"

T = TypeVar("T")


class Part(NamedTuple):
    """One writing of an array: files with the same part hold the same rows."""

    array_id: str
    written: int
    """Microseconds since 1970."""


@dataclasses.dataclass(frozen=True)
class Compaction:
    """What was done: files of rows and curves before and after, rows in the store; `busy`: somebody else is at it."""

    files_before: int
    files_after: int
    rows: int
    seconds: float
    busy: bool = False


class _Gone(Exception):
    """A file that was listed is not there any more."""


def compact(store: Store, told: Callable[[str], None] = lambda words: None) -> Compaction:
    """Merges the small files of `runs/` and `curves/`; `told` hears of each merged file.

    Raises InputError where a file was damaged, OSError where the store fails; every row is there in any case, and the
    next call goes on.
    """
    started = time.monotonic()
    before = _count(store)
    if not before:
        return Compaction(0, 0, 0, time.monotonic() - started)
    with leases.taken(store.place, LEASE) as mine:
        if not mine:
            return Compaction(before, before, 0, time.monotonic() - started, busy=True)
        for kind in ("runs", "curves"):
            store.place.clear_temporaries(kind)
        rows = _settled(store, told)
    return Compaction(before, _count(store), rows, time.monotonic() - started)


def _settled(store: Store, told: Callable[[str], None]) -> int:
    """Merges until a listing holds still; returns the rows."""
    for _ in range(ROUNDS):
        try:
            return _round(store, told)
        except _Gone:
            continue
    raise InputError(f"{store.address}: others remove files as fast as they are listed; try again later")


def _round(store: Store, told: Callable[[str], None]) -> int:
    files = dict(_each(lambda name: _parts(store, name), store.place.files("runs", ".parquet")))
    _tell(store, files)
    for name in _covered(files):
        store.place.remove(name)
        del files[name]
    for group in list(_groups(store.place.sizes("runs", ".parquet"), files)):
        name = _merge(store, group)
        files = {other: parts for other, parts in files.items() if other not in group}
        files[name] = _parts(store, name)
        _tell(store, files)
        for folder in ("runs", "curves"):
            gone = [f"{folder}/{PurePosixPath(each).name}" for each in group if each != name]
            list(_each(store.place.remove, gone))
        told(f"{len(group):,} files of rows merged into {store.place.path(name)}")
    _clear_curves(store, files)
    return sum(sum(parts.values()) for parts in files.values())


def _tell(store: Store, files: Mapping[str, Mapping[Part, int]]) -> None:
    """Keeps the index: before anything is removed, it says that files were merged."""
    index = {
        name: sorted({part.array_id for part in parts}) for name, parts in files.items() if merged_files.is_merged(name)
    }
    if index and merged_files.index(store.place) != index:
        store.place.write(merged_files.INDEX, json.dumps(index).encode())


def _covered(files: Mapping[str, Mapping[Part, int]]) -> list[str]:
    """Files whose every part another, larger file holds: left behind by somebody who died while removing them.

    One other file, strictly larger: two who did this at once by sums of files could remove each other's proof.
    """
    holders: dict[Part, list[str]] = {}
    for name, parts in files.items():
        for part in parts if merged_files.is_merged(name) else ():
            holders.setdefault(part, []).append(name)
    return [
        name
        for name, parts in files.items()
        if parts and any(parts.keys() < files[other].keys() for other in holders.get(next(iter(parts)), ()))
    ]


def _groups(sizes: Mapping[str, int], files: Mapping[str, Mapping[Part, int]]) -> Iterator[list[str]]:
    """Small files to be merged, by name; at least two at a time."""
    group: list[str] = []
    for name in sorted(name for name, size in sizes.items() if size < SMALL and name in files):
        group.append(name)
        if sum(sizes[each] for each in group) >= TARGET:
            yield group
            group = []
    if len(group) > 1:
        yield group


def _merge(store: Store, names: list[str]) -> str:
    """Makes one file of rows and one of curves out of several; returns the rows' name."""
    rows = _rows(store, names)
    digest = hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:20]
    file = f"{merged_files.PREFIX}{digest}.parquet"
    curves = _curves(store, names)
    # The rows come last, as in any writing; and both are there for certain before anything goes.
    _write(store, f"curves/{file}", CURVES_SCHEMA, {part: curves.pop(part.array_id, None) for part in rows})
    _write(store, f"runs/{file}", RUNS_SCHEMA, rows)
    return f"runs/{file}"


def _rows(store: Store, names: list[str]) -> dict[Part, pa.Table]:
    """The rows of some files by part, in the order of parts."""
    found: dict[Part, pa.Table] = {}
    for name, table in _each(lambda name: _table(store, name, RUNS_SCHEMA), names):
        for array_id, rows in merged_files.split(merged_files.parts(name, table), table):
            found[Part(array_id, _written(rows))] = rows
    return dict(sorted(found.items()))


def _curves(store: Store, names: list[str]) -> dict[str, pa.Table]:
    """The curves that belong to some files of rows, by array; arrays without curves are left out."""

    def read(name: str) -> pa.Table | None:
        try:
            return _table(store, f"curves/{PurePosixPath(name).name}", CURVES_SCHEMA)
        except _Gone:
            # Rows go before curves do: where they are still there, curves never were, or were lost.
            if not store.exists(name):
                raise
            return None

    found: dict[str, pa.Table] = {}
    for name, table in _each(read, names):
        for array_id, own in merged_files.split(merged_files.parts(name, table), table) if table is not None else ():
            if len(own):
                found.setdefault(array_id, own.replace_schema_metadata(_examples(table, array_id)))
    return found


def _write(store: Store, name: str, schema: pa.Schema, tables: Mapping[Part, pa.Table | None]) -> None:
    """Writes a merged file and reads it back; OSError where something else comes back."""
    arrays = [
        [part.array_id, 0 if table is None else len(table), part.written, None if table is None else _counted(table)]
        for part, table in tables.items()
    ]
    metadata = {b"schema_version": str(SCHEMA_VERSION), merged_files.ARRAYS: json.dumps(arrays)}
    there = [table.replace_schema_metadata(None) for table in tables.values() if table is not None]
    whole = pa.concat_tables([schema.remove_metadata().empty_table(), *there]).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink, compression="zstd")
    store.place.write(name, sink.getvalue())
    store.place.settle(name.partition("/")[0])
    back = _table(store, name, schema)
    if not back.equals(whole) or back.schema.metadata[merged_files.ARRAYS] != metadata[merged_files.ARRAYS].encode():
        raise OSError(f"{store.place.path(name)}: what was written is not what is read; nothing was removed")


def _clear_curves(store: Store, files: Mapping[str, Mapping[Part, int]]) -> None:
    """Removes curves that a merged file holds too, where their file of rows is gone: a removal broke off.

    Of merged files only such as hold less than another one, as with rows: somebody may be about to write the rows.
    """
    there = store.place.files("curves", ".parquet")
    alone = [name for name in there if f"runs/{PurePosixPath(name).name}" not in files]
    if not alone:
        return
    tables = _each(
        lambda name: _table(store, name, CURVES_SCHEMA, ["run_id"]), list(filter(merged_files.is_merged, there))
    )
    arrays = {name: json.loads(table.schema.metadata[merged_files.ARRAYS]) for name, table in tables}
    parts = {name: {Part(array_id, written) for array_id, _, written, _ in own} for name, own in arrays.items()}
    drawn = {name: {array_id for array_id, rows, *_ in own if rows} for name, own in arrays.items()}
    for name in alone:
        if name in parts:
            others = [other for other in parts.keys() - set(alone) if parts[name] < parts[other]]
            superfluous = any(drawn[name] <= drawn[other] for other in others)
        else:
            superfluous = any(PurePosixPath(name).stem in own for own in drawn.values())
        if superfluous:
            store.place.remove(name)


def _parts(store: Store, name: str) -> dict[Part, int]:
    """The parts of a file of rows, each with its number of rows."""
    table = _table(store, name, RUNS_SCHEMA, ["finished_at"])
    return {
        Part(array_id, _written(rows)): len(rows)
        for array_id, rows in merged_files.split(merged_files.parts(name, table), table)
        if len(rows)
    }


def _each(read: Callable[[str], T], names: list[str]) -> Iterator[tuple[str, T]]:
    """What `read` makes of each file; several are read at once, since an object store answers late."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from zip(names, pool.map(read, names), strict=True)


def _table(store: Store, name: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    try:
        return store.table(name, columns or schema.names, schema)
    except FileNotFoundError:
        raise _Gone from None


def _written(rows: pa.Table) -> int:
    """When an array was written; one moment for all its rows."""
    return int(pc.max(rows["finished_at"]).cast(pa.int64()).as_py() or 0)


def _counted(table: pa.Table) -> int | None:
    """How many validation pictures the points of a curve are of; None for rows, and where it is not known."""
    given = (table.schema.metadata or {}).get(_EXAMPLES)
    return int(given) if given else None


def _examples(table: pa.Table, array_id: str) -> dict[bytes, Any]:
    metadata = table.schema.metadata or {}
    if merged_files.ARRAYS in metadata:
        counts = {each[0]: each[3] for each in json.loads(metadata[merged_files.ARRAYS])}
        return {} if counts.get(array_id) is None else {_EXAMPLES: str(counts[array_id])}
    return {_EXAMPLES: metadata[_EXAMPLES]} if _EXAMPLES in metadata else {}


def _count(store: Store) -> int:
    return sum(len(store.place.files(kind, ".parquet")) for kind in ("runs", "curves"))
