"""A cluster of two hosts, as far as one machine can be two: network namespaces, each with its own temporary disk."""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from support.real_cluster import environment, sweep

HEAD, WORKER = "10.203.77.1", "10.203.77.2"
URL = f"http://{HEAD}:8265"
SPACE = "{settings: {steps: 300}, axes: {width: [1, 2], batch_norm: [false, true], seed: 7}}"
RUNS = 2 * 2 * 2 * 7


def why_not() -> str | None:
    """What keeps us from making network namespaces."""
    if shutil.which("ip") is None:
        return "needs ip, of iproute2"
    name = f"sweep-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"cannot make a network namespace: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@pytest.fixture(scope="module")
def namespaces() -> Iterator[dict[str, str]]:
    """Two network namespaces joined by a cable: their names by address."""
    if reason := why_not():
        pytest.skip(reason)
    tag = secrets.token_hex(3)
    names = {HEAD: f"sweep-{tag}-h", WORKER: f"sweep-{tag}-w"}
    made = []
    try:
        for name in names.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
            made.append(name)
        ends = {HEAD: f"h{tag}", WORKER: f"w{tag}"}
        cable = ["link", "add", ends[HEAD], "netns", names[HEAD], "type", "veth"]
        subprocess.run(["ip", *cable, "peer", "name", ends[WORKER], "netns", names[WORKER]], check=True)
        for address, name in names.items():
            for command in (
                f"addr add {address}/30 dev {ends[address]}",
                f"link set {ends[address]} up",
                "link set lo up",
            ):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture(scope="module")
def two_hosts(namespaces: dict[str, str]) -> Iterator[tuple[dict[str, tuple[str, ...]], str, Path]]:
    """A Ray cluster over both: how a command is run on each host, the token, and a folder that the head alone has."""
    base, token = Path(tempfile.mkdtemp(prefix="ns-")), secrets.token_hex(32)
    own = base / "h"
    own.mkdir()
    # `ip netns exec` gives each command mounts of its own: what is mounted there hides the head's folder.
    run = {
        HEAD: ("ip", "netns", "exec", namespaces[HEAD]),
        WORKER: (
            *("ip", "netns", "exec", namespaces[WORKER]),
            *("sh", "-c", f'mount -t tmpfs tmpfs {own} && exec "$@"', "sh"),
        ),
    }
    env = environment(token, RAY_AUTH_MODE="token", RAY_TMPDIR=str(own), TMPDIR=str(own))
    ray = str(Path(sys.executable).parent / "ray")
    head = [ray, "start", "--head", f"--node-ip-address={HEAD}", "--port=6379", "--dashboard-host=0.0.0.0"]
    worker = [ray, "start", f"--address={HEAD}:6379", f"--node-ip-address={WORKER}"]
    started = []
    try:
        for address, command in ((HEAD, head), (WORKER, worker)):
            with open(base / f"{address}.log", "w") as log:
                process = subprocess.Popen(
                    [*run[address], *command, "--num-cpus=1", "--block", "--disable-usage-stats"],
                    stdout=log,
                    stderr=log,
                    env=env,
                )
            started.append(process)
            wait_until_up(run[HEAD], token, process, base / f"{address}.log")
        yield run, token, own
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
        shutil.rmtree(base, ignore_errors=True)


def wait_until_up(prefix: tuple[str, ...], token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the dashboard answers, and `ray start` has said what it says at its end."""
    headers = {"Authorization": f"Bearer {token}"}
    ask = f"from urllib import request as r; r.urlopen(r.Request('{URL}/api/jobs/', headers={headers}))"
    last = time.monotonic() + 90
    while (
        "--block" not in log.read_text()
        or subprocess.run([*prefix, sys.executable, "-c", ask], capture_output=True).returncode
    ):
        assert process.poll() is None and time.monotonic() < last, log.read_text()
        time.sleep(0.5)


@pytest.mark.slow
def test_launches_by_http_from_two_networks_run_on_both_hosts_of_a_cluster(
    two_hosts: tuple[dict[str, tuple[str, ...]], str, Path], tmp_path: Path
) -> None:
    run, token, _ = two_hosts
    with pytest.raises((urllib.error.URLError, TimeoutError)):
        urllib.request.urlopen(f"{URL}/api/version", timeout=2)  # from here there is no way to it
    store = tmp_path / "store"
    done = {}
    for address, name in ((HEAD, "near"), (WORKER, "far")):
        space = tmp_path / f"{name}.yaml"
        space.write_text(SPACE if address == HEAD else SPACE.replace("300", "200"))
        done[address] = sweep(
            *("launch", space, "--address", URL, "--store", store, "--no-report", "--json"),
            env=environment(token, TMPDIR=str(tmp_path)),
            prefix=run[address],
        )
        assert json.loads(done[address].stdout)["trained"] == RUNS
        assert "nodes: 2, with room for arrays of 1 CPU: 2" in done[address].stderr
    rows = pd.concat([pd.read_parquet(path) for path in (store / "runs").glob("*.parquet")])
    assert rows["run_id"].nunique() == len(rows) == 2 * RUNS
    listed = sweep("status", "--address", URL, "--json", env=environment(token), prefix=run[WORKER])
    assert [(job["sweep"], job["status"]) for job in json.loads(listed.stdout)] == [
        ("near", "SUCCEEDED"),
        ("far", "SUCCEEDED"),
    ]


@pytest.mark.slow
def test_a_folder_that_one_host_cannot_see_is_refused_before_anything_starts(
    two_hosts: tuple[dict[str, tuple[str, ...]], str, Path], tmp_path: Path
) -> None:
    run, token, own = two_hosts
    space = tmp_path / "small.yaml"
    space.write_text(SPACE)
    for address, prefix in ((URL, run[WORKER]), ("auto", run[HEAD])):
        refused = sweep(
            *("launch", space, "--address", address, "--store", own / "store"),
            env=environment(token, TMPDIR=str(own if address == "auto" else tmp_path), RAY_TMPDIR=str(own)),
            prefix=prefix,
            status=2,
        )
        assert f"--store {own / 'store'}: a folder that {os.uname().nodename} ({WORKER}) cannot see" in refused.stderr
        assert not (own / "store").exists()
