"""What `analysis.threshold` promises: both ends are fixed sequences, stopped at the first failure."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis import judging, threshold
from analysis.wording.cells import statement

# Cells by their verdict; margin 0.5. `e` is equivalent by its wider interval too, `n` by the narrower alone.
KINDS: dict[str, dict[str, Any]] = {
    "m": {"verdict": "matters", "direction": "helps", "low": 0.6, "high": 1.4},
    "w": {"verdict": "matters", "direction": "hurts", "low": -1.4, "high": -0.6},
    "u": {"verdict": "undecided", "direction": None, "low": 0.2, "high": 1.0},
    "n": {"verdict": "equivalent", "direction": None, "low": -0.1, "high": 0.51},
    "e": {"verdict": "equivalent", "direction": None, "low": -0.1, "high": 0.3},
    "-": {"verdict": "undecided", "direction": None, "low": None, "high": None, "pairs": 1},
    "5": {"verdict": "undecided", "direction": None, "low": -0.1, "high": 0.1, "pairs": 5},
}


def line(kinds: str, axis: str = "width", **settings: Any) -> list[dict[str, Any]]:
    """Cells at levels 1, 2, 4, … of the axis."""
    return [{**settings, axis: 2**place, "pairs": 16, **KINDS[kind]} for place, kind in enumerate(kinds)]


def bracket(kinds: str) -> dict[str, Any]:
    (record,) = threshold.thresholds(line(kinds), 0.5, 0.95)
    return record


@pytest.mark.parametrize(
    ("kinds", "matters_up_to", "equivalent_from", "monotone"),
    [
        ("mmuee", 2, 8, True),
        ("mmmee", 4, 8, True),
        ("eeeee", None, 1, True),
        ("mmmmm", 16, None, True),
        ("wmuee", 2, 8, True),
        ("uuuuu", None, None, True),
        ("umuee", None, 8, False),
        ("mumue", 1, 16, False),
        ("meume", 1, 16, False),
        ("eeeem", None, None, False),
        ("mueue", 1, 16, True),
        ("mmuen", 2, None, True),
        ("mmune", 2, 16, True),
        ("mm-ee", 2, 8, True),
        ("mmue-", 2, None, True),
        ("mmue5", 2, None, True),
        ("-mmee", None, 8, False),
    ],
)
def test_each_end_is_a_fixed_sequence_that_stops_at_its_first_failure(
    kinds: str, matters_up_to: int | None, equivalent_from: int | None, monotone: bool
) -> None:
    record = bracket(kinds)
    assert record["matters_up_to"] == matters_up_to
    assert record["equivalent_from"] == equivalent_from
    assert record["monotone"] is monotone
    assert record["levels"] == [1, 2, 4, 8, 16]
    # One axis is a family of one.
    assert record["matters_up_to_familywise"] == matters_up_to
    assert record["equivalent_from_familywise"] == equivalent_from
    assert {"margin": 0.5, "matters_up_to": matters_up_to, "equivalent_from": equivalent_from} in record["margins"]


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (
            "mmuee",
            "Bias matters (helps) up to width 2 and is equivalent from width 8 on (margin 0.5 points, 95 %); "
            "width 4 is undecided.",
        ),
        (
            "eeee",
            "Bias is already equivalent at the narrowest level tested, width 1 (margin 0.5 points, 95 %).",
        ),
        (
            "wwm",
            "still matters (hurts and helps) at the widest level tested, width 4, and at every narrower one",
        ),
        ("muu", "matters (helps) up to width 1 and is not shown equivalent at the widest level tested"),
        ("uue", "is equivalent from width 4 on and not shown to matter at the narrowest level tested"),
        ("uuu", "widths 1, 2 and 4 are undecided"),
        ("umue", "widths 1 and 4 are undecided; the effect is not monotone: bias matters at width 2."),
    ],
)
def test_the_statement_says_the_bracket_and_its_open_ends(kinds: str, said: str) -> None:
    assert said in statement(bracket(kinds), line(kinds), 0.5, 0.95)


def test_there_is_one_record_per_axis_and_combination_of_the_other_settings() -> None:
    cells = [
        {"depth": depth, "width": width, "batch_norm": norm, "pairs": 16, **KINDS["e" if norm else "m"]}
        for depth, width, norm in itertools.product((2, 4), (1, 8, 16), (False, True))
    ]
    records = threshold.thresholds(cells, 0.5, 0.95)
    assert [record["axis"] for record in records] == ["width"] * 4 + ["depth"] * 6
    assert list(records[0])[:3] == ["depth", "batch_norm", "axis"]
    deep, own = next(
        (one, own)
        for one, own in zip(records, threshold.lines(cells), strict=True)
        if one["axis"] == "width" and one["depth"] == 4 and one["batch_norm"]
    )
    assert (deep["levels"], deep["equivalent_from"]) == ([1, 8, 16], 1)
    assert statement(deep, own, 0.5, 0.95).startswith("With batch norm, depth 4, bias is already equivalent")
    shallow = next(
        statement(one, own, 0.5, 0.95)
        for one, own in zip(records, threshold.lines(cells), strict=True)
        if one["axis"] == "depth" and one["batch_norm"]
    )
    assert "shallowest" in shallow


def test_only_width_and_depth_have_thresholds_and_only_where_they_vary() -> None:
    assert threshold.thresholds(line("mue", axis="steps"), 0.5, 0.95) == []
    assert threshold.thresholds(line("m"), 0.5, 0.95) == []


def test_levels_are_ordered_whatever_the_order_of_the_cells() -> None:
    assert threshold.thresholds(line("mmuee")[::-1], 0.5, 0.95)[0]["levels"] == [1, 2, 4, 8, 16]


def test_the_bracket_misses_the_planted_threshold_in_at_most_one_axis_of_twenty() -> None:
    truth, axes, pairs = np.array([2.0, 1.0, 0.5, 0.25, 0.0]), 1500, 12
    drawn = np.random.default_rng(3).normal(truth[:, None], 0.5, (axes, len(truth), pairs))
    means, spreads = drawn.mean(2).ravel(), drawn.std(2, ddof=1).ravel()
    judged = judging.judge(np.full(means.shape, pairs), means, spreads, margin=0.5, confidence=0.95)
    places = np.arange(len(means))
    cells = judged.assign(steps=places // len(truth), width=2 ** (places % len(truth)), pairs=pairs).to_dict("records")
    records = threshold.thresholds(cells, 0.5, 0.95)
    assert len(records) == axes
    # The effect is above the margin below width 4, at it there, and below it beyond.
    wrong = sum((one["matters_up_to"] or 0) >= 4 or (one["equivalent_from"] or 99) <= 4 for one in records)
    assert stats.binomtest(wrong, axes, 0.05, alternative="greater").pvalue > 1e-3
    # And it is no empty promise: most axes get an end.
    assert sum(one["matters_up_to"] is not None for one in records) > axes / 2
    assert sum(one["equivalent_from"] is not None for one in records) > axes / 2
