"""Trackers hear of every cell and arm, once, after training; what goes wrong with them costs a message."""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.outcomes import BY, outcome
from typer.testing import CliRunner

from sweep import plan
from sweep.cli import app
from sweep.commands import trackers
from sweep.commands.trackers import check, records, track
from sweep.common.errors import InputError
from sweep.plan import arrays
from sweep.space.search_space import SearchSpace, parse
from sweep.store.rows import Store

SPACE = """
name: tracked
settings: {{width: 2}}
axes: {{depth: [1, 2], seed: {seeds}}}
analysis: {{margin: 0.5, confidence: 0.9}}
tracking: {tracking}
"""


def space(tracking: str = "null", seeds: int = 3) -> SearchSpace:
    return parse(SPACE.format(tracking=tracking, seeds=seeds).encode(), Path("tracked.yaml"))


def fill(store: Store, of: SearchSpace) -> None:
    """Rows for all runs that have none: accuracies from depth, seed and bias; one with bias at depth 2 diverged."""
    done = store.statuses()
    for array in plan.missing(list(arrays(of, "cpu")), done):
        runs = array.runs()
        outcomes = [
            outcome(
                100 * run.depth + 10 * run.seed + run.bias,
                status="diverged" if run.bias and run.depth == 2 and run.seed == 0 else "ok",
            )
            for run in runs
        ]
        store.write(array.array_id, runs, array.run_ids, outcomes, BY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    fill(store, space())
    return store


def test_there_is_one_record_a_cell_and_arm_with_means_over_seeds(store: Store) -> None:
    found = records(space(), store)
    assert [record.name for record in found] == [
        "depth=1 with bias",
        "depth=1 without bias",
        "depth=2 with bias",
        "depth=2 without bias",
    ]
    assert len({record.key for record in found}) == 4
    third = found[2]
    accuracies = np.array([0.201, 0.211, 0.221])
    half = stats.sem(accuracies) * stats.t.ppf(0.95, 2)
    assert third.metrics == {
        "test_accuracy": pytest.approx(0.211),
        "test_accuracy_half_width": pytest.approx(half),
        "runs": 3,
        "diverged": 1,
        "validation_accuracy": 0.25,
        "train_loss": 1.5,
        "train_seconds": 0.5,
    }
    assert (third.settings["bias"], third.settings["depth"], third.settings["width"]) == (True, 2, 2)
    assert "seed" not in third.settings and "evaluate_every" not in third.settings


def test_arms_and_cells_without_rows_have_no_record_and_one_run_has_no_interval(store: Store, tmp_path: Path) -> None:
    some = Store(tmp_path / "some")
    array = next(arrays(space(), "cpu"))
    some.write(array.array_id, array.runs()[:1], array.run_ids[:1], [outcome(7)], BY)
    [record] = records(space(), some)
    assert record.metrics["runs"] == 1 and "test_accuracy_half_width" not in record.metrics
    assert records(space(), Store(tmp_path / "none")) == []


def test_tracking_is_no_part_of_any_identity_and_travels_with_the_sweep(tmp_path: Path) -> None:
    tracked = space("{tensorboard: logs, wandb: p, mlflow: 'http://host:5000'}")
    assert plan.run_ids(tracked) == plan.run_ids(space())
    again = parse(tracked.resolved().encode(), tmp_path / "other" / "x.yaml", launched=True)
    assert again.tracking == tracked.tracking
    assert tracked.tracking is not None and tracked.tracking.tensorboard == str(Path("logs").absolute())


def test_a_file_address_of_a_tracker_is_the_folder_that_it_names(store: Store, tmp_path: Path) -> None:
    asked = space(f"{{tensorboard: 'file://{tmp_path}/tb', mlflow: 'file:{tmp_path}/ml'}}")
    assert asked.tracking is not None
    assert (asked.tracking.tensorboard, asked.tracking.mlflow) == (f"{tmp_path}/tb", f"{tmp_path}/ml")
    assert track(space(f"{{tensorboard: 'file://{tmp_path}/tb'}}"), store) == []
    assert len(list((tmp_path / "tb" / "tracked").iterdir())) == 4


def test_a_tracker_that_was_launched_once_is_read_whatever_is_allowed_by_now() -> None:
    text = SPACE.format(tracking="{tensorboard: 's3://b/x', mlflow: 'file:///tmp/ml'}", seeds=1)
    tracking = parse(text.encode(), Path("tracked.yaml"), launched=True).tracking
    assert tracking is not None and (tracking.tensorboard, tracking.mlflow) == ("s3://b/x", "file:///tmp/ml")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{}", "names no tracker"),
        ("{mlflow: 'http://me:secret@host'}", "contains a password"),
        ("{neptune: x}", "neptune"),
        ("{wandb: ../x}", "wandb"),
    ],
)
def test_a_tracker_that_makes_no_sense_is_refused(given: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        space(given)
    assert "secret" not in str(error.value)


def test_a_missing_extra_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.PACKAGES, "mlflow", "no_such_package")
    with pytest.raises(InputError, match=r"pip install 'sweep\[mlflow\]'"):
        check(space("{mlflow: x}"))
    check(space("{tensorboard: x}"))
    check(space())


def test_a_launch_with_a_missing_extra_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package")
    (tmp_path / "x.yaml").write_text(SPACE.format(tracking="{wandb: p}", seeds=1))
    done = CliRunner().invoke(app, ["launch", str(tmp_path / "x.yaml"), "--store", str(tmp_path / "results")])
    assert isinstance(done.exception, InputError) and "sweep[wandb]" in str(done.exception)
    assert not (tmp_path / "results").exists()


# MLflow


def _mlflow_runs(uri: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    with trackers._quiet():
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("tracked")
        return list(client.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []


def _told_once_and_updated(uri: str, store: Store) -> None:
    asked = "{mlflow: '" + uri + "'}"
    assert track(space(asked), store) == []
    runs = {run.info.run_name: run for run in _mlflow_runs(uri)}
    assert runs.keys() == {f"depth={depth} {arm} bias" for depth in (1, 2) for arm in ("with", "without")}
    one = runs["depth=2 with bias"]
    assert one.data.metrics["test_accuracy"] == pytest.approx(0.211) and one.data.metrics["diverged"] == 1
    assert one.data.params["depth"] == "2" and one.data.params["bias"] == "True"
    assert one.info.status == "FINISHED"

    assert track(space(asked), store) == []
    assert {run.info.run_id: run.info.end_time for run in _mlflow_runs(uri)} == {
        run.info.run_id: run.info.end_time for run in runs.values()
    }
    fill(store, space(seeds=4))
    assert track(space(asked, seeds=4), store) == []
    after = {run.info.run_name: run for run in _mlflow_runs(uri)}
    assert {name: run.info.run_id for name, run in after.items()} == {n: r.info.run_id for n, r in runs.items()}
    assert after["depth=2 with bias"].data.metrics["runs"] == 4
    assert after["depth=2 with bias"].data.metrics["test_accuracy"] == pytest.approx(0.216)


@pytest.mark.filterwarnings("default")
def test_mlflow_keeps_a_run_a_record_and_updates_it(store: Store, tmp_path: Path) -> None:
    _told_once_and_updated((tmp_path / "mlruns").as_uri(), store)


@pytest.mark.filterwarnings("default")
def test_an_experiment_that_was_deleted_is_said_with_what_brings_it_back(store: Store, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    asked = "{mlflow: '" + uri + "'}"
    assert track(space(asked), store) == []
    with trackers._quiet():
        client = MlflowClient(uri)
        [one] = client.search_experiments(filter_string="name = 'tracked'")
        client.delete_experiment(one.experiment_id)
    for _ in range(2):
        [problem] = track(space(asked), store)
        assert problem.startswith(
            f"tracked was not sent to mlflow at {tmp_path / 'mlruns'}: its experiment was deleted"
        )
        assert f"mlflow experiments restore --experiment-id {one.experiment_id} brings it back" in problem
        assert problem.endswith("; all rows are kept") and "same command" not in problem
    with trackers._quiet():
        client.restore_experiment(one.experiment_id)
    fill(store, space(seeds=4))
    assert track(space(asked, seeds=4), store) == []
    assert {run.data.metrics["runs"] for run in _mlflow_runs(uri)} == {4}


@pytest.mark.filterwarnings("default")
def test_runs_that_were_deleted_in_mlflow_are_told_again(store: Store, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    assert track(space("{mlflow: '" + uri + "'}"), store) == []
    with trackers._quiet():
        MlflowClient(uri).delete_run(_mlflow_runs(uri)[0].info.run_id)
    assert len(_mlflow_runs(uri)) == 3
    assert track(space("{mlflow: '" + uri + "'}"), store) == []
    assert len(_mlflow_runs(uri)) == 4


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    program = os.environ.get("MLFLOW_PROGRAM") or shutil.which("mlflow")
    if program is None or subprocess.run([program, "server", "--help"], capture_output=True).returncode:
        pytest.skip("no mlflow with a server here; MLFLOW_PROGRAM may name one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = [f"--backend-store-uri=sqlite:///{tmp_path}/mlflow.db", f"--artifacts-destination={tmp_path}/artifacts"]
    server = subprocess.Popen(
        [program, "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", *where],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    pytest.skip("this mlflow brings no server")
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, 15)
        server.wait(30)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_real_mlflow_server_keeps_a_run_a_record_and_updates_it(store: Store, mlflow_server: str) -> None:
    _told_once_and_updated(mlflow_server, store)


@pytest.mark.filterwarnings("default")
def test_a_tracker_that_cannot_be_reached_is_said_once_and_the_others_are_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = f"{{mlflow: 'http://127.0.0.1:{server.server_port}', tensorboard: {tmp_path}/logs}}"
        [problem] = track(space(asked), store)
        server.shutdown()
    assert problem.startswith("tracked could not be sent to mlflow at http://127.0.0.1")
    assert "all rows are kept" in problem and "\n" not in problem
    assert len(list((tmp_path / "logs" / "tracked").iterdir())) == 4


def test_rows_that_cannot_be_read_cost_a_message_a_tracker(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(Store, "read", gone)
    problems = track(space(f"{{mlflow: '{tmp_path}/m', tensorboard: {tmp_path}/logs}}"), store)
    assert [problem.partition(" at ")[0] for problem in problems] == [
        "tracked could not be sent to mlflow", "tracked could not be sent to tensorboard",
    ]  # fmt: skip
    assert all("(the disk is away); all rows are kept, and once that is mended" in problem for problem in problems)


def test_what_a_tracker_prints_is_no_part_of_an_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sweep.commands.trackers._mlflow", lambda *_: print("View run at"))
    assert track(space("{mlflow: 'http://tracker:5000'}"), store) == []
    assert capsys.readouterr() == ("", "View run at\n")


# TensorBoard


@pytest.mark.integration
def test_tensorboard_has_a_folder_a_record_with_settings_and_numbers(store: Store, tmp_path: Path) -> None:
    asked = f"{{tensorboard: {tmp_path}/logs}}"
    assert track(space(asked), store) == []
    folders = sorted((tmp_path / "logs" / "tracked").iterdir())
    assert [folder.name.rsplit(" ", 1)[0] for folder in folders] == [
        f"depth={depth} {arm} bias" for depth in (1, 2) for arm in ("with", "without")
    ]
    assert _scalars(folders[2])["test_accuracy"] == pytest.approx(0.211)
    before = {folder: [path.stat().st_mtime_ns for path in folder.iterdir()] for folder in folders}
    assert track(space(asked), store) == []
    assert {folder: [path.stat().st_mtime_ns for path in folder.iterdir()] for folder in folders} == before
    fill(store, space(seeds=4))
    assert track(space(asked, seeds=4), store) == []
    assert sorted((tmp_path / "logs" / "tracked").iterdir()) == folders
    assert _scalars(folders[2])["runs"] == 4 and len(list(folders[2].glob("events*"))) == 1


def _scalars(folder: Path) -> dict[str, float]:
    """What TensorBoard itself reads there, in a process of its own: it warns when it is imported."""
    program = (
        "import json, sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E\n"
        "e = E(sys.argv[1]); e.Reload()\n"
        "found = {name: e.Scalars(name)[-1].value for name in e.Tags()['scalars']}\n"
        "assert '_hparams_/session_start_info' in e.summary_metadata, e.summary_metadata.keys()\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    found: dict[str, float] = __import__("json").loads(done.stdout.splitlines()[-1])
    return found


# Weights & Biases


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_gets_a_run_a_record_under_an_id_of_its_own(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path / "w")}.items():
        monkeypatch.setenv(name, value)
    asked = "{wandb: project}"
    assert track(space(asked), store) == []

    def ids() -> list[str]:
        return sorted(path.stem.removeprefix("run-") for path in (tmp_path / "w").rglob("run-*.wandb"))

    assert ids() == sorted(record.key for record in records(space(), store))
    assert track(space(asked), store) == []
    assert len(ids()) == 4
    fill(store, space(seeds=4))
    assert track(space(asked, seeds=4), store) == []
    assert len(ids()) == 8 and len(set(ids())) == 4


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("off", ["WANDB_MODE", "settings"])
def test_wandb_that_is_switched_off_is_told_when_it_is_on_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: str
) -> None:
    """Off, it is the real one; on, a stand-in, since the real one takes seconds a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    if off == "WANDB_MODE":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    else:
        (tmp_path / "wandb").mkdir()
        (tmp_path / "wandb" / "settings").write_text("[default]\nmode = disabled\n")
    assert track(space("{wandb: project}"), store) == []
    memory = store.root / "trackers" / "tracked.wandb.json"
    assert not memory.exists()

    told = []

    class Run:
        disabled = False

        def __init__(self) -> None:
            self.summary: dict[str, float] = {}

        def finish(self) -> None:
            told.append(self)

    import wandb

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    assert track(space("{wandb: project}"), store) == []
    assert len(told) == 4 and memory.exists()
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    remembered = memory.read_bytes()
    fill(store, space(seeds=4))
    assert track(space("{wandb: project}", seeds=4), store) == []
    assert memory.read_bytes() == remembered
