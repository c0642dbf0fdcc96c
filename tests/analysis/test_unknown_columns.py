"""What `analysis.unknown_columns` promises: nothing is pooled over a column that nobody has named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.simulated import study
from typer.testing import CliRunner, Result

from analysis import effects, report
from analysis.run_table import load_table
from analysis.study import analyse
from analysis.unknown_columns import meant
from sweep.cli import app
from sweep.common.errors import InputError
from sweep.space.runs import CELL


def level(width: int) -> pd.DataFrame:
    """Six pairs of one width, whose seeds no other width has."""
    rows = study([{"width": width}], 6, lambda _: 4.0 / width, seed=width)
    return rows.assign(seed=rows["seed"] + 10 * width)


LEVELS = pd.concat([level(width) for width in (1, 2, 4)], ignore_index=True)
"""Taken for one cell, nothing stands twice."""


def refused(rows: pd.DataFrame, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        analyse(rows, name="x", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "name", [" width", "Width", "WIDTH", "wdith", "widht", "channels", "n_channels", "num_filters", "with"]
)
def test_a_column_whose_name_comes_near_a_setting_is_asked_about(name: str) -> None:
    said = refused(LEVELS.rename(columns={"width": name}))
    assert said.startswith(f"column {name!r} varies and is no setting; did you mean width? Rename it, or leave it out")
    verdict = analyse(LEVELS.rename(columns={"width": name}), name="x", ignore=[name])
    assert (verdict["ignored_columns"], verdict["factors"], len(verdict["cells"])) == ([name], [], 1)


@pytest.mark.parametrize(
    "name", ["lr", "Learning Rate", "learning-rate", "learnig_rate", "params.lr", "config/learning_rate"]
)
def test_other_settings_are_asked_about_too_even_where_they_divide_cells_already(name: str) -> None:
    rows = LEVELS.assign(**{name: LEVELS["width"] / 10})
    assert f"column {name!r} varies and is no setting; did you mean learning_rate?" in refused(rows)
    # One that does not vary, or stands beside the setting, tells nothing new.
    assert len(analyse(rows.assign(**{name: 0.1}), name="x")["cells"]) == 3
    assert len(analyse(rows.assign(learning_rate=rows[name]), name="x")["cells"]) == 3


def test_pairs_are_not_pooled_over_a_column_unless_it_is_named() -> None:
    rows = LEVELS.rename(columns={"width": "operator"})
    said = refused(rows)
    assert said.startswith("pairs that differ in column 'operator' (1, 2, 4) would be pooled")
    assert said.endswith("pool them with --ignore operator")
    assert analyse(rows, name="x", ignore=["operator"])["cells"][0]["pairs"] == 18
    for function in (effects.pairs, effects.unpaired, lambda one: effects.cells(one, 0.5, 0.95)):
        with pytest.raises(InputError, match="would be pooled"):
            function(rows)
    assert len(effects.pairs(rows.drop(columns="operator"))) == 18


@pytest.mark.parametrize(
    "values",
    [
        np.repeat(["a", "b"], 18),
        LEVELS["seed"] % 2,
        [None, *["a"] * 35],
        LEVELS["seed"] / 7,
        pd.to_datetime("2026-01-01") + pd.to_timedelta(LEVELS["seed"], unit="D"),
        [str(seed).encode() + b"\xff" for seed in LEVELS["seed"]],
        pd.Series(LEVELS["seed"] % 3).where(LEVELS["seed"] % 3 > 0).astype("category"),
        [str(seed == 43) if seed > 30 else str(n) for n, seed in enumerate(LEVELS["seed"])],
    ],
    ids=["halves", "every other", "one missing", "one each", "days", "bytes", "categories", "few"],
)
def test_whatever_the_column_holds(values: Any) -> None:
    rows = LEVELS.assign(width=4, host=pd.Series(values))
    if pd.Series(values).isna().sum() == 1:
        rows.loc[6, "host"] = None  # the other arm of the same pair
    assert "column 'host'" in refused(rows)


@pytest.mark.parametrize(
    "values",
    [
        range(36),
        np.random.default_rng(0).random(36),
        np.where(LEVELS["bias"], "a", "b"),
        LEVELS["width"] * 10,
    ],
    ids=["numbers of rows", "results", "arms", "cells"],
)
def test_what_divides_no_pairs_of_a_cell_is_said_and_refuses_nothing(values: Any) -> None:
    verdict = analyse(LEVELS.assign(mine=values), name="x")
    assert (verdict["ignored_columns"], verdict["pairs"]) == (["mine"], 18)


def test_columns_of_the_store_are_known() -> None:
    rows = LEVELS.assign(width=4, device=np.repeat(["cpu", "gpu"], 18), train_seconds=range(36), array_id="x")
    assert analyse(rows, name="x")["ignored_columns"] == []
    assert analyse(rows.assign(trainer_version=rows["seed"]), name="x")["ignored_columns"] == ["trainer_version"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Bias", "bias"),
        ("use_bias", "bias"),
        ("random_seed", "seed"),
        ("acc", "test_accuracy"),
        ("TestAcc", None),
        ("params.bias", "bias"),
        ("metrics.test_accuracy", None),
    ],
)
def test_a_required_column_under_another_name_is_asked_about(given: str, name: str | None) -> None:
    own = name or "test_accuracy"
    rows = LEVELS.rename(columns={own: given})
    assert f"no column {own}; " in refused(rows) and f"is {own} column {given!r}?" in refused(rows)


def test_several_names_are_asked_about_in_one_sentence_each() -> None:
    said = refused(LEVELS.rename(columns={"bias": "Bias", "seed": "Seed"}))
    assert said.endswith("; is seed column 'Seed'? Is bias column 'Bias'?")


def test_names_of_other_things_are_taken_for_none() -> None:
    for name in ("epoch", "operator", "host", "val_loss", "wall_time", "f1", "git_commit", "name", "id", "train_loss"):
        assert meant(name, CELL) is None, name


def test_what_cannot_be_ignored_is_refused() -> None:
    assert "--ignore none: there is no such column (width, seed, bias" in refused(LEVELS, ignore=["none"])
    for name in ("width", "seed", "bias", "test_accuracy", "status"):
        assert "what divides or makes pairs cannot be ignored" in refused(LEVELS.assign(status="ok"), ignore=[name])


def test_all_columns_that_would_be_pooled_are_named_at_once() -> None:
    rows = LEVELS.assign(host=LEVELS["seed"] % 2, mine=range(36), day=LEVELS["seed"] % 5)
    said = refused(rows)
    assert said.startswith("pairs that differ in column 'host' (0, 1) and column 'day' (0, 1, 2, …) would be")
    assert said.endswith("or pool them with --ignore host --ignore day")
    assert analyse(rows, name="x", ignore=["host", "day"])["pairs"] == 18


# The command line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "CAPTIONS", {})


@pytest.mark.parametrize("name", [" width", "Width", "wdith", "channels", "operator"])
def test_a_table_that_would_be_pooled_makes_no_report(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    LEVELS.rename(columns={"width": name}).to_csv(path, index=False)
    done = run(path, "--store", tmp_path / "none")
    if name == " width":  # spaces around a name of CSV mean nothing
        assert done.exit_code == 0 and "width 4" in done.stdout
        return
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(str(path)) and f"--ignore {name}" in str(done.exception)
    assert not (tmp_path / "t-report").exists()
    done = run(path, "--store", tmp_path / "none", "--ignore", name)
    assert done.exit_code == 0
    assert done.output.startswith(f"Columns that vary but are no setting were ignored: {name}.\n")
    assert "ignored: " + name in (tmp_path / "t-report" / "report.md").read_text()


def test_several_columns_are_ignored_and_json_says_so_too(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    LEVELS.assign(host=LEVELS["seed"] % 3, day=LEVELS["seed"] % 2, loss=range(36)).to_parquet(path)
    with pytest.raises(InputError, match="column 'day'"):
        analyse(load_table(path), name="x", ignore=["host"])
    done = run(path, "--store", tmp_path / "none", "--ignore", "host", "--ignore", "day", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ignored_columns"] == ["host", "day", "loss"]
    assert done.stderr == "Columns that vary but are no setting were ignored: host, day, loss.\n"
