"""What `analysis.effects`, `judging` and `run_table` promise: pairs, intervals, verdicts, refusals."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import effects, judging, run_table
from analysis.record import Record
from analysis.wording.cells import reason
from sweep.common.errors import InputError

KEYS = [
    *("pairs", "effect", "low", "high", "equivalence_low", "equivalence_high", "detected", "verdict"),
    *("direction", "reason", "sensitive", "bootstrap_low", "bootstrap_high", "verdict_familywise", "pairs_needed"),
    *("accuracy_bias", "accuracy_no_bias", "rho", "gain", "only_bias", "only_no_bias", "test_pictures"),
    *("seed_spread", "picture_spread", "diverged_bias", "diverged_no_bias", "limit"),
]


def table(with_bias: list[float], without: list[float], **settings: Any) -> pd.DataFrame:
    """One cell's rows: seeds 0, 1, … of either arm."""
    arms = [
        {"bias": bias, "seed": seed, "test_accuracy": accuracy, "status": "ok", **settings}
        for bias, accuracies in ((True, with_bias), (False, without))
        for seed, accuracy in enumerate(accuracies)
    ]
    return pd.DataFrame(arms)


def cell(with_bias: list[float], without: list[float], margin: float = 0.5) -> Record:
    (one,) = effects.cells(table(with_bias, without), margin, 0.95)
    return one


def shifted(effects_in_points: list[float]) -> tuple[list[float], list[float]]:
    """Accuracies of both arms whose pairs have these effects."""
    without = [0.5 + 0.01 * seed for seed in range(len(effects_in_points))]
    return [base + points / 100 for base, points in zip(without, effects_in_points, strict=True)], without


NOISY = [0.9, 0.2, 1.4, -0.3, 0.8, 0.5, 1.1, 0.1]


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    with_bias, without = [0.91, 0.93, 0.90, 0.95, 0.92, 0.97], [0.90, 0.91, 0.905, 0.93, 0.92, 0.94]
    test = stats.ttest_rel(100 * np.array(with_bias), 100 * np.array(without))
    wide, narrow = test.confidence_interval(0.95), test.confidence_interval(0.90)
    one = cell(with_bias, without)
    assert one["low"] == pytest.approx(wide.low, abs=1e-10)
    assert one["high"] == pytest.approx(wide.high, abs=1e-10)
    assert one["equivalence_low"] == pytest.approx(narrow.low, abs=1e-10)
    assert one["equivalence_high"] == pytest.approx(narrow.high, abs=1e-10)
    assert one["rho"] == pytest.approx(np.corrcoef(with_bias, without)[0, 1], abs=1e-10)


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.6, 0.8, 0.95, 1.3])
def test_the_verdict_is_that_of_one_sided_t_tests(margin: float) -> None:
    with_bias, without = shifted(NOISY)
    below = stats.ttest_1samp(NOISY, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(NOISY, margin, alternative="less").pvalue
    beyond = stats.ttest_1samp(NOISY, margin, alternative="greater").pvalue
    expected = "equivalent" if max(below, above) < 0.05 else "matters" if beyond < 0.025 else "undecided"
    assert cell(with_bias, without, margin)["verdict"] == expected


@pytest.mark.parametrize("margin", [0.2, 0.95, 1.3])
def test_equivalence_is_that_of_two_one_sided_tests_in_statsmodels(margin: float) -> None:
    from statsmodels.stats.weightstats import ttost_paired

    with_bias, without = (100 * np.array(arm) for arm in shifted(NOISY))
    p, *_ = ttost_paired(with_bias, without, -margin, margin)
    one = cell(*shifted(NOISY), margin)
    assert (one["verdict"] == "equivalent") == (p < 0.05)
    # The 1 - 2 alpha interval touches the margin where the test's p is alpha.
    for confidence in (0.8, 0.9, 0.99):
        records = effects.cells(table(*shifted(NOISY)), margin, confidence)
        reach = max(-records[0]["equivalence_low"], records[0]["equivalence_high"])
        assert ttost_paired(with_bias, without, -reach, reach)[0] == pytest.approx(1 - confidence, abs=1e-10)


@pytest.mark.parametrize(("to", "one_sided"), [(0.99, False), (0.99, True), (0.8, False)])
def test_an_interval_at_another_confidence_is_the_same_interval_rescaled(to: float, one_sided: bool) -> None:
    pairs, mean, spread = np.array([2, 6, 50]), np.array([0.3, -1.0, 0.0]), np.array([1.0, 0.4, 0.0])
    low, high = judging.interval(pairs, mean, spread, 0.95)
    expected = judging.interval(pairs, mean, spread, 2 * to - 1 if one_sided else to)
    found = judging.rescaled(pairs, low, high, confidence=0.95, to=to, one_sided=one_sided)
    assert np.concatenate(found) == pytest.approx(np.concatenate(expected), abs=1e-10)


def test_all_three_verdicts_occur_with_their_direction() -> None:
    with_bias, without = shifted(NOISY)
    assert [cell(with_bias, without, m)["verdict"] for m in (0.05, 0.5, 1.3)] == [
        "matters",
        "undecided",
        "equivalent",
    ]
    assert cell(with_bias, without, 0.05)["direction"] == "helps"
    assert cell(without, with_bias, 0.05)["direction"] == "hurts"
    assert cell(with_bias, without, 1.3)["direction"] is None


def test_an_effect_can_be_detected_and_too_small_to_matter() -> None:
    one = cell(*shifted(NOISY), margin=1.3)
    assert (one["detected"], one["verdict"]) == (True, "equivalent")


def test_a_cell_has_exactly_the_contracted_keys_after_the_settings_that_vary() -> None:
    rows = pd.concat([table(*shifted(NOISY), width=width, depth=2) for width in (4, 1)])
    records = effects.cells(rows, 0.5, 0.95)
    assert [list(one) for one in records] == [["width", *KEYS]] * 2
    assert [one["width"] for one in records] == [1, 4]


def test_without_spread_the_interval_is_the_mean() -> None:
    # 0.1 + 0.2 - 0.2 and the like differ in their last bits: the effects of these pairs do not.
    one = cell([0.3, 0.7, 0.6, 0.9, 0.8, 0.5], [0.2, 0.6, 0.5, 0.8, 0.7, 0.4], margin=0.5)
    assert one["low"] == one["high"] == one["effect"] == 10
    assert (one["verdict"], one["direction"]) == ("matters", "helps")
    same = cell([0.9] * 6, [0.9] * 6)
    assert (same["low"], same["verdict"], same["rho"]) == (0, "equivalent", None)


@pytest.mark.parametrize(("with_bias", "without", "margin"), [(0.905, 0.9, 0.5), (0.707, 0.7, 0.7), (0.702, 0.7, 0.2)])
@pytest.mark.parametrize("pairs", [8, 16])
def test_an_effect_of_exactly_the_margin_is_undecided_and_no_number_of_pairs_would_settle_it(
    pairs: int, with_bias: float, without: float, margin: float
) -> None:
    one = cell([with_bias] * pairs, [without] * pairs, margin)
    assert (one["verdict"], one["pairs_needed"]) == ("undecided", None)
    assert "at the margin" in reason(one)


@pytest.mark.parametrize(("pairs", "expected"), [(5, "undecided"), (6, "matters")])
def test_fewer_than_six_pairs_are_undecided_and_say_so(pairs: int, expected: str) -> None:
    one = cell(*shifted([10 + 0.1 * seed for seed in range(pairs)]))
    assert one["verdict"] == expected
    assert reason(one) == ("fewer than 6 pairs (5)" if pairs == 5 else None)
    assert one["pairs_needed"] == (1 if pairs == 5 else None)


def test_a_single_pair_has_an_effect_but_no_interval() -> None:
    one = cell([0.92], [0.90])
    assert one["effect"] == pytest.approx(2)
    assert [one[key] for key in ("low", "high", "equivalence_low", "pairs_needed", "rho")] == [None] * 5
    assert (one["verdict"], one["detected"]) == ("undecided", False)


def test_with_a_margin_of_zero_nothing_is_equivalent() -> None:
    assert cell([0.9] * 6, [0.9] * 6, margin=0)["verdict"] == "undecided"
    assert cell(*shifted(NOISY), margin=0)["verdict"] == "matters"


def test_records_are_json_without_nan_even_where_little_is_known() -> None:
    rows = pd.concat([table([0.9], [0.9], train_examples=None), table([0.9, 0.8], [0.8], train_examples=100)])
    records = effects.cells(rows, 0.5, 0.95)
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert [one["train_examples"] for one in records] == [100, None]


def test_a_run_without_a_partner_is_kept_apart_and_its_cell_stays() -> None:
    rows = pd.concat([table([0.9, 0.8], [0.7], width=1), table([0.9], [], width=2)])
    assert list(effects.pairs(rows)["seed"]) == [0]
    alone = effects.unpaired(rows)
    assert alone[["width", "seed"]].to_numpy().tolist() == [[1, 1], [2, 0]]
    assert alone["accuracy_no_bias"].isna().all()
    narrow, wide = effects.cells(rows, 0.5, 0.95)
    assert (narrow["pairs"], narrow["accuracy_bias"]) == (1, 0.9)
    assert (wide["pairs"], wide["effect"], reason(wide)) == (0, None, "fewer than 6 pairs (0)")


def test_a_diverged_run_counts_with_its_accuracy() -> None:
    rows = table([0.9, 0.1, 0.3], [0.8, 0.8])
    rows.loc[[1, 2], "status"] = "diverged"
    (one,) = effects.cells(rows, 0.5, 0.95)
    assert (one["diverged_bias"], one["diverged_no_bias"]) == (2, 0)
    assert one["effect"] == pytest.approx((10 - 70) / 2)
    assert list(effects.pairs(rows)["status_bias"]) == ["ok", "diverged"]


def test_factors_are_the_settings_that_vary_in_their_order() -> None:
    rows = pd.concat([table([0.9], [0.8], width=w, depth=d, steps=9) for w in (1, 2) for d in (2, 4)])
    rows["evaluate_every"] = range(len(rows))
    assert effects.factors(rows) == ["depth", "width"]
    assert len(effects.cells(rows, 0.5, 0.95)) == 4


def test_cells_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = pd.concat([table(*shifted(NOISY), width=width) for width in (1, 2)])
    assert effects.cells(rows, 0.5, 0.95) == effects.cells(rows.iloc[::-1], 0.5, 0.95)


@pytest.mark.parametrize(("rho", "expected"), [(0.0, 11), (0.6, 6)])
def test_the_pairs_to_detect_two_tenths_of_a_point_are_as_published(rho: float, expected: int) -> None:
    spread = 0.15 * math.sqrt(2 * (1 - rho))
    assert judging.pairs_to_settle(np.array([0.2]), np.array([spread]), 0.0, 0.95) == expected


@pytest.mark.parametrize("mean", [0.0, 0.2, 0.8, -0.8])
def test_with_the_pairs_needed_four_in_five_cells_are_settled(mean: float) -> None:
    (size,) = judging.pairs_to_settle(np.array([mean]), np.array([0.6]), 0.5, 0.95)
    drawn = np.random.default_rng(5).normal(mean, 0.6, (4000, int(size)))
    judged = judging.judge(np.full(4000, int(size)), drawn.mean(1), drawn.std(1, ddof=1), margin=0.5, confidence=0.95)
    settled = int((judged["verdict"] != "undecided").sum())
    assert stats.binomtest(settled, 4000, 0.8, alternative="less").pvalue > 1e-3
    # A pair too many per cell would go unnoticed here, twice the pairs would not.
    assert settled / 4000 < 0.86


def test_pairs_needed_is_how_many_more_than_there_are() -> None:
    one = cell(*shifted(NOISY), margin=0.5)
    (total,) = judging.pairs_to_settle(np.array([one["effect"]]), np.array([np.std(NOISY, ddof=1)]), 0.5, 0.95)
    assert one["pairs_needed"] == total - len(NOISY) > 0


@pytest.mark.parametrize("pairs", [6, 16])
@pytest.mark.parametrize("noise", ["normal", "t3", "mixture"])
def test_with_the_truth_at_the_margin_wrong_verdicts_stay_below_alpha(noise: str, pairs: int) -> None:
    count, generator = 4000, np.random.default_rng(7)
    draw = {
        "normal": generator.normal(size=(count, pairs)),
        "t3": generator.standard_t(3, size=(count, pairs)),
        "mixture": generator.choice([-1.0, 1.0], (count, pairs)) + generator.normal(0, 0.5, (count, pairs)),
    }[noise]
    base = generator.uniform(0.4, 0.6, (count, pairs))
    # In half of the cells, every second pair beyond the sixth lacks one arm.
    kept = (np.arange(pairs) < 6) | (np.arange(pairs) % 2 == 0) | (np.arange(count) % 2 == 0)[:, None]
    arms = []
    for bias, accuracy in ((True, base + (0.5 + 0.2 * draw) / 100), (False, base)):
        where = np.nonzero(kept | bias)
        columns = {"steps": where[0] + 1, "seed": where[1], "bias": bias, "test_accuracy": accuracy[where]}
        arms.append(pd.DataFrame(columns))
    records = effects.cells(pd.concat(arms), 0.5, 0.95)
    for wrong in ("matters", "equivalent"):
        times = sum(one["verdict"] == wrong for one in records)
        assert times > 0
        assert stats.binomtest(times, count, 0.05, alternative="greater").pvalue > 1e-3


def test_two_rows_for_one_arm_of_a_pair_are_refused_by_name() -> None:
    rows = pd.concat([table([0.9, 0.8], [0.8, 0.8], width=w) for w in (1, 2)])
    rows["model"] = ["a", "b"] * 4
    with pytest.raises(InputError, match=r"two rows for width 2, seed 1, bias False.*model"):
        effects.cells(pd.concat([rows, rows.iloc[[-1]]]), 0.5, 0.95)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("test_accuracy", None, "row 2"),
        ("test_accuracy", -0.1, "row 2: -0.1; must be 0 to 1"),
        ("test_accuracy", 97.5, "0-100 instead of 0-1"),
        ("test_accuracy", "high", "row 2: high"),
        ("bias", "maybe", "row 2: maybe; must be true, false, 1 or 0"),
        ("seed", 1.5, "row 2: 1.5; must be a whole number, 0 or more"),
        ("width", 0, "row 2: 0; must be a whole number, 1 or more"),
        ("width", "wide", "row 2: wide; must be a number"),
        ("status", "lost", "row 2: lost; must be ok or diverged"),
    ],
)
def test_a_wrong_value_is_refused_with_its_row(column: str, value: Any, message: str) -> None:
    rows = table([0.9, 0.8], [0.8, 0.8], width=4).astype(object)
    rows.loc[1, column] = value
    with pytest.raises(InputError, match=f"column {column}, .*{message}"):
        effects.cells(rows, 0.5, 0.95)


def test_a_table_without_a_pair_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(InputError, match="no rows"):
        effects.cells(table([0.9], [0.9]).iloc[:0], 0.5, 0.95)
    with pytest.raises(InputError, match="every row has bias true"):
        effects.cells(table([0.9], []), 0.5, 0.95)
    rows = table([0.9, 0.8], [0.8, 0.8])
    with pytest.raises(InputError, match="no pair among 2 rows"):
        effects.cells(rows.iloc[[0, 3]], 0.5, 0.95)
    with pytest.raises(InputError, match="no column seed, test_accuracy"):
        effects.cells(rows[["bias"]], 0.5, 0.95)


@pytest.mark.parametrize(("margin", "confidence"), [(-1, 0.95), (math.nan, 0.95), (0.5, 0.5), (0.5, 95)])
def test_an_impossible_margin_or_confidence_is_refused(margin: float, confidence: float) -> None:
    with pytest.raises(InputError, match="must be"):
        effects.cells(table([0.9], [0.9]), margin, confidence)


def test_checking_a_table_leaves_the_given_one_as_it_was() -> None:
    rows = table([0.9], [0.9]).assign(bias=["true", "0"])
    checked = run_table.checked(rows)
    assert checked["bias"].tolist() == [True, False]
    assert rows["bias"].tolist() == ["true", "0"]
