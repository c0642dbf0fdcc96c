"""One damaged file of other runs stops no command: it is named once, left out, and stays as it is."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outcomes import BY, outcome

from sweep import cli, plan
from sweep.commands.watching import Watch
from sweep.space.search_space import SearchSpace, parse
from sweep.store.rows import Store


def space(name: str, seeds: str) -> SearchSpace:
    text = f"{{name: {name}, settings: {{dataset: digits, steps: 3}}, axes: {{width: [1, 2], seed: {seeds}}}}}"
    return parse(text.encode(), Path(f"{name}.yaml"))


MINE, OTHER = space("mine", "8"), space("other", "[8, 9]")


def train(store: Store, wanted: SearchSpace, array_id: str) -> None:
    """Puts all runs of a search space into the store as one array, as if they had been trained and looked at."""
    arrays = list(plan.arrays(wanted, "cpu"))
    runs = [run for array in arrays for run in array.runs()]
    run_ids = [run_id for array in arrays for run_id in array.run_ids]
    store.write(array_id, runs, run_ids, [outcome(800 + run.seed + 20 * run.bias) for run in runs], BY)
    store.save_sweep(wanted.name, wanted.resolved())
    store.save_look(wanted.name, 1, {"new_run_ids": run_ids, "looks": {"declared": 1, "taken": 1}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    train(store, MINE, "a" * 20)
    train(store, OTHER, "b" * 20)
    store.save_failure("c" * 20, {"error": "x", "run_ids": ["c"]})
    (tmp_path / "mine.yaml").write_text(MINE.resolved())
    return store


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds, and are not what is tested here."""
    monkeypatch.setattr("analysis.figures.draw", lambda *_: ())


def run(monkeypatch: pytest.MonkeyPatch, store: Store, *arguments: object) -> int:
    """Exit status of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments), "--store", store.address])
    monkeypatch.setattr(cli, "_debug", False)
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("../.git/annex/objects/x")


def _nulls(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "run_id", pa.nulls(len(table), pa.string())), path)


ROWS, CURVES, SPACE = "runs/" + "b" * 20 + ".parquet", "curves/" + "b" * 20 + ".parquet", "sweeps/other.yaml"
DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated rows": (ROWS, lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "empty rows": (ROWS, lambda path: path.write_bytes(b"")),
    "rows that are a folder": (ROWS, _folder),
    "rows that another program rewrote, with a null": (ROWS, _nulls),
    "rows of git-annex that were not fetched": (ROWS, _linked),
    "truncated curves": (CURVES, lambda path: path.write_bytes(path.read_bytes()[:9])),
    "a search space that is none": (SPACE, lambda path: path.write_text("axes: {widht: [1")),
    "a search space of a newer version": (SPACE, lambda path: path.write_text("settings: {new: 1}")),
    "a search space without text": (SPACE, lambda path: path.write_bytes(b"")),
    "a search space that is a folder": (SPACE, _folder),
    "a search space of git-annex that was not fetched": (SPACE, _linked),
    "a copy of a search space": ("sweeps/mine (1).yaml", lambda path: path.write_text(MINE.resolved())),
    "a failure": ("failures/" + "c" * 20 + ".json", lambda path: path.write_text("{")),
    "a checkpoint": ("checkpoints/" + "c" * 20 + ".safetensors", lambda path: (path.parent.mkdir(), path.touch())),
    "a look": ("looks/other/0001.json", lambda path: path.write_text("[1]")),
    "an index": ("merged.json", lambda path: path.write_text("{")),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_of_other_runs_stops_no_command(
    name: str,
    damage: Callable[[Path], object],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = store.root / name
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    for command in (
        ["status", "--json"],
        ["status", "mine", "--json"],
        ["plan", tmp_path / "mine.yaml", "--json"],
        ["report", "mine", "--json"],
        ["export", "mine", "--to", tmp_path / "mine.csv", "--json"],
        ["launch", tmp_path / "mine.yaml", "--json"],
        ["compact", "--json"],
        ["status", "--json"],
    ):
        assert run(monkeypatch, store, *command) == 0, command
        out, err = capsys.readouterr()
        said = json.loads(out)
        assert sum(str(path) in line for line in err.splitlines()) <= 1, err
        if command[0] == "status":
            mine = next(each for each in said if each["name"] == "mine")
            assert (mine["done"], mine["missing"]) == (32, 0)
        if command[0] == "launch":
            assert (said["already"], said["trained"], said["failed"]) == (32, 0, 0)
        if command[0] == "report":
            assert said["runs"] == 32 and not said["unplanned_look"]
        if command[0] == "compact":
            # The index is made anew where files are merged: it holds nothing that they do not say themselves.
            before = path.read_bytes() if name == "merged.json" else before
        assert (path.read_bytes() if path.is_file() else None) == before, command
        assert os.path.lexists(path), command


def test_a_damaged_file_is_named_on_standard_error_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.root / SPACE).write_text("settings: {new: 1}\naxes: {widht: [1]}")
    assert run(monkeypatch, store, "status", "--json") == 0
    out, err = capsys.readouterr()
    assert [each["name"] for each in json.loads(out)] == ["mine"]
    assert err.startswith(f"{store.root}/{SPACE}:1: settings.new: unknown setting; known are ")
    assert err.endswith(". It is left out: that sweep is not shown.\n") and err.count("\n") == 1


def test_what_is_asked_for_by_name_is_not_left_out_in_silence(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.root / SPACE).write_bytes(b"")
    for command in (["status", "other"], ["report", "other"], ["export", "other", "--to", store.root / "x.csv"]):
        assert run(monkeypatch, store, *command) == 2
        assert "other.yaml" in capsys.readouterr().err


def test_rows_that_were_asked_for_and_lost_are_exit_status_1(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(store, space("mine", "12"), "d" * 20)  # seeds 10 and 11 are nowhere else
    path = store.root / "runs" / f"{'d' * 20}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    for command, key in (
        (["report", "mine", "--json"], "runs"),
        (["export", "mine", "--to", f"file://{tmp_path}/mine.csv", "--json"], "rows"),
    ):
        assert run(monkeypatch, store, *command) == 1
        out, err = capsys.readouterr()
        assert json.loads(out).get("file", str(tmp_path / "mine.csv")) == str(tmp_path / "mine.csv")
        assert json.loads(out)[key] == 40 and err.count(str(path)) == 1
        assert err.endswith("8 runs of mine are missing because of that; a launch trains them again.\n")
    assert run(monkeypatch, store, "report", "other", "--json") == 0


def test_rows_of_which_a_launch_sees_no_damage_are_told_with_the_way_out(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(store, space("mine", "12"), "d" * 20)
    path = store.root / "runs" / f"{'d' * 20}.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("test_accuracy")
    pq.write_table(table.set_column(place, "test_accuracy", pa.array([7.0] * len(table))), path)
    assert run(monkeypatch, store, "report", "mine", "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["runs"] == 40 and err.count(str(path)) == 1
    assert "a launch takes 8 runs of mine for done" in err and "move the damaged files out of the store" in err
    path.unlink()
    assert run(monkeypatch, store, "status", "mine", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["missing"] == 8


def test_a_watch_names_a_damaged_file_once_and_takes_it_when_it_is_mended(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [store.root / SPACE, store.root / ROWS]
    whole = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(path.read_bytes()[:15])
    watch = Watch(store)
    for _ in range(2):
        assert [each.name for each in watch.look()] == ["mine"]
    assert capsys.readouterr().err.count("It is left out") == 2
    for path, content in zip(paths, whole, strict=True):
        path.write_bytes(content)
    assert [(each.name, each.missing) for each in watch.look()] == [("mine", 0), ("other", 0)]
