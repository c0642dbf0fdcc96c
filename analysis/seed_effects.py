"""Signed effects of all cells by seed, for comparing cells with one another within each seed."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.judging import Floats


class SeedEffects(NamedTuple):
    """`levels`: one row per cell, its factors; `effects` `[seeds, cells]` in points, NaN where there is no pair."""

    levels: pd.DataFrame
    effects: Floats

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.levels]

    def complete(self, cells: NDArray[np.bool_]) -> Floats:
        """The effects of these cells for the seeds that have all of them, `[seeds, cells]`."""
        chosen = self.effects[:, cells]
        return np.asarray(chosen[np.isfinite(chosen).all(axis=1)], dtype=np.float64)


def seed_effects(table: pd.DataFrame, names: list[str]) -> SeedEffects:
    """From pairs as `effects.matched` gives them, and the factors' names."""
    levels = table.loc[~table["cell"].duplicated(), names].reset_index(drop=True)
    seeds, place = np.unique(table["seed"].to_numpy(), return_inverse=True)
    effects = np.full((len(seeds), len(levels)), np.nan)
    effects[place, table["cell"].to_numpy()] = table["effect"].to_numpy()
    return SeedEffects(levels, effects)


def mean_interval(values: Floats, confidence: float) -> tuple[float, float, float]:
    """Mean of one number per seed, and Student's interval; NaN where there are too few seeds."""
    if len(values) == 0:
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    if len(values) == 1:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half
