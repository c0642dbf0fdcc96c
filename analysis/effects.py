"""From runs to pairs to cells: matches the two arms of every seed and gives each cell its record.

Rows are runs (columns: the settings, `status`, `test_accuracy` in 0..1); effects are in percentage points.
"""

from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import bootstrap, pictures, unknown_columns
from analysis.judging import Counts, decide, judge
from analysis.record import Record
from analysis.run_table import checked, factors, ignored, unknown
from sweep.common.errors import InputError

__all__ = ["cells", "factors", "matched", "pairs", "records", "unpaired"]

RESULTS: Final = tuple(
    "pairs effect low high equivalence_low equivalence_high detected verdict direction reason sensitive bootstrap_low "
    "bootstrap_high verdict_familywise pairs_needed accuracy_bias accuracy_no_bias rho gain only_bias only_no_bias "
    "test_pictures seed_spread picture_spread diverged_bias diverged_no_bias limit".split()
)
"""The keys of a cell's record, after the settings that vary."""

SAME: Final = 1e-12
"""Accuracies that differ by less are equal: they are ratios of counts."""

GUESSED: Final = 0.5
"""The highest accuracy that guessing reaches where classes are equally large."""

_COUNTS: Final = frozenset({"pairs", "pairs_needed", "test_pictures", "diverged_bias", "diverged_no_bias"})
_ARMS: Final = ("bias", "no_bias")
_PAIR: Final = ("seed", "accuracy_bias", "accuracy_no_bias", "effect", "status_bias", "status_no_bias")


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per pair: factors, `seed`, `accuracy_bias`, `accuracy_no_bias`, `effect`, each arm's `status_*`.

    `effect` is 100 (accuracy with bias - accuracy without). Runs without a partner are in `unpaired`. Raises
    InputError where a run appears twice, where there is no pair, and where pairs would be pooled over a column that
    is not a setting; to pool them, drop the column.
    """
    table = _matched(rows)
    return table[table["effect"].notna()].reset_index(drop=True)


def unpaired(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and seed that has only one arm; columns as in `pairs`, null for the missing arm."""
    table = _matched(rows)
    return table[table["effect"].isna()].reset_index(drop=True)


def cells(rows: pd.DataFrame, margin: float, confidence: float) -> list[Record]:
    """One record per cell, in the order of the factors: those settings, then `RESULTS`.

    Means, interval and `rho` (the arms' correlation over seeds; null unless both vary) are over the pairs,
    `diverged_*` over all runs of the arm. `pairs_needed` is how many more pairs would settle an undecided cell; `gain`
    is 1 / (1 - rho), the number of pairs of unrelated runs that one pair is worth. `bootstrap_*` and `sensitive` are
    given from 20 pairs on. `verdict_familywise` and `reason` are null here; `threshold.familywise` and `wording.cells`
    fill them in. `pictures.by_cell` explains what comes from pictures. `limit` says where nothing can differ, because
    all runs of the pairs have the same accuracy: `ceiling` at 1, `chance` at 0.5 and below. No such cell is equivalent.
    """
    rows = checked(rows)
    return records(rows, matched(rows), factors(rows), margin, confidence)


def matched(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and seed of checked `rows`, in that order, both arms side by side.

    Columns: the factors; those of `pairs`, null where an arm is missing; `cell`, counted from 0; and the positions of
    both runs in `rows`, `row_bias` and `row_no_bias`, -1 for a missing run. Raises InputError as `pairs` does.
    """
    names, others = factors(rows), unknown(rows)
    unknown_columns.ask(rows, others)
    cell = _numbered(rows, names)
    bias, seed = rows["bias"].to_numpy(), rows["seed"].to_numpy()
    order = np.lexsort((bias, seed, cell))
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (np.diff(cell[order]) != 0) | (np.diff(seed[order]) != 0)
    twice = ~new
    twice[1:] &= bias[order][1:] == bias[order][:-1]
    if twice.any():
        _refuse_repeat(rows, names, int(order[twice].min()))
    group, first = np.cumsum(new) - 1, order[new]
    places = {arm: np.full(len(first), -1, dtype=np.int64) for arm in _ARMS}
    for arm, own in zip(_ARMS, (bias[order], ~bias[order]), strict=True):
        places[arm][group[own]] = order[own]
    table = rows[[*names, "seed"]].iloc[first].reset_index(drop=True)
    table["cell"] = cell[first]
    table = with_pair_columns(rows, table, places["bias"], places["no_bias"])
    if table["effect"].isna().all():
        _refuse_no_pairs(rows)
    unknown_columns.refuse_pooled(rows, table, others)
    return table


def with_pair_columns(rows: pd.DataFrame, table: pd.DataFrame, with_bias: Counts, without: Counts) -> pd.DataFrame:
    """`table` with the columns of pairs, made from the runs at these positions of `rows` (-1: no run)."""
    accuracy, status = rows["test_accuracy"].to_numpy(dtype=np.float64), rows["status"].to_numpy(dtype=object)
    for arm, place in zip(_ARMS, (with_bias, without), strict=True):
        table[f"row_{arm}"] = place
        table[f"accuracy_{arm}"] = np.where(place >= 0, accuracy[place], np.nan)
        table[f"status_{arm}"] = pd.Series(status[place], index=table.index).where(place >= 0, None)
    # Accuracies are ratios of counts: digits beyond the twelfth decimal are rounding, and could push an effect
    # of exactly the margin above it.
    table["effect"] = (100 * (table["accuracy_bias"] - table["accuracy_no_bias"])).round(12)
    return table


def records(
    rows: pd.DataFrame, table: pd.DataFrame, names: list[str], margin: float, confidence: float
) -> list[Record]:
    """The records of `cells`, from checked rows, their pairs as `matched` gives them, and the factors' names."""
    frame = _summary(table, names)
    judged = judge(
        frame["pairs"].to_numpy(), frame["effect"].to_numpy(), frame["spread"].to_numpy(),
        margin=margin, confidence=confidence,
    )  # fmt: skip
    limited = frame["limit"].notna()
    judged.loc[limited & (judged["verdict"] == "equivalent"), "verdict"] = "undecided"
    judged.loc[limited, "pairs_needed"] = np.nan
    paired = table[table["effect"].notna()]
    again = _second_opinion(paired, frame["pairs"].to_numpy(), judged, margin, confidence)
    again.loc[limited, "sensitive"] = None
    frame = pd.concat([frame, judged, again, pictures.by_cell(rows, paired, len(frame))], axis=1)
    frame["gain"] = (1 / (1 - frame["rho"])).where(frame["rho"] < 1 - 1e-12)
    frame["verdict_familywise"] = frame["reason"] = None
    columns = [_plain(name, frame[name]) for name in (*names, *RESULTS)]
    return [dict(zip((*names, *RESULTS), values, strict=True)) for values in zip(*columns, strict=True)]


def _second_opinion(
    paired: pd.DataFrame, count: Counts, judged: pd.DataFrame, margin: float, confidence: float
) -> pd.DataFrame:
    """The bootstrap's interval of each cell, and whether its verdict differs; null where there are too few pairs."""
    outer, inner = bootstrap.intervals(
        paired["effect"].to_numpy(), paired["cell"].to_numpy(), len(count), (confidence, 2 * confidence - 1)
    )
    verdict, direction = decide(count, outer, inner, margin)
    differs = (verdict != judged["verdict"].to_numpy()) | (direction != judged["direction"].to_numpy())
    sensitive = pd.Series(differs.astype(object)).where(np.isfinite(outer[0]), None)
    return pd.DataFrame({"bootstrap_low": outer[0], "bootstrap_high": outer[1], "sensitive": sensitive})


def _matched(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of `matched` for rows of any origin, without the columns that only the analysis needs."""
    rows = checked(rows)
    return matched(rows)[[*factors(rows), *_PAIR]]


def _numbered(rows: pd.DataFrame, names: list[str]) -> Counts:
    """The cell of every row, counted from 0 in the order of the factors."""
    if not names:
        return np.zeros(len(rows), dtype=np.int64)
    by: Any = names
    return np.asarray(rows.groupby(by, dropna=False, sort=True).ngroup(), dtype=np.int64)


def _refuse_repeat(rows: pd.DataFrame, names: list[str], place: int) -> None:
    keys = [*names, "seed", "bias"]
    repeats = rows.iloc[[place]]
    first = ", ".join(f"{key} {repeats[key].iloc[0]}" for key in keys)
    others = ignored(rows)
    hint = f"; columns that are not settings do not divide cells: {', '.join(others)}" if others else ""
    raise InputError(f"two rows for {first}; each arm of a cell and seed may appear once{hint}")


def _refuse_no_pairs(rows: pd.DataFrame) -> None:
    arms = rows["bias"].unique()
    if len(arms) == 1:
        given = str(bool(arms[0])).lower()
        raise InputError(f"every row has bias {given}; runs with bias true and with bias false are needed")
    raise InputError(f"no pair among {len(rows)} rows: no cell has a seed with both bias true and bias false")


def _summary(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """One row per cell: the factors, and its pairs' counts, means, spread and correlation."""
    paired = table["effect"].notna()
    work = table[["cell", "effect"]].copy()
    for arm in _ARMS:
        work[f"accuracy_{arm}"] = table[f"accuracy_{arm}"].where(paired)
        work[f"diverged_{arm}"] = table[f"status_{arm}"] == "diverged"
    groups = work.groupby("cell")
    for arm in _ARMS:
        work[f"off_{arm}"] = work[f"accuracy_{arm}"] - groups[f"accuracy_{arm}"].transform("mean")
    work["product"] = work["off_bias"] * work["off_no_bias"]
    groups = work.groupby("cell")
    frame = pd.DataFrame({"pairs": groups["effect"].count(), "effect": groups["effect"].mean()})
    frame["spread"] = groups["effect"].std()
    # Where all effects are equal, so is their mean: rounding must not carry it across the margin.
    least, most = groups["effect"].min(), groups["effect"].max()
    frame["effect"] = frame["effect"].where(least != most, least)
    for arm in _ARMS:
        frame[f"accuracy_{arm}"] = groups[f"accuracy_{arm}"].mean()
        frame[f"diverged_{arm}"] = groups[f"diverged_{arm}"].sum()
    frame["limit"] = _limit(groups)
    frame["rho"] = _correlation(groups, frame["pairs"])
    levels = table[names].loc[~table["cell"].duplicated()]
    return pd.concat([levels.reset_index(drop=True), frame.reset_index(drop=True)], axis=1)


def _limit(groups: Any) -> pd.Series:
    """`ceiling` where both arms' accuracies are all 1, `chance` where all are one that guessing reaches; else null."""
    lows = pd.concat([groups[f"accuracy_{arm}"].min() for arm in _ARMS], axis=1).min(axis=1)
    highs = pd.concat([groups[f"accuracy_{arm}"].max() for arm in _ARMS], axis=1).max(axis=1)
    kinds = np.select([lows > 1 - SAME, highs <= GUESSED + SAME], ["ceiling", "chance"], "")
    limit = pd.Series(kinds, index=lows.index, dtype=object)
    return limit.where((highs - lows < SAME) & (limit != ""), None)


def _correlation(groups: Any, count: pd.Series) -> pd.Series:
    spreads = groups[["accuracy_bias", "accuracy_no_bias"]].std()
    # A spread of 1e-9 is a constant plus rounding.
    scale = (spreads["accuracy_bias"] * spreads["accuracy_no_bias"]).where((spreads > 1e-9).all(axis=1))
    covariance = groups["product"].sum() / (count - 1).where(count >= 2)
    rho: pd.Series = (covariance / scale).clip(-1, 1)
    return rho


def _plain(name: str, column: pd.Series) -> list[Any]:
    """The column as values for JSON: null where one is missing, whole numbers where the column holds counts."""
    values = column.astype(object).where(column.notna() & (column.astype(object) != ""), None).tolist()
    if name in _COUNTS or name == "train_examples":
        return [None if value is None else int(value) for value in values]
    return values
