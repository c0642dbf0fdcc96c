"""What reports of a sweep promise about looking more than once: every look at new rows is remembered by the store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import analysis.report
from analysis.study import analyse
from analysis.wording import sentences
from sweep import cli, plan
from sweep.commands import changes, export, report
from sweep.common.errors import InputError
from sweep.space.runs import Run
from sweep.space.search_space import Analysis, SearchSpace, parse
from sweep.store.outcomes import Outcome, Point
from sweep.store.rows import Provenance, Store

BY = Provenance(
    device="cpu (test)", dataset_fingerprint="f" * 16, torch_version="2.6", curve_examples=43, method="grouped"
)
TEXT = "name: study\naxes: {{width: [1, 2], seed: {seeds}}}\nanalysis: {{looks: {looks}, confidence: 0.9}}"


def space(seeds: int, looks: int = 1) -> SearchSpace:
    return parse(TEXT.format(seeds=seeds, looks=looks).encode(), Path("study.yaml"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture(autouse=True)
def unwritten(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame | None]:
    """Reports are analysed and not drawn; the learning curves that they were given."""
    given = []

    def write(rows: pd.DataFrame, out: Path, *, curves: pd.DataFrame | None = None, **options: Any) -> dict[str, Any]:
        given.append(curves)
        return analyse(rows, **options)

    monkeypatch.setattr(analysis.report, "write", write)
    return given


def train(store: Store, wanted: SearchSpace, array: str) -> None:
    """Puts the missing runs of a search space into the store, as if they had been trained."""
    done, generator = store.statuses(), np.random.default_rng(len(array))
    cells = [Run(**levels, bias=bias, seed=seed) for levels, members in wanted.grid() for bias, seed in members]
    missing = [(run, one) for run, one in zip(cells, plan.run_ids(wanted), strict=True) if one not in done]
    outcomes = [
        Outcome(
            status="ok", test_accuracy=float(generator.integers(800, 900)) / 1000, test_loss=1.0, train_loss=1.0,
            validation_accuracy=0.5, test_correct=b"\x0f", parameters=10, train_seconds=0.5, array_size=4,
            curve=(Point(5, 1.0, 0.125),),
        )
        for _ in missing
    ]  # fmt: skip
    store.write(array, [run for run, _ in missing], [one for _, one in missing], outcomes, BY)


def look(store: Store, wanted: SearchSpace, folder: str = "report") -> tuple[int, bool, float]:
    _, verdict, *_ = report.report_sweep(wanted, store, store.root.parent / folder)
    looks = verdict["looks"]
    assert looks["declared"] == wanted.analysis.looks
    return looks["taken"], verdict["unplanned_look"], looks["confidence_each"]


def test_a_report_of_rows_that_no_earlier_report_had_is_a_look_and_one_of_the_same_rows_is_none(store: Store) -> None:
    train(store, space(6), "a")
    assert [look(store, space(6)) for _ in range(2)] == [(1, False, 0.9)] * 2
    train(store, space(8), "b")
    assert [look(store, space(8)) for _ in range(2)] == [(2, True, 0.9)] * 2
    assert len(store.looks("study")) == 2


def test_declared_looks_share_alpha_and_are_planned(store: Store) -> None:
    for number, seeds in enumerate((6, 7, 8), 1):
        train(store, space(seeds, 2), f"{number}")
        assert look(store, space(seeds, 2)) == (number, number > 2, 0.95)


def test_looks_that_are_declared_after_looking_are_not_planned(store: Store) -> None:
    train(store, space(6), "a")
    assert look(store, space(6)) == (1, False, 0.9)
    train(store, space(7, 2), "b")
    assert look(store, space(7, 2)) == (2, True, 0.95)


def test_a_report_elsewhere_is_a_look_too_and_other_levels_are_none(store: Store) -> None:
    train(store, space(6), "a")
    assert look(store, space(6), "elsewhere")[0] == 1
    _, verdict, *_ = report.report_sweep(space(6), store, store.root.parent, margin=2, confidence=0.99)
    assert (verdict["looks"]["taken"], verdict["unplanned_look"]) == (1, False)


def test_the_store_keeps_what_was_seen(store: Store) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    train(store, space(7), "b")
    look(store, space(7))
    first, second = store.looks("study").values()
    assert sorted(first["new_run_ids"]) == sorted(plan.run_ids(space(6)))
    assert set(second["new_run_ids"]) == {*plan.run_ids(space(7))} - {*plan.run_ids(space(6))}
    assert [(cell["width"], cell["pairs"]) for cell in second["cells"]] == [(1, 7), (2, 7)]
    assert {cell["verdict"] for cell in first["cells"]} <= {"matters", "equivalent", "undecided"}
    assert (first["margin"], first["confidence"], first["pairs"]) == (0.5, 0.9, 12)
    assert first["taken_at"] <= second["taken_at"]


def test_looks_are_counted_by_sweep(store: Store) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    other = parse(TEXT.format(seeds=6, looks=1).replace("study", "other").encode(), Path("x.yaml"))
    assert look(store, other) == (1, False, 0.9)


def test_rows_that_cannot_be_analysed_were_not_looked_at(store: Store) -> None:
    train(store, parse(b"{name: study, axes: {bias: [true], width: [1, 2], seed: 6}}", Path("x.yaml")), "a")
    with pytest.raises(InputError, match="every row has bias true"):
        look(store, space(6))
    assert store.looks("study") == {}


def test_the_report_of_a_file_is_no_look(store: Store, tmp_path: Path) -> None:
    train(store, space(6), "a")
    store.save_sweep("study", space(6).resolved())
    export.export("study", store, tmp_path / "rows.csv")
    look(store, space(6))
    _, verdict, *_ = report.report(str(tmp_path / "rows.csv"), store, None, None, None)
    assert verdict["looks"] == {"declared": 1, "taken": None, "confidence_each": 0.95}
    assert verdict["unplanned_look"] is None
    assert verdict["provenance"]["store"] is None
    assert len(store.looks("study")) == 1


def test_a_verdict_of_the_store_says_where_its_rows_come_from_and_how_many_disagree(store: Store) -> None:
    train(store, space(6), "a")
    train(Store(store.root.parent / "other"), space(6), "another")
    (store.root.parent / "other" / "runs" / "another.parquet").rename(store.root / "runs" / "another.parquet")
    _, verdict, *_ = report.report_sweep(space(6), store, store.root.parent)
    assert (verdict["runs"], verdict["repeated_runs"]) == (24, 24)
    assert 20 <= verdict["disagreeing_runs"] <= 24
    assert f"{verdict['disagreeing_runs']} runs stand in the store twice" in verdict["alarms"][0]
    origin = verdict["provenance"]
    assert origin["store"] == str(store.root)
    assert origin["devices"] == ["cpu (test)"] and origin["methods"] == {"grouped": 24}
    assert origin["settings"]["steps"] == 1001
    assert origin["first_finished_at"] <= origin["last_finished_at"]


def test_a_report_calls_a_store_below_here_by_its_path_from_here(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(store.address)
    monkeypatch.chdir(folder.parent)
    assert report.cited(store) == folder.name
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert report.cited(store) == store.address
    assert report.cited(Store("s3://bucket/sweeps")) == "s3://bucket/sweeps"


def test_a_report_gets_the_curves_of_its_runs_or_of_as_many_cells_as_can_be_drawn(
    store: Store, unwritten: list[pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    monkeypatch.setattr(report, "MOST_CURVES", 12)
    look(store, space(6))
    every, some = unwritten
    assert sorted(every["run_id"]) == sorted(plan.run_ids(space(6)))
    assert sorted(some["run_id"]) == sorted(plan.run_ids(space(6))[:12])


@pytest.mark.parametrize("content", [json.dumps([1]), "", '{"new_run_ids": [3], "looks": {"declared": 1}}'])
def test_a_damaged_record_of_a_look_is_named_stays_and_counts_as_one(
    content: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    path = store.root / "looks" / "study" / "0001.json"
    path.write_text(content)
    assert look(store, space(6))[:2] == (2, True), "which rows were seen is not known any more"
    assert capsys.readouterr().err.count(f"{path}: is not ") == 1
    assert look(Store(store.root), space(6))[:2] == (2, True)
    assert path.read_text() == content and len(list(path.parent.iterdir())) == 2


def test_a_record_that_was_moved_away_is_not_replaced_by_the_next_look(store: Store) -> None:
    for number, seeds in enumerate((6, 7, 8), 1):
        train(store, space(seeds), f"{number}")
        look(store, space(seeds))
    third = store.place.read("looks/study/0003.json")
    store.place.remove("looks/study/0001.json")
    assert look(store, space(8))[:2] == (4, True)
    assert sorted(store.looks("study")) == [2, 3, 4] and store.place.read("looks/study/0003.json") == third


STEPS = (
    "name: study\nsettings: {{steps: {steps}}}\naxes: {{width: [1, 2], seed: {seeds}}}\nanalysis: {{confidence: 0.9}}"
)


def steps(number: int, seeds: str = "6") -> SearchSpace:
    return parse(STEPS.format(steps=number, seeds=seeds).encode(), Path("study.yaml"))


def test_another_search_space_under_the_same_name_is_a_first_look_and_says_what_changed(store: Store) -> None:
    train(store, steps(300), "a")
    assert look(store, steps(300)) == (1, False, 0.9)
    train(store, steps(1001), "b")
    for _ in range(2):
        _, verdict, *_ = report.report_sweep(steps(1001), store, store.root.parent / "report")
        assert (verdict["looks"]["taken"], verdict["unplanned_look"]) == (1, False)
        assert verdict["other_looks"] == {"looks": 1, "changed": {"steps": {"before": "300", "now": "1001"}}}
        said = sentences.other_looks(verdict)
        assert said.startswith("1 earlier look under this name saw another search space (steps 300, now 1001)")
        assert said in sentences.conditions(verdict)
    assert sorted(store.looks("study")) == [1, 2], "a record is never written over"
    train(store, steps(1001, "8"), "c")
    assert look(store, steps(1001, "8"))[:2] == (2, True)
    assert look(store, steps(300)) == (1, False, 0.9), "what was launched first is as it was"


OTHERS = {
    "another data set": "settings: {dataset: digits}\naxes: {width: [1, 2], seed: 6}",
    "other widths": "axes: {width: [4, 8], seed: 6}",
    "another split": "settings: {split: 1}\naxes: {width: [1, 2], seed: 6}",
    "another axis": "axes: {activation: [tanh, gelu], width: [1, 2], seed: 6}",
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_a_look_that_saw_no_cell_of_a_sweep_does_not_count(text: str, store: Store) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    other = parse(f"name: study\n{text}".encode(), Path("study.yaml"))
    train(store, other, "b")
    assert look(store, other)[:2] == (1, False)


@pytest.mark.parametrize(
    "text", ["axes: {width: [1, 2, 4], seed: 6}", "axes: {width: [1], seed: [6, 7, 8, 9, 10, 11]}"]
)
def test_a_look_at_a_cell_of_a_sweep_counts_whatever_seeds_or_levels_come(text: str, store: Store) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    other = parse(f"name: study\n{text}".encode(), Path("study.yaml"))
    train(store, other, "b")
    _, verdict, *_ = report.report_sweep(other, store, store.root.parent / "report")
    assert (verdict["looks"]["taken"], verdict["unplanned_look"], verdict["other_looks"]) == (2, True, None)


def test_a_look_whose_rows_are_gone_counts(store: Store) -> None:
    train(store, steps(300), "a")
    look(store, steps(300))
    train(store, steps(1001), "b")
    (store.root / "runs" / "a.parquet").unlink()
    assert look(store, steps(1001))[:2] == (2, True)


def test_another_search_space_has_its_own_declared_looks_and_margin(store: Store) -> None:
    train(store, steps(300), "a")
    look(store, steps(300))
    declared = {"analysis": Analysis(margin=3.0, confidence=0.9, looks=2)}
    for number, seeds in enumerate(("6", "8"), 1):
        wanted = steps(1001, seeds).model_copy(update=declared)
        train(store, wanted, f"b{number}")
        _, verdict, *_ = report.report_sweep(wanted, store, store.root.parent / "report")
        assert (verdict["looks"]["taken"], verdict["unplanned_look"]) == (number, False)
        assert not any("declared after a look" in alarm for alarm in verdict["alarms"])


def test_a_look_that_version_0_1_0_kept_is_read(store: Store) -> None:
    train(store, steps(300), "a")
    record = {
        "taken_at": "2026-11-27T08:03:56+00:00", "margin": 0.5, "confidence": 0.9,
        "looks": {"declared": 1, "taken": 1, "confidence_each": 0.9}, "runs": 24, "pairs": 12,
        "cells": [{"width": 1, "pairs": 6, "verdict": "undecided"}, {"width": 2, "pairs": 6, "verdict": "undecided"}],
        "new_run_ids": plan.run_ids(steps(300)), "declared": {"margin": 0.5, "confidence": 0.9},
    }  # fmt: skip
    store.save_look("study", 1, record)
    assert look(store, steps(300)) == (1, False, 0.9) and sorted(store.looks("study")) == [1]
    train(store, steps(1001), "b")
    assert look(store, steps(1001))[:2] == (1, False)


# What a launch or a plan says of the search space that the store knows


CHANGES = {
    "steps": ("settings: {steps: 300}\naxes: {width: [1, 2], seed: 6}", "steps 1001, now 300", True),
    "seeds": ("axes: {width: [1, 2], seed: 64}", "seed 0 to 5, now 0 to 63", False),
    "other seeds": ("axes: {width: [1, 2], seed: [7, 9]}", "seed 0 to 5, now 7, 9", True),
    "levels": ("axes: {width: [1, 2, 4], seed: 6}", "width 1, 2, now 1, 2, 4", False),
    "an axis": ("axes: {width: [1, 2], depth: [1, 2], seed: 6}", "depth 2, now 1, 2", False),
    "text": ("settings: {activation: tanh}\naxes: {width: [1, 2], seed: 6}", "activation relu, now tanh", True),
    "what was null": (
        "settings: {train_examples: 100}\naxes: {width: [1, 2], seed: 6}",
        "train_examples null, now 100",
        True,
    ),
    "the margin": ("axes: {width: [1, 2], seed: 6}\nanalysis: {margin: 0.3}", "analysis.margin 0.5, now 0.3", False),
    "the claim": (
        "claim: {says: narrow, refuted_if: wide}\naxes: {width: [1, 2], seed: 6}",
        "claim.says nothing, now narrow; claim.refuted_if nothing, now wide",
        False,
    ),
    "the looks": ("axes: {width: [1, 2], seed: 6}\nanalysis: {looks: 2}", "analysis.looks 1, now 2", False),
    "what is left out": (
        "axes: {width: [1, 2], seed: 6}\nexclude: [{width: 1, seed: 5}]",
        'exclude [], now [{"width": [1], "seed": [5]}]',
        False,
    ),
}


@pytest.mark.parametrize(("text", "said", "apart"), CHANGES.values(), ids=CHANGES)
def test_what_has_changed_since_the_last_launch_is_said_setting_by_setting(
    text: str, said: str, apart: bool, store: Store
) -> None:
    before = parse(b"name: study\naxes: {width: [1, 2], seed: 6}", Path("study.yaml"))
    assert changes.since_launch(before, store) is None
    store.save_sweep("study", before.resolved())
    assert changes.since_launch(before, store) is None
    now = changes.since_launch(parse(f"name: study\n{text}".encode(), Path("study.yaml")), store)
    share = " They share no run: the rows of before stay, and are no part of this sweep." if apart else ""
    assert now == f"study: not the search space that was launched under this name before: {said}.{share}"


def test_several_changes_are_said_together_and_another_order_is_none(store: Store) -> None:
    before = parse(b"name: study\naxes: {width: [1, 2], seed: 6}", Path("study.yaml"))
    store.save_sweep("study", before.resolved())
    reordered = parse(b"name: study\naxes: {seed: [5, 4, 3, 2, 1, 0], width: [2, 1]}", Path("study.yaml"))
    assert changes.since_launch(reordered, store) is None
    text = b"name: study\nsettings: {steps: 5, batch_norm: true}\naxes: {width: [1], seed: 6}"
    now = changes.since_launch(parse(text, Path("study.yaml")), store)
    assert now is not None and "width 1, 2, now 1; batch_norm false, now true; steps 1001, now 5." in now


def test_a_search_space_that_cannot_be_read_says_so_and_stops_no_launch(store: Store) -> None:
    store.place.write("sweeps/study.yaml", b"axes: {widht: [1]}")
    now = changes.since_launch(space(6), store)
    assert now is not None and now.startswith("study: what was launched under this name before cannot be read")


def test_a_plan_says_what_has_changed_on_standard_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save_sweep("study", space(6).resolved())
    path = tmp_path / "study.yaml"
    path.write_text("settings: {steps: 3, dataset: digits}\naxes: {width: [1, 2], seed: 6}")
    monkeypatch.setattr("sys.argv", ["sweep", "plan", str(path), "--store", store.address, "--json"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert json.loads(out)["to_train"] == 24
    assert "launched under this name before: dataset mnist5k, now digits; steps 1001, now 3; analysis" in err


def test_a_margin_that_is_declared_after_a_look_is_said(store: Store) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    later = space(6).model_copy(update={"analysis": Analysis(margin=3.0, confidence=0.9)})
    _, verdict, *_ = report.report_sweep(later, store, store.root.parent / "report")
    assert any("was declared after a look at" in alarm for alarm in verdict["alarms"])
