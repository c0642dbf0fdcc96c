"""The columns of a file of rows or of learning curves, and how it is read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sweep.space.runs import SETTINGS, TYPES
from sweep.store.damage import Damaged

SCHEMA_VERSION: Final = 3
"""2 added `image_size`, 3 `method`."""

ADDED: Final = frozenset({"image_size", "method"})
"""Columns that files of an earlier schema version may lack."""

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
        pa.field("method", pa.string()),
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


def read_table(
    source: Path | pa.BufferReader,
    columns: list[str] | None,
    expected: pa.Schema = RUNS_SCHEMA,
    name: str | None = None,
) -> pa.Table:
    """One file of the store; Damaged if it is damaged or from a newer version of this program."""
    where = name or source
    try:
        with pq.ParquetFile(source) as file:
            _check_schema(where, file.schema_arrow, expected)
            table = _completed(file.read(columns, use_threads=False), columns, expected)
            table.validate(full=True)
            return _checked(where, table, expected)
    except OSError as error:
        if error.errno is not None:
            raise  # from the file system, not the content
        raise Damaged(f"{where}: is not a table of this store ({error})") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise Damaged(f"{where}: is not a table of this store ({error})") from error


def _completed(table: pa.Table, columns: Sequence[str] | None, expected: pa.Schema) -> pa.Table:
    """The columns in their order; one that was added after the file was written is null: a setting's default."""
    wanted = expected.names if columns is None else [name for name in expected.names if name in columns]
    for name in ADDED.intersection(wanted).difference(table.column_names):
        table = table.append_column(expected.field(name), pa.nulls(len(table), expected.field(name).type))
    return table.select(wanted) if table.column_names != wanted else table


def _checked(where: object, table: pa.Table, expected: pa.Schema) -> pa.Table:
    """The table with the fields of `expected`; Damaged if it holds values that training cannot produce.

    A file rewritten by another program may have lost which columns are never null.
    """
    fields = [expected.field(name) for name in table.column_names]
    for field in fields:
        column = table[field.name]
        if not field.nullable and column.null_count:
            raise Damaged(f"{where}: is not a table of this store: column {field.name} holds nulls")
        allowed = _ALLOWED.get(field.name)
        if allowed and not allowed(column):
            raise Damaged(
                f"{where}: is not a table of this store: column {field.name} holds values that training cannot produce"
            )
    if table.schema.equals(pa.schema(fields)):
        return table
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def _is_share(column: pa.ChunkedArray) -> bool:
    inside = pc.and_(pc.greater_equal(column, 0.0), pc.less_equal(column, 1.0))  # not so for NaN
    return bool(pc.all(inside, min_count=0).as_py())


def _is_status(column: pa.ChunkedArray) -> bool:
    # To compare with a string, PyArrow would load pandas, which takes longer than all else of `sweep status`.
    return {"ok", "diverged"}.issuperset(column.unique().to_pylist())


_ALLOWED: Final[dict[str, Callable[[pa.ChunkedArray], bool]]] = {
    "status": _is_status,
    "test_accuracy": _is_share,
    "validation_accuracy": _is_share,
}


def check_version(path: object, schema: pa.Schema) -> None:
    """Raises Damaged if a Parquet file was written by a newer version of this program."""
    given = (schema.metadata or {}).get(b"schema_version", b"0")
    version = int(given) if given.isdigit() else 0  # other programs may use the same key
    if version > SCHEMA_VERSION:
        raise Damaged(
            f"{path}: written by a newer sweep (schema version {version}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade sweep to read it"
        )


def _check_schema(path: object, schema: pa.Schema, expected: pa.Schema) -> None:
    check_version(path, schema)
    if schema.equals(expected):  # comparing column by column takes as long as reading the file
        return
    for wanted in expected:
        if wanted.name not in schema.names and wanted.name in ADDED:
            continue
        if wanted.name not in schema.names:
            raise Damaged(f"{path}: is not a table of this store: no column {wanted.name}")
        found = schema.field(wanted.name).type
        if found != wanted.type:
            raise Damaged(f"{path}: is not a table of this store: column {wanted.name} is {found}, not {wanted.type}")
