"""Watching: each look tells what `sweep status` tells, and reads what is new alone; Ray serves the metrics."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console
from support.outcomes import BY, outcome

from sweep import plan
from sweep.commands import watching
from sweep.commands.status import Status, status
from sweep.commands.watching import Watch, follow
from sweep.common.errors import InputError
from sweep.space.search_space import SearchSpace, parse
from sweep.store.compaction import compact
from sweep.store.rows import Store

SPACE = "name: {name}\nsettings: {{width: 2}}\naxes: {{depth: {depths}, seed: 2}}\n"


def space(name: str, depths: list[int]) -> SearchSpace:
    return parse(SPACE.format(name=name, depths=depths).encode(), Path("x.yaml"))


def train(store: Store, of: SearchSpace, arrays: int, status: str = "ok") -> None:
    for array in plan.missing(list(plan.arrays(of, "cpu")), store.statuses())[:arrays]:
        store.write(array.array_id, array.runs(), array.run_ids, [outcome(1, status=status) for _ in array.run_ids], BY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    for each in (space("one", [1, 2, 3]), space("two", [3, 4])):
        store.save_sweep(each.name, each.resolved())
    return store


def test_every_look_is_what_status_tells(store: Store) -> None:
    watch, one, two = Watch(store), space("one", [1, 2, 3]), space("two", [3, 4])
    assert watch.look() == status(store)
    assert [each.runs for each in watch.look()] == [12, 8]
    train(store, one, 1, status="diverged")
    assert watch.look() == status(store) and watch.look()[0].diverged == 4
    train(store, two, 1)
    store.save_failure("a" * 20, {"error": "x", "run_ids": plan.run_ids(one)[-4:] + plan.run_ids(two)[-4:]})
    found = watch.look()
    assert found == status(store) and [each.done for each in found] == [8, 4]
    assert [each.failed for each in found] == [0, 4]
    store.save_sweep("one", space("one", [1, 2, 3, 5]).resolved())
    store.save_sweep("three", space("three", [1]).resolved())
    assert watch.look() == status(store) and len(watch.look()) == 3
    compact(store)
    train(store, one, 9)
    assert watch.look() == status(store)
    assert Watch(store, "two").look() == status(store, "two")


def test_a_look_reads_files_that_are_new_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    train(store, space("one", [1, 2, 3]), 2)
    watch, read, table = Watch(store), [], Store.table

    def reading(self: Store, name: str, *rest: object) -> object:
        read.append(name)
        return table(self, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "table", reading)
    watch.look()
    assert len(read) == 2
    watch.look()
    assert len(read) == 2
    train(store, space("two", [4]), 1)
    del read[:]
    watch.look()
    assert len(read) == 1


def test_an_unknown_sweep_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="there are: one, two"):
        Watch(store, "three").look()


def _looks(monkeypatch: pytest.MonkeyPatch, store: Store, steps: int) -> None:
    """Two looks, with an array trained between them, then Ctrl-C."""
    watch = Watch(store)

    def looks(*_: object) -> Iterator[list[Status]]:
        for _step in range(steps):
            yield watch.look()
            train(store, space("one", [1, 2, 3]), 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "_looks", looks)


def test_without_a_terminal_a_line_is_printed_for_what_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _looks(monkeypatch, store, 2)
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        follow(Watch(store), 2, False, Console(file=out))
    assert out.getvalue().splitlines() == [
        "one: 0 of 12 runs done",
        "two: 0 of 8 runs done",
        "one: 4 of 12 runs done",
    ]


def test_on_a_terminal_a_table_is_kept_up_to_date(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _looks(monkeypatch, store, 3)
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        follow(Watch(store), 2, False, Console(file=out, force_terminal=True, width=100))
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).split() for line in out.getvalue().splitlines()]
    heads = [line for line in lines if line[:1] == ["name"]]
    assert heads[-1][-2:] == ["runs/s", "left"]
    one = [line for line in lines if line[:1] == ["one"]][-1]
    assert one[-1] == "min" and float(one[6]) > 0
    assert one[:6] == ["one", "12", "8", "4", "0", "0"]


@pytest.mark.integration
def test_the_command_prints_a_line_a_look_and_ends_at_ctrl_c(store: Store) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "sweep", "status", "--watch", "--json", "--every", "0.2", "--store", str(store.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    first = json.loads(running.stdout.readline())
    assert first == [dataclasses.asdict(each) for each in status(store)]
    train(store, space("one", [1, 2, 3]), 1)
    for line in running.stdout:
        if json.loads(line)[0]["done"] == 4:
            break
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130 and errors == ""


@pytest.mark.slow
def test_whoever_reads_the_lines_may_stop_and_wrong_options_are_refused(store: Store) -> None:
    command = f"{sys.executable} -m sweep status --store {store.root} --every 0.1"
    piped = f"set -o pipefail; {command} --watch --json | head -n 1"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1 and done.returncode == 0 and done.stderr == ""
    for options, said in (
        ("", "requires --watch"),
        ("--watch --every 0", "0.1 to 86400"),
        ("--watch --address x", "-"),
    ):
        done = subprocess.run([*command.split(), *options.split()], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


class Recorded:
    """A metric that keeps what it was told, in place of Ray's."""

    values: ClassVar[dict[str, list[float]]] = {}
    tags: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.own = self.values.setdefault(name, [])

    def set_default_tags(self, tags: dict[str, str]) -> None:
        self.tags.update(tags)

    def inc(self, value: float) -> None:
        self.own.append(value)

    set = inc


def test_what_is_done_fails_or_diverges_is_counted_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweep.cluster import prometheus

    for each in ("Counter", "Gauge"):
        monkeypatch.setattr(prometheus, each, Recorded)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("sweep.cluster.prometheus.time.monotonic", lambda: next(clock))
    values = Recorded.values
    told = prometheus.Metrics("mine", 40)
    assert values["sweep_runs_left"] == [40] and Recorded.tags == {"sweep": "mine"}
    told.partly("a", 500.0)
    assert values["sweep_model_steps_per_second"][-1] == 50
    told.finished("a", 8, 1500.0, diverged=2, failed=False)
    assert values["sweep_model_steps_per_second"][-1] == 75
    told.finished("b", 16, 9000.0, diverged=None, failed=True)
    told.finished("c", 16, 9000.0, diverged=None, failed=False)  # another launch was first
    assert values["sweep_runs_done"] == [8] and values["sweep_runs_failed"] == [16]
    assert values["sweep_runs_diverged"] == [2] and values["sweep_runs_left"] == [40, 32, 16, 0]
    told.over()
    assert values["sweep_model_steps_per_second"][-1] == 0


LAUNCH = """
import sys, threading, time, urllib.request
from pathlib import Path
from rich.console import Console
import sweep.cluster.ray_environment
import ray
from sweep.cluster.driver import launch
from sweep.data.library import Library
from sweep.space.search_space import load
from sweep.store.rows import Store

seen, over = {}, threading.Event()

def scrape():
    while not over.wait(0.5):
        try:
            [node] = ray.nodes()
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            text = urllib.request.urlopen(address, timeout=5).read().decode()
        except Exception:
            continue
        for line in text.splitlines():
            if line.startswith("ray_sweep_") and 'sweep="measured"' in line:
                name, value = line.split("{")[0], float(line.rsplit(" ", 1)[1])
                seen.setdefault(name, []).append(value)

thread = threading.Thread(target=scrape)
thread.start()
store, library = Store(sys.argv[2], once=True), Library(Path(sys.argv[2]))
done = launch([load(Path(sys.argv[1]))], store, library, Console(stderr=True))
over.set()
thread.join()
assert done.total.trained == done.total.runs, done
import json
print(json.dumps({name: [min(values), max(values)] for name, values in seen.items()}))
"""


@pytest.mark.slow
def test_prometheus_finds_what_a_launch_counts_at_the_metrics_port_of_its_node(tmp_path: Path) -> None:
    (tmp_path / "measured.yaml").write_text(
        "name: measured\nsettings: {width: 1, depth: 1, steps: 400}\n"
        "axes: {hidden: [1, 2, 3, 4, 5, 6, 7, 8], batch_size: [8, 9, 10, 11, 12], seed: 8}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(tmp_path / "measured.yaml"), str(tmp_path / "results")],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"RAY_metrics_report_interval_ms": "500"},
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["ray_sweep_runs_done_total"][1] > 0
    assert 0 <= seen["ray_sweep_runs_left"][0] < seen["ray_sweep_runs_left"][1] <= 640
    assert seen["ray_sweep_model_steps_per_second"][1] > 100
