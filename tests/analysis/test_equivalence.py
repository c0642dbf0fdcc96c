"""The two one-sided tests by which the tests judge agreement."""

import numpy as np
import pytest
from statsmodels.stats.weightstats import DescrStatsW
from support.equivalence import equivalence


def test_p_and_interval_are_those_of_statsmodels() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.6, 40)
    found, reference = equivalence(differences, 0.5), DescrStatsW(differences)
    assert found.p == pytest.approx(reference.ttost_mean(-0.5, 0.5)[0], rel=1e-9)
    assert (found.low, found.high) == pytest.approx(reference.tconfint_mean(alpha=0.1), rel=1e-9)
    assert found.equivalent == (found.p < 0.05) and found.n == 40


@pytest.mark.parametrize(("shift", "equivalent"), [(0.0, True), (0.49, True), (0.5, False), (-2.0, False)])
def test_differences_that_are_all_the_same_are_judged_by_their_mean(shift: float, equivalent: bool) -> None:
    assert equivalence(np.full(5, shift), 0.5).equivalent is equivalent


def test_few_noisy_differences_do_not_show_agreement() -> None:
    assert not equivalence([1.5, -1.5, 1.0, -1.0], 0.5).equivalent
