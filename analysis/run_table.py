"""What a table of runs must hold: one type a column, and every wrong value refused by name.

Rows come from the store or from a Parquet or CSV file made elsewhere; after `checked` both look the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sweep.common.errors import InputError
from sweep.space.runs import CELL, SETTINGS, TYPES
from sweep.store.rows import RUNS_SCHEMA, check_version

REQUIRED: Final = ("bias", "seed", "test_accuracy")
RESULTS: Final = frozenset(RUNS_SCHEMA.names) - frozenset(SETTINGS) | {"array_id"}
"""Columns of the store that are no settings: they may vary without dividing the runs into cells."""

MADE_WITH: Final = ("dataset_fingerprint", "trainer_version", "image_size", "evaluate_every")
"""Columns of the store that may tell runs apart and divide no cells: a report says so where they vary."""

_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def load_table(path: Path | str) -> pd.DataFrame:
    """The checked rows of a `.parquet` or `.csv` file, one row a run.

    Raises InputError where the file cannot be read, a column is missing, a value is refused or a `run_id`
    stands twice.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".parquet": _read_parquet,
        ".csv": lambda file: pd.read_csv(file, low_memory=False),
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise InputError(f"{path}: a table is a .parquet or a .csv file")
    try:
        rows = readers[suffix](path)
    except InputError:
        raise
    except (OSError, ValueError, NotImplementedError) as error:  # what pandas and Arrow raise are such
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as a {suffix} table: {reason}") from error
    try:
        rows = checked(rows)
        ids = rows["run_id"].dropna() if "run_id" in rows else pd.Series(dtype=object)
        if ids.duplicated().any():
            raise InputError(f"run_id {ids[ids.duplicated()].iloc[0]} stands twice; every run may stand once")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return rows


def _read_parquet(path: Path) -> pd.DataFrame:
    with pq.ParquetFile(path) as file:
        check_version(path, file.schema_arrow)
        # What pandas wrote as an index is a column like the others.
        rows: pd.DataFrame = file.read().to_pandas(ignore_metadata=True)
        return rows


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """A copy with a plain index, `bias` as bool, every setting in its type, float accuracies and a `status`.

    Raises InputError naming the column, the first row (counted from 1) and its value, and what is allowed.
    """
    named = [name for name in rows.index.names if name is not None and name not in rows]
    rows = (rows.reset_index(level=named) if named else rows).reset_index(drop=True)
    twice = rows.columns[rows.columns.duplicated()]
    if len(twice):
        raise InputError(f"column {twice[0]} stands twice; every column may stand once")
    missing = [name for name in REQUIRED if name not in rows]
    if missing:
        found = ", ".join(map(str, rows.columns)) or "none"
        raise InputError(f"no column {', '.join(missing)}; a table needs {', '.join(REQUIRED)} (its columns: {found})")
    if rows.empty:
        raise InputError("the table has no rows; both arms of at least one pair are needed")
    for name in SETTINGS:
        if name in rows:
            rows[name] = _setting(name, rows[name])
    rows["test_accuracy"] = _accuracy(rows["test_accuracy"])
    rows["status"] = _status(rows)
    return rows


def factors(rows: pd.DataFrame) -> list[str]:
    """The settings that vary and so divide the rows into cells, in their order; never `bias` or `seed`."""
    return [name for name in CELL if name in rows and rows[name].nunique(dropna=False) > 1]


def ignored(rows: pd.DataFrame) -> list[str]:
    """Columns that vary but are neither a setting nor a result: the analysis does not look at them."""
    others = [name for name in rows if (name not in SETTINGS and name not in RESULTS) or name in MADE_WITH]
    return [str(name) for name in others if rows[name].astype(str).nunique() > 1]


def _setting(name: str, column: pd.Series) -> pd.Series:
    base = get_args(TYPES[name])[0]
    kinds = get_args(base) or (base,)
    if bool in kinds:
        return _flags(name, column)
    nullable = type(None) in kinds
    if not nullable:
        _refuse(name, column, column.isna(), "a value in every row is needed")
    if int not in kinds and float not in kinds:
        return column.astype(str)
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    _refuse(name, column, column.notna() & ~np.isfinite(numbers), "a number is needed")
    if int not in kinds:
        return numbers
    least = 1 if name in ("width", "depth", "steps", "batch_size") else 0
    wrong = numbers.notna() & ((numbers % 1 != 0) | (numbers < least))
    _refuse(name, column, wrong, f"a whole number from {least} on is needed")
    # Beyond this, floating-point numbers are not all there, and two seeds could become one.
    _refuse(name, column, numbers > 2**53, f"at most {2**53} is allowed")
    return numbers if numbers.isna().any() else numbers.astype("int64")


def _flags(name: str, column: pd.Series) -> pd.Series:
    if column.dtype == bool:
        return column
    flags = column.map(lambda value: _FLAGS.get(str(value).strip().lower()))
    _refuse(name, column, flags.isna(), "allowed are true, false, 1 and 0")
    return flags.astype(bool)


def _accuracy(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    _refuse("test_accuracy", column, numbers.isna(), "a share of right answers, 0 to 1, is needed in every row")
    percent = numbers.between(0, 100).all() and (numbers > 2).any()
    hint = "; the column looks as if given in 0-100 instead of 0-1: divide it by 100" if percent else ""
    _refuse("test_accuracy", column, ~numbers.between(0, 1), "allowed is 0 to 1" + hint)
    return numbers


def _status(rows: pd.DataFrame) -> pd.Series:
    if "status" not in rows:
        return pd.Series("ok", index=rows.index)
    status = rows["status"].fillna("ok").astype(str)
    _refuse("status", status, ~status.isin(["ok", "diverged"]), "allowed are ok and diverged")
    return status


def _refuse(name: str, column: pd.Series, wrong: pd.Series, allowed: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        raise InputError(f"column {name}, row {row + 1}: {column.iloc[row]!s}; {allowed}")
