"""What only a GPU can show; on machines without one these tests are skipped, and say so."""

import dataclasses
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch

from sweep.checkpoint import Checkpoint, Stopped
from sweep.data import load
from sweep.plan import MethodName
from sweep.runs import Run
from sweep.train import Outcome, Trainer, exact_arithmetic, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

METHODS: list[MethodName] = ["grouped", "im2col", "triton"]
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


def pairs(run: Run, seeds: int = 3) -> list[Run]:
    return [dataclasses.replace(run, bias=bias, seed=seed) for seed in range(seeds) for bias in (True, False)]


def plain(outcomes: list[Outcome]) -> list[Outcome]:
    return [dataclasses.replace(outcome, train_seconds=0.0) for outcome in outcomes]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_first_steps_are_those_of_the_cpu_to_rounding(program: str, method: MethodName) -> None:
    runs, data = pairs(PROGRAMS[program]), load("mnist5k")
    with exact_arithmetic():
        there, here = Trainer(runs, data, device="cuda", method=method), Trainer(runs, data)
        for step in range(5):
            there.step()
            here.step()
            np.testing.assert_allclose(
                there.loss_since_last_point(), here.loss_since_last_point(), rtol=1e-4, err_msg=f"step {step}"
            )
        for slot in range(len(here.networks)):
            found, wanted = oracle.fused(there, slot), oracle.fused(here, slot)
            for name, value in wanted.items():
                if runs[0].batch_norm and (name.endswith("mean") or ("conv" in name and name.endswith("bias"))):
                    continue  # batch norm takes a bias away: its gradient is rounding alone, which AdamW blows up
                torch.testing.assert_close(found[name].cpu(), value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_graph_replays_the_very_steps_that_it_was_made_of(program: str, method: MethodName) -> None:
    runs, data = pairs(PROGRAMS[program]), load("mnist5k")
    with exact_arithmetic():
        graph, eager = (Trainer(runs, data, device="cuda", method=method) for _ in range(2))
        eager._replay = eager._advance  # type: ignore[method-assign]
        for _ in range(runs[0].steps):
            graph.step()
            eager.step()
        for name, tensor in graph._tensors().items():
            assert torch.equal(tensor, eager._tensors()[name]), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_neighbours_and_slots_leave_no_bit(program: str, method: MethodName) -> None:
    runs, data = pairs(PROGRAMS[program], 4), load("mnist5k")
    others = [
        dataclasses.replace(run, seed=run.seed + 10, input_scaling="unit") if n >= 4 else run
        for n, run in enumerate(runs)
    ]
    turned = others[4:] + others[:4]
    one, other = (plain(train(each, data, device="cuda", method=method)) for each in (runs, turned))
    assert one[:4] == other[4:]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_training_that_was_stopped_and_taken_up_ends_bit_for_bit_the_same(program: str, tmp_path: Path) -> None:
    runs, data = pairs(PROGRAMS[program]), load("mnist5k")
    asked = iter([False] * (runs[0].steps - 15) + [True] * 2)
    with pytest.raises(Stopped):
        train(runs, data, device="cuda", checkpoint=Checkpoint(tmp_path / "a", stopping=lambda: next(asked)))
    resumed = train(runs, data, device="cuda", checkpoint=Checkpoint(tmp_path / "a"))
    assert plain(resumed) == plain(train(runs, data, device="cuda"))


def test_an_array_too_large_for_the_device_is_split() -> None:
    free, _ = torch.cuda.mem_get_info()
    run = Run(width=64, depth=1, pooling="none", steps=2, hidden=0, batch_size=512)
    count = 2 * int(free // (512 * 784 * 64 * 4 * 4)) + 4
    outcomes = train(pairs(run, count), load("mnist5k"), device="cuda")
    assert len(outcomes) == 2 * count and max(outcome.array_size for outcome in outcomes) < 2 * count
