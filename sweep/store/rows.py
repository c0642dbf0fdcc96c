"""The rows of every run ever trained in one place: Parquet files, each written whole or not at all.

Rows are facts: a run's row never changes, and a sweep is a query over them. Where a run stands twice (two launches
trained it at once), the earliest row counts.
"""

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sweep.common.addresses import without_secrets
from sweep.common.errors import InputError
from sweep.space.runs import SETTINGS, TRAINER_VERSION, TYPES, Run, settings_of
from sweep.store import leases, merged_files
from sweep.store.checkpoint_header import SUFFIX, read_header
from sweep.store.damage import Damaged, Damages, is_a_folder, parsed
from sweep.store.merged_files import Part, Parts
from sweep.store.outcomes import Outcome
from sweep.store.storage import Place

SCHEMA_VERSION: Final = 2
"""2: with `image_size`."""


ADDED: Final = frozenset({"image_size"})
"""Settings that files of an earlier schema version may lack."""
READERS: Final = 2
REMOTE_READERS: Final = 16
"""Files that are read at once, from a disk and from an object store."""
READ_AHEAD: Final = 64
"""Files whose rows are in memory before they are asked for."""
LISTINGS: Final = 20
"""Times that the files are listed anew because some were merged between their listing and their reading."""
COMPARED: Final = ("status", "test_accuracy", "validation_accuracy", "test_correct")

_ARROW: Final = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def _arrow_type(setting: str) -> pa.DataType:
    kinds = [kind for kind in _ARROW if kind in _python_types(setting)]
    return _ARROW[kinds[0]] if kinds else pa.string()


def _python_types(setting: str) -> tuple[Any, ...]:
    annotation = TYPES[setting].__origin__
    return getattr(annotation, "__args__", None) or (annotation,)


RUNS_SCHEMA: Final = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        *(pa.field(name, _arrow_type(name)) for name in SETTINGS),
        pa.field("status", pa.string(), nullable=False),
        pa.field("test_accuracy", pa.float64(), nullable=False),
        pa.field("test_loss", pa.float64()),
        pa.field("train_loss", pa.float64()),
        pa.field("validation_accuracy", pa.float64(), nullable=False),
        pa.field("test_correct", pa.binary(), nullable=False),
        pa.field("parameters", pa.int64(), nullable=False),
        pa.field("train_seconds", pa.float64(), nullable=False),
        pa.field("array_size", pa.int64(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("dataset_fingerprint", pa.string(), nullable=False),
        pa.field("trainer_version", pa.int64(), nullable=False),
        pa.field("torch_version", pa.string(), nullable=False),
        pa.field("finished_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)

CURVES_SCHEMA: Final = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("train_loss", pa.float64()),
        pa.field("validation_accuracy", pa.float64(), nullable=False),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where and with what an array was trained."""

    device: str
    dataset_fingerprint: str
    torch_version: str
    curve_examples: int


class Found(NamedTuple):
    """Rows of the store: one a run, its place among the runs asked for and the array that it came from; how many of the
    runs stand twice, and how many of these with another result (losses aside: they differ by rounding where arrays of
    another size trained them)."""

    rows: pa.Table
    places: NDArray[np.int64]
    array_ids: list[str]
    repeated: int
    disagreeing: int


Read = tuple[Parts, pa.Table]
"""Which arrays the rows of a file are of, and the rows."""


class Store:
    """Rows by run, below a folder or a prefix of an object store (`sweep.store.storage`); made at the first write.

    A file that is damaged, or of a newer version, is named on standard error, once, left out, and never touched;
    `damaged` says why, by name.

    With `once`, each kind of file is listed a single time: what is there later is what this store has written itself,
    or has been asked for by array (`statuses`).
    """

    def __init__(self, address: Path | str, once: bool = False) -> None:
        self.place = Place(address)
        if self.place.local is not None and self.place.local.exists() and not self.place.local.is_dir():
            raise InputError(f"--store {address}: is a file; a store is a folder")
        for folder in ("runs", "curves"):
            if self.place.local is not None and (self.place.local / folder).is_file():
                raise InputError(f"--store {address}: {self.place.path(folder)} is a file; a folder is expected")
        self.address, self.once = self.place.address, once
        self.damaged = Damages(self.place)
        self._listed: dict[str, list[str]] = {}

    @property
    def root(self) -> Path:
        """The folder of a local store."""
        assert self.place.local is not None, "an object store has no folder"
        return self.place.local

    def write(
        self, array_id: str, runs: Sequence[Run], run_ids: Sequence[str], outcomes: Sequence[Outcome], by: Provenance
    ) -> None:
        """Keeps the outcomes of an array's runs: first the curves, then the rows.

        The rows are what makes a run done, so they come last. Where a damaged file stands in the way, it stays, and
        the rows get a file of another name.
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
        """Whether this very array's rows are there, in a file of their own or merged with others."""
        if self.is_sound(_rows_of(array_id), RUNS_SCHEMA):
            return True
        index = merged_files.index(self.place) or {}
        return any(array_id in arrays and self.is_sound(name, RUNS_SCHEMA) for name, arrays in index.items())

    def statuses(self, array_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Status (`ok`, `diverged`) by run id, the earliest where a run stands twice (of equals, by
        array id).

        With `array_ids`, of these arrays' runs alone, as far as they have rows; a store that lists its files once
        knows them from then on.
        """
        columns = ["run_id", "status", "finished_at"]
        return _statuses(list(self._tables(columns) if array_ids is None else self._tables_of(array_ids, columns)))

    def new_statuses(self, seen: set[str]) -> dict[str, str]:
        """As `statuses`, of the files that are not among `seen`, which are added there."""
        return _statuses(list(self._tables(["run_id", "status", "finished_at"], seen=seen)))

    def rows(self, run_ids: Iterable[str]) -> pa.Table:
        """The rows of these runs, as `read` finds them."""
        return self.read(run_ids).rows

    def read(self, run_ids: Iterable[str], columns: Sequence[str] = tuple(RUNS_SCHEMA.names)) -> Found:
        """The rows of these runs, in the order of `run_ids`; runs without a row are left out.

        `columns`: at least those of `COMPARED`, `run_id` and `finished_at`; the time goes with their number. Where a
        run stands twice the earliest row counts (of equals, by array id).
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
        ranks = _ranks(arrays)[np.concatenate(wanted)]
        names = np.array(sorted({array_id for array_id, _ in arrays}), dtype=object)
        return _first_rows(pa.concat_tables(tables).combine_chunks(), np.concatenate(places), ranks, names)

    def curves(self, run_ids: Iterable[str], array_ids: Iterable[str] | None = None) -> pa.Table:
        """The learning curves of these runs, columns as in `CURVES_SCHEMA`; runs without one are left out.

        `array_ids` are the arrays that the runs' rows came from, as `Found` tells them; found out where not given.
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

    def lost(self) -> set[str]:
        """The runs whose rows stand in files that were left out, as far as the learning curves beside them tell."""
        found: set[str] = set()
        for name in [name for name in self.damaged if name.startswith("runs/")]:
            with contextlib.suppress(InputError, OSError):
                curves = self.table(f"curves/{PurePosixPath(name).name}", ["run_id"], CURVES_SCHEMA)
                found.update(curves["run_id"].to_pylist())
        return found

    def save_look(self, name: str, number: int, look: dict[str, Any]) -> None:
        """Keeps what was seen of a sweep when its results were looked at for this, the `number`th, time.

        At least `new_run_ids`, the rows that no earlier look had, and `looks`, with how many were `declared`.
        """
        self.place.write(f"looks/{name}/{number:04}.json", json.dumps(look, allow_nan=False).encode())

    def looks(self, name: str) -> dict[int, dict[str, Any]]:
        """What `save_look` kept of a sweep, by number."""
        looks = {}
        for file in self._files(f"looks/{name}", ".json"):
            with self.left_out(file):
                look = parsed(self.place.read(file))
                try:
                    _ = int(look["looks"]["declared"]), int(look["looks"].get("taken") or 0)
                    known = all(isinstance(run_id, str) for run_id in look["new_run_ids"])
                    number = int(PurePosixPath(file).stem)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise Damaged(f"is no record of a look ({error})") from error
                if not known:
                    raise Damaged("is no record of a look (its runs are no ids)")
                looks[number] = look
        return looks

    def unread_looks(self, name: str) -> list[int]:
        """The numbers of the looks at a sweep whose records `looks` left out."""
        files = [PurePosixPath(file) for file in self.damaged]
        return sorted(int(file.stem) for file in files if str(file.parent) == f"looks/{name}" and file.stem.isdecimal())

    def save_sweep(self, name: str, text: str) -> None:
        """Keeps the resolved search space of a sweep."""
        self.place.write(f"sweeps/{name}.yaml", text.encode())

    def sweeps(self) -> list[str]:
        """The names of the sweeps that were launched here."""
        return [PurePosixPath(name).stem for name in self._names("sweeps", ".yaml")]

    def sweep(self, name: str) -> bytes:
        """The search space of one sweep, as launched; InputError names those that there are."""
        known = self.sweeps()
        if name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"no sweep {name!r} in the store {self.address}; there are: {there}")
        return self.place.read(f"sweeps/{name}.yaml")

    def save_failure(self, array_id: str, failure: dict[str, Any]) -> None:
        """Keeps the last error of an array."""
        text = without_secrets(json.dumps(failure, indent=2, allow_nan=False))
        self.place.write(f"failures/{array_id}.json", text.encode())

    def clear_failures(self, done: Collection[str]) -> None:
        """Forgets the errors of arrays whose runs are all done by now."""
        for array_id, failure in self.failures().items():
            if all(run_id in done for run_id in failure["run_ids"]):
                self.place.remove(f"failures/{array_id}.json")

    def failures(self) -> dict[str, dict[str, Any]]:
        """The last error of every array that failed since it last succeeded: `error`, `run_ids`, `traceback`.

        Where one is damaged, its runs are missing all the same, and the next launch trains them.
        """
        found = {}
        for name in self._files("failures", ".json"):
            # Another launch may have cleared it meanwhile.
            with contextlib.suppress(FileNotFoundError), self.left_out(name):
                failure = parsed(self.place.read(name))
                run_ids = failure.get("run_ids") if isinstance(failure, dict) else None
                if not isinstance(run_ids, list) or not all(isinstance(run_id, str) for run_id in run_ids):
                    raise Damaged("is no note of a failure")
                found[PurePosixPath(name).stem] = failure
        return found

    def checkpoint(self, array_id: str) -> str:
        """The name of what keeps how far an array in training has come."""
        return f"checkpoints/{array_id}{SUFFIX}"

    def tidy(self, done: Collection[str]) -> dict[str, frozenset[str]]:
        """Removes checkpoints of arrays whose runs are all done, temporaries and leases of the dead.

        Returns the runs of the checkpoints that stay, by name.
        """
        for folder in (".", "runs", "curves", "checkpoints", "sweeps", "failures", "leases"):
            self.place.clear_temporaries(folder)
        leases.tidy(self.place)
        kept = {}
        for name in self._files("checkpoints", SUFFIX):
            # Whoever trains it may have finished meanwhile; what cannot be read for another reason is left alone.
            with contextlib.suppress(OSError), self.left_out(name):
                runs = self._checkpointed(name)
                if all(run_id in done for run_id in runs):
                    self.place.remove(name)
                else:
                    kept[name] = frozenset(runs)
        return kept

    def report_folder(self, name: str) -> str:
        """Where the report of a sweep is kept, below the store."""
        return f"reports/{name}"

    def _checkpointed(self, name: str) -> list[str]:
        """The runs of a checkpoint."""
        length = self.place.read(name, 8)
        header = self.place.read(name, 8 + min(int.from_bytes(length, "little"), 2**28))
        while header[:8] != length:  # whoever trains the array has put the next one in its place meanwhile
            length = header[:8]
            header = self.place.read(name, 8 + min(int.from_bytes(length, "little"), 2**28))
        try:
            runs = list(read_header(header)["run_ids"])
        except (ValueError, KeyError, TypeError, RecursionError):
            runs = []
        if not runs or not all(isinstance(run_id, str) for run_id in runs):
            raise Damaged("is no checkpoint")
        return runs

    def _tables(self, columns: list[str], merged_alone: bool = False, seen: set[str] | None = None) -> Iterator[Read]:
        """The rows of every file, and which arrays they are of; several files are read at once.

        Files that are gone when they are to be read have been merged into others: these are read in their place. Rows
        of some arrays may so come twice, the same ones. Files that were `seen` are left out, the others added to them.
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
        raise FileNotFoundError(f"{self.place.path(gone[0])}: is listed again and again, and not there")

    def _tables_of(self, array_ids: Iterable[str], columns: list[str]) -> Iterator[Read]:
        """The rows of some arrays, as far as there are any, from files of their own or merged ones."""
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
        """The curves of each of these arrays that has any, once, from merged files or one of its own."""
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
        if left:  # merged meanwhile, or without curves
            yield from from_merged()

    def _read_ahead(self, names: Sequence[str], columns: list[str]) -> Iterator[tuple[str, Read | Exception]]:
        """The rows of each of these files, or why they cannot be had: FileNotFoundError where it is not there."""

        def read(name: str) -> Read | Exception:
            try:
                return self.read_file(name, columns)
            except (InputError, OSError) as error:
                return error

        # Files on a disk keep the cores busy; an object store answers late.
        with ThreadPoolExecutor(READERS if self.place.local is not None else REMOTE_READERS) as pool:
            for start in range(0, len(names), READ_AHEAD):
                some = names[start : start + READ_AHEAD]
                yield from zip(some, pool.map(read, some), strict=True)

    @contextlib.contextmanager
    def left_out(self, name: str) -> Iterator[None]:
        """Names a file that the block cannot read for what is wrong with it, and goes on behind the block."""
        try:
            yield
        except (InputError, OSError) as error:
            self.damaged.leave_out(name, error)

    def is_free(self, name: str, expected: pa.Schema) -> bool:
        """Whether a file of this name may be written: there is none, or one that can be read."""
        return not self.exists(name) or self.is_sound(name, expected)

    def is_sound(self, name: str, expected: pa.Schema) -> bool:
        """Whether there is a file of this name, and it can be read."""
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
        try:
            self.place.read(name, 4)
        except FileNotFoundError:
            return False
        except (IsADirectoryError, PermissionError) as error:
            if not self.damaged.is_of_the_file(error):
                raise
        return True

    def read_file(self, name: str, columns: list[str], expected: pa.Schema = RUNS_SCHEMA) -> Read:
        """As `table`, and which arrays the rows are of."""
        table = self.table(name, columns, expected)
        return merged_files.parts(name, table), table

    def table(self, name: str, columns: list[str], expected: pa.Schema = RUNS_SCHEMA) -> pa.Table:
        """Some columns of one file of rows, or of what is `expected`; FileNotFoundError where there is none."""
        if self.place.local is not None:
            # A mounted file that another host has merged away may be stale before it is missing.
            return self.place.patiently(partial(read_table, self.place.local / name, columns, expected))
        return read_table(pa.BufferReader(self.place.read(name)), columns, expected, self.place.path(name))

    def _names(self, kind: str, suffix: str) -> list[str]:
        if kind in self._listed:
            return self._listed[kind]
        names = self._files(kind, suffix)
        if self.once:
            self._listed[kind] = names
        return names

    def _files(self, folder: str, suffix: str) -> list[str]:
        """The files of a folder that end so; folders that do are named."""
        for name in self.place.folders(folder, suffix):
            self.damaged.leave_out(name, is_a_folder(self.place.path(name)))
        return self.place.files(folder, suffix)

    def _write_table(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.place.write(name, sink.getvalue())

    def _write_beside(self, part: Part, tables: Mapping[str, pa.Table], counted: int) -> None:
        """Writes an array's tables as a merged file of this one array, which readers look for as for any other."""
        name = merged_files.name_of([part])
        for kind, table in tables.items():
            entry = merged_files.Entry(part.array_id, len(table), part.written, counted if kind == "curves" else None)
            metadata = {"schema_version": str(SCHEMA_VERSION), merged_files.ARRAYS: json.dumps([entry])}
            self._write_table(f"{kind}/{name}", table.replace_schema_metadata(metadata))
        # Last: who finds an array in it takes the array for done.
        index = merged_files.index(self.place) or {}
        self.place.write(merged_files.INDEX, json.dumps({**index, f"runs/{name}": [part.array_id]}).encode())


def _rows_of(array_id: str) -> str:
    return f"runs/{array_id}.parquet"


def read_table(
    source: Path | pa.BufferReader,
    columns: list[str] | None,
    expected: pa.Schema = RUNS_SCHEMA,
    name: str | None = None,
) -> pa.Table:
    """One file of the store; Damaged when it is, or when it is of a newer version than this program knows."""
    where = name or source
    try:
        with pq.ParquetFile(source) as file:
            _check_schema(where, file.schema_arrow, expected)
            table = _completed(file.read(columns, use_threads=False), columns, expected)
            table.validate(full=True)
            return table
    except OSError as error:
        if error.errno is not None:
            raise  # of the file system, not of the content
        raise Damaged(f"{where}: is no table of this store ({error})") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise Damaged(f"{where}: is no table of this store ({error})") from error


def _completed(table: pa.Table, columns: Sequence[str] | None, expected: pa.Schema) -> pa.Table:
    """The columns in their order; a setting that came later than the file stands there at null, its default then."""
    wanted = expected.names if columns is None else [name for name in expected.names if name in columns]
    for name in ADDED.intersection(wanted).difference(table.column_names):
        table = table.append_column(expected.field(name), pa.nulls(len(table), expected.field(name).type))
    return table.select(wanted) if table.column_names != wanted else table


def check_version(path: object, schema: pa.Schema) -> None:
    """Raises Damaged where a Parquet file was written by a newer version than this program knows."""
    given = (schema.metadata or {}).get(b"schema_version", b"0")
    version = int(given) if given.isdigit() else 0  # a name that others use too may hold anything
    if version > SCHEMA_VERSION:
        raise Damaged(
            f"{path}: written by a newer sweep (schema version {version}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade sweep to read it"
        )


def _select(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([field for field in RUNS_SCHEMA if field.name in columns], metadata=RUNS_SCHEMA.metadata)


def _statuses(found: list[tuple[Parts, pa.Table]]) -> dict[str, str]:
    """Status by run id, the earliest where a run stands twice (of equals, by array id)."""
    if not found:
        return {}
    # The last that is put into the mapping stays: that is the earliest of the first array.
    ranks = _ranks([part for parts, _ in found for part in parts])
    table = pa.concat_tables([table for _, table in found]).append_column("array", pa.array(ranks))
    table = table.sort_by([("finished_at", "ascending"), ("array", "ascending")])
    run_ids, statuses = table["run_id"].to_pylist(), table["status"].to_pylist()
    return dict(zip(reversed(run_ids), reversed(statuses), strict=True))


def _ranks(parts: Parts) -> NDArray[np.int32]:
    """The array of every row as its number in the order of array ids."""
    order = {array_id: rank for rank, array_id in enumerate(sorted({array_id for array_id, _ in parts}))}
    ranks = np.array([order[array_id] for array_id, _ in parts], dtype=np.int32)
    return np.repeat(ranks, [rows for _, rows in parts])


def _first_rows(
    table: pa.Table, places: NDArray[np.int64], ranks: NDArray[np.int32], names: NDArray[np.object_]
) -> Found:
    """The earliest row of every place, by place; `ranks` say which of the arrays `names` a row is of."""
    finished = table["finished_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((ranks, finished, places))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(places[order]) != 0
    # One and the same row may stand in a merged file and, for a while, in those that it was made of.
    copy = np.zeros(len(order), dtype=bool)
    copy[1:] = ~first[1:] & (np.diff(finished[order]) == 0) & (np.diff(ranks[order]) == 0)
    chosen, other = order[first], ~first & ~copy
    again, winner = order[other], chosen[np.cumsum(first) - 1][other]
    differ = np.zeros(len(again), dtype=bool)
    for column in COMPARED if len(again) else ():
        values = table[column]
        differ |= np.asarray(pc.not_equal(values.take(pa.array(again)), values.take(pa.array(winner))))
    # Most often they are in order, and a copy of everything is saved.
    rows = table if np.array_equal(chosen, np.arange(len(table))) else table.take(pa.array(chosen))
    repeated = len(np.unique(places[again]))
    return Found(rows, places[chosen], names[ranks[chosen]].tolist(), repeated, len(np.unique(places[again][differ])))


def _check_schema(path: object, schema: pa.Schema, expected: pa.Schema) -> None:
    check_version(path, schema)
    if schema.equals(expected):  # column by column takes as long as reading the file
        return
    for wanted in expected:
        if wanted.name not in schema.names and wanted.name in ADDED:
            continue
        if wanted.name not in schema.names:
            raise Damaged(f"{path}: is no table of this store: no column {wanted.name}")
        found = schema.field(wanted.name).type
        if found != wanted.type:
            raise Damaged(f"{path}: is no table of this store: column {wanted.name} is {found}, not {wanted.type}")


def _fields(outcome: Any) -> dict[str, Any]:
    return {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome) if field.name != "curve"}
