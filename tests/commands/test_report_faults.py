"""What goes wrong with a report costs no launch: it is one message, and what could be written is there."""

import dataclasses
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.object_store import environment, serving
from support.outcomes import BY, outcome
from typer.testing import CliRunner, Result

import analysis.figures
import analysis.page
from sweep import plan
from sweep.cli import app
from sweep.commands import current, launch, report
from sweep.space.search_space import parse
from sweep.store.rows import Store

SPACE = """
name: study
settings: {steps: 5}
axes: {width: [1, 2], seed: 6}
analysis: {margin: 0.5}
tracking: null
"""
TEXTS = {"effects.parquet", "report.html", "report.md", "verdict.json"}
FIGURES = {"effect_by_width", "accuracies", "pairs", "curves", "variance", "margins"}
WHOLE = TEXTS | {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}


@dataclasses.dataclass
class Summary:
    name: str = "study"
    runs: int = 24
    trained: int = 24
    already: int = 0
    failed: int = 0
    diverged: int = 0
    seconds: float = 1.0


def fill(store: Store) -> None:
    """Rows for all runs of the sweep, as a launch leaves them."""
    space = parse(SPACE.encode(), Path("study.yaml"))
    for array in plan.arrays(space, "cpu"):
        runs = array.runs()
        outcomes = [outcome(700 + 30 * run.bias // run.width + run.seed) for run in runs]
        store.write(array.array_id, runs, array.run_ids, outcomes, BY)
    store.save_sweep(space.name, space.resolved())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose runs are all trained, and launches that train nothing more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(SPACE)
    store = Store(tmp_path / "results")
    fill(store)
    monkeypatch.setattr(launch, "prepared", lambda spaces, library: list(spaces))
    done = SimpleNamespace(failures={}, total=Summary(), sweeps=[Summary()])
    monkeypatch.setattr(launch, "train", lambda *_, **__: done)
    # A style that takes no time: what is drawn is no matter here.
    monkeypatch.setattr("analysis.figures.style.save", _save)
    return store


def _save(figure: Any, stem: Path) -> None:
    from sweep.common.atomic_files import replacing

    for kind in ("svg", "png"):
        with replacing(Path(f"{stem}.{kind}")) as path:
            path.write_text("picture")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--store", "results"])


def launched() -> Result:
    return run("launch", "study.yaml")


def files(store: Store, folder: str = "results/reports/study") -> set[str]:
    return {path.name for path in (store.root.parent / folder).iterdir()} - {current.MADE_FROM}


def refuse(monkeypatch: pytest.MonkeyPatch, names: Callable[[str], bool], code: int = errno.ENOSPC) -> None:
    """What is put in place under these names fails, as on a disk that is full or may only be read."""
    replace = os.replace

    def failing(source: Any, target: Any) -> None:
        if names(Path(target).name):
            raise OSError(code, os.strerror(code), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    monkeypatch.setattr("sweep.store.storage.RETRY_SECONDS", 0)


def lines(done: Result) -> list[str]:
    return done.stderr.splitlines()


def test_a_launch_whose_report_is_whole_ends_well(store: Store) -> None:
    done = launched()
    assert (done.exit_code, done.stderr) == (0, "")
    assert files(store) == WHOLE
    assert len(store.looks("study")) == 1


@pytest.mark.parametrize("missing", ["effects.parquet", "report.html", "report.md", "verdict.json", "pairs.svg"])
def test_a_part_that_cannot_be_written_is_one_message_and_the_others_are_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    refuse(monkeypatch, lambda name: name == missing)
    done = launched()
    part = missing.removesuffix(".svg")
    assert done.exit_code == 1
    assert lines(done) == [
        f"The report of study in {store.root}/reports/study lacks what could not be made "
        f"({part}: No space left on device)"
    ]
    assert files(store) == WHOLE - {missing, missing.replace("svg", "png")}
    if missing != "report.md":
        assert ("pairs.png" in (store.root / "reports/study/report.md").read_text()) == (part != "pairs")
    assert len(store.looks("study")) == 1
    assert "2 cells:" in done.stdout and ("page: " in done.stdout) == (missing != "report.html")


@pytest.mark.parametrize("broken", ["figures", "one figure", "page", "words"])
def test_a_fault_of_our_own_costs_its_part_alone(store: Store, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a fault")

    where = {
        "figures": (analysis.figures, "draw"), "one figure": (analysis.figures.dots, "draw"),
        "page": (analysis.page, "render"), "words": (analysis.report, "markdown"),
    }  # fmt: skip
    monkeypatch.setattr(*where[broken], fails)
    done = launched()
    assert done.exit_code == 1 and len(lines(done)) == 1
    assert "ZeroDivisionError: a fault" in done.stderr and "Traceback" not in done.stderr
    lost = {
        "figures": WHOLE - TEXTS, "one figure": {"pairs.png", "pairs.svg"}, "page": {"report.html"},
        "words": {"report.md"},
    }  # fmt: skip
    assert files(store) == WHOLE - lost[broken]
    assert len(store.looks("study")) == 1


def test_a_part_of_an_earlier_report_does_not_stand_beside_a_later_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launched().exit_code == 0
    refuse(monkeypatch, lambda name: name in ("pairs.png", "report.html"))
    assert run("report", "study").exit_code == 1
    assert files(store) == WHOLE - {"pairs.png", "pairs.svg", "report.html"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_report_of_which_nothing_can_be_written_is_no_look_and_leaves_the_earlier_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    assert launched().exit_code == 0
    store.place.remove("looks/study/0001.json")
    before = {name: (store.root / "reports/study" / name).read_bytes() for name in WHOLE}
    refuse(monkeypatch, lambda _: True, code)
    done = launched()
    assert done.exit_code == 1
    assert lines(done) == [
        f"No report of study: nothing could be written to {store.root}/reports/study ({os.strerror(code)}); "
        "--out names another. All rows are kept; sweep report study tries again."
    ]
    assert "cells:" not in done.stdout
    assert {name: (store.root / "reports/study" / name).read_bytes() for name in WHOLE} == before
    assert store.looks("study") == {}


def test_a_folder_that_cannot_be_made_is_named_with_the_way_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (store.root / "reports").write_text("in the way")
    done = launched()
    assert done.exit_code == 1 and store.looks("study") == {}
    assert f"No report of study: {store.root}/reports/study: the report's folder cannot be made" in done.stderr
    assert "--out names another" in done.stderr


def test_a_look_that_cannot_be_kept_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, lambda name: name == "0001.json")
    done = launched()
    assert done.exit_code == 1 and len(lines(done)) == 1
    assert "does not remember that these results were looked at" in done.stderr
    assert files(store) == WHOLE


def test_the_look_is_kept_when_the_report_is_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Store, "save_look", lambda *_: seen.append(files(store)))
    assert launched().exit_code == 0
    assert seen == [WHOLE]


def test_rows_that_a_fault_interrupts_are_reported_by_the_same_command_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as fault:
        refuse(fault, lambda _: True)
        assert launched().exit_code == 1
    done = run("report", "study")
    assert (done.exit_code, done.stderr) == (0, "")
    assert files(store) == WHOLE and len(store.looks("study")) == 1


def test_curves_that_cannot_be_read_cost_their_figure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Store, "curves", gone)
    done = launched()
    assert done.exit_code == 1 and len(lines(done)) == 1
    assert "The report of study has no learning curves" in done.stderr
    assert files(store) == WHOLE - {"curves.png", "curves.svg"}


def test_a_sweep_of_one_arm_has_no_report_and_that_is_no_fault(store: Store) -> None:
    Path("study.yaml").write_text(SPACE.replace("{width", "{bias: [true], width"))
    done = launched()
    assert done.exit_code == 0
    assert "one arm alone" in done.stderr


def test_trackers_that_fail_cost_a_message_and_the_status(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.commands.trackers.track", lambda *_: ["study could not be told"])
    done = launched()
    assert (done.exit_code, done.stderr) == (1, "study could not be told\n")
    assert files(store) == WHOLE


def test_json_is_one_object_whatever_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, lambda name: name == "report.md")
    done = run("launch", "study.yaml", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["report"] == str(store.root / "reports/study")
    refuse(monkeypatch, lambda _: True)
    done = run("launch", "study.yaml", "--json")
    assert done.exit_code == 1 and json.loads(done.stdout)["report"] is None
    monkeypatch.undo()
    monkeypatch.chdir(store.root.parent)
    refuse(monkeypatch, lambda name: name == "report.md")
    done = run("report", "study", "--json")
    assert done.exit_code == 1 and len(lines(done)) == 1
    assert json.loads(done.stdout) == json.loads((store.root / "reports/study/verdict.json").read_text())


# Reports that are as new as the rows


def made_at(store: Store) -> int:
    return (store.root / "reports/study/verdict.json").stat().st_mtime_ns


def test_a_report_that_is_as_new_as_the_rows_is_not_made_again(store: Store) -> None:
    first = launched()
    before = made_at(store)
    again = launched()
    assert made_at(store) == before and again.exit_code == 0
    assert again.stderr == "The report of study is as new as its rows.\n" and again.stdout == first.stdout
    answer = json.loads(run("launch", "study.yaml", "--json").stdout)
    assert answer["report"] == str(store.root / "reports/study") and made_at(store) == before
    assert len(store.looks("study")) == 1


CHANGES: dict[str, Callable[[Store], Any]] = {
    "a file of rows": lambda store: store.place.write("runs/other.parquet", store.place.read(store.row_files()[0])),
    "a damaged file of rows": lambda store: store.place.write("runs/other.parquet", b"no"),
    "a look": lambda store: store.save_look("study", 2, {"looks": {"declared": 1}, "new_run_ids": []}),
    "the search space": lambda store: Path("study.yaml").write_text(SPACE.replace("margin: 0.5", "margin: 0.6")),
    "the program": lambda store: None,
    "a part": lambda store: store.place.remove("reports/study/report.html"),
    "the verdict": lambda store: store.place.write("reports/study/verdict.json", b"{"),
    "the note of what it was made from": lambda store: store.place.write("reports/study/made_from.json", b"[]"),
    "other levels": lambda store: run("report", "study", "--margin", 2),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_report_is_made_again_where_anything_has_changed(
    what: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched()
    before = made_at(store)
    CHANGES[what](store)
    if what == "the program":
        monkeypatch.setattr(current.importlib.metadata, "version", lambda name: "99.0")
    done = launched()
    assert "as new as" not in done.stderr and made_at(store) > before
    assert files(store) == WHOLE


def test_a_report_of_which_a_part_failed_is_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as fault:
        refuse(fault, lambda name: name == "pairs.png")
        assert launched().exit_code == 1
    assert launched().exit_code == 0 and files(store) == WHOLE


# Stores that may only be read


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_report_elsewhere_needs_a_store_that_may_be_read_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(self: Any, path: Path, content: bytes) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr("sweep.store.storage.Place._write_local", refused)
    done = run("report", "study", "--out", "elsewhere")
    assert done.exit_code == 0
    assert files(store, "elsewhere") == WHOLE
    assert f"{store.root} does not remember that these results were looked at: [Errno {code}]" in done.stderr
    assert "2 cells:" in done.stdout
    assert run("report", "study", "--out", "elsewhere").exit_code == 0


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with serving() as port, environment(f"http://127.0.0.1:{port}"):
        monkeypatch.setattr("analysis.figures.style.save", _save)
        store = Store("s3://bucket/results")
        fill(store)
        yield store


def test_a_report_in_a_bucket_lacks_what_could_not_be_put_there(
    remote: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write, place = type(remote.place).write, type(remote.place)

    def failing(self: Any, name: str, content: bytes, retry_seconds: float | None = None) -> None:
        if name.endswith((".md", ".html")):
            raise OSError("ACCESS_DENIED")
        write(self, name, content, retry_seconds)

    monkeypatch.setattr(place, "write", failing)
    space = parse(SPACE.encode(), Path("study.yaml"))
    made = report.report_sweep(space, remote)
    assert made.folder == "s3://bucket/results/reports/study" and made.notes == []
    assert made.problems == [
        f"The report of study in {made.folder} lacks what could not be written (report.html, report.md: ACCESS_DENIED)"
    ]
    assert len(remote.looks("study")) == 1
    assert f"{remote.report_folder('study')}/verdict.json" in remote.place.files("reports/study", ".json")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError("ACCESS_DENIED")

    remote.place.remove("looks/study/0001.json")
    monkeypatch.setattr(place, "write", refused)
    with pytest.raises(OSError, match=r"nothing could be written to s3://bucket/results/reports/study \(ACCESS"):
        report.report_sweep(space, remote)
    assert remote.looks("study") == {}
    made = report.report_sweep(space, remote, tmp_path / "elsewhere")
    assert made.problems == [] and "ACCESS_DENIED" in made.notes[0]
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == WHOLE
