"""What `analysis.pictures` promises: what the bits of `test_correct` tell of pairs."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import effects


def table(with_bias: Any, without: Any, **columns: Any) -> pd.DataFrame:
    """Runs whose arms get these pictures right, `[seeds, pictures]` each."""
    parts = []
    for bias, right in ((True, np.asarray(with_bias)), (False, np.asarray(without))):
        bits = [row.tobytes() for row in np.packbits(right.astype(bool), axis=1)]
        part = {"seed": range(len(right)), "bias": bias, "test_accuracy": right.mean(axis=1), "test_correct": bits}
        parts.append(pd.DataFrame(part | columns))
    return pd.concat(parts, ignore_index=True)


def cell(rows: pd.DataFrame) -> dict[str, Any]:
    (one,) = effects.cells(rows, 0.5, 0.95)
    return {key: one[key] for key in ("only_bias", "only_no_bias", "test_pictures", "seed_spread", "picture_spread")}


UNKNOWN = dict.fromkeys(("only_bias", "only_no_bias", "test_pictures", "seed_spread", "picture_spread"))
TWO = table(
    [[1, 1, 1, 0, 0, 1, 1, 0, 1, 1], [1, 1, 0, 0, 0, 1, 1, 1, 1, 1]],
    [[1, 0, 1, 1, 0, 0, 1, 0, 1, 0], [1, 1, 1, 0, 0, 1, 1, 1, 1, 1]],
)


def test_pictures_that_only_one_arm_gets_right_are_counted_from_the_bits() -> None:
    found = cell(TWO)
    # First pair: 3 pictures to 1; second: none to 1.
    assert (found["only_bias"], found["only_no_bias"], found["test_pictures"]) == (1.5, 1.0, 10)


def test_bits_read_from_csv_are_hexadecimal_text() -> None:
    assert cell(TWO.assign(test_correct=[value.hex() for value in TWO["test_correct"]])) == cell(TWO)


@pytest.mark.parametrize("bits", [None, 7, "no bits", b"", float("nan")])
def test_a_column_that_holds_no_bits_tells_nothing(bits: Any) -> None:
    assert cell(TWO.assign(test_correct=[bits] * 4)) == UNKNOWN
    assert cell(TWO.drop(columns="test_correct")) == UNKNOWN


def test_bits_that_contradict_the_accuracy_tell_nothing() -> None:
    assert cell(TWO.assign(test_accuracy=[0.31, 0.42, 0.53, 0.64])) == UNKNOWN


def test_an_arm_that_gets_nothing_right_is_counted_with_the_pictures_of_the_others() -> None:
    found = cell(table([[0] * 10, [1] * 9 + [0]], [[1] * 10, [1] * 10]))
    assert (found["only_bias"], found["only_no_bias"], found["test_pictures"]) == (0, 5.5, 10)


def test_a_single_pair_has_counts_but_no_spread() -> None:
    found = cell(TWO[TWO["seed"] == 0])
    assert (found["only_bias"], found["seed_spread"], found["picture_spread"]) == (3, None, None)


def test_cells_on_test_sets_of_different_sizes_are_counted_each_by_itself() -> None:
    large = table(np.ones((2, 20)), np.ones((2, 20)), steps=9)
    one, other = effects.cells(pd.concat([TWO.assign(steps=1), large]), 0.5, 0.95)
    assert (one["test_pictures"], one["only_bias"]) == (10, 1.5)
    assert (other["test_pictures"], other["only_bias"]) == (20, 0)


@pytest.mark.parametrize("seed_spread", [0.0, 2.0])
def test_the_spread_from_run_to_run_is_told_from_the_noise_of_the_pictures(seed_spread: float) -> None:
    """Planted: seeds move the share that the arm without bias gets right; some pictures are harder than others."""
    generator, seeds, pictures = np.random.default_rng(6), 200, 4000
    hard = generator.uniform(0.2, 0.8, pictures)
    lift = seed_spread / 100 * generator.standard_normal((seeds, 1))
    right = [generator.random((seeds, pictures)) < hard + shift for shift in (0.0, lift)]
    found = cell(table(*right))
    # Each arm is right or wrong by chance at a picture: the variance of a share of independent answers.
    expected = 100 * (2 * (hard * (1 - hard)).mean() / pictures) ** 0.5
    assert found["picture_spread"] == pytest.approx(expected, rel=0.1)
    assert found["seed_spread"] == pytest.approx(seed_spread, abs=0.5)
    total = effects.pairs(table(*right))["effect"].std()
    assert (found["seed_spread"] ** 2 + found["picture_spread"] ** 2) ** 0.5 == pytest.approx(total, rel=0.15)


def test_two_way_mean_squares_on_a_small_literal_table() -> None:
    """x is [[1, 0, -1, 0], [1, 1, 0, 0]]: worked out by hand."""
    found = cell(table([[1, 0, 0, 1], [1, 1, 0, 1]], [[0, 0, 1, 1], [0, 0, 0, 1]]))
    # Sum 2, level 0.5; seeds (0 + 4) / 4 - 0.5 = 0.5; pictures (4 + 1 + 1) / 2 - 0.5 = 2.5; rest 4 - 0.5 - 3 = 0.5.
    rest, seeds, pictures = 0.5 / 3, 0.5, 2.5 / 3
    assert found["seed_spread"] == pytest.approx(100 * ((seeds - rest) / 4) ** 0.5)
    assert found["picture_spread"] == pytest.approx(100 * (((pictures - rest) / 2 + rest) / 4) ** 0.5)


def test_the_gain_is_what_the_correlation_says() -> None:
    rows = table(np.eye(10), np.eye(10))
    rows["test_accuracy"] = np.random.default_rng(3).uniform(0.2, 0.8, 20)
    (one,) = effects.cells(rows, 0.5, 0.95)
    assert one["gain"] == pytest.approx(1 / (1 - one["rho"]))
    rows["test_accuracy"] = [*range(10), *range(10)]
    rows["test_accuracy"] /= 20
    (same,) = effects.cells(rows, 0.5, 0.95)
    assert (same["rho"], same["gain"]) == (pytest.approx(1), None)
