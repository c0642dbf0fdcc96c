"""Where the rows come from: data, devices, versions, times, and the settings that all of them share."""

import functools
import math
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

import sweep
from analysis.record import Record
from analysis.run_table import results
from sweep.space.runs import SETTINGS

_COLUMNS: Final = {
    "datasets": "dataset",
    "dataset_fingerprints": "dataset_fingerprint",
    "devices": "device",
    "torch_versions": "torch_version",
    "trainer_versions": "trainer_version",
    "splits": "split",
}

NOT_RECORDED: Final = "not recorded"
"""The method of rows from before it was kept."""


def provenance(rows: pd.DataFrame, store: str | None) -> Record:
    """How checked rows were made: the distinct values of `_COLUMNS`, the number of rows by `methods`, first and last
    `finished_at` (ISO 8601), the `settings` that all rows share, `store`, and `sweep_version` and `commit` of the
    program that analyses them.

    Null where the table has no such column.
    """
    finished = _times(rows["finished_at"]) if "finished_at" in rows else pd.Series(dtype="datetime64[ns, UTC]")
    return {
        **{key: _distinct(rows, column) for key, column in _COLUMNS.items()},
        "methods": _methods(rows),
        "first_finished_at": finished.min().isoformat() if len(finished) else None,
        "last_finished_at": finished.max().isoformat() if len(finished) else None,
        "settings": shared(rows),
        "store": store,
        "sweep_version": _version(),
        "commit": _commit(),
    }


def shared(rows: pd.DataFrame) -> Record:
    """The settings that all rows share; never `bias` or `seed`."""
    names = [name for name in SETTINGS if name in rows and name not in ("bias", "seed")]
    return {name: _plain(rows[name].iloc[0]) for name in names if rows[name].nunique(dropna=False) == 1}


def _methods(rows: pd.DataFrame) -> dict[str, int] | None:
    """The number of rows by method, the most frequent first and those that do not say it last; None if none does."""
    said = rows["method"].dropna().map(str) if "method" in rows and "method" in results(rows) else pd.Series()
    if said.empty:
        return None
    counts = [*Counter(said).most_common(), (NOT_RECORDED, len(rows) - len(said))]
    return {name: number for name, number in counts if number}


def _times(column: pd.Series) -> pd.Series:
    """The values that can be read as times, in UTC."""
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        column = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    if not isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.iloc[:0]
    times: pd.Series = column.dropna().dt.tz_convert("UTC")
    return times


def _distinct(rows: pd.DataFrame, column: str) -> list[Any] | None:
    if column not in rows:
        return None
    present = rows[column].dropna()
    if present.dtype == object:
        present = present.map(_plain)
    return sorted((_plain(value) for value in present.unique()), key=str)


def _plain(value: Any) -> Any:
    """The value, as text where JSON has no such value."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    value = value.item() if isinstance(value, np.generic) else value
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, int | float) and finite:
        return value
    return str(value).encode("utf-8", "replace").decode()  # half a character may be in a table, not in a file


def _version() -> str | None:
    try:
        return version("sweep")
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that this program runs from, marked if files differ; None outside a checkout."""
    root = Path(sweep.__file__).resolve().parent.parent
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed package may lie in an environment inside somebody else's checkout.
    if top is None or Path(top).resolve() != root:
        return None
    return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
