"""What `analysis.bootstrap` promises: scipy's BCa interval for many cells at once, which never decides."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import bootstrap, effects


def both(sample: np.ndarray, *confidences: float) -> list[tuple[float, float]]:
    cell = np.zeros(len(sample), dtype=np.int64)
    found = bootstrap.intervals(sample, cell, 1, confidences)
    return [(float(low[0]), float(high[0])) for low, high in found]


@pytest.mark.parametrize("pairs", [20, 33, 150])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_is_that_of_scipy_for_the_same_resamples(pairs: int, confidence: float) -> None:
    generator = np.random.default_rng(pairs)
    without = generator.normal(90, 1, pairs)
    with_bias = without + generator.exponential(size=pairs)
    expected = stats.bootstrap(
        (with_bias, without), lambda a, b, axis: np.mean(a - b, axis=axis), paired=True, method="BCa",
        n_resamples=bootstrap.RESAMPLES, confidence_level=confidence, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    (found,) = both(with_bias - without, confidence)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-10)


def test_cells_of_all_sizes_are_judged_at_once_as_each_alone() -> None:
    generator = np.random.default_rng(1)
    sizes = [3, 20, 0, 41, 20, 19]
    parts = [generator.normal(size=size) for size in sizes]
    cell = np.repeat(np.arange(len(sizes)), sizes)
    (low, high), _ = bootstrap.intervals(np.concatenate(parts), cell, len(sizes), (0.95, 0.9))
    for place, part in enumerate(parts):
        alone = both(part, 0.95)[0] if len(part) >= bootstrap.FEWEST_PAIRS else (np.nan, np.nan)
        assert (low[place], high[place]) == pytest.approx(alone, abs=1e-12, nan_ok=True)


def test_without_spread_both_ends_are_the_mean() -> None:
    assert both(np.full(20, 0.3), 0.95) == [(0.3, 0.3)]


def test_resamples_do_not_depend_on_how_they_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.random.default_rng(4).normal(size=60)
    whole = both(sample, 0.95)
    monkeypatch.setattr(bootstrap, "_BLOCK", 999)
    assert both(sample, 0.95)[0] == pytest.approx(whole[0], abs=1e-12)


def table(sample: np.ndarray) -> pd.DataFrame:
    seeds = range(len(sample))
    return pd.concat(
        [
            pd.DataFrame({"seed": seeds, "bias": bias, "test_accuracy": 0.5 + bias * sample / 100})
            for bias in (True, False)
        ]
    )


def test_a_cell_is_sensitive_where_the_bootstrap_would_decide_otherwise() -> None:
    # One pair of 24 collapses: Student's interval is wide and even, the bootstrap's leans to the side of the collapse.
    calm = np.random.default_rng(2).normal(1.0, 0.1, 24)
    skewed = np.where(np.arange(24) == 5, 16.0, calm)
    (plain,), (odd,) = (effects.cells(table(sample), 0.5, 0.95) for sample in (calm, skewed))
    assert plain["sensitive"] is False
    assert (odd["verdict"], odd["sensitive"]) == ("undecided", True)
    assert odd["bootstrap_low"] > 0.5 > odd["low"]


@pytest.mark.parametrize(("pairs", "known"), [(19, False), (20, True)])
def test_the_bootstrap_stands_from_twenty_pairs_on(pairs: int, known: bool) -> None:
    (cell,) = effects.cells(table(np.random.default_rng(3).normal(size=pairs)), 0.5, 0.95)
    for key in ("sensitive", "bootstrap_low", "bootstrap_high"):
        assert (cell[key] is not None) is known
