"""Merges small files of a store into larger ones, while others read and write.

A merged file is written and read back before any file that it was made of is removed. Its name is a hash of its
content, so it never changes, and a file that it is later merged into always holds more. So every row is in at least one
file, whatever dies and however many processes merge at once. Rows that are in two files for a while are identical.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.common.errors import InputError
from sweep.store import leases, merged_files
from sweep.store.merged_files import Part
from sweep.store.rows import Read, Store
from sweep.store.tables import CURVES_SCHEMA, RUNS_SCHEMA, SCHEMA_VERSION

SMALL: Final = 8 * 2**20
"""Bytes below which a file is merged with others."""

TARGET: Final = 16 * 2**20
"""Bytes at which a merged file is large enough."""

LEASE: Final = "compact"
"""The lease of the process that merges; it only avoids duplicate work."""

ROUNDS: Final = 20
"""How often the files are listed again because another process removed some in the meantime."""

READERS: Final = 8
"""Files read at once."""

_EXAMPLES: Final = b"validation_examples"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Compaction:
    """Files of rows and curves before and after, and rows in the store; `busy`: another process is already merging."""

    files_before: int
    files_after: int
    rows: int
    seconds: float
    busy: bool = False


class _Gone(Exception):
    """A file that was listed no longer exists."""


class _NotToMerge(Exception):
    """Files of rows that stay as they are because they, or their curves, are damaged."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def compact(store: Store, told: Callable[[str], None] = lambda words: None) -> Compaction:
    """Merges the small files of `runs/` and `curves/`; `told` is called with a line for each merged file.

    Damaged files are named and left as they are. Raises OSError if the store fails; no row is lost, and the next call
    continues.
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
    """Merges until no file disappears meanwhile; returns the number of rows."""
    for _ in range(ROUNDS):
        try:
            return _round(store, told)
        except _Gone:
            continue
    raise InputError(f"{store.address}: other processes keep removing files while they are listed; try again later")


def _round(store: Store, told: Callable[[str], None]) -> int:
    listed = store.files("runs", ".parquet")
    files = {name: parts for name, parts in _each(lambda name: _parts(store, name), listed) if parts is not None}
    damaged = {name for name in store.damaged if name.startswith("runs/")}
    _tell(store, files)
    for name, holders in _covered(files).items():
        # Only the times of the holders' rows have been read so far.
        if any(store.is_sound(holder, RUNS_SCHEMA) for holder in holders):
            store.place.remove(name)
            del files[name]
    for group in list(_groups(store.place.sizes("runs", ".parquet"), files)):
        merged = _merged(store, group)
        if merged is None:
            continue
        files = {other: parts for other, parts in files.items() if other not in group}
        files[merged] = _parts(store, merged) or {}
        _tell(store, files)
        for folder in ("runs", "curves"):
            gone = [f"{folder}/{PurePosixPath(each).name}" for each in group if each != merged]
            list(_each(store.place.remove, gone))
        told(f"{len(group):,} files of rows merged into {store.place.path(merged)}")
    _clear_curves(store, files.keys() | damaged)
    return sum(sum(parts.values()) for parts in files.values())


def _tell(store: Store, files: Mapping[str, Mapping[Part, int]]) -> None:
    """Updates the index: it names the merged files before anything is removed."""
    index = {
        name: sorted({part.array_id for part in parts}) for name, parts in files.items() if merged_files.is_merged(name)
    }
    if index and merged_files.index(store.place) != index:
        store.place.write(merged_files.INDEX, json.dumps(index).encode())


def _covered(files: Mapping[str, Mapping[Part, int]]) -> dict[str, list[str]]:
    """Files whose every part is in one larger file, with those larger files: left behind by a process that died while
    removing them.

    One file has to hold all parts: with unions of files, two processes could each remove what the other relies on.
    """
    holders: dict[Part, list[str]] = {}
    for name, parts in files.items():
        for part in parts if merged_files.is_merged(name) else ():
            holders.setdefault(part, []).append(name)
    larger = {
        name: [other for other in holders.get(next(iter(parts)), ()) if parts.keys() < files[other].keys()]
        for name, parts in files.items()
        if parts
    }
    return {name: others for name, others in larger.items() if others}


def _groups(sizes: Mapping[str, int], files: Mapping[str, Mapping[Part, int]]) -> Iterator[list[str]]:
    """Groups of small files to merge, in order of name; at least two each."""
    group: list[str] = []
    for name in sorted(name for name, size in sizes.items() if size < SMALL and name in files):
        group.append(name)
        if sum(sizes[each] for each in group) >= TARGET:
            yield group
            group = []
    if len(group) > 1:
        yield group


def _merged(store: Store, group: list[str]) -> str | None:
    """The name of the merged file, None if nothing was merged; files that cannot be are removed from `group`."""
    while len(group) > 1:
        try:
            return _merge(store, group)
        except _NotToMerge as stay:
            group[:] = [name for name in group if name not in stay.names]
    return None


def _merge(store: Store, names: list[str]) -> str | None:
    """Merges files of rows and their curves into one each; returns the rows' file, None if the name is not free."""
    rows = _rows(store, names)
    file = merged_files.name_of(rows)
    curves = _curves(store, names)
    if not (store.is_free(f"curves/{file}", CURVES_SCHEMA) and store.is_free(f"runs/{file}", RUNS_SCHEMA)):
        return None
    # The rows come last, as in every write; both are safely on disk before anything is removed.
    _write(store, f"curves/{file}", CURVES_SCHEMA, {part: curves.pop(part.array_id, None) for part in rows})
    _write(store, f"runs/{file}", RUNS_SCHEMA, rows)
    return f"runs/{file}"


def _rows(store: Store, names: list[str]) -> dict[Part, pa.Table]:
    """The rows of some files by part, sorted by part."""
    found: dict[Part, pa.Table] = {}
    for array_id, rows, _ in _sound(_each(lambda name: _read(store, name, RUNS_SCHEMA), names)):
        found[Part(array_id, merged_files.written(rows))] = rows
    return dict(sorted(found.items()))


def _sound(read: Iterable[tuple[str, Read | None]]) -> Iterator[tuple[str, pa.Table, pa.Table]]:
    """Each array, its rows, and the whole table; finally raises _NotToMerge if any file was damaged."""
    damaged = set()
    for name, found in read:
        if found is None:
            damaged.add(name)
        else:
            for array_id, own in merged_files.split(*found):
                yield array_id, own, found[1]
    if damaged:
        raise _NotToMerge(damaged)


def _curves(store: Store, names: list[str]) -> dict[str, pa.Table]:
    """The curves that belong to some files of rows, by array; omits arrays without curves."""

    def read(name: str) -> Read | None:
        try:
            return _read(store, f"curves/{PurePosixPath(name).name}", CURVES_SCHEMA)
        except _Gone:
            # Rows are removed before curves: if they still exist, there never were curves, or they were lost.
            if not store.exists(name):
                raise
            return [], CURVES_SCHEMA.empty_table()

    found: dict[str, pa.Table] = {}
    for array_id, own, table in _sound(_each(read, names)):
        if len(own):
            found.setdefault(array_id, own.replace_schema_metadata(_examples(table, array_id)))
    return found


def _write(store: Store, name: str, schema: pa.Schema, tables: Mapping[Part, pa.Table | None]) -> None:
    """Writes a merged file and reads it back; OSError if the two differ."""
    arrays = [
        merged_files.Entry(
            part.array_id, 0 if table is None else len(table), part.written, None if table is None else _counted(table)
        )
        for part, table in tables.items()
    ]
    metadata = {b"schema_version": str(SCHEMA_VERSION), merged_files.ARRAYS: json.dumps(arrays)}
    there = [table.replace_schema_metadata(None) for table in tables.values() if table is not None]
    whole = pa.concat_tables([schema.remove_metadata().empty_table(), *there]).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink, compression="zstd")
    store.place.write(name, sink.getvalue())
    store.place.settle(name.partition("/")[0])
    back = store.table(name, schema.names, schema)
    if not back.equals(whole) or back.schema.metadata[merged_files.ARRAYS] != metadata[merged_files.ARRAYS].encode():
        raise OSError(
            f"{store.place.path(name)}: what was read back differs from what was written; nothing was removed"
        )


def _clear_curves(store: Store, files: Collection[str]) -> None:
    """Removes curves that are also in a merged file if their file of rows is gone: a removal was interrupted.

    As with rows, a merged file is removed only if another one holds more: its rows may be about to be written.
    """
    there = store.place.files("curves", ".parquet")
    alone = [name for name in there if f"runs/{PurePosixPath(name).name}" not in files]
    if not alone:
        return
    merged = list(filter(merged_files.is_merged, there))
    read = _each(lambda name: _read(store, name, CURVES_SCHEMA), merged)
    arrays = {name: merged_files.entries(found[1]) for name, found in read if found is not None}
    parts = {name: {Part(each.array_id, each.written) for each in own} for name, own in arrays.items()}
    drawn = {name: {each.array_id for each in own if each.rows} for name, own in arrays.items()}
    for name in alone:
        if name in store.damaged:
            continue
        if name in parts:
            others = [other for other in parts.keys() - set(alone) if parts[name] < parts[other]]
            superfluous = any(drawn[name] <= drawn[other] for other in others)
        else:
            superfluous = any(PurePosixPath(name).stem in own for own in drawn.values())
        if superfluous:
            store.place.remove(name)


def _parts(store: Store, name: str) -> dict[Part, int] | None:
    """The parts of a file of rows, each with its number of rows; None if the file is damaged."""
    found = _read(store, name, RUNS_SCHEMA, ["finished_at"])
    if found is None:
        return None
    return {
        Part(array_id, merged_files.written(rows)): len(rows)
        for array_id, rows in merged_files.split(*found)
        if len(rows)
    }


def _each(read: Callable[[str], T], names: list[str]) -> Iterator[tuple[str, T]]:
    """The result of `read` for each file; several are read at once, since an object store is slow to answer."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from zip(names, pool.map(read, names), strict=True)


def _read(store: Store, name: str, schema: pa.Schema, columns: list[str] | None = None) -> Read | None:
    """The arrays and the rows of a file; None if it is damaged, which is reported."""
    try:
        return store.read_file(name, columns or schema.names, schema)
    except FileNotFoundError:
        raise _Gone from None
    except (InputError, OSError) as error:
        store.damaged.leave_out(name, error)
        return None


def _counted(table: pa.Table) -> int | None:
    """How many validation pictures the points of a curve are measured on; None for rows, and if unknown."""
    given = (table.schema.metadata or {}).get(_EXAMPLES)
    return int(given) if given else None


def _examples(table: pa.Table, array_id: str) -> dict[bytes, Any]:
    metadata = table.schema.metadata or {}
    if merged_files.ARRAYS in metadata:
        counts = {each.array_id: each.examples for each in merged_files.entries(table)}
        return {} if counts.get(array_id) is None else {_EXAMPLES: str(counts[array_id])}
    return {_EXAMPLES: metadata[_EXAMPLES]} if _EXAMPLES in metadata else {}


def _count(store: Store) -> int:
    return sum(len(store.place.files(kind, ".parquet")) for kind in ("runs", "curves"))
