"""What `analysis.tuned_arms` promises: each arm at its best rate, chosen for every seed by the other seeds."""

import numpy as np
import pandas as pd
import pytest
from support.simulated import grid, study

from analysis import tuned_arms
from analysis.effects import pairs
from analysis.run_table import checked
from analysis.study import analyse
from sweep.common.errors import InputError

TUNE = {"tune": ["learning_rate"]}


def test_a_seed_has_no_say_in_its_own_choice() -> None:
    validation = np.array([[0.9, 0.5], [0.4, 0.6], [0.4, 0.6]])
    # Seed 0 alone likes the first rate; the others like the second, but for its own vote seeds 1 and 2 follow seed 0.
    assert tuned_arms.best_of_others(validation).tolist() == [1, 0, 0]


def test_of_equal_rates_the_first_is_chosen_whatever_rounding_says() -> None:
    validation = np.array([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1], [0.7, 0.1]])
    assert tuned_arms.best_of_others(validation).tolist() == [0, 0, 0, 0]


def test_a_rate_that_no_other_seed_ran_is_not_chosen_and_a_lone_seed_chooses_nothing() -> None:
    missing = np.nan
    assert tuned_arms.best_of_others(np.array([[0.9, 0.5], [missing, 0.5], [missing, 0.6]])).tolist() == [1, 0, 0]
    assert tuned_arms.best_of_others(np.array([[0.9, 0.5]])).tolist() == [-1]


def rows_with_best_rates(seeds: int = 12) -> pd.DataFrame:
    """With bias the rate 0.1 is best, without it 0.01; each arm loses 5 points at the other. Bias helps by 1."""
    rows = study(grid(width=[1, 2], learning_rate=[0.01, 0.1]), seeds, lambda cell: 1.0, noise=0.1)
    wrong = rows["bias"] == (rows["learning_rate"] == 0.01)
    for column in ("test_accuracy", "validation_accuracy"):
        rows[column] -= 0.05 * wrong
    return rows


def test_each_arm_is_judged_at_its_own_best_rate() -> None:
    verdict = analyse(rows_with_best_rates(), name="study", declared=TUNE)
    assert [cell["width"] for cell in verdict["tuned_cells"]] == [1, 2]
    for cell in verdict["tuned_cells"]:
        assert "learning_rate" not in cell
        assert (cell["rate_bias"], cell["rate_no_bias"]) == (0.1, 0.01)
        assert cell["effect"] == pytest.approx(1, abs=0.8)
        assert cell["pairs"] == 12
    # At equal rates, the same rows say 6 points one way and 4 the other.
    assert [round(cell["effect"]) for cell in verdict["cells"]] == [-4, 6, -4, 6]
    assert [one["axis"] for one in verdict["tuned_thresholds"]] == ["width"]


def test_test_accuracy_is_that_of_the_chosen_runs_and_choices_are_by_validation() -> None:
    rows = rows_with_best_rates()
    (first, _) = tuned_arms.cells(checked(rows), TUNE["tune"], 0.5, 0.95)
    best = rows[(rows["width"] == 1) & (rows["bias"] == (rows["learning_rate"] == 0.1))]
    assert first["accuracy_bias"] == pytest.approx(best[best["bias"]]["test_accuracy"].mean())
    assert first["accuracy_no_bias"] == pytest.approx(best[~best["bias"]]["test_accuracy"].mean())
    # Test accuracies are turned round, validation accuracies are not: the choice stays.
    turned = rows.assign(test_accuracy=1 - rows["test_accuracy"])
    (again, _) = tuned_arms.cells(checked(turned), TUNE["tune"], 0.5, 0.95)
    assert (again["rate_bias"], again["effect"]) == (0.1, pytest.approx(-first["effect"]))


def test_more_rates_to_choose_from_are_no_advantage() -> None:
    """Nothing planted; the arm with bias has five rates, the other has one: by its own validation it would gain."""
    rates, seeds = 5, 4000
    rows = study(grid(learning_rate=[0.1 * (rate + 1) for rate in range(rates)]), seeds, noise=1.0, seed=6)
    rows["test_accuracy"] += np.random.default_rng(1).normal(0, 0.01, len(rows))
    rows["validation_accuracy"] = rows["test_accuracy"]
    rows = rows[rows["bias"] | (rows["learning_rate"] < 0.15)]
    # Every ten seeds stand for a sweep of their own.
    rows = rows.assign(split=rows["seed"] // 10, seed=rows["seed"] % 10)
    found = np.array([cell["effect"] for cell in tuned_arms.cells(checked(rows), TUNE["tune"], 0.5, 0.95)])
    assert abs(found.mean()) < 4 * found.std() / len(found) ** 0.5
    own = rows.loc[rows.groupby(["bias", "split", "seed"])["validation_accuracy"].idxmax()]
    assert pairs(own.drop(columns="learning_rate"))["effect"].mean() > 0.5


def test_a_single_seed_is_undecided_and_no_error() -> None:
    verdict = analyse(rows_with_best_rates(1), name="study", declared=TUNE)
    for cell in verdict["tuned_cells"]:
        assert (cell["pairs"], cell["verdict"], cell["effect"]) == (0, "undecided", None)
        assert (cell["rate_bias"], cell["reason"]) == (None, "fewer than 6 pairs (0)")


def test_what_cannot_be_tuned_is_refused() -> None:
    rows = rows_with_best_rates(6)
    with pytest.raises(InputError, match="is not an axis of these rows"):
        analyse(rows[rows["learning_rate"] == 0.1], name="study", declared=TUNE)
    with pytest.raises(InputError, match="needs a column validation_accuracy"):
        analyse(rows.drop(columns="validation_accuracy"), name="study", declared=TUNE)
    with pytest.raises(InputError, match="tune width: must be learning_rate"):
        analyse(rows, name="study", declared={"tune": ["width"]})
