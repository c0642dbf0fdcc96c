"""What `analysis.study` promises: one record that JSON holds, levels and looks, provenance, alarms."""

import json
import re
from typing import Any

import pandas as pd
import pytest
from support.simulated import grid, study

from analysis import report
from analysis.study import analyse, spent
from analysis.wording import sentences
from analysis.wording.markdown import markdown
from sweep.common.errors import InputError

WIDTHS = {1: 4.0, 4: 0.6, 16: 0.0}
DECLARED = {"margin": 0.5, "confidence": 0.95}


@pytest.fixture
def rows() -> pd.DataFrame:
    """Eight pairs at three widths."""
    return study(grid(width=WIDTHS), 8, lambda cell: WIDTHS[cell["width"]], seed=2)


def test_a_verdict_holds_counts_cells_thresholds_and_what_the_reader_must_know(rows: pd.DataFrame) -> None:
    rows.loc[rows.index[-1], "status"] = "diverged"
    verdict = analyse(rows.iloc[1:], name="study", declared=DECLARED)
    cells, brackets = verdict.pop("cells"), verdict.pop("thresholds")
    hypotheses, origin = verdict.pop("hypotheses"), verdict.pop("provenance")
    assert verdict == {
        "name": "study",
        "margin": 0.5,
        "confidence": 0.95,
        "margin_declared": 0.5,
        "confidence_declared": 0.95,
        "margin_given": False,
        "confidence_given": False,
        "looks": {"declared": 1, "taken": None, "confidence_each": 0.95},
        "unplanned_look": None,
        "runs": 47,
        "missing_runs": 0,
        "repeated_runs": None,
        "other_looks": None,
        "disagreeing_runs": None,
        "tuned_cells": None,
        "tuned_thresholds": None,
        "pairs": 23,
        "missing_pairs": 1,
        "diverged_bias": 0,
        "diverged_no_bias": 1,
        "factors": ["width"],
        "ignored_columns": [],
        "variance": [{"factor": "width", "share": 1.0}],
        "alarms": [],
        "aggregated": None,
    }
    assert [(cell["width"], cell["pairs"], cell["verdict"]) for cell in cells] == [
        (1, 7, "matters"),
        (4, 8, "undecided"),
        (16, 8, "equivalent"),
    ]
    assert [(one["matters_up_to"], one["equivalent_from"]) for one in brackets] == [(1, 16)]
    assert [one["name"] for one in hypotheses] == ["width"]
    assert origin["settings"] == {}


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_each_declared_look_spends_its_part_of_alpha(rows: pd.DataFrame, looks: int) -> None:
    verdict = analyse(rows, name="study", declared=DECLARED | {"looks": looks})
    each = analyse(rows, name="study", confidence=spent(0.95, looks))
    assert verdict["looks"] == {"declared": looks, "taken": None, "confidence_each": pytest.approx(1 - 0.05 / looks)}
    assert verdict["confidence"] == 0.95
    for key in ("cells", "thresholds", "hypotheses"):
        assert verdict[key] == each[key]


def test_a_look_beyond_the_declared_ones_is_unplanned(rows: pd.DataFrame) -> None:
    taken = [analyse(rows, name="study", declared={"looks": 2}, looks_taken=number) for number in (1, 2, 3)]
    assert [verdict["unplanned_look"] for verdict in taken] == [False, False, True]


def test_a_cell_is_claimed_for_the_whole_family_only_within_its_sequence() -> None:
    effects = {1: 9.0, 2: 0.55, 4: 9.0, 8: 0.0, 16: 0.0}
    rows = study(grid(width=effects, batch_norm=[False, True]), 12, lambda cell: effects[cell["width"]], seed=4)
    verdict = analyse(rows, name="study")
    plain = {cell["width"]: cell for cell in verdict["cells"] if not cell["batch_norm"]}
    # Width 4 matters by itself, but stands behind width 2, where the sequence stopped.
    assert plain[4]["verdict"] == "matters"
    assert [plain[width]["verdict_familywise"] for width in effects] == [
        *("matters", "undecided", "undecided", "equivalent", "equivalent"),
    ]
    (bracket,) = [one for one in verdict["thresholds"] if not one["batch_norm"]]
    assert (bracket["matters_up_to_familywise"], bracket["equivalent_from_familywise"]) == (1, 8)


def test_without_an_axis_the_family_is_that_of_all_cells() -> None:
    rows = study(grid(steps=range(1, 21)), 8, lambda cell: 0.3, seed=1)
    cells = analyse(rows, name="study")["cells"]
    strict = {one["steps"]: one for one in analyse(rows, name="study", confidence=1 - 0.05 / 20)["cells"]}
    assert [cell["verdict_familywise"] for cell in cells] == [strict[cell["steps"]]["verdict"] for cell in cells]
    assert any(cell["verdict"] != cell["verdict_familywise"] for cell in cells)


def test_provenance_says_what_the_table_knows_and_null_for_the_rest(rows: pd.DataFrame) -> None:
    rows = rows.assign(
        dataset="mnist5k", device=["cpu", "gpu"] * 24, trainer_version=1, split=0, train_examples=None,
        finished_at=pd.date_range("2026-01-01", periods=48, tz="UTC"),
    )  # fmt: skip
    origin = analyse(rows, name="study", store="results")["provenance"]
    assert origin["datasets"] == ["mnist5k"]
    assert origin["devices"] == ["cpu", "gpu"]
    assert origin["trainer_versions"] == [1]
    assert origin["splits"] == [0]
    assert origin["dataset_fingerprints"] is origin["torch_versions"] is None
    assert origin["first_finished_at"] == "2026-01-01T00:00:00+00:00"
    assert origin["last_finished_at"] == "2026-02-17T00:00:00+00:00"
    assert origin["settings"] == {"dataset": "mnist5k", "split": 0, "train_examples": None}
    assert origin["store"] == "results"
    assert origin["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", origin["commit"])


@pytest.mark.parametrize(
    ("methods", "counts", "said"),
    [
        (
            ["grouped"] * 8 + ["native"] * 28 + [None] * 12,
            {"native": 28, "grouped": 8, "not recorded": 12},
            "native 28 runs, grouped 8, not recorded 12",
        ),
        (["native"] * 48, {"native": 48}, "native 48 runs"),
        (["triton"] + [None] * 47, {"triton": 1, "not recorded": 47}, "triton 1 run, not recorded 47"),
        ([None] * 48, None, None),
    ],
)
def test_runs_are_counted_by_how_they_were_computed(
    methods: list[str | None], counts: dict[str, int] | None, said: str | None, rows: pd.DataFrame
) -> None:
    verdict = analyse(rows.assign(method=methods), name="study")
    assert verdict["provenance"]["methods"] == counts
    assert list(verdict["provenance"]["methods"] or []) == list(counts or [])
    assert dict(sentences.origin(verdict)).get("computed by") == said
    assert (f"- computed by: {said}" in markdown(verdict)) == (said is not None)
    plain = analyse(rows, name="study")
    assert plain["provenance"]["methods"] is None
    assert verdict["cells"] == plain["cells"] and verdict["alarms"] == plain["alarms"]


@pytest.mark.parametrize("times", [["2026-01-02 03:04:05.000001Z", "soon"] * 24, ["no time"] * 48, [3] * 48])
def test_times_are_read_as_a_csv_holds_them_and_anything_else_is_null(rows: pd.DataFrame, times: list[Any]) -> None:
    origin = analyse(rows.assign(finished_at=times), name="study")["provenance"]
    expected = "2026-01-02T03:04:05.000001+00:00" if "soon" in times else None
    assert origin["first_finished_at"] == origin["last_finished_at"] == expected


CONTROL = {"bias_layers": "conv", "bias_init": "zeros"}


@pytest.mark.parametrize(
    ("settings", "effect", "words"),
    [
        (CONTROL, 2.0, "The negative control fails"),
        (CONTROL | {"bias_layers": "first_conv"}, 2.0, "The negative control fails"),
        (CONTROL, 0.0, None),
        (CONTROL | {"bias_layers": "all"}, 2.0, None),
        (CONTROL | {"bias_init": "original"}, 2.0, None),
        ({}, 2.0, "which the table does not say"),
        ({}, 0.0, None),
    ],
)
def test_bias_that_matters_beside_batch_norm_raises_an_alarm(
    settings: dict[str, str], effect: float, words: str | None
) -> None:
    rows = study(grid(width=[1, 2], batch_norm=[False, True]), 12, lambda cell: effect * cell["batch_norm"], **settings)
    alarms = analyse(rows, name="study")["alarms"]
    assert len(alarms) == (words is not None)
    if words:
        assert words in alarms[0]
        assert "with batch norm, width 1: +2." in alarms[0]


def test_batch_norm_shared_by_all_rows_is_a_negative_control_too() -> None:
    rows = study([{"width": 4}], 12, lambda cell: 2.0, batch_norm=True, **CONTROL)
    verdict = analyse(rows, name="study")
    assert "the only cell" in verdict["alarms"][0]
    assert [(one["name"], one["verdict"]) for one in verdict["hypotheses"]] == [("negative_control", "contradicted")]


def test_runs_that_stand_twice_and_disagree_are_said(rows: pd.DataFrame) -> None:
    verdict = analyse(rows, name="study", repeated_runs=5, disagreeing_runs=3)
    assert (verdict["repeated_runs"], verdict["disagreeing_runs"]) == (5, 3)
    assert "3 runs stand in the store twice with different results" in verdict["alarms"][0]
    assert analyse(rows, name="study", repeated_runs=5, disagreeing_runs=0)["alarms"] == []


@pytest.mark.parametrize("seeds", [1, 2, 3, 7])
def test_few_seeds_are_no_error_and_json_holds_the_answer(seeds: int) -> None:
    cells = grid(width=[1, 2], depth=[2, 4], batch_norm=[False, True], learning_rate=[0.01, 0.1], steps=[10, 20])
    rows = study(cells, seeds, lambda cell: 3.0, train_examples=None, **CONTROL)
    verdict = analyse(rows, name="study", declared={"tune": ["learning_rate"]})
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    if seeds < 6:
        assert {cell["verdict"] for cell in [*verdict["cells"], *verdict["tuned_cells"]]} == {"undecided"}
        assert {one["verdict"] for one in verdict["hypotheses"]} == {"undecided"}
        assert all(one["reason"] for one in [*verdict["cells"], *verdict["hypotheses"]])


def test_from_python_a_table_is_analysed_through_the_report_module_too(rows: pd.DataFrame) -> None:
    assert report.analyse is analyse


def test_impossible_levels_are_refused(rows: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="confidence 95"):
        analyse(rows, name="study", confidence=95, declared={"looks": 3})


@pytest.mark.parametrize(
    ("said", "doubted"),
    [
        ({}, True),
        ({"bias_layers": "conv"}, True),
        ({"bias_init": "zeros"}, True),
        ({"bias_layers": "all"}, False),
        ({"bias_init": "uniform"}, False),
    ],
)
def test_a_table_that_tells_half_is_doubted_where_the_other_half_may_be_so(said: dict[str, str], doubted: bool) -> None:
    rows = study(grid(batch_norm=[True]), 12, lambda _: 2.0, **said)
    [*alarms] = analyse(rows, name="study", declared=DECLARED)["alarms"]
    assert any("negative control fails" in alarm for alarm in alarms) == doubted


def test_pairs_that_differ_in_more_than_the_bias_raise_an_alarm(rows: pd.DataFrame) -> None:
    apart = rows.assign(dataset_fingerprint=rows["bias"].map({True: "a", False: "b"}), trainer_version=1)
    alarms = analyse(apart, name="study", declared=DECLARED)["alarms"]
    assert "The runs of 24 pairs differ in dataset_fingerprint: bias is not all that sets them apart." in alarms
    moved = rows.assign(dataset_fingerprint=rows["width"].astype(str))
    assert analyse(moved, name="study", declared=DECLARED)["alarms"] == []


def test_a_margin_declared_after_looking_raises_an_alarm_and_the_same_one_does_not(rows: pd.DataFrame) -> None:
    before = {"margin": 0.5, "confidence": 0.95}
    assert analyse(rows, name="study", declared=DECLARED, declared_before=before)["alarms"] == []
    [alarm] = analyse(rows, name="study", declared={"margin": 2.0}, declared_before=before)["alarms"]
    assert alarm == "The margin 2 was declared after a look at 0.5: it is set before looking."
