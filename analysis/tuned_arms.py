"""Each arm at its own best learning rate: chosen for every seed by the other seeds, judged as usual.

Choosing by the seed's own validation accuracy would favour the arm with more rates to choose from. Where several rates
are equally good, pairs of one cell share the luck of the choice and intervals are too narrow: the calibration
measures by how much.
"""

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import effects
from analysis.judging import Counts, Floats
from analysis.record import Record
from sweep.common.errors import InputError

TUNABLE: Final = ("learning_rate",)


def cells(rows: pd.DataFrame, tune: list[str], margin: float, confidence: float) -> list[Record]:
    """Records as from `effects.cells`, of checked rows: one per combination of the settings that are not tuned.

    For seed s, each arm of a pair is its run at the rate with the best mean validation accuracy over the seeds other
    than s (the lowest of equals); `rate_bias` and `rate_no_bias` are those most often chosen. A seed has a pair where
    both chosen runs exist. Raises InputError where nothing can be tuned: `tune` names no axis of the rows, or there is
    no validation accuracy.
    """
    name = _tuned(rows, tune)
    names = [one for one in effects.factors(rows) if one != name]
    table, chosen = _table(rows, name, names)
    records = effects.records(rows, table, names, margin, confidence)
    rates = {arm: _most_often(table["cell"].to_numpy(), rate, len(records)) for arm, rate in chosen.items()}
    return [
        {**record, **{f"rate_{arm}": values[place] for arm, values in rates.items()}}
        for place, record in enumerate(records)
    ]


def best_of_others(validation: Floats) -> NDArray[np.int64]:
    """For each seed, the rate with the best mean over the other seeds; -1 where they have none.

    `validation` `[..., seeds, rates]`, NaN where there is no run; the answer is `[..., seeds]`, the first of equals.
    """
    there = np.isfinite(validation)
    known = np.where(there, validation, 0.0)
    others = there.sum(axis=-2, keepdims=True) - there
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (known.sum(axis=-2, keepdims=True) - known) / others
    # Sums of the same numbers in another order may differ in their last digit.
    mean = np.where(others > 0, mean.round(12), -np.inf)
    best = mean.argmax(axis=-1)
    return np.where(np.isfinite(mean.max(axis=-1)), best, -1)


def _tuned(rows: pd.DataFrame, tune: list[str]) -> str:
    if len(tune) != 1 or tune[0] not in TUNABLE:
        raise InputError(f"tune {', '.join(tune)}: must be {', '.join(TUNABLE)}")
    name = tune[0]
    if name not in rows or rows[name].nunique() < 2:
        raise InputError(f"tune {name}: is not an axis of these rows; there is nothing to choose from")
    if "validation_accuracy" not in rows:
        raise InputError(f"tune {name}: needs a column validation_accuracy to choose by")
    return name


def _table(rows: pd.DataFrame, name: str, names: list[str]) -> tuple[pd.DataFrame, dict[str, Floats]]:
    """The pairs of chosen runs as from `effects.matched`, and the rates of each arm."""
    by: Any = names
    cell = np.zeros(len(rows), np.int64) if not names else np.asarray(rows.groupby(by, dropna=False).ngroup())
    seeds, seed = np.unique(rows["seed"].to_numpy(), return_inverse=True)
    rates, rate = np.unique(rows[name].to_numpy(dtype=np.float64), return_inverse=True)
    arm = np.where(rows["bias"].to_numpy(), 0, 1)
    shape = (2, int(cell.max()) + 1, len(seeds), len(rates))
    places = np.full(shape, -1, dtype=np.int64)
    places[arm, cell, seed, rate] = np.arange(len(rows))
    validation = np.full(shape, np.nan)
    validation[arm, cell, seed, rate] = pd.to_numeric(rows["validation_accuracy"], errors="coerce")
    best = best_of_others(validation)
    chosen = np.take_along_axis(places, np.maximum(best, 0)[..., None], axis=-1)[..., 0]
    chosen = np.where(best >= 0, chosen, -1)
    # One row per cell and seed with any run, in order, so that a cell without a pair has its record too.
    own = (places >= 0).any(axis=(0, 3))
    where = np.nonzero(own)
    first = _first_of_each(cell)
    table = rows[names].iloc[first[where[0]]].reset_index(drop=True)
    table["seed"], table["cell"] = seeds[where[1]], where[0]
    return effects.with_pair_columns(rows, table, chosen[0][own], chosen[1][own]), {
        "bias": np.where(chosen[0] >= 0, rates[best[0]], np.nan)[own],
        "no_bias": np.where(chosen[1] >= 0, rates[best[1]], np.nan)[own],
    }


def _first_of_each(cell: Counts) -> Counts:
    return np.unique(cell, return_index=True)[1]


def _most_often(cell: Counts, rate: Floats, cells: int) -> list[float | None]:
    """The rate most often chosen in each cell, the lowest of equals."""
    frame = pd.DataFrame({"cell": cell, "rate": rate}).dropna()
    count = frame.groupby(["cell", "rate"]).size().reset_index(name="times")
    count = count.sort_values(["cell", "times", "rate"], ascending=[True, False, True]).drop_duplicates("cell")
    found = dict(zip(count["cell"].tolist(), count["rate"].tolist(), strict=True))
    return [found.get(place) for place in range(cells)]
