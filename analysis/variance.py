"""Which factor moves the effect: the variance of the cells' effects, split by factor, noise subtracted."""

from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.judging import Floats
from analysis.record import Record
from analysis.seed_effects import SeedEffects

INTERACTIONS: Final = "interactions"
MOST_COLUMNS: Final = 300
"""A grid with gaps whose levels, less one per factor, are more than this is not decomposed."""


def shares(by_seed: SeedEffects) -> list[Record]:
    """One record per factor: `factor`, `share` of the variance of cell effects (0 to 1); the last, `interactions`, is
    what no single factor explains. Empty where the effects differ by no more than their noise, or fewer than two seeds
    have all cells.

    Sums of squares of the factors (type II where the grid has gaps), each less its expectation under noise alone: the
    mean, over pairs of different seeds, of the product of their coordinates, which neither seed's noise can inflate.
    """
    grams = _grams(by_seed)
    if grams is None:
        return []
    estimates = {name: _between(gram) for name, gram in grams.items()}
    total = estimates.pop("")
    if not total > 1e-12:
        return []
    found = {name: min(max(value / total, 0.0), 1.0) for name, value in estimates.items()}
    if len(found) > 1:
        found[INTERACTIONS] = max(1 - sum(found.values()), 0.0)
    return [{"factor": name, "share": share} for name, share in found.items()]


def difference(by_seed: SeedEffects, first: str, second: str) -> tuple[float, Floats]:
    """Share of `first` less share of `second`, and one pseudo-value per seed; their mean and spread give its interval.

    The delete-one jackknife over seeds (Tukey 1958). NaN and no pseudo-values where `shares` would be empty or there
    are fewer than three seeds.
    """
    grams = _grams(by_seed)
    if grams is None or len(grams[""]) < 3:
        return np.nan, np.empty(0)
    seeds = len(grams[""])
    gap, total = grams[first] - grams[second], grams[""]
    whole, without = _between(total), _between_without_one(total)
    if not (whole > 1e-12 and (without > 1e-12).all()):
        return np.nan, np.empty(0)
    estimate = _between(gap) / whole
    return estimate, seeds * estimate - (seeds - 1) * _between_without_one(gap) / without


def _between(gram: Floats) -> float:
    """Mean of the products of different seeds."""
    seeds = len(gram)
    return float((gram.sum() - np.trace(gram)) / (seeds * (seeds - 1)))


def _between_without_one(gram: Floats) -> Floats:
    """`_between` with each seed left out in turn."""
    seeds = len(gram)
    off = gram - np.diag(np.diag(gram))
    left: Floats = (off.sum() - 2 * off.sum(axis=1)) / ((seeds - 1) * (seeds - 2))
    return left


def _grams(by_seed: SeedEffects) -> dict[str, Floats] | None:
    """By factor, and under "" for all of them, the products of the seeds' coordinates, `[seeds, seeds]`."""
    effects = by_seed.complete(np.ones(len(by_seed.levels), dtype=bool))
    if len(effects) < 2 or not by_seed.names:
        return None
    codes = {name: pd.factorize(by_seed.levels[name], use_na_sentinel=False)[0] for name in by_seed.names}
    effects = effects - effects.mean(axis=1, keepdims=True)
    found = {"": effects @ effects.T}
    if np.prod([code.max() + 1 for code in codes.values()]) == len(by_seed.levels):
        return found | {name: _of_level_means(effects, code) for name, code in codes.items()}
    if sum(int(code.max()) for code in codes.values()) > MOST_COLUMNS:
        return None
    everything = _explained(effects, list(codes.values()))
    for name in codes:
        found[name] = everything - _explained(effects, [code for other, code in codes.items() if other != name])
    return found


def _of_level_means(effects: Floats, code: Any) -> Floats:
    """Products for one factor of a full grid, where factors are orthogonal, so that level means suffice."""
    count = np.bincount(code)
    order = np.argsort(code, kind="stable")
    sums = np.add.reduceat(effects[:, order], np.concatenate([[0], np.cumsum(count)[:-1]]), axis=1)
    coordinates = sums / np.sqrt(count)
    return np.asarray(coordinates @ coordinates.T, dtype=np.float64)


def _explained(effects: Floats, codes: list[Any]) -> Floats:
    """Products of the parts of the seeds' effects that these factors' main effects explain."""
    columns = [np.ones((effects.shape[1], 1))]
    columns += [(code[:, None] == np.arange(1, code.max() + 1)).astype(np.float64) for code in codes]
    basis, sizes, _ = np.linalg.svd(np.hstack(columns), full_matrices=False)
    coordinates = effects @ basis[:, sizes > 1e-9 * sizes[0]]
    return np.asarray(coordinates @ coordinates.T, dtype=np.float64)
