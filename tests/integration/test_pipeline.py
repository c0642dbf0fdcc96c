"""The whole way, as a user goes it: one small sweep launched from the command line, then everything read from it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support import failing_training
from support.object_store import Faults, environment, proxy, serving
from support.processes import alive, cpu_seconds, descendants, training, wait_for
from support.real_formats import pictures, png, write_cifar, write_folder

from sweep import plan
from sweep.plan import Array
from sweep.space import search_space

pytestmark = pytest.mark.integration

SWEEP = [sys.executable, "-m", "sweep"]
SPACE = """
name: small
settings: {steps: 12, weight_init: truncated_normal, input_scaling: centered, learning_rate: 0.05}
axes: {width: [1, 2], batch_norm: [false, true], seed: 7}
analysis: {margin: 0.5}
"""
RUNS = 2 * 2 * 2 * 7


def sweep(*arguments: str | Path, store: Path, status: int = 0, **options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*SWEEP, *map(str, arguments), "--store", str(store)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | options,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "small.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def launched(space: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    store = space.parent / "results"
    return store, sweep("launch", space, store=store)


def rows_of(store: Path) -> pd.DataFrame:
    frame = pd.concat([pd.read_parquet(path) for path in (store / "runs").glob("*.parquet")])
    return frame.sort_values(["width", "batch_norm", "seed", "bias"]).reset_index(drop=True)


def without_times_and_places(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["train_seconds", "finished_at", "device", "torch_version"])


def test_a_launch_trains_every_run_once_and_draws_the_picture(
    launched: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    store, done = launched
    rows = rows_of(store)
    assert len(rows) == rows["run_id"].nunique() == RUNS
    assert (rows.groupby(["width", "batch_norm", "seed"])["bias"].nunique() == 2).all()
    assert rows["status"].eq("ok").all()
    assert rows["test_accuracy"].between(0, 1).all()
    assert (rows["test_correct"].map(lambda bits: int.from_bytes(bits).bit_count()) / 1000).tolist() == pytest.approx(
        rows["test_accuracy"].tolist()
    )
    report = store / "reports" / "small"
    assert (report / "effect_by_width.png").read_bytes().startswith(b"\x89PNG")
    assert str(report / "effect_by_width.png") in done.stdout
    assert str(report / "report.md") in done.stdout
    assert f"{RUNS} runs trained" in done.stdout
    assert f"{RUNS} of {RUNS} runs to train, in 4 arrays\n" in done.stderr
    assert {path.name for path in store.iterdir()} == {"runs", "curves", "sweeps", "looks", "leases", "reports"}


def test_ray_stays_out_of_the_way(launched: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = launched
    said = (done.stdout + done.stderr).lower()
    assert not re.findall(r"\b(?:ray|tune|trial|raylet|warning|deprecat\w*)\b", said)


def test_every_pair_of_the_report_is_the_difference_of_two_rows(
    launched: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    store, _ = launched
    rows, effects = rows_of(store), pd.read_parquet(store / "reports" / "small" / "effects.parquet")
    arms = rows.pivot(index=["width", "batch_norm", "seed"], columns="bias", values="test_accuracy")
    expected = (100 * (arms[True] - arms[False])).rename("effect").reset_index()
    merged = effects.merge(expected, on=["width", "batch_norm", "seed"], suffixes=("", "_expected"))
    assert len(merged) == RUNS // 2
    assert merged["effect"].tolist() == pytest.approx(merged["effect_expected"].tolist(), abs=1e-9)
    verdict = json.loads((store / "reports" / "small" / "verdict.json").read_text())
    assert verdict["margin"] == 0.5
    assert [(cell["width"], cell["batch_norm"]) for cell in verdict["cells"]] == [
        (1, False),
        (1, True),
        (2, False),
        (2, True),
    ]
    assert {threshold["axis"] for threshold in verdict["thresholds"]} == {"width"}


def test_curves_have_ten_points_or_fewer_for_every_run(
    launched: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    store, _ = launched
    curves = pd.concat([pq.read_table(path).to_pandas() for path in (store / "curves").glob("*.parquet")])
    assert set(curves["run_id"]) == set(rows_of(store)["run_id"])
    assert (curves.groupby("run_id")["step"].agg(list).map(lambda steps: steps == [2, 4, 6, 8, 10, 12])).all()


def test_a_second_launch_trains_nothing_and_says_so(
    space: Path, launched: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    store, _ = launched
    before = {path: path.stat().st_mtime_ns for path in (store / "runs").iterdir()}
    assert "Nothing to train" in sweep("launch", "--no-report", space, store=store).stdout
    again = json.loads(sweep("launch", space, "--json", store=store).stdout)
    assert again == {
        "name": "small",
        "runs": RUNS,
        "trained": 0,
        "already": RUNS,
        "failed": 0,
        "diverged": 0,
        "seconds": again["seconds"],
        "report": str(store / "reports" / "small"),
    }
    assert before == {path: path.stat().st_mtime_ns for path in (store / "runs").iterdir()}


@dataclass(frozen=True)
class Widened:
    """What launches of a sweep with two more widths said, one of which could not be trained at first."""

    store: Path
    array: Array
    failed: subprocess.CompletedProcess[str]
    status: list[dict[str, Any]]
    rows: int
    again: dict[str, Any]
    status_then: list[dict[str, Any]]


@pytest.fixture(scope="module")
def widened(
    tmp_path_factory: pytest.TempPathFactory, launched: tuple[Path, subprocess.CompletedProcess[str]]
) -> Widened:
    store, wider = launched[0], tmp_path_factory.mktemp("wider") / "wider.yaml"
    text = SPACE.replace("small", "wider").replace("[1, 2]", "[1, 2, 3, 4]").replace("[false, true]", "[false]")
    wider.write_text(text)
    arrays = plan.arrays(search_space.load(wider), "cpu")
    [array] = [each for each in arrays if each.cell.width == failing_training.WIDTH]
    failing = failing_training.environment(wider.parent)
    failed = sweep("launch", wider, "--json", store=store, status=1, **failing)
    status = json.loads(sweep("status", "--json", store=store).stdout)
    rows = len(rows_of(store))
    again = json.loads(sweep("launch", "--no-report", wider, "--json", store=store).stdout)
    status_then = json.loads(sweep("status", "--json", store=store).stdout)
    return Widened(store, array, failed, status, rows, again, status_then)


def test_more_widths_train_only_the_difference(widened: Widened) -> None:
    done = json.loads(widened.failed.stdout)
    assert (done["runs"], done["already"], done["trained"], done["failed"]) == (56, 28, 14, 14)
    done = widened.again
    assert (done["runs"], done["already"], done["trained"], done["failed"]) == (56, 42, 14, 0)
    assert [(each["name"], each["runs"], each["done"], each["missing"]) for each in widened.status_then] == [
        ("small", RUNS, RUNS, 0),
        ("wider", 56, 56, 0),
    ]


def test_an_array_that_fails_stops_no_other_and_is_trained_by_the_next_launch(widened: Widened) -> None:
    array, said = widened.array, widened.failed.stderr
    assert len(array) == 14
    assert array.array_id in said
    assert "14 runs failed" in said and "width 4 cannot be trained" in said
    assert widened.rows == RUNS + 14
    assert [(each["failed"], each["missing"]) for each in widened.status] == [(0, 0), (14, 14)]
    assert (widened.again["trained"], widened.again["failed"]) == (14, 0)
    assert list((widened.store / "failures").iterdir()) == []


def test_plan_counts_what_is_there_and_what_is_missing(
    space: Path, tmp_path: Path, launched: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    store, _ = launched
    there = json.loads(sweep("plan", space, "--json", store=store).stdout)
    fresh = json.loads(sweep("plan", space, "--json", store=tmp_path / "none").stdout)
    keys = ["name", "runs", "cells", "arrays", "in_store", "to_train", "parameters", "flops", "estimated_seconds"]
    assert list(there) == list(fresh) == [*keys, "device"]
    assert (there["in_store"], there["to_train"], there["arrays"], there["flops"]) == (RUNS, 0, 4, 0)
    assert (fresh["in_store"], fresh["to_train"], fresh["arrays"], fresh["cells"]) == (0, RUNS, 4, 4)
    assert there["estimated_seconds"] == 0 < fresh["estimated_seconds"]
    assert fresh["parameters"] == rows_of(store).query("width < 3")["parameters"].sum()
    assert not (tmp_path / "none").exists()


def test_export_writes_the_rows_of_a_sweep_as_one_table(
    tmp_path: Path, launched: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    store, _ = launched
    for suffix in ("parquet", "csv"):
        sweep("export", "small", "--to", tmp_path / f"out.{suffix}", store=store)
    table, text = pd.read_parquet(tmp_path / "out.parquet"), pd.read_csv(tmp_path / "out.csv")
    assert len(table) == len(text) == RUNS
    assert list(table.columns) == list(text.columns)
    assert table["test_accuracy"].tolist() == text["test_accuracy"].tolist()
    assert [bytes.fromhex(bits) for bits in text["test_correct"]] == table["test_correct"].tolist()
    report = sweep("report", tmp_path / "out.csv", "--margin", "1", "--json", store=store)
    verdict = json.loads(report.stdout)
    assert (tmp_path / "out-report" / "effect_by_width.png").exists()
    assert verdict["margin"] == 1
    assert len(verdict["cells"]) == 4


# Native kernels, which know no tanh, would be done before anybody can interrupt them.
LONG = SPACE.replace("small", "long").replace("steps: 12", "steps: 60, activation: tanh").replace("seed: 7", "seed: 40")
LONG_RUNS = 2 * 2 * 2 * 40


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "long.yaml").write_text(LONG)
    sweep("launch", "--no-report", folder / "long.yaml", store=folder / "results")
    return rows_of(folder / "results")


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_sweep_goes_on_without_training_a_run_twice_and_to_the_same_rows(
    sign: signal.Signals, tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    space, store = tmp_path / "long.yaml", tmp_path / "results"
    space.write_text(LONG)
    command = [*SWEEP, "launch", "--no-report", str(space), "--store", str(store)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: files(store) or process.poll() is not None)
    workers = descendants(process.pid)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, workers)))  # a killed driver's workers end by themselves
    assert process.returncode == (130 if sign == signal.SIGINT else -sign)
    assert ("To continue, run the same command again" in said) == (sign == signal.SIGINT)

    early = files(store)
    kept = sum(pq.read_metadata(store / "runs" / name).num_rows for name in early)
    assert 0 < kept < LONG_RUNS
    done = json.loads(sweep("launch", "--no-report", space, "--json", store=store).stdout)
    assert (done["already"], done["trained"], done["failed"]) == (kept, LONG_RUNS - kept, 0)
    assert early.items() <= files(store).items()
    assert not list((store / "checkpoints").glob("*"))
    pd.testing.assert_frame_equal(
        without_times_and_places(rows_of(store)), without_times_and_places(undisturbed), check_exact=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "status", "settings"),
    [
        (signal.SIGINT, 130, {"steps": 9000, "activation": "tanh"}),
        (signal.SIGTERM, 143, {"steps": 9000, "activation": "tanh"}),
        (signal.SIGINT, 130, {"steps": 90_000}),
    ],
    ids=["SIGINT", "SIGTERM", "native"],
)
def test_an_array_that_was_interrupted_is_taken_up_where_it_was_left_and_ends_the_same(
    sign: signal.Signals, status: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    from sweep.data import splits
    from sweep.training.device import planned_kind
    from sweep.training.trainer import train

    space, store = tmp_path / "one.yaml", tmp_path / "results"
    space.write_text(json.dumps({"settings": {"width": 1, "momentum": 0.5, **settings}, "axes": {"seed": 16}}))
    kind = planned_kind()
    if kind != "native" and "activation" not in settings:
        pytest.skip("no native kernels here")
    process = subprocess.Popen(
        [*SWEEP, "launch", "--no-report", str(space), "--store", str(store)], stderr=subprocess.PIPE, text=True
    )
    # Importing and starting takes a worker some five seconds, training the whole array some forty.
    wait_for(lambda: any(cpu_seconds(pid) > 15 for pid in training(process.pid)) or process.poll() is not None)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    [kept] = (store / "checkpoints").iterdir()
    size = int.from_bytes(kept.read_bytes()[:8], "little")
    about = json.loads(json.loads(kept.read_bytes()[8 : 8 + size])["__metadata__"]["sweep"])
    assert 0 < about["done"] < settings["steps"]

    started = time.monotonic()
    sweep("launch", "--no-report", space, store=store)
    rows = rows_of(store)
    assert list((store / "checkpoints").iterdir()) == []
    # The time before the interruption is part of the runs' time, but was not spent again.
    assert rows["train_seconds"].sum() > about["seconds"] > 0
    assert rows["train_seconds"].sum() - about["seconds"] < time.monotonic() - started
    [array] = plan.arrays(search_space.load(space), kind)
    assert set(about["run_ids"]) == set(array.run_ids) == set(rows["run_id"])
    assert set(rows["method"]) == {array.method} == {"grouped" if "activation" in settings else "native"}
    trained = train(array.runs(), splits.load("mnist5k"), method=array.method)
    outcomes = dict(zip(array.run_ids, trained, strict=True))
    for row in rows.itertuples():
        wanted = outcomes[row.run_id]
        assert (row.test_loss, row.train_loss, row.test_correct) == (
            wanted.test_loss,
            wanted.train_loss,
            wanted.test_correct,
        )


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_nothing_but_its_arrays_is_trained_again(
    tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    space, store = tmp_path / "long.yaml", tmp_path / "results"
    space.write_text(LONG)
    command = [*SWEEP, "launch", "--no-report", str(space), "--store", str(store), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: files(store) or process.poll() is not None)
    early = files(store)
    wait_for(lambda: training(process.pid) or process.poll() is not None)
    os.kill(training(process.pid)[0], signal.SIGKILL)
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    counts = json.loads(out)
    # The array may have been written in the moment before its worker was killed; then there was nothing left to train.
    assert (counts["trained"] + counts["already"], counts["failed"]) == (LONG_RUNS, 0)
    assert early.items() <= files(store).items()
    pd.testing.assert_frame_equal(
        without_times_and_places(rows_of(store)), without_times_and_places(undisturbed), check_exact=True
    )


@pytest.mark.slow
def test_two_launches_at_once_share_the_work_and_both_end_with_all_of_it(tmp_path: Path) -> None:
    space, store = tmp_path / "shared.yaml", tmp_path / "results"
    space.write_text("{settings: {steps: 400}, axes: {width: [1, 2, 3, 4, 5, 6], seed: 4}}")
    command = [*SWEEP, "launch", "--no-report", str(space), "--store", str(store), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    summaries = [json.loads(out) for out, _ in said]
    for summary in summaries:
        assert (summary["trained"] + summary["already"], summary["failed"]) == (48, 0)
    # Both may have started the same array at the same moment, on each of their workers.
    assert 48 <= sum(summary["trained"] for summary in summaries) <= 48 + 2 * 8
    rows = rows_of(store)
    assert len(rows) == rows["run_id"].nunique() == 48
    assert list((store / "leases").iterdir()) == list((store / "runs").glob(".*")) == []


@pytest.mark.slow
def test_several_search_spaces_are_one_launch_in_which_shared_runs_are_trained_once(
    space: Path, launched: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    more, store = tmp_path / "more.yaml", tmp_path / "results"
    more.write_text(SPACE.replace("small", "more").replace("[1, 2]", "[2, 4]").replace("seed: 7", "seed: 9"))
    runs, shared = 2 * 2 * 2 * 9, 2 * 2 * 7
    planned = json.loads(sweep("plan", space, more, "--json", store=store).stdout)
    assert (planned["runs"], planned["cells"], planned["to_train"]) == (RUNS + runs - shared, 6, RUNS + runs - shared)
    answer = json.loads(sweep("launch", space, more, "--json", store=store).stdout)
    assert (answer["name"], answer["runs"], answer["trained"]) == ("small, more", *2 * [RUNS + runs - shared])
    assert [(each["name"], each["trained"]) for each in answer["sweeps"]] == [("small", RUNS), ("more", runs)]
    assert all((Path(each["report"]) / "verdict.json").exists() for each in answer["sweeps"])
    rows = rows_of(store)
    assert len(rows) == rows["run_id"].nunique() == RUNS + runs - shared
    # The first one's rows are those of a launch of its own.
    alone = without_times_and_places(rows_of(launched[0]))
    both = without_times_and_places(rows)
    mine = both[both["run_id"].isin(alone["run_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone)
    assert "Nothing to train" in sweep("launch", more, space, store=store).stdout
    again = json.loads(sweep("plan", more, space, "--json", store=store).stdout)
    assert (again["runs"], again["in_store"], again["to_train"]) == (RUNS + runs - shared, RUNS + runs - shared, 0)


@pytest.mark.slow
def test_a_sweep_in_an_object_store_is_launched_reported_and_read_and_listed_once(tmp_path: Path) -> None:
    space, address = tmp_path / "small.yaml", "s3://bucket/some/prefix"
    space.write_text("{settings: {steps: 6}, axes: {width: [1, 2], seed: 4}}")
    faults = Faults(seed=5, errors=0.03, drops=0.02, late=0.02, slow=0.02)
    with serving() as port, proxy(port, faults) as (endpoint, requests), environment(endpoint) as variables:

        def remote(*arguments: str | Path) -> str:
            done = subprocess.run(
                [*SWEEP, *map(str, arguments), "--store", address],
                capture_output=True,
                text=True,
                timeout=300,
                env=os.environ | variables,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        launched = json.loads(remote("launch", space, "--json"))
        assert (launched["trained"], launched["failed"]) == (16, 0)
        assert launched["report"] == f"{address}/reports/small"
        listed = [request for request in requests if "list-type" in request and "runs" in request]
        retried = faults.seen["error"] + faults.seen["drop"] + faults.seen["late"]
        assert 1 <= len(listed) <= 1 + retried
        assert json.loads(remote("launch", "--no-report", space, "--json"))["already"] == 16
        remote("export", "small", "--to", tmp_path / "small.parquet")
        assert "reports/small/report.html" in remote("report", "small")
        [status] = json.loads(remote("status", "--json"))
        assert status["done"] == 16
    local = tmp_path / "local"
    sweep("launch", "--no-report", space, store=local)
    away = pd.read_parquet(tmp_path / "small.parquet").sort_values(["width", "seed", "bias"], ignore_index=True)
    here = rows_of(local).sort_values(["width", "seed", "bias"], ignore_index=True)
    pd.testing.assert_frame_equal(
        without_times_and_places(away), without_times_and_places(here), check_exact=True, check_dtype=False
    )


TRUSTING = """
import sys, pytest
from pathlib import Path
from support.real_formats import trust

with pytest.MonkeyPatch.context() as patch:
    trust(patch, Path(sys.argv[1]))
    del sys.argv[1]
    from sweep.cli import main
    main()
"""


@pytest.mark.slow
def test_one_sweep_trains_on_several_data_sets_and_splits_and_is_reported_where_they_are_not(tmp_path: Path) -> None:
    """CIFAR's archive, a folder of pictures and arrays, all read in the driver and handed to the workers."""
    data, store, space = tmp_path / "data", tmp_path / "results", tmp_path / "mixed.yaml"
    write_cifar(data)
    images, labels = pictures(100, 2, (6, 6))
    files = {f"{label}/{n}.png": png(image) for n, (image, label) in enumerate(zip(images, labels, strict=True))}
    write_folder(tmp_path / "tree", files)
    np.savez(tmp_path / "x.npz", images=images[:, ::-1], labels=labels)
    space.write_text(
        "{settings: {width: 2, steps: 4, batch_size: 8},"
        " axes: {dataset: [cifar10, 'folder:tree', 'npz:x.npz'], split: [0, 1], seed: 2}}"
    )
    trusting = [sys.executable, "-c", TRUSTING, str(data), "launch", "--no-report", str(space), "--store", str(store)]
    done = subprocess.run(
        [*trusting, "--data-dir", str(data), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["runs"], summary["trained"], summary["failed"]) == (24, 24, 0)
    rows = pd.concat([pd.read_parquet(path) for path in (store / "runs").glob("*.parquet")])
    folder, arrays = f"folder:{tmp_path / 'tree'}", f"npz:{tmp_path / 'x.npz'}"
    assert rows.groupby("dataset").size().to_dict() == {"cifar10": 8, folder: 8, arrays: 8}
    assert rows.groupby("dataset")["dataset_fingerprint"].nunique().to_dict() == {"cifar10": 1, folder: 1, arrays: 1}
    assert rows["dataset_fingerprint"].nunique() == 3
    # The pictures are gone: what is in the store is still known, and known to be all.
    for path in (data, tmp_path / "tree"):
        shutil.rmtree(path)
    (tmp_path / "x.npz").unlink()
    [status] = json.loads(sweep("status", "mixed", "--json", store=store).stdout)
    assert (status["done"], status["missing"]) == (24, 0)
    verdict = json.loads(sweep("report", "mixed", "--json", store=store).stdout)
    assert verdict["factors"] == ["dataset", "split"] and verdict["pairs"] == 12
    assert "there is no folder" in sweep("launch", space, "--data-dir", tmp_path, store=store, status=2).stderr


@pytest.mark.slow
def test_the_same_pictures_elsewhere_are_the_same_runs(tmp_path: Path) -> None:
    images, labels = pictures(60, 2, (6, 6))
    store = tmp_path / "results"
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        np.savez(folder / "x.npz", images=images, labels=labels)
        seeds = 2 if place == "here" else 3
        space = f"{{settings: {{dataset: 'npz:x.npz', width: 1, steps: 2}}, axes: {{seed: {seeds}}}}}"
        (folder / "same.yaml").write_text(space)
        done = json.loads(sweep("launch", "--no-report", folder / "same.yaml", "--json", store=store).stdout)
        assert (done["trained"], done["already"]) == ((4, 0) if place == "here" else (2, 4))
    # Two of the rows know the pictures by another path; to the sweep they are one data set.
    verdict = json.loads(sweep("report", "same", "--json", store=store).stdout)
    assert verdict["factors"] == [] and [cell["pairs"] for cell in verdict["cells"]] == [3]
    sweep("export", "same", "--to", tmp_path / "same.csv", store=store)
    assert set(pd.read_csv(tmp_path / "same.csv")["dataset"]) == {f"npz:{tmp_path / 'there' / 'x.npz'}"}
    twice = tmp_path / "twice.yaml"
    twice.write_text("axes: {dataset: ['npz:here/x.npz', 'npz:there/x.npz']}")
    assert "hold the same pictures; name one of them" in sweep("launch", twice, store=store, status=2).stderr
    changed = tmp_path / "there" / "x.npz"
    np.savez(changed, images=images[::-1], labels=labels[::-1])
    pinned = tmp_path / "there" / "pinned.yaml"
    pinned.write_text((store / "sweeps" / "same.yaml").read_text())
    assert "but same names" in sweep("launch", pinned, store=store, status=2).stderr


def files(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (store / "runs").glob("[!.]*.parquet")}
