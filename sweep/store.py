"""The rows of every run ever trained in one place: Parquet files, each written whole or not at all.

Rows are facts: a run's row never changes, and a sweep is a query over them. Where a run stands twice (two launches
trained it at once), the earliest row counts.
"""

import dataclasses
import datetime
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.errors import InputError
from sweep.files import replacing
from sweep.runs import SETTINGS, TRAINER_VERSION, TYPES, Run, settings_of

SCHEMA_VERSION: Final = 2
"""2: with `image_size`."""

ADDED: Final = frozenset({"image_size"})
"""Settings that files of an earlier schema version may lack."""

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
    """A folder of rows; made at the first write."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise InputError(f"--store {root}: is a file; a store is a folder")
        self.root = root

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

    def statuses(self) -> dict[str, str]:
        """Status (`ok`, `diverged`) by run id, the earliest where a run stands twice."""
        tables = list(self._tables(["run_id", "status", "finished_at"]))
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
        _write(self.root / "sweeps" / f"{name}.yaml", text.encode())

    def sweeps(self) -> dict[str, Path]:
        """The files of the sweeps that were launched here, by name."""
        return {path.stem: path for path in self._files("sweeps", "yaml")}

    def sweep(self, name: str) -> Path:
        """The file of one sweep; InputError names those that there are."""
        known = self.sweeps()
        if name not in known:
            there = ", ".join(known) or "none"
            raise InputError(f"no sweep {name!r} in the store {self.root}; there are: {there}")
        return known[name]

    def save_failure(self, array_id: str, failure: dict[str, Any]) -> None:
        """Keeps the last error of an array."""
        _write(self.root / "failures" / f"{array_id}.json", json.dumps(failure, indent=2, allow_nan=False).encode())

    def clear_failures(self, done: Collection[str]) -> None:
        """Forgets the errors of arrays whose runs are all done by now."""
        for array_id, failure in self.failures().items():
            if all(run_id in done for run_id in failure["run_ids"]):
                (self.root / "failures" / f"{array_id}.json").unlink(missing_ok=True)

    def failures(self) -> dict[str, dict[str, Any]]:
        """The last error of every array that failed since it last succeeded: `error`, `run_ids`, `traceback`."""
        return {path.stem: json.loads(path.read_bytes()) for path in self._files("failures", "json")}

    def checkpoint(self, array_id: str) -> Path:
        """Where an array in training keeps how far it has come."""
        return self.root / "checkpoints" / f"{array_id}.safetensors"

    def clear_checkpoints(self, done: Collection[str]) -> None:
        """Forgets the checkpoints of arrays whose runs are all done by now, and files that are no checkpoints."""
        for path in self._files("checkpoints", "safetensors"):
            runs = _checkpointed(path)
            if runs is not None and all(run_id in done for run_id in runs):
                path.unlink(missing_ok=True)

    def report_folder(self, name: str) -> Path:
        """Where the report of a sweep is kept."""
        return self.root / "reports" / name

    def _tables(self, columns: list[str] | None) -> Iterable[pa.Table]:
        return (read_table(path, columns) for path in self._files("runs", "parquet"))

    def _files(self, kind: str, suffix: str) -> list[Path]:
        # Temporary names start with a dot, so that no half-written file is ever read.
        return sorted((self.root / kind).glob(f"[!.]*.{suffix}"))

    def _write_table(self, kind: str, array_id: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        _write(self.root / kind / f"{array_id}.parquet", sink.getvalue())


def read_table(path: Path, columns: list[str] | None) -> pa.Table:
    """One file of the store; InputError when it is damaged or of a newer version than this program knows."""
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow)
            return _completed(file.read(columns), columns)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: is no table of this store ({error}); move it away to go on") from error


def _completed(table: pa.Table, columns: list[str] | None) -> pa.Table:
    """The columns in their order; a setting that came later than the file stands there at null, its default then."""
    for index, wanted in enumerate(RUNS_SCHEMA):
        if wanted.name in ADDED and columns is None and wanted.name not in table.column_names:
            table = table.add_column(index, wanted, pa.nulls(len(table), wanted.type))
    return table


def _checkpointed(path: Path) -> list[str] | None:
    """The runs of a checkpoint, none if it is no checkpoint, None where the file cannot be read.

    Safetensors: eight bytes of length, then JSON.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return list(json.loads(header["__metadata__"]["sweep"])["run_ids"])
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        return []


def _check_schema(path: Path, schema: pa.Schema) -> None:
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


def _write(path: Path, content: bytes | pa.Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
