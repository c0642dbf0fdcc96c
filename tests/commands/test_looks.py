"""What reports of a sweep promise about looking more than once: every look at new rows is remembered by the store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import analysis.report
from analysis.study import analyse
from sweep import plan
from sweep.commands import export, report
from sweep.common.errors import InputError
from sweep.space.runs import Run
from sweep.space.search_space import Analysis, SearchSpace, parse
from sweep.store.outcomes import Outcome, Point
from sweep.store.rows import Provenance, Store

BY = Provenance(device="cpu (test)", dataset_fingerprint="f" * 16, torch_version="2.6", curve_examples=43)
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
    _, verdict = report.report_sweep(wanted, store, store.root.parent / folder)
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
    _, verdict = report.report_sweep(space(6), store, store.root.parent, margin=2, confidence=0.99)
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
    _, verdict = report.report(str(tmp_path / "rows.csv"), store, None, None, None)
    assert verdict["looks"] == {"declared": 1, "taken": None, "confidence_each": 0.95}
    assert verdict["unplanned_look"] is None
    assert verdict["provenance"]["store"] is None
    assert len(store.looks("study")) == 1


def test_a_verdict_of_the_store_says_where_its_rows_come_from_and_how_many_disagree(store: Store) -> None:
    train(store, space(6), "a")
    train(Store(store.root.parent / "other"), space(6), "another")
    (store.root.parent / "other" / "runs" / "another.parquet").rename(store.root / "runs" / "another.parquet")
    _, verdict = report.report_sweep(space(6), store, store.root.parent)
    assert (verdict["runs"], verdict["repeated_runs"]) == (24, 24)
    assert 20 <= verdict["disagreeing_runs"] <= 24
    assert f"{verdict['disagreeing_runs']} runs stand in the store twice" in verdict["alarms"][0]
    origin = verdict["provenance"]
    assert origin["store"] == str(store.root)
    assert origin["devices"] == ["cpu (test)"]
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
    assert capsys.readouterr().err.count(f"{path}: is no ") == 1
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


def test_a_margin_that_is_declared_after_a_look_is_said(store: Store) -> None:
    train(store, space(6), "a")
    look(store, space(6))
    later = space(6).model_copy(update={"analysis": Analysis(margin=3.0, confidence=0.9)})
    _, verdict = report.report_sweep(later, store, store.root.parent / "report")
    assert any("was declared after a look at" in alarm for alarm in verdict["alarms"])
