"""The rules that judge a cell: Student's t on its pairs, three verdicts, the pairs that would settle it.

Arrays in, arrays out, one element per cell; what a pair is and where it comes from does not matter here.
"""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.record import FEWEST_PAIRS
from sweep.common.errors import InputError

MOST_PAIRS: Final = 1_000_000
"""An estimate that even this many pairs would not settle counts as lying at the margin."""
POWER: Final = 0.8

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def check_levels(margin: float, confidence: float) -> None:
    """Raises InputError unless 0 <= margin <= 100 (percentage points) and 0.5 < confidence < 1."""
    if not 0 <= margin <= 100:
        raise InputError(f"margin {margin}: must be 0 to 100 percentage points")
    if not 0.5 < confidence < 1:
        raise InputError(f"confidence {confidence}: must be above 0.5 and below 1, for example 0.95")


def interval(pairs: Counts, mean: Floats, spread: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Both ends of Student's two-sided interval of the mean effect; NaN where there are fewer than 2 pairs.

    `spread` is the standard deviation of the pairs' effects (n - 1 in its denominator); where it is 0, both
    ends are the mean.
    """
    known = pairs >= 2
    n = np.where(known, pairs, 2)
    half = stats.t.ppf(0.5 + confidence / 2, n - 1) * spread / np.sqrt(n)
    return np.where(known, mean - half, np.nan), np.where(known, mean + half, np.nan)


def judge(pairs: Counts, mean: Floats, spread: Floats, *, margin: float, confidence: float) -> pd.DataFrame:
    """Intervals and verdict of every cell, in percentage points.

    `matters`: the 1 - alpha interval lies wholly above +margin (`helps`) or below -margin (`hurts`).
    `equivalent`: the 1 - 2 alpha interval lies inside (-margin, margin), which is two one-sided tests at
    alpha (Schuirmann 1987).
    """
    check_levels(margin, confidence)
    low, high = interval(pairs, mean, spread, confidence)
    inner_low, inner_high = interval(pairs, mean, spread, 2 * confidence - 1)
    verdict, direction = decide(pairs, (low, high), (inner_low, inner_high), margin)
    total = pairs_to_settle(np.where((verdict == "undecided") & (pairs >= 2), mean, np.nan), spread, margin, confidence)
    return pd.DataFrame(
        {
            "low": low,
            "high": high,
            "equivalence_low": inner_low,
            "equivalence_high": inner_high,
            "detected": (low > 0) | (high < 0),
            "verdict": verdict,
            "direction": direction,
            "pairs_needed": total - pairs,
        }
    )


def decide(
    pairs: Counts, outer: tuple[Floats, Floats], inner: tuple[Floats, Floats], margin: float
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Verdict and direction (empty where there is none) from the 1 - alpha and the 1 - 2 alpha intervals."""
    enough = pairs >= FEWEST_PAIRS
    helps, hurts = enough & (outer[0] > margin), enough & (outer[1] < -margin)
    equivalent = enough & (inner[0] > -margin) & (inner[1] < margin)
    verdict = np.select([helps | hurts, equivalent], ["matters", "equivalent"], "undecided").astype(object)
    return verdict, np.select([helps, hurts], ["helps", "hurts"], "").astype(object)


def rescaled(
    pairs: Counts, low: Floats, high: Floats, *, confidence: float, to: float, one_sided: bool = False
) -> tuple[Floats, Floats]:
    """Student's interval at confidence `to`, from the ends of the one at `confidence`; NaN stays NaN.

    With `one_sided`, the interval of two one-sided tests at 1 - `to`, which is the two-sided one at 2 `to` - 1.
    """
    degrees = np.maximum(pairs, 2) - 1
    side = to if one_sided else 0.5 + to / 2
    factor = stats.t.ppf(side, degrees) / stats.t.ppf(0.5 + confidence / 2, degrees)
    middle, half = (low + high) / 2, (high - low) / 2 * factor
    return middle - half, middle + half


def pairs_to_settle(mean: Floats, spread: Floats, margin: float, confidence: float) -> Floats:
    """How many pairs in all would settle each cell with 80 % power, if its mean and spread were the true ones.

    NaN where no number would, because the estimate lies at the margin. Outside the margin it is the smallest n
    at which the test of |effect| = margin at alpha / 2 rejects with 80 % power, a noncentral t with n - 1 degrees
    and noncentrality (|mean| - margin) sqrt(n) / spread (Cohen 1988, 2.4). Inside, it is the smallest n for two
    one-sided tests at alpha, whose joint power is at least the sum of their powers less 1 (Julious, Statistics
    in Medicine 23, 2004).
    """
    sizes = np.full(mean.shape, np.nan)
    open_cells = np.isfinite(mean) & (np.abs(np.abs(mean) - margin) > 1e-9)
    distance = np.abs(mean[open_cells])
    # Where there is no spread, a tiny one keeps the quotient finite.
    deviation = np.maximum(spread[open_cells], 1e-12)
    below = np.full(distance.shape, FEWEST_PAIRS - 1, dtype=np.int64)
    enough = np.full(distance.shape, MOST_PAIRS + 1, dtype=np.int64)
    while (enough - below > 1).any():
        middle = np.maximum((below + enough) // 2, FEWEST_PAIRS)
        settled = _power(middle, distance, deviation, margin, 1 - confidence) >= POWER
        enough, below = np.where(settled, middle, enough), np.where(settled, below, middle)
    sizes[open_cells] = np.where(enough <= MOST_PAIRS, enough, np.nan)
    return sizes


def _power(n: Counts, distance: Floats, deviation: Floats, margin: float, alpha: float) -> Floats:
    outside = distance > margin
    critical = stats.t.isf(np.where(outside, alpha / 2, alpha), n - 1)
    scale = np.sqrt(n) / deviation

    def reject(gap: Floats) -> Floats:
        # Beyond a noncentrality of 50 the power is 1 to the last digit, and the series is slow.
        return np.asarray(stats.nct.sf(critical, n - 1, np.minimum(gap * scale, 50.0)), dtype=np.float64)

    near = reject(np.abs(distance - margin))
    return np.where(outside, near, near + reject(distance + margin) - 1)
