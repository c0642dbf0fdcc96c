"""What a launch does when something goes wrong: it tries again, splits, waits, and names what failed."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
from support import chaos
from support.chaos import command
from support.processes import alive, training, wait_for

from sweep import plan
from sweep.data import splits
from sweep.plan import Array
from sweep.space import search_space
from sweep.store.rows import Provenance, Store
from sweep.training.checkpoint import Checkpoint, Stopped
from sweep.training.trainer import train

ONE = "{settings: {dataset: digits, width: 1, steps: 3000, activation: tanh}, axes: {seed: 16}}"
"""Native kernels, which know no tanh, would be done before any fault comes."""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "one.yaml"
    path.write_text(ONE)
    return path


def launching(space: Path, store: Path, *more: str, every: float = 0.2) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(space, store, "--checkpoint-seconds", str(every), *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], status: int) -> tuple[dict[str, Any], str]:
    out, said = process.communicate(timeout=240)
    assert process.returncode == status, said
    assert "Traceback" not in said
    return json.loads(out), said


def steps_done(store: Path, array: Array) -> int:
    """Steps of the array's checkpoint."""
    kept = Checkpoint(Store(store).place, Store(store).checkpoint(array.array_id)).load()
    return int(kept.numbers["done"]) if kept else 0


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EIO, "the disk"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError("an object store's words"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (OSError(errno.EISDIR, "a folder"), False),
        (RuntimeError("shapes do not fit"), False),
        (MemoryError(), False),
        (ValueError("a mistake"), False),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again_and_what_would_happen_again_is_not(error: Exception, again: bool) -> None:
    from sweep.cluster.trial import may_pass

    assert may_pass(error) is again


def test_the_next_try_is_split_where_the_last_failure_was_want_of_memory_and_the_last_failure_is_told(
    space: Path, tmp_path: Path
) -> None:
    from sweep.cluster.watcher import Watcher

    [array] = plan.arrays(search_space.load(space), "cpu")
    watcher = Watcher([array])
    watcher.meter, watcher.metrics = Mock(), Mock()
    trial = Mock(
        config={"array": array.array_id, "halvings": 0}, error_file=str(tmp_path / "error.txt"), num_failures=3
    )
    gone, short = "The actor died unexpectedly", "1 worker(s) were killed due to the node running low on memory.\nOOM"
    for number, (happened, halvings) in enumerate([(gone, 0), (short, 1), (short, 2), (gone, 2)], 1):
        with open(trial.error_file, "a") as file:
            file.write(f"Failure # {number} (occurred at 2026-11-23_17-57-00)\n{happened}\n")
        watcher.running.add(array.array_id)
        watcher.on_trial_recover(iteration=1, trials=[trial], trial=trial)
        assert trial.config["halvings"] == halvings and not watcher.running
    watcher.on_trial_error(iteration=1, trials=[trial], trial=trial)
    assert watcher.lost[array.array_id] == "tried 3 times, its worker was lost: The actor died unexpectedly"
    trial.error_file = None
    watcher.on_trial_error(iteration=1, trials=[trial], trial=trial)
    assert watcher.lost[array.array_id].endswith("its worker was lost: unknown")


@contextlib.contextmanager
def balloon(gib: float) -> Iterator[None]:
    """A process that takes so much of the machine's memory."""
    program = f"held = b'1' * int({gib} * 2**30); print(len(held), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


@pytest.mark.slow
def test_an_array_whose_worker_ray_ends_for_want_of_memory_is_split(space: Path, tmp_path: Path) -> None:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    memory = {name: int(kib) / 2**20 for name, kib, *_ in lines}
    if memory["MemAvailable:"] < 14:
        pytest.skip("needs 14 GiB of memory")
    store = tmp_path / "results"
    space.write_text(ONE.replace("3000", "12000"))  # a fast machine ends 3,000 steps before its memory is full
    [array] = plan.arrays(search_space.load(space), "cpu")
    # Ray ends workers when 7 GiB more are in use than now; the launch takes 2, and the machine may have other work.
    limit = (memory["MemTotal:"] - memory["MemAvailable:"] + 7) / memory["MemTotal:"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_usage_threshold", f"{limit:.4f}")
        patch.setenv("RAY_memory_monitor_refresh_ms", "100")
        process = launching(space, store)
    wait_for(lambda: steps_done(store, array) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    [worker] = training(process.pid)
    with contextlib.ExitStack() as balloons:
        for _ in range(9):
            if alive(worker):
                balloons.enter_context(balloon(1))
                time.sleep(0.5)
        wait_for(lambda: not alive(worker), 20)
    summary, _ = ended(process, 0)
    assert (summary["trained"], summary["failed"]) == (32, 0)
    assert set(chaos.table(store)["array_size"]) <= {16, 8}
    assert list((store / "checkpoints").iterdir()) == []


@pytest.mark.integration
def test_a_process_whose_parent_is_gone_hears_of_it_and_ends_soon(tmp_path: Path) -> None:
    child = (
        "import sys, time; from pathlib import Path; from sweep.cluster import orphan_watch\n"
        "orphan_watch.LOOK_EVERY, orphan_watch.GRACE = 0.05, 0.5\n"
        "lost = orphan_watch.orphaned(); Path(sys.argv[1]).write_text('there')\n"
        "lost.wait(20); Path(sys.argv[1]).write_text('alone'); time.sleep(60)\n"
    )
    file = tmp_path / "state"
    parent = (
        "import subprocess, sys, time\n"
        "print(subprocess.Popen([sys.executable, '-c', *sys.argv[1:]]).pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent, child, str(file)], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        other = int(one.stdout.readline())
        wait_for(lambda: file.exists() and file.read_text() == "there", 20)
        one.kill()
    wait_for(lambda: not alive(other), 20)
    assert file.read_text() == "alone"


@pytest.mark.slow
def test_an_array_whose_worker_dies_every_time_is_tried_as_often_as_asked_and_named_and_goes_on_next_time(
    space: Path, tmp_path: Path
) -> None:
    store = tmp_path / "results"
    [array] = plan.arrays(search_space.load(space), "cpu")
    process, killed = launching(space, store, "--retries", "1"), []
    for _ in range(2):
        before = steps_done(store, array)
        wait_for(lambda before=before: steps_done(store, array) > before or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        killed.append(steps_done(store, array))
        [worker] = training(process.pid)
        os.kill(worker, signal.SIGKILL)
    summary, said = ended(process, 1)
    assert (summary["trained"], summary["failed"]) == (0, 32)
    settings = "width=1, activation=tanh, dataset=digits, steps=3000, seeds 0 to 15"
    assert f"array {array.array_id} ({settings}) failed: tried 2 times" in said
    assert re.search(r"its worker was lost: (?!Failure|unknown)\w+", said), said
    assert 0 < killed[0] < killed[1] < 3000
    failure = json.loads((store / "failures" / f"{array.array_id}.json").read_text())
    assert set(failure["run_ids"]) == set(array.run_ids) and "tried 2 times" in failure["error"]

    kept = steps_done(store, array)
    assert kept >= killed[1]
    process = launching(space, store)
    seen = []
    while process.poll() is None:
        seen.append(steps_done(store, array))
        time.sleep(0.1)
    assert ended(process, 0)[0]["trained"] == 32
    assert min(each for each in seen if each) >= kept, "trained again what was kept"
    assert [*(store / "failures").iterdir(), *(store / "checkpoints").iterdir(), *(store / "leases").iterdir()] == []


@pytest.mark.slow
def test_what_is_left_of_an_array_takes_up_the_checkpoint_of_the_whole(space: Path, tmp_path: Path) -> None:
    store, pictures = Store(tmp_path / "results"), splits.load("digits")
    [array] = plan.arrays(search_space.load(space), "cpu")
    alone = train(array.runs(), pictures)
    # Somebody trained the first seed, and somebody died in the middle of all.
    by = Provenance("here", pictures.fingerprint, "0", 1, "grouped")
    store.write("0" * 20, array.runs()[:2], array.run_ids[:2], alone[:2], by)
    asked = iter(range(10**6))
    kept = Checkpoint(
        store.place,
        store.checkpoint(array.array_id),
        about={"run_ids": array.run_ids},
        stopping=lambda: next(asked) > 2800,
    )
    with pytest.raises(Stopped):
        train(array.runs(), pictures, checkpoint=kept)

    process, seen = launching(space, store.root), []
    while process.poll() is None:
        for path in (store.root / "checkpoints").glob("*.safetensors"):
            if path.stem != array.array_id:
                state = Checkpoint(store.place, f"checkpoints/{path.name}").load()
                seen += [int(state.numbers["done"])] if state else []
        time.sleep(0.02)
    summary, _ = ended(process, 0)
    assert (summary["already"], summary["trained"]) == (2, 30)
    assert all(done > 2800 for done in seen), "trained again what was kept"
    rows = chaos.table(store.root).set_index("run_id")
    assert sorted(rows["array_size"]) == [30] * 30 + [32] * 2
    assert rows.loc[list(array.run_ids), "test_loss"].tolist() == pytest.approx(
        [outcome.test_loss for outcome in alone], rel=1e-3
    )
    assert list((store.root / "checkpoints").iterdir()) == [], "that of the whole array is of no use any more"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with chaos.small_disk(tmp_path / "disk", "8m") as mounted:
        if not mounted:
            pytest.skip("this user may not mount a disk of its own")
        yield tmp_path / "disk"


@pytest.mark.slow
def test_a_full_disk_is_said_and_waited_for_and_neither_rows_nor_training_are_lost(disk: Path, tmp_path: Path) -> None:
    space, store = tmp_path / "some.yaml", disk / "results"
    axes = "{activation: [relu, tanh], width: [1, 2], seed: 24}"
    space.write_text(f"{{name: some, settings: {{dataset: digits, steps: 500}}, axes: {axes}}}")
    process = launching(space, store, every=5)
    wait_for(lambda: list(store.glob("runs/[!.]*.parquet")) or process.poll() is not None)
    with chaos.full(disk):
        before = {path: path.read_bytes() for path in store.rglob("*.parquet")}
        time.sleep(25)  # longer than an array takes, and than a checkpoint waits
        assert process.poll() is None
        assert {path: path.read_bytes() for path in store.rglob("[!.]*.parquet")} == before
        assert [path for path in store.rglob("*") if path.is_file() and not path.stat().st_size] == []
    summary, said = ended(process, 0)
    assert (summary["trained"], summary["failed"]) == (192, 0)
    assert said.count("No space left on device; waiting for it") == 1, said
    assert said.count("no checkpoint could be written, training goes on") <= 1, said
    assert before == {path: path.read_bytes() for path in before}
    chaos.undisturbed(space, tmp_path / "undisturbed")
    pd.testing.assert_frame_equal(chaos.table(store), chaos.table(tmp_path / "undisturbed"), check_exact=True)
    assert list(store.rglob(".*")) == []
