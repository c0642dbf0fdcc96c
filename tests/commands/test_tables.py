"""What `report` and `export` promise of files: where tables are found, and where nothing may be written."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.object_store import environment, serving
from support.outcomes import BY, outcome
from support.simulated import study
from typer.testing import CliRunner, Result

from analysis import report
from sweep import plan
from sweep.cli import app
from sweep.commands import tables
from sweep.common.errors import InputError
from sweep.space.search_space import parse
from sweep.store.rows import Store

ROWS = study([{"width": 1}, {"width": 2}], 6)
SPACE = b"{name: study, axes: {width: [1, 2], seed: 6}}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of our own, where reports have no figures."""
    monkeypatch.setattr(report, "CAPTIONS", {})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def store() -> Store:
    store, space = Store("results"), parse(SPACE, Path("study.yaml"))
    for array in plan.arrays(space, "cpu"):
        runs = array.runs()
        store.write(array.array_id, runs, array.run_ids, [outcome(700 + run.seed + run.bias) for run in runs], BY)
    store.save_sweep("study", space.resolved())
    store.save_sweep("empty", parse(b"{name: empty, axes: {width: [7]}}", Path("empty.yaml")).resolved())
    return store


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def files(folder: str = ".") -> set[str]:
    return {str(path) for path in Path(folder).rglob("*") if path.is_file()}


def refused(*arguments: object) -> str:
    """The message of a command that fails for what it was given, and leaves every file as it was."""
    before = {name: Path(name).read_bytes() for name in files()}
    done = run(*arguments)
    assert isinstance(done.exception, InputError), done.output
    assert {name: Path(name).read_bytes() for name in files()} == before
    return str(done.exception)


# Export


@pytest.mark.parametrize("kind", ["csv", "parquet", "CSV"])
def test_a_sweep_without_rows_is_not_exported(store: Store, kind: str) -> None:
    assert refused("export", "empty", "--to", f"rows.{kind}").startswith("sweep 'empty' has no row in ")
    Path(f"rows.{kind}").write_text("of before")
    assert "has no row" in refused("export", "empty", "--to", f"rows.{kind}", "--json")


def test_rows_of_other_sweeps_are_none_of_an_empty_one(store: Store) -> None:
    assert run("export", "study", "--to", "rows.Parquet").exit_code == 0
    assert len(pd.read_parquet("rows.Parquet")) == 24
    (store.root / "runs").rename(store.root / "elsewhere")
    assert "sweep 'study' has no row" in refused("export", "study", "--to", "rows.csv")


@pytest.mark.parametrize("folder", ["runs", "curves", "sweeps", "runs/deep", "../here/results/runs"])
def test_an_export_does_not_become_a_file_of_a_store(store: Store, folder: str) -> None:
    target = Path("results") / folder if not folder.startswith("..") else Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    said = refused("export", "study", "--to", target / "rows.parquet")
    assert f"lies among the files of the store {store.root}" in said


def test_an_export_may_stand_beside_what_a_store_keeps(store: Store) -> None:
    assert run("export", "study", "--to", "results/rows.csv").exit_code == 0
    assert run("report", "results/rows.csv").exit_code == 0
    assert Path("results/rows-report/verdict.json").exists()


# Reports of files in a store


def test_the_report_of_a_file_of_a_store_is_written_here(store: Store) -> None:
    file = next(path for path in (store.root / "runs").iterdir())
    before = files("results")
    for what in (file, Path("results/runs") / file.name, f"file://{file}"):
        assert run("report", what).exit_code == 0
        assert Path(f"{file.stem}-report/verdict.json").exists()
        assert files("results") == before


def test_a_folder_of_a_store_is_a_table_and_its_report_stands_beside_it(store: Store) -> None:
    before = files("results/runs")
    done = run("report", "results/runs")
    assert done.exit_code == 0 and "2 cells:" in done.stdout
    assert Path("results/runs-report/verdict.json").exists() and files("results/runs") == before


def test_nothing_is_written_where_one_stands_in_a_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.root / "runs")
    file = next(Path().iterdir())
    assert "--out is needed" in refused("report", file)
    assert run("report", file, "--out", "../reports/mine").exit_code == 0
    assert Path("../reports/mine/verdict.json").exists()


@pytest.mark.parametrize("out", ["results/runs", "results/runs/x", "results/curves", "results/looks/study"])
@pytest.mark.parametrize("what", ["study", "rows.csv"])
def test_no_report_is_written_among_the_files_of_a_store(store: Store, what: str, out: str) -> None:
    ROWS.to_csv("rows.csv", index=False)
    assert f"--out {out}: lies among the files of the store" in refused("report", what, "--out", out)


def test_a_store_is_no_table(store: Store) -> None:
    assert "results: is a store: sweep report NAME" in refused("report", "results", "--store", "elsewhere")


def test_columns_of_a_sweep_are_not_ignored(store: Store) -> None:
    assert "--ignore: belongs to a table" in refused("report", "study", "--ignore", "width")


# Where tables are


def test_a_folder_of_parquet_files_is_reported_beside_it() -> None:
    Path("data/rows").mkdir(parents=True)
    for number, part in ROWS.groupby("seed"):
        part.to_parquet(f"data/rows/part-{number}.parquet")
    for what in ("data/rows", "data/rows/", Path("data/rows").absolute()):
        assert run("report", what).exit_code == 0
        assert files("data") - {f"data/rows/part-{n}.parquet" for n in range(6)} == {
            f"data/rows-report/{name}" for name in report.TEXTS
        }
    os.chdir("data/rows")
    assert run("report", ".").exit_code == 0
    assert (Path("rows-report") / "verdict.json").exists()


def test_a_file_of_another_kind_is_told_what_a_table_is() -> None:
    Path("rows.xlsx").write_text("")
    Path("rows.csv.gz").write_text("")
    for name in ("rows.xlsx", "rows.csv.gz"):
        assert f"{name}: a table is a .parquet or a .csv file" in refused("report", name)


@pytest.fixture
def bucket() -> Iterator[Any]:
    from pyarrow import fs

    with serving() as port, environment(f"http://127.0.0.1:{port}"):
        there = fs.S3FileSystem(endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1")
        with there.open_output_stream("bucket/deep/rows.csv") as stream:
            stream.write(ROWS.to_csv(index=False, sep=";").encode("utf-16"))
        for number, part in ROWS.groupby("seed"):
            table = pa.Table.from_pandas(part, preserve_index=False)
            pq.write_table(table, f"bucket/rows/part-{number}.parquet", filesystem=there)
        pq.write_table(table, "bucket/rows/_part.parquet", filesystem=there)
        with there.open_output_stream("bucket/rows/_SUCCESS") as stream:
            stream.write(b"")
        yield there


def test_tables_of_a_bucket_are_reported_here(bucket: Any) -> None:
    wanted = report.analyse(ROWS, name="rows")["cells"]
    for what in ("s3://bucket/deep/rows.csv", "s3://bucket/rows", "s3://bucket/rows/", "s3://bucket/rows?region=eu-1"):
        assert tables.stem(what) == "rows" and tables.report_folder(what) == Path("rows-report")
        assert report.analyse(tables.load(what), name="rows")["cells"] == wanted
    done = run("report", "s3://bucket/deep/rows.csv", "--store", "none")
    assert done.exit_code == 0 and files() == {f"rows-report/{name}" for name in report.TEXTS}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("s3://bucket/deep/none.csv", "s3://bucket/deep/none.csv: no such file"),
        ("s3://bucket/none", "s3://bucket/none: is a folder without a .parquet file"),
        ("s3://bucket/deep", "s3://bucket/deep: is a folder without a .parquet file"),
        ("s3://rows.csv", "s3://rows.csv: names a bucket, and no table in it"),
        ("ftp://host/rows.csv", "ftp://host"),
        ("s3://none/rows", "there is no such bucket"),
    ],
)
def test_a_table_of_a_bucket_that_is_not_there_is_named(bucket: Any, what: str, said: str) -> None:
    assert said in refused("report", what, "--store", "none")
