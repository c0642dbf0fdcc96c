"""Two one-sided tests: whether two ways of measuring agree, which a missing difference alone would not show."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Equivalence:
    """What `n` differences say: their mean, the interval that the two tests look at, and the larger of their p."""

    n: int
    mean: float
    low: float
    high: float
    p: float
    level: float

    @property
    def equivalent(self) -> bool:
        """Whether the mean lies within the margin."""
        return self.p < self.level


def equivalence(differences: ArrayLike, margin: float, level: float = 0.05) -> Equivalence:
    """Tests at `level` whether the mean of paired `differences` lies within ± `margin`.

    The interval has coverage 1 - 2 `level`: it lies within the margin just where both tests reject. Differences that
    are all the same leave nothing to test: their mean decides.
    """
    d = np.asarray(differences, dtype=np.float64)
    mean = float(d.mean())
    if np.ptp(d) == 0:
        return Equivalence(len(d), mean, mean, mean, 0.0 if abs(mean) < margin else 1.0, level)
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    low, high = stats.t.interval(1 - 2 * level, len(d) - 1, mean, stats.sem(d))
    return Equivalence(len(d), mean, float(low), float(high), float(max(above, below)), level)
