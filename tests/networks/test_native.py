"""The native kernels train as PyTorch does, as exactly, and every run as if it were alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle
from training.test_trainer import COLOUR, GREY, SMALL, runs_of, shapes, vary

from sweep.data.splits import Data
from sweep.networks.conv.native import engine
from sweep.networks.conv.native.library import library
from sweep.space.runs import Run
from sweep.training.device import exact_arithmetic
from sweep.training.native_array import _shared
from sweep.training.trainer import Trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")
bounded = settings(deadline=None, derandomize=True)

if library() is None:
    pytest.skip("no compiler, and no build for this CPU", allow_module_level=True)


def native(runs: Sequence[Run], data: Data) -> Trainer:
    trainer = Trainer(runs, data, method="native")
    with exact_arithmetic():
        for _ in range(trainer.steps):
            trainer.step()
    return trainer


def state(trainer: Trainer, slot: int) -> oracle.State:
    """A network's parameters and running statistics by PyTorch's names and shapes."""
    array, shape, count = trainer.array_step, trainer.shape, len(trainer.assignment.networks)
    found = {}
    for layer in (*shape.convolutions, *shape.linears):
        weight = engine.unpacked(array.parameters[layer.weight], count)
        found[layer.weight] = engine.restored(shape, layer, weight)[slot].reshape(layer.shape)
        found[layer.bias] = engine.unpacked(array.parameters[layer.bias], count)[slot, : layer.shape[0]]
    for layer in shape.norms:
        for name in (layer.weight, layer.bias):
            found[name] = engine.unpacked(array.parameters[name], count)[slot]
        for part, name in (("mean", "running_mean"), ("variance", "running_var")):
            found[f"{layer.name}.{name}"] = engine.unpacked(array.statistics[f"{layer.name}.{part}"], count)[slot]
    return found


def assert_as_exact_as_pytorch(runs: Sequence[Run], data: Data) -> None:
    """Beside float64, everything learnt is as near as float32 in PyTorch comes, but for a small factor."""
    ours, theirs, exact = (
        native(runs, data),
        Trainer(runs, data, method="grouped"),
        Trainer(runs, data, dtype=torch.float64),
    )
    with exact_arithmetic():
        for _ in range(ours.steps):
            theirs.step()
            exact.step()
    for slot, run in enumerate(ours.assignment.networks):
        found = state(ours, slot)
        near, wanted = oracle.fused(theirs, slot), oracle.fused(exact, slot)
        for name, value in wanted.items():
            if run.batch_norm and (
                (name.startswith("conv") and name.endswith("bias")) or name.endswith("running_mean")
            ):
                continue  # batch norm takes a bias away: its gradient is rounding alone
            error = float((found[name].double() - value).norm())
            allowed = 4 * float((near[name].double() - value).norm()) + 2e-6 * float(value.norm()) + 1e-6
            assert error <= allowed, (name, error, allowed)
    for evaluated in ("test", "validation"):
        part = getattr(ours.data, evaluated)
        right, loss = ours.evaluator.evaluate(*part)
        exact_right, exact_loss = exact.evaluator.evaluate(*part)
        np.testing.assert_allclose(loss, exact_loss, rtol=1e-3)
        assert (right != exact_right).mean() < 0.05


@settings(bounded, max_examples=60)
@given(st.data())
def test_any_network_trains_as_exactly_as_in_pytorch(draw: st.DataObject) -> None:
    common = draw.draw(shapes(batch_sizes=(1, 5, 16)))
    if common["activation"] in ("gelu", "tanh"):
        common["activation"] = "relu"
    runs = draw.draw(st.lists(runs_of(common), min_size=2, max_size=4))
    assert_as_exact_as_pytorch(runs, draw.draw(st.sampled_from([GREY, COLOUR])))


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 4, "hidden": 64, "kernel_size": 5, "batch_size": 16},
        {"width": 16, "hidden": 64, "kernel_size": 5, "batch_norm": True},
        {"kernel_size": 7, "pooling": "max"},
        {"kernel_size": 15, "pooling": "none", "depth": 1},
        {"width": 9, "hidden": 0, "depth": 5},
        {"protocol": "shared_weights", "bias_layers": "all", "bias_init": "uniform", "optimizer": "adamw"},
        {"protocol": "shared_weights", "batch_norm": True, "momentum": 0.5},
    ],
    ids=str,
)
def test_networks_at_the_ends_train_as_exactly_as_in_pytorch(settings: dict[str, Any]) -> None:
    common = dataclasses.replace(SMALL, **settings)
    assert_as_exact_as_pytorch(vary(common, bias=[True, False] * 2, seed=[0, 0, 1, 1]), COLOUR)


@settings(bounded, max_examples=40)
@given(st.data())
def test_a_run_s_bits_depend_on_no_slot_no_neighbour_and_no_array_size(draw: st.DataObject) -> None:
    common = draw.draw(shapes())
    if common["activation"] in ("gelu", "tanh"):
        common["activation"] = "leaky_relu"
    data, run = draw.draw(st.sampled_from([GREY, COLOUR])), draw.draw(runs_of(common))
    outcomes = []
    for _ in range(2):
        size = draw.draw(st.integers(1, 40))
        array = draw.draw(st.lists(runs_of(common), min_size=size, max_size=size))
        slot = draw.draw(st.integers(0, size - 1))
        array[slot] = run
        outcome = train(array, data, method="native")[slot]
        outcomes.append(dataclasses.replace(outcome, train_seconds=0.0, array_size=0))
    assert outcomes[0] == outcomes[1]


def test_a_run_that_diverges_leaves_its_neighbours_alone() -> None:
    runs = vary(SMALL, bias=[True, False, True, True], seed=[0, 0, 1, 2])
    wild = [*runs[:3], dataclasses.replace(runs[3], learning_rate=1e9)]
    tame, beside = (train(array, GREY, method="native") for array in (runs, wild))
    assert [outcome.test_accuracy for outcome in tame[:3]] == [outcome.test_accuracy for outcome in beside[:3]]
    assert [outcome.test_loss for outcome in tame[:3]] == [outcome.test_loss for outcome in beside[:3]]
    assert beside[3].status == "diverged" and tame[3].status == "ok"


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_share_the_tiles_of_an_array_and_change_no_bit(threads: int) -> None:
    seeds = [number // 2 for number in range(70)]
    runs = vary(dataclasses.replace(SMALL, batch_norm=True, dropout=0.2), bias=[True, False] * 35, seed=seeds)
    alone = train(runs, GREY, method="native")
    torch.set_num_threads(threads)
    try:
        together = train(runs, GREY, method="native")
    finally:
        torch.set_num_threads(1)
    timeless = [[dataclasses.replace(each, train_seconds=0.0) for each in part] for part in (alone, together)]
    assert timeless[0] == timeless[1]


def test_every_tile_has_a_thread_and_no_thread_is_without_one() -> None:
    assert _shared(5, 2) == [range(2), range(2, 5)]
    assert _shared(2, 8) == [range(1), range(1, 2)]
    assert _shared(7, 1) == [range(7)]
