"""The rows of every run ever trained in one place: Parquet files, each written whole or not at all.

Rows are facts: a run's row never changes, and a sweep is a query over them. Where a run stands twice (two launches
trained it at once), the earliest row counts.
"""

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.errors import InputError
from sweep.places import Place
from sweep.runs import SETTINGS, TRAINER_VERSION, TYPES, Run, settings_of

SCHEMA_VERSION: Final = 1

READERS: Final = 8
"""Files that are read at once."""

CHECKPOINT: Final = ".safetensors"
"""How the names of checkpoints end."""

ADDED: Final = frozenset({"image_size"})
"""Settings that files of this schema version may lack, since they were written before there were such settings."""

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


class Store:
    """Rows by run, below a folder or a prefix of an object store (`sweep.places.Place`); made at the first write.

    With `once`, each kind of file is listed a single time: what is there later is what this store has written itself,
    or has been told of by `learn`.
    """

    def __init__(self, address: Path | str, once: bool = False) -> None:
        self.place = Place(address)
        if self.place.local is not None and self.place.local.exists() and not self.place.local.is_dir():
            raise InputError(f"--store {address}: is a file; a store is a folder")
        self.address, self.once = self.place.address, once
        self._listed: dict[str, list[str]] = {}

    @property
    def root(self) -> Path:
        """The folder of a local store."""
        assert self.place.local is not None, "an object store has no folder"
        return self.place.local

    def write(
        self, array_id: str, runs: Sequence[Run], run_ids: Sequence[str], outcomes: Sequence[Any], by: Provenance
    ) -> None:
        """Keeps the outcomes (`sweep.train.Outcome`) of an array's runs: first the curves, then the rows.

        The rows are what makes a run done, so they come last.
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
        self._write_table("curves", array_id, pa.Table.from_pylist(points, curves))
        self._write_table("runs", array_id, pa.Table.from_pylist(rows, RUNS_SCHEMA))

    def learn(self, array_ids: Iterable[str]) -> None:
        """Takes note of the rows of arrays that were trained since the rows were listed."""
        if "runs" in self._listed:
            known = set(self._listed["runs"])
            self._listed["runs"] += [name for each in array_ids if (name := _rows_of(each)) not in known]

    def has_rows(self, array_id: str) -> bool:
        """Whether there is a file of this very array's rows."""
        try:
            self.place.read(_rows_of(array_id), 4)
        except FileNotFoundError:
            return False
        return True

    def statuses(self, array_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Status (`ok`, `diverged`) by run id, the earliest where a run stands twice.

        With `array_ids`, of these arrays' runs alone, as far as they have rows.
        """
        names = None if array_ids is None else [_rows_of(each) for each in array_ids if self.has_rows(each)]
        tables = list(self._tables(["run_id", "status", "finished_at"], names))
        if not tables:
            return {}
        table = pa.concat_tables(tables).sort_by([("finished_at", "descending")])
        return dict(zip(table["run_id"].to_pylist(), table["status"].to_pylist(), strict=True))

    def rows(self, run_ids: Iterable[str]) -> pa.Table:
        """The rows of these runs, the earliest where one stands twice, in the order of `run_ids`.

        Columns are those of `RUNS_SCHEMA`; runs without a row are left out.
        """
        wanted = pa.array(list(run_ids), pa.string())
        tables = [table.filter(pc.is_in(table["run_id"], wanted)) for table in self._tables(None)]
        table = pa.concat_tables([RUNS_SCHEMA.empty_table(), *tables]).sort_by("finished_at")
        first: dict[str, int] = {}
        for index, run_id in enumerate(table["run_id"].to_pylist()):
            first.setdefault(run_id, index)
        chosen = [first[run_id] for run_id in wanted.to_pylist() if run_id in first]
        return table.take(pa.array(chosen, pa.int64()))

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
        self.place.write(f"failures/{array_id}.json", json.dumps(failure, indent=2, allow_nan=False).encode())

    def clear_failures(self, done: Collection[str]) -> None:
        """Forgets the errors of arrays whose runs are all done by now."""
        for array_id, failure in self.failures().items():
            if all(run_id in done for run_id in failure["run_ids"]):
                self.place.remove(f"failures/{array_id}.json")

    def failures(self) -> dict[str, dict[str, Any]]:
        """The last error of every array that failed since it last succeeded: `error`, `run_ids`, `traceback`."""
        found = {}
        for name in self.place.files("failures", ".json"):
            with contextlib.suppress(FileNotFoundError):  # cleared by another launch meanwhile
                found[PurePosixPath(name).stem] = json.loads(self.place.read(name))
        return found

    def checkpoint(self, array_id: str) -> str:
        """The name of what keeps how far an array in training has come."""
        return f"checkpoints/{array_id}{CHECKPOINT}"

    def tidy(self, done: Collection[str]) -> None:
        """Removes checkpoints of arrays whose runs are all done, files that are none, and temporaries of the dead."""
        for folder in ("runs", "curves", "checkpoints", "sweeps", "failures"):
            self.place.clear_temporaries(folder)
        for name in self.place.files("checkpoints", CHECKPOINT):
            runs = self._checkpointed(name)
            if runs is not None and all(run_id in done for run_id in runs):
                self.place.remove(name)

    def report_folder(self, name: str) -> str:
        """Where the report of a sweep is kept, below the store."""
        return f"reports/{name}"

    def _checkpointed(self, name: str) -> list[str] | None:
        """The runs of a checkpoint, none if it is no checkpoint, None where the file cannot be read."""
        try:
            length = int.from_bytes(self.place.read(name, 8), "little")
            return list(checkpoint_header(self.place.read(name, 8 + min(length, 2**28)))["run_ids"])
        except OSError:
            return None
        except (ValueError, KeyError, TypeError):
            return []

    def _tables(self, columns: list[str] | None, names: list[str] | None = None) -> Iterator[pa.Table]:
        """The files of rows, or those of these names; several are read at once, since an object store answers late."""
        names = self._names("runs", ".parquet") if names is None else names
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(names), 64):
                yield from pool.map(lambda name: self._table(name, columns), names[start : start + 64])

    def _table(self, name: str, columns: list[str] | None) -> pa.Table:
        if self.place.local is not None:
            return read_table(self.place.local / name, columns)
        return read_table(pa.BufferReader(self.place.read(name)), columns, self.place.path(name))

    def _names(self, kind: str, suffix: str) -> list[str]:
        if kind in self._listed:
            return self._listed[kind]
        names = self.place.files(kind, suffix)
        if self.once:
            self._listed[kind] = names
        return names

    def _write_table(self, kind: str, array_id: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.place.write(f"{kind}/{array_id}.parquet", sink.getvalue())


def checkpoint_header(content: bytes) -> dict[str, Any]:
    """What JSON the header of a checkpoint holds. Safetensors: eight bytes of length, then JSON."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(json.loads(header["__metadata__"]["sweep"]))


def _rows_of(array_id: str) -> str:
    return f"runs/{array_id}.parquet"


def read_table(source: Path | pa.BufferReader, columns: list[str] | None, name: str | None = None) -> pa.Table:
    """One file of the store; InputError when it is damaged or of a newer version than this program knows."""
    where = name or source
    try:
        with pq.ParquetFile(source) as file:
            _check_schema(where, file.schema_arrow)
            return _completed(file.read(columns), columns)
    except pa.ArrowInvalid as error:
        raise InputError(f"{where}: is no table of this store ({error}); move it away to go on") from error


def _completed(table: pa.Table, columns: list[str] | None) -> pa.Table:
    """The columns in their order; a setting that came later than the file stands there at null, its default then."""
    for index, wanted in enumerate(RUNS_SCHEMA):
        if wanted.name in ADDED and columns is None and wanted.name not in table.column_names:
            table = table.add_column(index, wanted, pa.nulls(len(table), wanted.type))
    return table


def _check_schema(path: object, schema: pa.Schema) -> None:
    version = int((schema.metadata or {}).get(b"schema_version", b"0"))
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: written by a newer sweep (schema version {version}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade sweep to read it"
        )
    for wanted in RUNS_SCHEMA:
        if wanted.name not in schema.names and wanted.name in ADDED:
            continue
        if wanted.name not in schema.names:
            raise InputError(f"{path}: is no table of this store: no column {wanted.name}; move it away to go on")
        found = schema.field(wanted.name).type
        if found != wanted.type:
            raise InputError(
                f"{path}: is no table of this store: column {wanted.name} is {found}, not {wanted.type}; "
                "move it away to go on"
            )


def _fields(outcome: Any) -> dict[str, Any]:
    return {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome) if field.name != "curve"}
