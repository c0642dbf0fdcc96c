"""A sweep on a real cluster comes through deaths of all kinds: nothing is lost, and the table ends the same."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from support import chaos
from support.chaos import Chaos, Watch
from support.processes import training, wait_for

from sweep import plan
from sweep.space import search_space

SPACE = """
name: chaos
settings: {{dataset: digits, steps: {steps}, momentum: 0.5}}
axes: {{width: [1, 2], batch_norm: [false, true], activation: [relu, tanh], seed: 32}}
"""
KINDS = [*chaos.KILLS, *chaos.TROUBLES, "worker", "worker", "driver", "raylet", "terminate"]


@pytest.mark.slow
def test_a_sweep_comes_through_kills_of_every_kind_with_the_rows_of_one_that_was_left_alone(
    tmp_path: Path,
) -> None:
    space = tmp_path / "chaos.yaml"

    with chaos.small_disk(tmp_path / "disk") as has_disk, chaos.environment():
        # On a fast machine 450 steps are over before the sixteen faults have come: each takes some seconds.
        space.write_text(chaos.lasting(SPACE, tmp_path / "probe", seconds=180, least=450))
        print(space.read_text())
        print(f"undisturbed: {chaos.undisturbed(space, tmp_path / 'undisturbed'):.0f} s")
        kinds = KINDS if has_disk else [kind for kind in KINDS if kind != "disk full"]
        trouble = Chaos(tmp_path / "disk", space, kinds, seed=1, log=print)
        trouble.run(limit=900)
        outlived = trouble.outlived()
        print(trouble.summary())
        wanted, store = tmp_path / "undisturbed", trouble.store

        kills = [fault for fault in trouble.faults if fault.kind in chaos.KILLS]
        assert not trouble.pending and len(kills) >= 10 and {fault.kind for fault in kills} == set(chaos.KILLS)
        pd.testing.assert_frame_equal(chaos.table(store), chaos.table(wanted), check_exact=True)
        pd.testing.assert_frame_equal(chaos.curves(store), chaos.curves(wanted), check_exact=True)

        # Whoever was in training went on from the checkpoint; what had rows was left as it was.
        assert sum(any(done for done, _ in fault.hit.values()) for fault in kills) >= 6
        assert {name: seen.back for name, seen in trouble.watch.seen.items() if seen.back} == {}
        assert trouble.watch.changed == []

        assert outlived == []
        assert not any("Traceback" in said for _, said in trouble.ended)
        left = itertools.chain(store.rglob(".*"), *(store.glob(f"{kind}/*") for kind in ("leases", "checkpoints")))
        assert sorted(left) == []


@pytest.mark.slow
def test_a_node_that_is_about_to_go_keeps_what_it_has_trained(tmp_path: Path) -> None:
    space, store = tmp_path / "one.yaml", tmp_path / "results"
    # As long as one array may be: it has to be in training still when the notice has been heard of.
    space.write_text("{settings: {dataset: digits, width: 1, steps: 16000, activation: tanh}, axes: {seed: 16}}")
    arrays = list(plan.arrays(search_space.load(space), "cpu"))
    with chaos.environment(), Watch(store, arrays) as watch, contextlib.closing(chaos.Nodes()) as nodes:
        address = ["--address", nodes.address, "--checkpoint-seconds", "3600"]
        process = subprocess.Popen(
            chaos.command(space, store, *address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        [array] = arrays
        wait_for(lambda: watch.in_training(nodes.workers()) or process.poll() is not None)
        time.sleep(5)
        assert watch.seen[array.array_id].done == 0, "a checkpoint without need"
        [node] = [node for node in nodes.nodes if training(nodes.raylet(node))]
        nodes.drain(node, 60)
        wait_for(lambda: watch.seen[array.array_id].done or process.poll() is not None, 30)
        os.kill(nodes.raylet(node), signal.SIGTERM)
        out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert json.loads(out)["trained"] == 32
    assert watch.seen[array.array_id].back == [] and "Traceback" not in said
    rows = pd.concat([pd.read_parquet(path) for path in (store / "runs").glob("*.parquet")])
    assert len(rows) == 32 and list((store / "checkpoints").iterdir()) == []
