"""What is said where accuracies cannot differ: at the ceiling, or by chance, nothing is equivalent."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from support.simulated import study

from analysis import report
from analysis.study import analyse
from analysis.wording import sentences


def rows(with_bias: Sequence[float], without: Sequence[float], **settings: Any) -> pd.DataFrame:
    parts = {True: with_bias, False: without}
    return pd.concat(
        [
            pd.DataFrame({**settings, "seed": range(len(own)), "bias": bias, "test_accuracy": own})
            for bias, own in parts.items()
        ],
        ignore_index=True,
    )


def cell(with_bias: Sequence[float], without: Sequence[float], **options: Any) -> dict[str, Any]:
    [found] = analyse(rows(with_bias, without), name="x", **options)["cells"]
    return found


@pytest.mark.parametrize("pairs", [6, 19, 20, 64])
@pytest.mark.parametrize(
    ("accuracy", "limit", "said"),
    [
        (1.0, "ceiling", "all accuracies are 100 %, at the ceiling: none could differ"),
        (0.1, "chance", "all accuracies are 10 %, as by chance, where no network has learned anything"),
        (0.0, "chance", "all accuracies are 0 %, as by chance"),
        (0.5, "chance", "all accuracies are 50 %, as by chance"),
        (1 / 3, "chance", "all accuracies are 33.3333 %, as by chance"),
    ],
)
def test_six_pairs_or_more_that_are_all_the_same_show_nothing(
    accuracy: float, limit: str, said: str, pairs: int
) -> None:
    for options in ({}, {"margin": 5.0}, {"declared": {"looks": 3}}):
        found = cell([accuracy] * pairs, [accuracy] * pairs, **options)
        assert (found["verdict"], found["verdict_familywise"], found["limit"]) == ("undecided", "undecided", limit)
        assert found["reason"].startswith(said)
        assert (found["pairs_needed"], found["sensitive"], found["direction"]) == (None, None, None)
        assert found["effect"] == found["low"] == found["high"] == 0


def test_rounding_makes_no_difference() -> None:
    assert cell([0.1 + 0.2] * 6, [0.3] * 6)["limit"] == "chance"
    assert cell([1.0 - 1e-15] * 6, [1.0] * 6)["limit"] == "ceiling"


def test_too_few_pairs_are_said_first() -> None:
    found = cell([1.0] * 5, [1.0] * 5)
    assert (found["limit"], found["reason"]) == ("ceiling", "fewer than 6 pairs (5)")


@pytest.mark.parametrize(
    ("with_bias", "without", "verdict"),
    [
        ([1.0] * 6, [0.1] * 6, "matters"),  # no spread, and yet a difference
        ([1.0] * 6, [0.998] * 6, "equivalent"),
        ([0.9] * 6, [0.9] * 6, "equivalent"),  # neither end: no spread, as batch norm can give it
        ([1.0, *[0.99] * 5], [1.0, *[0.99] * 5], "equivalent"),  # accuracies that do differ, from seed to seed
        ([0.1, *[0.2] * 5], [0.1, *[0.2] * 5], "equivalent"),
    ],
)
def test_accuracies_that_can_differ_are_judged_as_ever(
    with_bias: list[float], without: list[float], verdict: str
) -> None:
    found = cell(with_bias, without)
    assert (found["verdict"], found["limit"]) == (verdict, None)


def test_a_bracket_has_no_end_at_a_ceiling_or_by_chance_and_says_why() -> None:
    middle = study([{"width": 8}], 8)
    parts = [rows([0.1] * 8, [0.1] * 8, width=1), rows([0.1] * 8, [0.1] * 8, width=2), middle]
    parts += [rows([1.0] * 8, [1.0] * 8, width=width) for width in (16, 32)]
    verdict = analyse(pd.concat(parts, ignore_index=True), name="x")
    [bracket] = verdict["thresholds"]
    assert (bracket["matters_up_to"], bracket["equivalent_from"]) == (None, None)
    assert bracket["equivalent_from_familywise"] is None
    assert {(one["matters_up_to"], one["equivalent_from"]) for one in bracket["margins"]} == {(None, None)}
    assert "; at widths 16 and 32 every run is at the ceiling, where nothing can differ" in bracket["statement"]
    assert "; at widths 1 and 2 every run is at chance, where nothing can differ" in bracket["statement"]
    assert "100 %, at the ceiling" in report.markdown(verdict)
    # Levels inside, with a level at the ceiling that is not the last one tested, end nothing.
    [bracket] = analyse(pd.concat(parts[2:4], ignore_index=True).assign(width=lambda one: 24 - one["width"]), name="x")[
        "thresholds"
    ]
    assert bracket["equivalent_from"] == 16


def test_tuned_arms_at_the_ceiling_are_not_equivalent_either() -> None:
    parts = [rows([1.0] * 8, [1.0] * 8, learning_rate=rate) for rate in (0.1, 0.2)]
    table = pd.concat(parts, ignore_index=True).assign(validation_accuracy=1.0)
    [found] = analyse(table, name="x", declared={"tune": ["learning_rate"]})["tuned_cells"]
    assert (found["verdict"], found["limit"]) == ("undecided", "ceiling")


def test_equivalence_close_to_an_end_is_said_to_be_close_to_it() -> None:
    said = "both arms come within the margin of 100 % or of 0 %"
    near = analyse(rows([1.0, *[0.998] * 6], [0.998, *[1.0] * 6]), name="x")
    assert near["cells"][0]["verdict"] == "equivalent"
    assert any(said in line for line in sentences.conditions(near))
    low = analyse(rows([0.001, *[0.002] * 6], [0.002, *[0.001] * 6]), name="x")
    assert low["cells"][0]["verdict"] == "equivalent" and any(said in line for line in sentences.conditions(low))
    far = analyse(rows([0.98, *[0.978] * 6], [0.978, *[0.98] * 6]), name="x")
    assert far["cells"][0]["verdict"] == "equivalent" and not any(said in line for line in sentences.conditions(far))
