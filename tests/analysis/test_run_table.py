"""What `analysis.run_table` promises: files of runs are read, or refused with one message that names file and cause."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.simulated import study
from typer.testing import CliRunner

from analysis.effects import cells
from analysis.provenance import provenance
from analysis.run_table import METHODS, checked, ignored, load_table, unknown
from sweep.common.errors import InputError
from sweep.networks.conv.shape import MethodName
from sweep.store.tables import RUNS_SCHEMA, SCHEMA_VERSION

ROWS = study([{"width": 1}, {"width": 2}], 3)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        cells(load_table(path), 0.5, 0.95)
    message = str(caught.value)
    assert "\n" not in message
    return message


def written(folder: Path, rows: pd.DataFrame, metadata: dict[str, str] | None = None) -> Path:
    table = pa.Table.from_pandas(rows, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(metadata), folder / "t.parquet")
    return folder / "t.parquet"


def test_a_table_of_a_newer_schema_is_refused_and_one_of_this_is_read(tmp_path: Path) -> None:
    version = {"schema_version": str(SCHEMA_VERSION)}
    assert len(load_table(written(tmp_path, ROWS, version))) == len(ROWS)
    message = refused(written(tmp_path, ROWS, {"schema_version": str(SCHEMA_VERSION + 1)}))
    assert message.startswith(
        f"{tmp_path / 't.parquet'}: written by a newer sweep (schema version {SCHEMA_VERSION + 1}"
    )
    assert len(load_table(written(tmp_path, ROWS, {"schema_version": "theirs"}))) == len(ROWS)


@pytest.mark.parametrize("size", [0, 3, 200, -8])
def test_a_half_written_parquet_is_refused(tmp_path: Path, size: int) -> None:
    path = written(tmp_path, ROWS)
    path.write_bytes(path.read_bytes()[:size])
    assert refused(path).startswith(f"{path}: cannot be read as a .parquet table: ")


def test_a_foreign_parquet_is_refused_with_the_columns_that_it_lacks(tmp_path: Path) -> None:
    message = refused(written(tmp_path, pd.DataFrame({"year": [1], "income": [2.0]})))
    assert "no column bias, seed, test_accuracy" in message
    assert "its columns: year, income" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.iloc[:0], "no rows"),
        (lambda rows: rows[rows["bias"]], "every row has bias true"),
        (lambda rows: rows[rows["bias"] == (rows["seed"] == 0)], "no pair among 6 rows"),
        (lambda rows: rows.drop(columns="seed"), "no column seed"),
        (lambda rows: rows.assign(test_accuracy=np.nan), "column test_accuracy, row 1: nan"),
        (lambda rows: rows.assign(test_accuracy=100 * rows["test_accuracy"]), "0-100 instead of 0-1: divide it by 100"),
        (lambda rows: rows.assign(test_accuracy=-rows["test_accuracy"]), "must be 0 to 1"),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "two rows for width 1, seed 0, bias True"),
        (lambda rows: rows.assign(run_id="x"), "run_id x appears twice"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_cannot_be_analysed_is_refused_by_the_command_line_too(
    tmp_path: Path, change: Any, message: str, kind: str
) -> None:
    rows, path = change(ROWS), tmp_path / f"t.{kind}"
    if kind == "csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path)
    assert message in refused(path)
    result = exit_status(["report", str(path), "--store", str(tmp_path / "none")])
    assert result == 2
    assert not (tmp_path / "t-report").exists()


def exit_status(arguments: list[str]) -> int:
    from sweep.cli import app

    result = CliRunner().invoke(app, arguments)
    return 2 if isinstance(result.exception, InputError) else result.exit_code


def test_a_column_that_stands_twice_is_refused() -> None:
    rows = pd.concat([ROWS, ROWS[["width"]]], axis=1)
    with pytest.raises(InputError, match="column width appears twice"):
        checked(rows)


def test_an_accuracy_a_little_above_one_is_not_taken_for_a_percentage() -> None:
    rows = ROWS.assign(test_accuracy=1.0001)
    with pytest.raises(InputError, match=r"row 1: 1.0001; must be 0 to 1$"):
        checked(rows)


def test_a_table_of_the_store_and_its_export_say_the_same(tmp_path: Path) -> None:
    assert {"run_id", "test_correct", "finished_at"} <= set(RUNS_SCHEMA.names)
    path = written(tmp_path, ROWS.assign(finished_at=pd.Timestamp("2026-01-01", tz="UTC")))
    assert cells(load_table(path), 0.5, 0.95) == cells(ROWS, 0.5, 0.95)


@pytest.mark.parametrize("index", ["width", "seed", ["width", "seed"]])
def test_a_pandas_index_is_a_column_like_the_others(index: Any, tmp_path: Path) -> None:
    indexed = ROWS.set_index(index)
    indexed.to_parquet(tmp_path / "t.parquet")
    wanted = cells(ROWS, 0.5, 0.95)
    assert cells(load_table(tmp_path / "t.parquet"), 0.5, 0.95) == cells(checked(indexed), 0.5, 0.95) == wanted


def test_seeds_that_floating_point_numbers_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    ROWS.assign(seed=ROWS["seed"] + 2**60).to_csv(path, index=False)
    assert f"column seed, row 1: {2**60}; must be at most {2**53}" in refused(path)


def test_rows_without_a_run_id_are_no_repeats(tmp_path: Path) -> None:
    path = tmp_path / "T.CSV"
    ids = ["a", "b", *[None] * (len(ROWS) - 2)]
    ROWS.assign(run_id=ids).to_csv(path, index=False)
    assert len(load_table(path)) == len(ROWS)
    ROWS.assign(run_id=["a", "a", *ids[2:]]).to_csv(path, index=False)
    assert "run_id a appears twice" in refused(path)


def test_columns_that_tell_runs_apart_and_divide_no_cells_are_said() -> None:
    rows = ROWS.assign(trainer_version=np.arange(len(ROWS)) % 2 + 1, dataset_fingerprint="a")
    assert ignored(checked(rows)) == ["trainer_version"]


def test_the_methods_of_a_table_are_those_of_the_store() -> None:
    assert frozenset(get_args(MethodName)) == METHODS


@pytest.mark.parametrize("values", [["native", None], [None, None], ["native", "triton"]])
def test_how_runs_were_computed_divides_nothing_and_is_no_objection(values: list[str | None]) -> None:
    rows = checked(ROWS.assign(method=(values * len(ROWS))[: len(ROWS)]))
    assert ignored(rows) == unknown(rows) == []


@pytest.mark.parametrize("values", [["ours", "theirs"], ["native", "theirs"], [{"a": 1}, [2]], [1, 2]])
def test_what_a_table_from_elsewhere_calls_a_method_is_a_column_like_any_other(values: list[Any]) -> None:
    rows = checked(ROWS.assign(method=pd.Series((values * len(ROWS))[: len(ROWS)], dtype=object)))
    assert ignored(rows) == unknown(rows) == ["method"]
    assert provenance(rows, None)["methods"] is None


@pytest.mark.parametrize(("odd", "said"), [([1, 2], "[1, 2]"), ({"a": 1}, "{'a': 1}"), ("\ud800", "?")])
def test_odd_values_in_columns_that_are_only_told_break_nothing(odd: Any, said: str) -> None:
    rows = checked(ROWS.assign(device=pd.Series([odd] * len(ROWS), dtype=object), trainer_version=float("inf")))
    told = provenance(rows, None)
    assert (told["devices"], told["trainer_versions"]) == ([said], ["inf"])
    json.dumps(told, allow_nan=False)
