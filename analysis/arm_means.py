"""Means and intervals of each arm by itself, for figures: accuracies of a cell, learning curves.

These say how accurate networks are; whether the bias matters is judged on pairs alone (`effects`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.judging import interval

ARMS: Final = ("bias", "no_bias")


def accuracies(pairs: pd.DataFrame, names: list[str], confidence: float) -> pd.DataFrame:
    """One row per cell and arm: `names`, `arm`, `n`, `mean`, `low`, `high` of the test accuracy, in percent.

    `pairs` is the table of `effects.pairs`; the interval is Student's t over its seeds, NaN for fewer than 2.
    """
    parts = [
        pairs[names].assign(arm=arm, value=100 * pairs[f"accuracy_{arm}"]) for arm in ARMS
    ]  # fmt: skip
    return _mean_intervals(pd.concat(parts, ignore_index=True), [*names, "arm"], confidence)


def curves(points: pd.DataFrame, rows: pd.DataFrame, names: list[str], confidence: float) -> pd.DataFrame:
    """One row per cell, arm and step: `names`, `arm`, `step`, `n`, `mean`, `low`, `high`, in percent.

    `points` has `run_id`, `step` and `validation_accuracy` (0..1), `rows` has `run_id`, `bias` and the factors.
    """
    known = rows[["run_id", "bias", *names]]
    table = points[["run_id", "step", "validation_accuracy"]].merge(known, on="run_id")
    table["arm"] = np.where(table["bias"], *ARMS)
    table["value"] = 100 * table["validation_accuracy"]
    return _mean_intervals(table, [*names, "arm", "step"], confidence)


def band_table(points: pd.DataFrame | None, rows: pd.DataFrame, verdict: Mapping[str, Any]) -> pd.DataFrame | None:
    """The learning curves averaged over seeds, for figures and page; None where the rows have none."""
    if points is None or "run_id" not in rows:
        return None
    table = curves(points, rows, verdict["factors"], verdict["looks"]["confidence_each"])
    return None if table.empty else table


def by_arm(table: pd.DataFrame, names: list[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of every cell and arm, by `key` of the cell's settings and the arm."""
    parts = table.groupby([*names, "arm"], dropna=False, sort=False)
    return {(*key(dict(zip(names, at, strict=False)), names), at[-1]): part for at, part in _tuples(parts)}


def by_cell(pairs: pd.DataFrame, names: list[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """The pairs of every cell, by `key` of its settings."""
    if not names:
        return {(): pairs}
    parts = pairs.groupby(names, dropna=False, sort=False)
    return {key(dict(zip(names, at, strict=True)), names): part for at, part in _tuples(parts)}


def key(record: Mapping[str, Any], names: list[str]) -> tuple[str, ...]:
    """A cell's settings as text, the same from tables, where columns with gaps hold floats, as from records."""
    values = [record[name] for name in names]
    return tuple("" if value is None or value != value else _text(value) for value in values)


def _tuples(groups: Any) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Each group with the values that define it, always as a tuple."""
    return iter(groups)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _mean_intervals(table: pd.DataFrame, keys: list[str], confidence: float) -> pd.DataFrame:
    groups = table.groupby(keys, dropna=False, sort=True)["value"]
    found = pd.DataFrame({"n": groups.count(), "mean": groups.mean(), "spread": groups.std()}).reset_index()
    low, high = interval(
        found["n"].to_numpy(), found["mean"].to_numpy(), found["spread"].fillna(0).to_numpy(), confidence
    )
    return found.assign(low=low, high=high).drop(columns="spread")
