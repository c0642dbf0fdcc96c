"""Training on every device: it starts as on the CPU, hides neighbours, resumes, replays and splits.

Without a GPU, the programs are cut down to what Triton's interpreter computes in seconds, and what only a GPU can show
is skipped.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import oracle

from sweep.data.splits import Data, load
from sweep.networks.conv.shape import MethodName
from sweep.space.runs import Run
from sweep.store.outcomes import Outcome
from sweep.store.storage import Place
from sweep.training.checkpoint import Checkpoint, Stopped
from sweep.training.device import exact_arithmetic
from sweep.training.trainer import Trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")

HAS_GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="no GPU here")
without_gpu = pytest.mark.skipif(HAS_GPU, reason="Triton compiles for the GPU here, and interprets nothing")

METHODS: list[MethodName] = ["grouped", "im2col", "triton"]
ON_GPU = [pytest.param("cuda", method, marks=needs_gpu) for method in METHODS]
INTERPRETED = pytest.param("cpu", "triton", marks=without_gpu)
PROGRAMS = {
    "plain": Run(width=8, weight_init="truncated_normal", steps=40),
    "everything": Run(
        width=8, batch_norm=True, dropout=0.3, optimizer="adamw", learning_rate=0.001, weight_decay=0.1, steps=40
    ),
    "width without padding": Run(width=16, steps=20),
    "momentum": Run(width=3, momentum=0.9, schedule="cosine", pooling="max", activation="tanh", steps=40),
    "shared weights": Run(width=4, protocol="shared_weights", bias_init="original", steps=40),
    "longer than a block": Run(width=2, steps=150, dropout=0.1),
}


TINY: dict[str, Any] = {"hidden": 5, "kernel_size": 3, "batch_size": 4}


def pairs(run: Run, seeds: int = 3) -> list[Run]:
    return [dataclasses.replace(run, bias=bias, seed=seed) for seed in range(seeds) for bias in (True, False)]


def case(program: str, device: str, steps: int | None = None) -> tuple[Run, Data]:
    """A program with its data: whole on a GPU; small pictures and, if given, a few `steps` on a CPU."""
    run = PROGRAMS[program]
    if device != "cpu":
        return run, load("mnist5k")
    return dataclasses.replace(run, **TINY, steps=steps or run.steps), oracle.synthetic(examples=30, held_out=7)


def plain(outcomes: list[Outcome]) -> list[Outcome]:
    return [dataclasses.replace(outcome, train_seconds=0.0) for outcome in outcomes]


@pytest.mark.parametrize(("device", "method"), [("cpu", "im2col"), INTERPRETED, *ON_GPU])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_first_steps_are_those_of_grouped_convolutions_on_the_cpu_to_rounding(
    program: str, device: str, method: MethodName
) -> None:
    run, data = case(program, device)
    runs = pairs(run, 1 if device == "cpu" else 3)
    with exact_arithmetic():
        there, here = Trainer(runs, data, device=device, method=method), Trainer(runs, data, method="grouped")
        for step in range(2 if method == "triton" and device == "cpu" else 5):
            there.step()
            here.step()
            np.testing.assert_allclose(
                there.loss_since_last_point(), here.loss_since_last_point(), rtol=1e-4, err_msg=f"step {step}"
            )
        for slot in range(len(here.assignment.networks)):
            found, wanted = oracle.fused(there, slot), oracle.fused(here, slot)
            for name, value in wanted.items():
                if runs[0].batch_norm and (name.endswith("mean") or ("conv" in name and name.endswith("bias"))):
                    continue  # batch norm takes a bias away: its gradient is rounding alone, which AdamW blows up
                outside = ~torch.isclose(found[name].cpu(), value, rtol=1e-3, atol=1e-5)
                # AdamW's first step goes by the sign of a gradient alone, also of one that is rounding.
                allowed = 1e-4 if run.optimizer == "adamw" else 0.0
                assert float(outside.double().mean()) <= allowed, (name, int(outside.sum()))


@needs_gpu
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_graph_replays_the_very_steps_that_it_was_made_of(program: str, method: MethodName) -> None:
    runs, data = pairs(PROGRAMS[program]), load("mnist5k")
    with exact_arithmetic():
        graph, eager = (Trainer(runs, data, device="cuda", method=method) for _ in range(2))
        eager.graph_step = None
        for _ in range(runs[0].steps):
            graph.step()
            eager.step()
        for name, tensor in graph.array_state.tensors.items():
            assert torch.equal(tensor, eager.array_state.tensors[name]), name


@pytest.mark.parametrize(
    ("device", "method"),
    [
        ("cpu", "grouped"),
        ("cpu", "im2col"),
        pytest.param("cpu", "triton", marks=[without_gpu, pytest.mark.slow]),
        *ON_GPU,
    ],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_neighbours_and_slots_leave_no_bit(program: str, device: str, method: MethodName) -> None:
    if (device, method) == ("cpu", "triton") and program not in ("plain", "everything"):
        pytest.skip("interpreted, the others would show the same kernels again")
    run, data = case(program, device, steps=1 if method == "triton" else None)
    runs = pairs(run, 2 if device == "cpu" else 4)
    half = len(runs) // 2
    others = [
        dataclasses.replace(run, seed=run.seed + 10, input_scaling="unit") if n >= half else run
        for n, run in enumerate(runs)
    ]
    turned = others[half:] + others[:half]
    one, other = (plain(train(each, data, device=device, method=method)) for each in (runs, turned))
    assert one[:half] == other[half:]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_training_that_was_stopped_and_taken_up_ends_bit_for_bit_the_same(
    program: str, device: str, tmp_path: Path
) -> None:
    run, data = case(program, device)
    runs, place, done = pairs(run), Place(tmp_path), run.steps - 15
    asked = itertools.count(1)
    with pytest.raises(Stopped):
        stopped = Checkpoint(place, "a.safetensors", stopping=lambda: next(asked) >= done)
        train(runs, data, device=device, checkpoint=stopped)
    seen: list[int] = []
    kept = Checkpoint(place, "a.safetensors")
    resumed = train(runs, data, device=device, checkpoint=kept, tick=seen.append)
    assert min(seen) > done, "trained again what was kept"
    assert plain(resumed) == plain(train(runs, data, device=device))


@needs_gpu
def test_an_array_too_large_for_the_device_is_split() -> None:
    free, _ = torch.cuda.mem_get_info()
    # Large batches: the memory is that of a few runs, whose weights are soon drawn.
    run = Run(width=64, depth=1, pooling="none", steps=2, hidden=0, batch_size=2048)
    count = 2 * int(free // (2048 * 784 * 64 * 4 * 4)) + 4
    outcomes = train(pairs(run, count), load("mnist5k"), device="cuda")
    assert len(outcomes) == 2 * count and max(outcome.array_size for outcome in outcomes) < 2 * count
