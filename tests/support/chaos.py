"""A sweep on a Ray cluster of several nodes on this machine, with faults of all kinds while it trains.

Faults come at seeded shares of the whole work, so that a slow machine has as many as a fast one. The work is sized to
the machine's speed (`lasting`), since a fault and its repair take seconds on any machine. Processes are killed by id;
nodes, the cluster and the launch are started again when needed.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from support.processes import alive, command_line, descendants, training, wait_for

import sweep.cluster.ray_environment  # noqa: F401  (before Ray is imported)
from sweep import plan
from sweep.plan import Array
from sweep.space import search_space
from sweep.store.checkpoint_header import read_header
from sweep.training.device import planned_kind

KILLS = ("worker", "driver", "terminate", "raylet", "notice", "head")
"""SIGKILL of a worker, of the launch; SIGTERM of the launch; SIGKILL and SIGTERM of a node; SIGKILL of the head."""

TROUBLES = ("stopped worker", "stopped launch", "store away", "disk full", "launch beside")
"""SIGSTOP for some seconds; the store's folder is moved away for some; no space there for some; a second launch."""

SECONDS = 4.0
"""How long a trouble that passes by itself lasts."""

NOTICE = 7.0
"""Seconds between the notice that a node goes and its end."""

ENVIRONMENT = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "8",  # a process that has lost the head gives up
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "SWEEP_CHECKPOINT_SECONDS": "0.5",
}
"""Ray's timeouts and ours, shortened for a test."""

WITHOUT = ["train_seconds", "finished_at", "device", "torch_version"]
"""The columns that say when and where a run was trained."""


def table(store: Path) -> pd.DataFrame:
    """All rows of a store, in the order of their runs, without times and places."""
    frames = [pd.read_parquet(path) for path in (store / "runs").glob("*.parquet")]
    return pd.concat(frames).drop(columns=WITHOUT).sort_values("run_id", ignore_index=True)


def curves(store: Path) -> pd.DataFrame:
    """All learning curves of a store, in the order of their runs and steps."""
    frames = [pq.read_table(path).to_pandas() for path in (store / "curves").glob("*.parquet")]
    return pd.concat(frames).sort_values(["run_id", "step"], ignore_index=True)


def command(space: Path, store: Path, *more: str) -> list[str]:
    """A launch that trains only."""
    return [sys.executable, "-m", "sweep", "launch", "--no-report", "--json", str(space), "--store", str(store), *more]


def lasting(space: str, folder: Path, seconds: float, least: int) -> str:
    """A search space with `{steps}` filled in: as many as keep one core busy for `seconds`, and at least `least`.

    A launch of few steps tells how fast this machine trains.
    """
    folder.mkdir()
    probe, store, steps = folder / "probe.yaml", folder / "results", 150
    probe.write_text(space.format(steps=steps))
    undisturbed(probe, store)
    spent = sum(float(pd.read_parquet(path)["train_seconds"].sum()) for path in (store / "runs").glob("*.parquet"))
    return space.format(steps=max(least, math.ceil(steps * seconds / spent)))


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "48m") -> Iterator[bool]:
    """Mounts a small disk at a folder; yields whether this user may."""
    folder.mkdir(exist_ok=True)
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
        ).returncode
        == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """No space is left on a disk while the block runs."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink()


class Nodes:
    """A cluster: a head that trains nothing, and nodes of one CPU each."""

    def __init__(self, count: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self.count = count
        # No hook that ends processes at exit: `close` does, by their ids.
        self.cluster: Any = Cluster(shutdown_at_exit=False)
        self.head: Any = self.cluster.add_node(num_cpus=0, include_dashboard=False, object_store_memory=80 * 2**20)
        self.nodes: list[Any] = []
        self.fill()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def fill(self) -> None:
        """Starts nodes in place of those that were lost."""
        for node in [node for node in self.nodes if not alive(self.raylet(node))]:
            self._end(node)
            self.nodes.remove(node)
        while len(self.nodes) < self.count:
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20))

    def raylet(self, node: Any) -> int:
        """The process of a node that starts all others there; 0 where it was lost."""
        processes = node.all_processes.get("raylet", [])
        return int(processes[0].process.pid) if processes else 0

    def workers(self) -> dict[int, Any]:
        """The processes that train, and the node of each."""
        there = [node for node in self.nodes if alive(self.raylet(node))]
        return {worker: node for node in there for worker in training(self.raylet(node))}

    def processes(self, node: Any) -> list[int]:
        """A node's processes and what they have started."""
        own = [info.process.pid for infos in node.all_processes.values() for info in infos]
        return own + [child for pid in own for child in descendants(pid)]

    def drain(self, node: Any, seconds: float) -> None:
        """Gives notice that a node goes in `seconds`, as an autoscaler does."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        deadline = int((time.time() + seconds) * 1000)
        preempted = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why = GcsClient(address=self.address).drain_node(node.node_id, preempted, "a test", deadline)
        assert accepted, why

    def lose_head(self) -> None:
        """Kills the head, all its processes at once."""
        self._end(self.head)

    @staticmethod
    def _end(node: Any) -> None:
        processes = [info.process for infos in node.all_processes.values() for info in infos]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()

    def close(self) -> None:
        """Ends all that is left."""
        for node in [*self.nodes, self.head]:
            left = [pid for pid in self.processes(node) if "ray::ImplicitFunc" not in command_line(pid)]
            self._end(node)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@dataclasses.dataclass
class Seen:
    """An array as it was seen in the store: steps of its checkpoint, its rows, the times that it went back."""

    steps: int
    done: int = 0
    at: float = 0.0  # when it last progressed
    rows: str | None = None
    back: list[tuple[int, int]] = dataclasses.field(default_factory=list)


class Watch:
    """Reads the store all the time: how far each array is, and whether anything is lost or trained again."""

    def __init__(self, store: Path, arrays: list[Array]) -> None:
        self.store = store
        self.seen = {array.array_id: Seen(array.cell.steps) for array in arrays}
        self.work = {array.array_id: array.work for array in arrays}
        self.changed: list[str] = []
        self.holders: dict[str, tuple[int, float]] = {}
        self.last = 0.0  # when anything last progressed
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def progress(self) -> float:
        """Share of the work that is in the store, checkpoints included."""
        done = sum(self.work[name] * (seen.done / seen.steps) for name, seen in self.seen.items())
        return done / sum(self.work.values())

    def in_training(self, pids: Collection[int]) -> dict[str, tuple[int, float]]:
        """The arrays that these processes train: steps of their checkpoints, and seconds of training since then."""
        return {
            name: (self.seen[name].done, time.monotonic() - max(self.seen[name].at, since))
            for name, (pid, since) in dict(self.holders).items()
            if pid in pids and not self.seen[name].rows
        }

    def _watch(self) -> None:
        while not self.stop.wait(0.2):
            for name, seen in self.seen.items():
                self._hold(name)
                rows, checkpoint = (self.store / "runs" / f"{name}.parquet", self._done(name))
                with contextlib.suppress(OSError):
                    now = hashlib.sha256(rows.read_bytes()).hexdigest()
                    if seen.rows not in (None, now):
                        self.changed.append(name)
                    if not seen.rows:
                        seen.at = self.last = time.monotonic()
                    seen.rows, seen.done = now, seen.steps
                if checkpoint is not None and not seen.rows:
                    if checkpoint < seen.done:
                        seen.back.append((seen.done, checkpoint))
                    if checkpoint > seen.done:
                        seen.at = self.last = time.monotonic()
                    seen.done = checkpoint

    def _hold(self, name: str) -> None:
        """Notes which process trains an array, and since when."""
        try:
            pid = int(json.loads((self.store / "leases" / f"{name}.json").read_text())["pid"])
        except (OSError, ValueError):
            self.holders.pop(name, None)
            return
        if name not in self.holders or self.holders[name][0] != pid:
            self.holders[name] = pid, time.monotonic()

    def _done(self, name: str) -> int | None:
        try:
            content = (self.store / "checkpoints" / f"{name}.safetensors").read_bytes()
            return int(read_header(content)["done"])
        except (OSError, ValueError, KeyError):
            return None


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault: what, when, at what share of the work; the arrays in training that it hit, as from `Watch`."""

    kind: str
    at: float
    share: float
    hit: dict[str, tuple[int, float]]

    @property
    def lost(self) -> float:
        """Seconds of training since the last checkpoints, at most."""
        return sum(seconds for _, seconds in self.hit.values())


class Chaos:
    """A launch on a cluster, its faults, and further launches until all is trained."""

    def __init__(self, folder: Path, space: Path, kinds: list[str], seed: int, log: Callable[[str], None]) -> None:
        self.random = random.Random(seed)
        self.log = log
        self.disk, self.store = folder, folder / "results"
        self.space = space
        kinds = self.random.sample(kinds, len(kinds))
        moments = sorted(self.random.uniform(0.03, 0.9) for _ in kinds)
        self.pending = list(zip(moments, kinds, strict=True))
        arrays = list(plan.arrays(search_space.load(space), planned_kind()))
        self.watch = Watch(self.store, arrays)
        self.drivers: list[subprocess.Popen[str]] = []
        self.ended: list[tuple[int, str]] = []
        self.faults: list[Fault] = []
        self.launches = self.clusters = 0
        self.workers: set[int] = set()
        self.nodes: Nodes | None = None

    def run(self, limit: float) -> None:
        """Runs until every fault has come and a launch has found or trained everything."""
        last = time.monotonic() + limit
        with self.watch:
            try:
                while True:
                    assert time.monotonic() < last, f"not done in time: {self.summary()}"
                    self._reap()
                    if self.nodes:
                        self.workers.update(self.nodes.workers())
                    if not self.drivers:
                        if self.ended and self.ended[-1][0] == 0:
                            return
                        self._launch()
                    due = bool(self.pending) and self.watch.progress() >= self.pending[0][0]
                    if due and (at_work := self._at_work()):
                        self._hit(*self.pending.pop(0), at_work)
                    time.sleep(0.1)
            finally:
                for driver in self.drivers:
                    driver.kill()
                    driver.communicate()
                if self.nodes:
                    self.nodes.close()

    def outlived(self) -> list[int]:
        """Workers that outlive their cluster by more than 20 seconds; they are ended."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not any(map(alive, self.workers)), 20)
        left = [pid for pid in self.workers if alive(pid) and "ray::" in command_line(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left

    def summary(self) -> str:
        counts = Counter(fault.kind for fault in self.faults)
        return (
            f"{len(self.faults)} faults {dict(counts)}, {self.launches} launches, {self.clusters} clusters, "
            f"{self.watch.progress():.0%} done, pending {self.pending}, ended {self.ended}"
        )

    def _at_work(self) -> dict[int, Any]:
        """What faults can hit: the processes that train an array for a running launch, and the node of each."""
        workers = self.nodes.workers() if self.drivers and self.nodes else {}
        return {worker: node for worker, node in workers.items() if self.watch.in_training([worker])}

    def _reap(self) -> None:
        for driver in list(self.drivers):
            if driver.poll() is not None:
                out, said = driver.communicate()
                self.log(f"launch ended with {driver.returncode}: {out.strip()} {said.strip()[-300:]}")
                self.ended.append((driver.returncode, said))
                self.drivers.remove(driver)

    def _launch(self) -> None:
        if self.nodes is None:
            self.nodes = Nodes()
            self.clusters += 1
        self.nodes.fill()
        self.launches += 1
        self.drivers.append(
            subprocess.Popen(
                command(self.space, self.store, "--address", self.nodes.address),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def _hit(self, share: float, kind: str, at_work: dict[int, Any]) -> None:
        assert self.nodes is not None
        started, driver = time.monotonic(), self.random.choice(self.drivers)
        worker, node = self.random.choice(list(at_work.items()))
        pids = {"worker": [worker], "raylet": [pid for pid in at_work if at_work[pid] is node]}.get(kind, [*at_work])
        if kind == "notice":
            pids = training(self.nodes.raylet(node))
            self.nodes.drain(node, 30)
            time.sleep(NOTICE)
        hit = self.watch.in_training(pids) if kind in KILLS else {}
        match kind:
            case "worker":
                self._end(worker, signal.SIGKILL)
            case "driver":
                driver.kill()
                driver.wait()
            case "terminate":
                driver.terminate()
                driver.wait(60)
            case "raylet" | "notice":
                self._end(self.nodes.raylet(node), signal.SIGKILL if kind == "raylet" else signal.SIGTERM)
                wait_for(lambda: not alive(self.nodes.raylet(node)), 60)
                self.nodes.fill()
            case "head":
                self.nodes.lose_head()
                for each in self.drivers:
                    each.wait(120)
                self.nodes.close()
                self.nodes = None
            case "stopped worker":
                self._stopped(worker)
            case "stopped launch":
                self._stopped(driver.pid)
            case "store away":
                self.store.rename(self.disk / "away")
                time.sleep(SECONDS)
                assert not self.store.exists(), "the store was made anew"
                (self.disk / "away").rename(self.store)
            case "disk full":
                with full(self.disk):
                    time.sleep(SECONDS)
            case "launch beside":
                self._launch()
        self.faults.append(Fault(kind, started, share, hit))
        self.log(f"{kind} at {share:.0%}, {time.monotonic() - started:.1f} s, hit {sorted(hit.values())}")

    @staticmethod
    def _end(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have been about to end
            os.kill(pid, number)

    @staticmethod
    def _stopped(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SECONDS)
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """The environment of the cluster and its launches; Ray's files have a folder of their own."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        os.environ.update(ENVIRONMENT | {"RAY_TMPDIR": scratch})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def undisturbed(space: Path, store: Path) -> float:
    """Launches a sweep on this machine; returns the seconds that it took."""
    started = time.monotonic()
    calm = {name: value for name, value in os.environ.items() if name != "SWEEP_CHECKPOINT_SECONDS"}
    done = subprocess.run(command(space, store), capture_output=True, text=True, env=calm, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == 0
    return time.monotonic() - started
