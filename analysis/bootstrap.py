"""Paired BCa bootstrap of the mean effect of many cells at once: a second opinion, which never decides.

Cells with equally many pairs share the resamples, so that a cell costs one matrix product and one sort.
"""

from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri

from analysis.judging import Counts, Floats

FEWEST_PAIRS: Final = 20
"""With fewer pairs, a bootstrap interval covers less than its confidence."""
RESAMPLES: Final = 5_000
_SEED: Final = 0  # the same rows give the same report
_BLOCK: Final = 4_000_000


def intervals(effects: Floats, cell: Counts, cells: int, confidences: tuple[float, ...]) -> list[tuple[Floats, Floats]]:
    """Both ends of the BCa interval of every cell's mean effect, `[cells]` each, once per confidence level.

    `effects` are those of all pairs, `cell` the cell of each, ascending from 0 to `cells` - 1. NaN where a cell has
    fewer than `FEWEST_PAIRS` pairs; where all its effects are equal, both ends are the mean. BCa: Efron, JASA 82, 1987;
    the numbers are those of `scipy.stats.bootstrap(method="BCa")` for the same resamples.
    """
    counts = np.bincount(cell, minlength=cells)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ends = [(np.full(cells, np.nan), np.full(cells, np.nan)) for _ in confidences]
    for n in np.unique(counts[counts >= FEWEST_PAIRS]):
        members = np.flatnonzero(counts == n)
        weights = _weights(int(n))
        for some in np.array_split(members, min(len(members), -(-len(members) * RESAMPLES // _BLOCK))):
            sample = effects[starts[some][:, None] + np.arange(n)]
            for (low, high), (found_low, found_high) in zip(ends, _bca(sample, weights, confidences), strict=True):
                low[some], high[some] = found_low, found_high
    return ends


def _weights(n: int) -> Floats:
    """How often each of `n` pairs is drawn in each resample, over n: `[n, RESAMPLES]`."""
    generator = np.random.default_rng(_SEED)
    weights = np.empty((n, RESAMPLES))
    block = max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        drawn = generator.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        weights[:, start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).T
    return weights / n


def _bca(sample: Floats, weights: Floats, confidences: tuple[float, ...]) -> list[tuple[Floats, Floats]]:
    """Intervals for `sample` `[cells, pairs]`."""
    mean = sample.mean(axis=1)
    off = sample - mean[:, None]
    constant = (sample == sample[:, :1]).all(axis=1)
    means = off @ weights
    means.sort(axis=1)
    # Effects are counts of pictures: many resamples have exactly the sample's mean, up to rounding.
    tie = 1e-10
    below = np.array([np.searchsorted(one, -tie, "left") + np.searchsorted(one, tie, "right") for one in means])
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = ndtri(below / (2 * RESAMPLES))
        # The jackknife of a mean: its pseudo-deviations are the deviations themselves.
        acceleration = (off**3).sum(axis=1) / (off**2).sum(axis=1) ** 1.5 / 6
        found = []
        for confidence in confidences:
            ends = []
            for side in (0.5 - confidence / 2, 0.5 + confidence / 2):
                shifted = bias + ndtri(side)
                level = ndtr(bias + shifted / (1 - acceleration * shifted))
                ends.append(np.where(constant, sample[:, 0], mean + _quantiles(means, level)))
            found.append((ends[0], ends[1]))
    return found


def _quantiles(ordered: Floats, level: Floats) -> Floats:
    """One quantile of each row, by linear interpolation; NaN where the level is."""
    place = np.nan_to_num(level) * (ordered.shape[1] - 1)
    left = np.floor(place).astype(np.int64)
    right = np.minimum(left + 1, ordered.shape[1] - 1)
    rows = np.arange(len(ordered))
    value = ordered[rows, left] + (place - left) * (ordered[rows, right] - ordered[rows, left])
    return np.where(np.isnan(level), np.nan, value)
