"""What a table of runs must hold: one type per column; every wrong value is refused by name.

Rows come from the store or from a Parquet or CSV file made elsewhere; after `checked` both look the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis import table_files, unknown_columns
from sweep.common.errors import InputError
from sweep.space.runs import CELL, SETTINGS, TYPES
from sweep.store.tables import RUNS_SCHEMA

REQUIRED: Final = ("bias", "seed", "test_accuracy")
RESULTS: Final = frozenset(RUNS_SCHEMA.names) - frozenset(SETTINGS) | {"array_id"}
"""Columns of the store that are not settings: they may vary without dividing the runs into cells."""

MADE_WITH: Final = ("dataset_fingerprint", "trainer_version", "image_size", "evaluate_every")
"""Columns of the store that may tell runs apart without dividing cells: a report says so where they vary."""

METHODS: Final = frozenset({"grouped", "im2col", "native", "triton"})
"""What the store's column `method` says."""

_FLAGS: Final = {
    "true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False, "yes": True, "no": False,
    "on": True, "off": False,
}  # fmt: skip
_NUMBERS: Final = tuple(
    field.name
    for field in RUNS_SCHEMA
    if field.name in RESULTS and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
)
_COMMA: Final = r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?"
_DECIMAL_COMMA: Final = r"[+-]?(?:0?,\d+|\d+,(?!\d{3}$)\d+|\d*,\d+[eE][+-]?\d+)"
"""A number whose comma cannot mark thousands."""

_THOUSANDS: Final = r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+"
"""A number whose points mark thousands where commas mark decimals."""


def load_table(path: Path | str) -> pd.DataFrame:
    """The checked rows of a `.parquet`, `.csv` or `.tsv` file, or of a folder of Parquet files, one row per run.

    Raises InputError where the file cannot be read, a column is missing, a value is refused or a `run_id`
    appears twice.
    """
    return load_files(path)


def load_files(path: Path | str, files: Mapping[str, table_files.Source] | None = None) -> pd.DataFrame:
    """Like `load_table`, for files that were fetched from `path`, by their names there."""
    read = table_files.read(path, table_files.found(Path(path)) if files is None else files)
    try:
        rows = checked(read)
        ids = rows["run_id"].dropna() if "run_id" in rows else pd.Series(dtype=object)
        if ids.duplicated().any():
            raise InputError(f"run_id {ids[ids.duplicated()].iloc[0]} appears twice; every run may appear once")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return rows


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """A copy with a plain index, `bias` as bool, every setting in its type, float accuracies and a `status`.

    Raises InputError naming the column, the first row (counted from 1) and its value, and what is allowed.
    """
    named = [name for name in rows.index.names if name is not None and name not in rows]
    rows = (rows.reset_index(level=named) if named else rows).reset_index(drop=True)
    rows.columns = rows.columns.map(str)
    twice = rows.columns[rows.columns.duplicated()]
    if len(twice):
        raise InputError(f"column {twice[0]} appears twice; every column may appear once")
    missing = [name for name in REQUIRED if name not in rows]
    if missing:
        found = ", ".join(map(str, rows.columns)) or "none"
        near = unknown_columns.hint(rows.columns, missing)
        raise InputError(
            f"no column {', '.join(missing)}; a table needs {', '.join(REQUIRED)} (its columns: {found}){near}"
        )
    if rows.empty:
        raise InputError("the table has no rows; both arms of at least one pair are needed")
    _refuse_thousands(rows)
    for name in SETTINGS:
        if name in rows:
            rows[name] = _setting(name, rows[name])
    for name in _NUMBERS:
        if name in rows and name != "test_accuracy":
            rows[name] = _result(rows[name])
    rows["test_accuracy"] = _accuracy(rows["test_accuracy"])
    rows["status"] = _status(rows)
    return rows


def factors(rows: pd.DataFrame) -> list[str]:
    """The settings that vary and so divide the rows into cells, in their order; never `bias` or `seed`."""
    return [name for name in CELL if name in rows and rows[name].nunique(dropna=False) > 1]


def ignored(rows: pd.DataFrame) -> list[str]:
    """Columns that vary but are neither a setting nor a result: the analysis does not look at them."""
    return _varying(rows, [name for name in rows if name not in (*SETTINGS, *results(rows)) or name in MADE_WITH])


def unknown(rows: pd.DataFrame) -> list[str]:
    """The ignored columns that the store does not know: only whoever made the table can say what they mean."""
    return _varying(rows, [name for name in rows if name not in (*SETTINGS, *results(rows))])


def results(rows: pd.DataFrame) -> frozenset[str]:
    """`RESULTS`, without `method` where a table from elsewhere means something of its own by it."""
    ours = "method" not in rows or METHODS.issuperset(rows["method"].dropna().map(str).unique())
    return RESULTS if ours else RESULTS - {"method"}


def _varying(rows: pd.DataFrame, names: list[Any]) -> list[str]:
    return [str(name) for name in names if rows[name].map(str).nunique(dropna=False) > 1]


def _kinds(name: str) -> tuple[Any, ...]:
    """The types that a setting may have."""
    base = get_args(TYPES[name])[0]
    return get_args(base) or (base,)


def _setting(name: str, column: pd.Series) -> pd.Series:
    kinds = _kinds(name)
    if bool in kinds:
        return _flags(name, column)
    nullable = type(None) in kinds
    if not nullable:
        _refuse(name, column, column.isna(), "every row needs a value")
    if int not in kinds and float not in kinds:
        return column.astype(str)
    numbers = _numbers(column)
    _refuse(name, column, column.notna() & ~np.isfinite(numbers), _needed(column))
    if int not in kinds:
        return numbers
    least = 1 if name in ("width", "depth", "steps", "batch_size") else 0
    wrong = numbers.notna() & ((numbers % 1 != 0) | (numbers < least))
    _refuse(name, column, wrong, f"must be a whole number, {least} or more")
    # Beyond this, floating-point numbers have gaps, and two seeds could become one.
    _refuse(name, column, numbers > 2**53, f"must be at most {2**53}")
    return numbers if numbers.isna().any() else numbers.astype("int64")


def _result(column: pd.Series) -> pd.Series:
    """As numbers, if every value that is there is one."""
    if not pd.api.types.is_string_dtype(column):
        return column
    numbers = _numbers(column)
    return column if (numbers.isna() & column.notna()).any() else pd.to_numeric(numbers, downcast="integer")


def _numbers(column: pd.Series) -> pd.Series:
    """As floating-point numbers; NaN for what is not a number.

    Commas are read as decimal where no number has a point and at least one comma cannot mark thousands.
    """
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    if not (numbers.isna() & column.notna()).any():
        return numbers
    text = column.dropna().astype(str).str.strip()
    if _has_decimal_commas(text):
        numbers.loc[text.index] = pd.to_numeric(text.str.replace(",", "."), errors="coerce").astype("float64")
    return numbers


def _has_decimal_commas(text: pd.Series) -> bool:
    comma = text.str.fullmatch(_COMMA)
    return bool(text[comma].str.fullmatch(_DECIMAL_COMMA).any() and not text.str.contains(".", regex=False).any())


def _refuse_thousands(rows: pd.DataFrame) -> None:
    """Raises InputError where one column has decimal commas and another `1.000`, which would be read as 1."""
    names = (*(name for name in SETTINGS if {int, float} & set(_kinds(name))), *_NUMBERS)
    columns = {name: rows[name] for name in names if name in rows and pd.api.types.is_string_dtype(rows[name])}
    texts = {name: column.dropna().astype(str).str.strip() for name, column in columns.items()}
    if any(_has_decimal_commas(text) for text in texts.values()):
        for name, text in texts.items():
            wrong = text.str.fullmatch(_THOUSANDS).reindex(rows.index, fill_value=False)
            _refuse(name, columns[name], wrong, "its points may mark decimals or thousands, write it without")


def _needed(column: pd.Series) -> str:
    commas = column.dropna().astype(str).str.contains(",", regex=False).any()
    return "must be a number" + ("; its comma may mark decimals or thousands: write it without" if commas else "")


def _flags(name: str, column: pd.Series) -> pd.Series:
    if column.dtype == bool:
        return column
    flags = column.map(lambda value: _FLAGS.get(str(value).strip().lower()))
    _refuse(name, column, flags.isna(), "must be true, false, 1 or 0 (or yes, no, on, off)")
    return flags.astype(bool)


def _accuracy(column: pd.Series) -> pd.Series:
    numbers = _numbers(column)
    _refuse("test_accuracy", column, numbers.isna(), "every row needs a share of right answers, 0 to 1")
    percent = numbers.between(0, 100).all() and (numbers > 2).any()
    hint = "; the column seems to be 0-100 instead of 0-1: divide it by 100" if percent else ""
    _refuse("test_accuracy", column, ~numbers.between(0, 1), "must be 0 to 1" + hint)
    return numbers


def _status(rows: pd.DataFrame) -> pd.Series:
    if "status" not in rows:
        return pd.Series("ok", index=rows.index)
    status = rows["status"].fillna("ok").astype(str)
    _refuse("status", status, ~status.isin(["ok", "diverged"]), "must be ok or diverged")
    return status


def _refuse(name: str, column: pd.Series, wrong: pd.Series, allowed: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        raise InputError(f"column {name}, row {row + 1}: {column.iloc[row]!s}; {allowed}")
