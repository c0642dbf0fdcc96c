"""From runs to pairs to cells: matches the two arms of every seed and gives each cell its record.

Rows are runs (columns: the settings, `status`, `test_accuracy` in 0..1); effects are in percentage points.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd

from analysis.tables import checked, factors, ignored
from analysis.verdicts import judge
from sweep.errors import InputError
from sweep.runs import CELL

__all__ = ["Record", "cells", "factors", "pairs", "settings", "unpaired"]

Record: TypeAlias = dict[str, Any]
"""Plain values by name, ready for JSON: numbers, text, true, false, null; never NaN."""

RESULTS: Final = tuple(
    "pairs effect low high equivalence_low equivalence_high detected verdict direction reason sensitive "
    "verdict_familywise pairs_needed accuracy_bias accuracy_no_bias rho diverged_bias diverged_no_bias".split()
)
"""The keys of a cell's record, after the settings that vary."""

_COUNTS: Final = frozenset({"pairs", "pairs_needed", "diverged_bias", "diverged_no_bias"})
_ARMS: Final = ("bias", "no_bias")


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a pair: factors, `seed`, `accuracy_bias`, `accuracy_no_bias`, `effect`, each arm's `status_*`.

    `effect` is 100 (accuracy with bias - accuracy without). Runs without a partner are in `unpaired`. Raises
    InputError where a run stands twice or there is no pair.
    """
    table = _matched(rows)
    return table[table["effect"].notna()].reset_index(drop=True)


def unpaired(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and seed with one arm only, columns as in `pairs`; what the other arm lacks is null."""
    table = _matched(rows)
    return table[table["effect"].isna()].reset_index(drop=True)


def cells(rows: pd.DataFrame, margin: float, confidence: float) -> list[Record]:
    """One record a cell, in the order of the factors: those settings, then `RESULTS`.

    Means, interval and `rho` (correlation of the arms over seeds; null without spread in both) are over the
    pairs, `diverged_*` over all runs of the arm. `pairs_needed` is how many more pairs would settle an
    undecided cell.
    """
    table = _matched(rows)
    names = factors(table)
    frame = _summary(table, names)
    judged = judge(
        frame["pairs"].to_numpy(), frame["effect"].to_numpy(), frame["spread"].to_numpy(),
        margin=margin, confidence=confidence,
    )  # fmt: skip
    frame = frame.join(judged)
    frame["sensitive"] = frame["verdict_familywise"] = None
    columns = [_plain(name, frame[name]) for name in (*names, *RESULTS)]
    return [dict(zip((*names, *RESULTS), values, strict=True)) for values in zip(*columns, strict=True)]


def settings(cell: Record) -> Record:
    """The settings among a record's values, in their order."""
    return {name: cell[name] for name in CELL if name in cell}


def _matched(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and seed, both arms side by side; `effect` is null where one is missing."""
    rows = checked(rows)
    names = factors(rows)
    _refuse_repeats(rows, names)
    keys = [*names, "seed"]
    values = [*keys, "test_accuracy", "status"]
    with_bias, without = rows.loc[rows["bias"], values], rows.loc[~rows["bias"], values]
    table = with_bias.merge(without, on=keys, how="outer", suffixes=("_bias", "_no_bias"))
    table.columns = pd.Index([str(name).replace("test_accuracy", "accuracy") for name in table.columns])
    # Accuracies are counts over counts: what stands behind the twelfth decimal is rounding, and would let an
    # effect of exactly the margin lie above it.
    table["effect"] = (100 * (table["accuracy_bias"] - table["accuracy_no_bias"])).round(12)
    if table["effect"].isna().all():
        _refuse_no_pairs(rows)
    return table[[*keys, "accuracy_bias", "accuracy_no_bias", "effect", "status_bias", "status_no_bias"]]


def _refuse_repeats(rows: pd.DataFrame, names: list[str]) -> None:
    keys = [*names, "seed", "bias"]
    repeats = rows[rows.duplicated(keys)]
    if repeats.empty:
        return
    first = ", ".join(f"{key} {repeats[key].iloc[0]}" for key in keys)
    others = ignored(rows)
    hint = f"; columns that are no setting do not divide cells: {', '.join(others)}" if others else ""
    raise InputError(f"two rows for {first}; each arm of a cell and seed may stand once{hint}")


def _refuse_no_pairs(rows: pd.DataFrame) -> None:
    arms = rows["bias"].unique()
    if len(arms) == 1:
        given = str(bool(arms[0])).lower()
        raise InputError(f"every row has bias {given}; runs with bias true and with bias false are needed")
    raise InputError(f"no pair among {len(rows)} rows: no cell has a seed with both bias true and bias false")


def _summary(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """One row a cell: the factors, and its pairs' counts, means, spread and correlation."""
    paired = table["effect"].notna()
    work = table[names].copy()
    work["effect"] = table["effect"]
    for arm in _ARMS:
        work[f"accuracy_{arm}"] = table[f"accuracy_{arm}"].where(paired)
        work[f"diverged_{arm}"] = table[f"status_{arm}"] == "diverged"
    groups = _grouped(work, names)
    for arm in _ARMS:
        work[f"off_{arm}"] = work[f"accuracy_{arm}"] - groups[f"accuracy_{arm}"].transform("mean")
    work["product"] = work["off_bias"] * work["off_no_bias"]
    groups = _grouped(work, names)
    frame = pd.DataFrame({"pairs": groups["effect"].count(), "effect": groups["effect"].mean()})
    frame["spread"] = groups["effect"].std()
    # Where all effects are equal, so is their mean: rounding may not carry it across the margin.
    least, most = groups["effect"].min(), groups["effect"].max()
    frame["effect"] = frame["effect"].where(least != most, least)
    for arm in _ARMS:
        frame[f"accuracy_{arm}"] = groups[f"accuracy_{arm}"].mean()
        frame[f"diverged_{arm}"] = groups[f"diverged_{arm}"].sum()
    frame["rho"] = _correlation(groups, frame["pairs"])
    return frame.reset_index(drop=not names)


def _correlation(groups: Any, count: pd.Series) -> pd.Series:
    spreads = groups[["accuracy_bias", "accuracy_no_bias"]].std()
    # A spread of 1e-9 is a constant seen through rounding.
    scale = (spreads["accuracy_bias"] * spreads["accuracy_no_bias"]).where((spreads > 1e-9).all(axis=1))
    covariance = groups["product"].sum() / (count - 1).where(count >= 2)
    rho: pd.Series = (covariance / scale).clip(-1, 1)
    return rho


def _grouped(table: pd.DataFrame, names: list[str]) -> Any:
    by: Any = names or np.zeros(len(table), dtype=np.int64)
    return table.groupby(by, dropna=False, sort=True)


def _plain(name: str, column: pd.Series) -> list[Any]:
    """The column as values for JSON: null for what is missing, whole numbers where the column counts."""
    values = column.astype(object).where(column.notna() & (column.astype(object) != ""), None).tolist()
    if name in _COUNTS or name == "train_examples":
        return [None if value is None else int(value) for value in values]
    return values
