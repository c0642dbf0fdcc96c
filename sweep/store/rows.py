"""The rows of every run ever trained, in one place: Parquet files, each written whole or not at all.

Rows are facts: a run's row never changes, and a sweep is a query over them. If a run has several rows (two launches
trained it at once), the earliest counts.
"""

import contextlib
import dataclasses
import datetime
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.common.errors import InputError
from sweep.space.runs import TRAINER_VERSION, Run, settings_of
from sweep.store import merged_files
from sweep.store.damage import Damaged
from sweep.store.earliest import Found, first_rows, ranks_of, statuses_of
from sweep.store.merged_files import Part, Parts
from sweep.store.outcomes import Outcome
from sweep.store.records import Records
from sweep.store.tables import CURVES_SCHEMA, RUNS_SCHEMA, SCHEMA_VERSION, read_table

DONE: Final = ["run_id", "status", "finished_at"]
"""The columns that say whether a run is done."""

READERS: Final = 2
REMOTE_READERS: Final = 16
"""Files read at once, from a disk and from an object store."""
READ_AHEAD: Final = 64
"""Files that are read into memory ahead of their use."""
LISTINGS: Final = 20
"""How often the files are listed again because some were merged between listing and reading."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where and with what an array was trained; `method` is how it was computed."""

    device: str
    dataset_fingerprint: str
    torch_version: str
    curve_examples: int
    method: str


Read = tuple[Parts, pa.Table]
"""Which arrays the rows of a file belong to, and the rows."""


class Store(Records):
    """Rows by run, below a folder or a prefix of an object store (`sweep.store.storage`); created at the first write.

    A file that is damaged, or from a newer version, is named on standard error once, left out, and never touched;
    `damaged` says why, by name.

    With `once`, each kind of file is listed only once: later files are found only if this store has written them, or
    was asked for their arrays (`statuses`). With `there`, the store exists already: if it is missing, it is waited for.
    """

    def __init__(self, address: Path | str, once: bool = False, there: bool = False) -> None:
        super().__init__(address, once, there)
        if self.place.local is not None and self.place.local.exists() and not self.place.local.is_dir():
            raise InputError(f"--store {address}: is a file; expected a folder")
        for folder in ("runs", "curves"):
            if self.place.local is not None and (self.place.local / folder).is_file():
                raise InputError(f"--store {address}: {self.place.path(folder)} is a file; expected a folder")

    @property
    def root(self) -> Path:
        """The folder of a local store."""
        assert self.place.local is not None, "an object store has no folder"
        return self.place.local

    def write(
        self, array_id: str, runs: Sequence[Run], run_ids: Sequence[str], outcomes: Sequence[Outcome], by: Provenance
    ) -> None:
        """Saves the outcomes of an array's runs: first the curves, then the rows.

        A run is done once its row is there, so rows come last. If a damaged file has the name already, it stays, and
        the rows go into a file of another name.
        """
        finished = datetime.datetime.now(datetime.UTC)
        points = [
            {"run_id": run_id, **dataclasses.asdict(point)}
            for run_id, outcome in zip(run_ids, outcomes, strict=True)
            for point in outcome.curve
        ]
        shared = dataclasses.asdict(by)
        shared |= {"finished_at": finished, "trainer_version": TRAINER_VERSION}
        counted = shared.pop("curve_examples")
        rows = [
            {"run_id": run_id, **settings_of(run), **shared, **_fields(outcome)}
            for run, run_id, outcome in zip(runs, run_ids, outcomes, strict=True)
        ]
        curves = CURVES_SCHEMA.with_metadata({**CURVES_SCHEMA.metadata, "validation_examples": str(counted)})
        tables = {"curves": pa.Table.from_pylist(points, curves), "runs": pa.Table.from_pylist(rows, RUNS_SCHEMA)}
        if all(self.is_free(f"{kind}/{array_id}.parquet", table.schema) for kind, table in tables.items()):
            for kind, table in tables.items():
                self._write_table(f"{kind}/{array_id}.parquet", table)
        else:
            self._write_beside(Part(array_id, merged_files.written(tables["runs"])), tables, counted)

    def has_rows(self, array_id: str) -> bool:
        """Whether this array's rows exist, in a file of their own or merged with others."""
        if self.is_sound(_rows_of(array_id), RUNS_SCHEMA):
            return True
        index = merged_files.index(self.place) or {}
        return any(array_id in arrays and self.is_sound(name, RUNS_SCHEMA) for name, arrays in index.items())

    def statuses(self, array_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Status (`ok`, `diverged`) by run id, from the earliest row of each run (ties by array id).

        With `array_ids`, only of these arrays' runs that have rows; a store that lists its files once remembers them.
        """
        return statuses_of(list(self._tables(DONE) if array_ids is None else self._tables_of(array_ids, DONE)))

    def new_statuses(self, seen: set[str]) -> dict[str, str]:
        """As `statuses`, but only of files that are not in `seen`, to which they are added."""
        return statuses_of(list(self._tables(DONE, seen=seen)))

    def row_files(self) -> list[str]:
        """The names of the files of rows, in order."""
        return sorted(self._names("runs", ".parquet"))

    def rows(self, run_ids: Iterable[str]) -> pa.Table:
        """The rows of these runs, as `read` finds them."""
        return self.read(run_ids).rows

    def read(self, run_ids: Iterable[str], columns: Sequence[str] = tuple(RUNS_SCHEMA.names)) -> Found:
        """The rows of these runs, in the order of `run_ids`; runs without a row are left out.

        `columns`: at least those of `COMPARED`, `run_id` and `finished_at`; fewer columns are faster. If a run has
        several rows, the earliest counts (ties by array id).
        """
        place = {run_id: number for number, run_id in enumerate(run_ids)}
        tables, places = [_select(columns).empty_table()], [np.empty(0, np.int64)]
        wanted, arrays = [np.empty(0, bool)], Parts()
        for parts, table in self._tables(list(columns)):
            own = np.array([place.get(run_id, -1) for run_id in table["run_id"].to_pylist()], dtype=np.int64)
            wanted.append(own >= 0)
            if wanted[-1].any():
                tables.append(table if wanted[-1].all() else table.filter(pa.array(wanted[-1])))
                places.append(own[wanted[-1]])
            arrays += parts
        ranks = ranks_of(arrays)[np.concatenate(wanted)]
        names = np.array(sorted({array_id for array_id, _ in arrays}), dtype=object)
        return first_rows(pa.concat_tables(tables).combine_chunks(), np.concatenate(places), ranks, names)

    def curves(self, run_ids: Iterable[str], array_ids: Iterable[str] | None = None) -> pa.Table:
        """The learning curves of these runs, columns as in `CURVES_SCHEMA`; runs without one are left out.

        `array_ids` are the arrays that the runs' rows came from, as in `Found`; looked up if not given.
        """
        wanted = list(run_ids)
        if array_ids is None:
            found = self.read(wanted)
            wanted, array_ids = found.rows["run_id"].to_pylist(), found.array_ids
        by_array: dict[str, list[str]] = {}
        for run_id, array_id in zip(wanted, array_ids, strict=True):
            by_array.setdefault(array_id, []).append(run_id)
        tables = {
            array_id: table.filter(pc.is_in(table["run_id"], pa.array(by_array[array_id], pa.string())))
            for array_id, table in self._curves_of(by_array)
        }
        ordered = [tables[array_id] for array_id in by_array if array_id in tables]
        return pa.concat_tables([CURVES_SCHEMA.empty_table(), *ordered])

    def lost(self) -> tuple[set[str], set[str]]:
        """The runs whose rows are only in files that were left out, as far as can be told.

        First the runs that count as missing, known from their learning curves; then those that count as done, since
        only other columns of their rows are damaged.
        """
        missing, done = set[str](), set[str]()
        damaged = [name for name in self.damaged if name.startswith("runs/")]
        for name in damaged:
            try:
                done.update(self.table(name, DONE)["run_id"].to_pylist())
            except (InputError, OSError):
                with contextlib.suppress(InputError, OSError):
                    curves = self.table(f"curves/{PurePosixPath(name).name}", ["run_id"], CURVES_SCHEMA)
                    missing.update(curves["run_id"].to_pylist())
        elsewhere = self.new_statuses(set(damaged)).keys() if damaged else ()
        return missing.difference(elsewhere), done.difference(elsewhere)

    def _tables(self, columns: list[str], merged_alone: bool = False, seen: set[str] | None = None) -> Iterator[Read]:
        """The rows of every file, and which arrays they belong to; several files are read at once.

        Files that disappear before they are read have been merged into others, which are read instead; so identical
        rows of an array may be returned twice. Skips the files in `seen`, and adds the others to it.
        """
        seen = set() if seen is None else seen
        for _ in range(LISTINGS):
            names = self._names("runs", ".parquet")
            left = [name for name in names if name not in seen and (merged_files.is_merged(name) or not merged_alone)]
            gone = []
            for name, read in self._read_ahead(left, columns):
                if isinstance(read, FileNotFoundError):
                    gone.append(name)
                elif isinstance(read, Exception):
                    self.damaged.leave_out(name, read)
                else:
                    seen.add(name)
                    yield read
            if not gone:
                return
            self._listed.pop("runs", None)
        raise FileNotFoundError(f"{self.place.path(gone[0])}: is listed repeatedly but does not exist")

    def _tables_of(self, array_ids: Iterable[str], columns: list[str]) -> Iterator[Read]:
        """The rows of some arrays, if any, from files of their own or merged ones."""
        names = sorted(map(_rows_of, array_ids))
        absent = set()
        for name, read in self._read_ahead(names, columns):
            if isinstance(read, Exception):
                absent.add(PurePosixPath(name).stem)
                if not isinstance(read, FileNotFoundError):
                    self.damaged.leave_out(name, read)
            else:
                yield read
        if "runs" in self._listed:
            there = (name for name in names if PurePosixPath(name).stem not in absent)
            self._listed["runs"] = sorted(set(self._listed["runs"]).union(there))
        if absent and merged_files.index(self.place) is not None:
            self._listed.pop("runs", None)
            for parts, table in self._tables(columns, merged_alone=True):
                for array_id, own in merged_files.split(parts, table):
                    if array_id in absent:
                        yield [(array_id, len(own))], own

    def _curves_of(self, array_ids: Iterable[str]) -> Iterator[tuple[str, pa.Table]]:
        """The curves of each of these arrays that has any, once, from merged files or its own file."""
        left, seen = set(array_ids), set[str]()

        def from_merged() -> Iterator[tuple[str, pa.Table]]:
            for _ in range(LISTINGS):
                there = self.place.files("curves", ".parquet") if merged_files.index(self.place) is not None else ()
                new = [name for name in there if merged_files.is_merged(name) and name not in seen]
                gone = False
                for name in new if left else ():
                    seen.add(name)
                    try:
                        parts, table = self.read_file(name, CURVES_SCHEMA.names, CURVES_SCHEMA)
                    except FileNotFoundError:
                        gone = True
                        continue
                    except (InputError, OSError) as error:
                        self.damaged.leave_out(name, error)
                        continue
                    for array_id, own in merged_files.split(parts, table):
                        if array_id in left and len(own):
                            left.remove(array_id)
                            yield array_id, own
                if not gone:
                    return

        yield from from_merged()
        for array_id in tuple(left):
            name = f"curves/{array_id}.parquet"
            with contextlib.suppress(FileNotFoundError), self.left_out(name):
                table = self.table(name, CURVES_SCHEMA.names, CURVES_SCHEMA)
                left.remove(array_id)
                yield array_id, table
        if left:  # merged in the meantime, or without curves
            yield from from_merged()

    def _read_ahead(self, names: Sequence[str], columns: list[str]) -> Iterator[tuple[str, Read | Exception]]:
        """The rows of each of these files, or the error: FileNotFoundError if the file does not exist."""

        def read(name: str) -> Read | Exception:
            try:
                return self.read_file(name, columns)
            except (InputError, OSError) as error:
                return error

        # Files on a disk keep the cores busy; an object store is slow to answer.
        with ThreadPoolExecutor(READERS if self.place.local is not None else REMOTE_READERS) as pool:
            for start in range(0, len(names), READ_AHEAD):
                some = names[start : start + READ_AHEAD]
                yield from zip(some, pool.map(read, some), strict=True)

    def is_free(self, name: str, expected: pa.Schema) -> bool:
        """Whether a file of this name may be written: there is none, or it can be read."""
        return not self.exists(name) or self.is_sound(name, expected)

    def is_sound(self, name: str, expected: pa.Schema) -> bool:
        """Whether there is a file of this name that can be read."""
        try:
            self.read_file(name, expected.names, expected)
        except FileNotFoundError:
            return False
        except (InputError, OSError) as error:
            if not self.damaged.is_of_the_file(error):
                raise
            return False
        return True

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name below the store."""
        if self.place.local is not None:
            return os.path.lexists(self.place.local / name)  # a broken link belongs to somebody, too
        try:
            self.place.read(name, 4)
        except FileNotFoundError:
            return False
        return True

    def read_file(self, name: str, columns: list[str], expected: pa.Schema = RUNS_SCHEMA) -> Read:
        """As `table`, with the arrays that the rows belong to."""
        table = self.table(name, columns, expected)
        return merged_files.parts(name, table), table

    def table(self, name: str, columns: list[str], expected: pa.Schema = RUNS_SCHEMA) -> pa.Table:
        """Some columns of one file of the `expected` schema; FileNotFoundError if there is none."""
        if self.place.local is not None:
            # On a mounted disk, a file that another host merged away may be stale before it is missing.
            return self.place.with_retries(partial(_of_file, self.place.local / name, columns, expected))
        return read_table(pa.BufferReader(self.place.read(name)), columns, expected, self.place.path(name))

    def _write_table(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.place.write(name, sink.getvalue())

    def _write_beside(self, part: Part, tables: Mapping[str, pa.Table], counted: int) -> None:
        """Writes an array's tables as merged files of this one array, which readers find like any other."""
        name = merged_files.name_of([part])
        for kind, table in tables.items():
            entry = merged_files.Entry(part.array_id, len(table), part.written, counted if kind == "curves" else None)
            metadata = {"schema_version": str(SCHEMA_VERSION), merged_files.ARRAYS: json.dumps([entry])}
            self._write_table(f"{kind}/{name}", table.replace_schema_metadata(metadata))
        # Last: an array that is in the index counts as done.
        index = merged_files.index(self.place) or {}
        self.place.write(merged_files.INDEX, json.dumps({**index, f"runs/{name}": [part.array_id]}).encode())


def _of_file(path: Path, columns: list[str], expected: pa.Schema) -> pa.Table:
    if not path.is_file() and os.path.lexists(path) and not path.is_dir():
        raise Damaged("is a link to nothing, or not a file")  # reading a pipe would block
    return read_table(path, columns, expected)


def _rows_of(array_id: str) -> str:
    return f"runs/{array_id}.parquet"


def _select(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([field for field in RUNS_SCHEMA if field.name in columns], metadata=RUNS_SCHEMA.metadata)


def _fields(outcome: Any) -> dict[str, Any]:
    return {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome) if field.name != "curve"}
