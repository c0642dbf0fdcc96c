"""Launches on real Ray clusters: joined, and sent as jobs over HTTP."""

import json
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support import failing_training
from support.real_cluster import ROOT, Cluster, environment, running, start, sweep, wait_for

from sweep.networks.conv.native import location

pytestmark = pytest.mark.slow

SPACE = "{settings: {steps: 12}, axes: {width: [1, 2], batch_norm: [false, true], seed: 7}}"
RUNS = 2 * 2 * 2 * 7
LONG = "{settings: {width: 1, steps: 20000, momentum: 0.5, activation: tanh}, axes: {seed: 16}}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node, on which one width cannot be trained."""
    with running(1, **failing_training.environment(tmp_path_factory.mktemp("failing"), str(ROOT))) as nodes:
        yield nodes


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPACE)
    return path


def rows_of(store: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in (store / "runs").glob("*.parquet")])


def test_a_joined_cluster_trains_and_nothing_but_rows_is_left(cluster: Cluster, space: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = sweep(
        *("launch", space, "--address", cluster.address, "--store", store, "--no-report", "--json"),
        env=cluster.environment(),
    )
    assert json.loads(done.stdout)["trained"] == RUNS == rows_of(store)["run_id"].nunique()
    assert {path.name for path in store.iterdir()} == {"runs", "curves", "sweeps", "leases"}


def test_modules_in_the_folder_where_a_cluster_is_joined_are_not_the_workers(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("sweep", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    (tmp_path / "few.yaml").write_text("{settings: {width: 1, steps: 10}, axes: {seed: 2}}")
    program = ["-c", "from sweep.__main__ import main; import sys; sys.argv[0] = 'sweep'; main()"]
    done = subprocess.run(
        [sys.executable, "-P", *program, "launch", "few.yaml", "--address", cluster.address, "--no-report", "--json"],
        cwd=tmp_path,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trained"] == 4


@pytest.mark.parametrize("token", ["0" * 64, None])
def test_a_wrong_or_missing_token_is_one_message(
    token: str | None, cluster: Cluster, space: Path, tmp_path: Path
) -> None:
    env = environment(token, HOME=str(tmp_path))
    for address in (cluster.address, cluster.url):
        done = sweep(*("launch", space, "--address", address, "--store", tmp_path / "store"), env=env, status=2)
        assert len(done.stderr.splitlines()) == 1
        assert ("rejects this token" if token else "requires a token, but none was found") in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_job_carries_its_search_space_and_ends_as_the_launch_does(
    cluster: Cluster, space: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    done = sweep("launch", space, "--address", cluster.url, "--store", store, "--json", env=cluster.environment())
    answer = json.loads(done.stdout)
    assert (answer["trained"], answer["report"]) == (RUNS, str(store / "reports" / "small"))
    assert rows_of(store)["run_id"].nunique() == RUNS
    assert f"{RUNS} of {RUNS} runs to train" in done.stderr
    [job] = [
        each
        for each in json.loads(sweep("status", "--address", cluster.url, "--json", env=cluster.environment()).stdout)
        if each["id"] in done.stderr
    ]
    assert (job["sweep"], job["status"]) == ("small", "SUCCEEDED")

    # Arrays that cannot be trained fail: so does the job.
    space.write_text(SPACE.replace("[1, 2]", f"[1, {failing_training.WIDTH}]"))
    failed = sweep(
        *("launch", space, "--address", cluster.url, "--store", tmp_path / "broken", "--no-report", "--json"),
        env=cluster.environment(),
        status=1,
    )
    assert json.loads(failed.stdout)["failed"] == RUNS // 2


def test_a_job_goes_on_when_its_follower_detaches_is_found_again_and_stops_with_a_checkpoint(
    cluster: Cluster, tmp_path: Path
) -> None:
    space, store = tmp_path / "long.yaml", tmp_path / "store"
    space.write_text(LONG)
    command = ("launch", space, "--address", cluster.url, "--store", store, "--no-report")
    follower = start(*command, env=cluster.environment())
    wait_for(lambda: list((store / "leases").glob("*")) or follower.poll() is not None)
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=30)
    assert follower.returncode == 130, said
    assert f"sweep status --address {cluster.url}" in said
    jobs = json.loads(sweep("status", "long", "--address", cluster.url, "--json", env=cluster.environment()).stdout)
    [job] = jobs
    assert job["status"] == "RUNNING"
    assert f"sweep stop {job['id']} --address {cluster.url}" in said

    again = start(*command, env=cluster.environment())
    assert again.stderr is not None
    assert again.stderr.readline() == f"job {job['id']} is already running this launch: following it\n"
    time.sleep(5)  # so that there is something to keep
    stopped = sweep("stop", job["id"], "--address", cluster.url, env=cluster.environment())
    assert "STOPPED" in stopped.stdout
    again.communicate(timeout=60)
    assert again.returncode == 143
    assert len(list((store / "checkpoints").iterdir())) == 1
    unknown = sweep("stop", "sweep-none", "--address", cluster.url, env=cluster.environment(), status=2)
    assert "no job 'sweep-none'" in unknown.stderr


def test_a_launch_waits_for_nodes_and_those_that_join_later_get_work(tmp_path: Path, space: Path) -> None:
    store = tmp_path / "store"
    space.write_text(SPACE.replace("12", "1500, activation: tanh"))
    with running(0) as nodes:
        launch = start(
            *("launch", space, "--address", nodes.address, "--store", store, "--no-report", "--json"),
            env=nodes.environment(),
        )
        assert launch.stderr is not None
        lines = iter(launch.stderr.readline, "")
        assert any("no node of the cluster has room for an array yet (1 CPU): waiting" in line for line in lines)
        nodes.add_node(1)
        nodes.add_node(1)
        leases = store / "leases"
        wait_for(lambda: len(list(leases.glob("*.json"))) == 2 or launch.poll() is not None)
        out, _ = launch.communicate(timeout=200)
    assert launch.returncode == 0
    assert json.loads(out)["trained"] == RUNS


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has what we need, but not us."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (next((folder / "lib").glob("python*")) / "site-packages" / "needs.pth").write_text(sysconfig.get_path("purelib"))
    found = subprocess.run(
        [python, "-c", "import ray, torch, sweep.space.runs"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(PYTHONPATH=""),
    )
    if "No module named 'sweep" not in found.stderr:
        pytest.skip(f"sweep is installed for good: {found.stderr}")
    return python


def test_nodes_without_the_project_get_it_or_are_refused(bare: Path, space: Path, tmp_path: Path) -> None:
    space.write_text(SPACE.replace("[1, 2]", "[1]"))
    path = f"{bare.parent}:/usr/local/bin:/usr/bin:/bin"
    with running(1, python=str(bare), PYTHONPATH="", PATH=path, CXX="no-compiler") as nodes:
        env, launch = nodes.environment(), ("launch", space, "--no-report", "--json", "--address")
        refused = sweep(*launch, nodes.address, "--store", tmp_path / "a", env=env, status=2, cwd=tmp_path)
        assert "sweep cannot be imported on" in refused.stderr and "--install brings it" in refused.stderr
        assert not (tmp_path / "a").exists()
        joined = sweep(*launch, nodes.address, "--install", "--store", tmp_path / "b", env=env, cwd=tmp_path)
        sent = sweep(*launch, nodes.url, "--store", tmp_path / "c", env=env, cwd=tmp_path)
        assert json.loads(joined.stdout)["trained"] == json.loads(sent.stdout)["trained"] == RUNS // 2
    if location.found():  # the kernels came along
        assert {*rows_of(tmp_path / "b")["method"], *rows_of(tmp_path / "c")["method"]} == {"native"}
