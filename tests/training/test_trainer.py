"""Fused equals unfused, and nothing that shares an array with a run can be seen in its result."""

import dataclasses
import gc
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle

from sweep.common import random_streams
from sweep.data.pool import Pool
from sweep.data.splits import Data, load
from sweep.networks.conv import backends
from sweep.networks.conv.shape import MethodName
from sweep.space.runs import Run
from sweep.store.outcomes import Outcome
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.device_data import DeviceData
from sweep.training.evaluation import CURVE_COST, EVALUATION_NUMBERS, curve_examples
from sweep.training.graph_step import GraphStep
from sweep.training.state import CurvePoint
from sweep.training.trainer import Trainer, _halves, train

pytestmark = pytest.mark.usefixtures("one_thread")
bounded = settings(deadline=None, derandomize=True)

GREY, COLOUR = oracle.synthetic(), oracle.synthetic(channels=3, height=12, width=9, classes=10)
SMALL = Run(width=3, hidden=5, kernel_size=3, batch_size=5, steps=6)


def vary(common: Run, **settings: Sequence[Any]) -> list[Run]:
    """Runs that share `common` and take the n-th value of every setting."""
    rows = zip(*settings.values(), strict=True)
    return [dataclasses.replace(common, **dict(zip(settings, row, strict=True))) for row in rows]


def trained(runs: Sequence[Run], data: Data, dtype: torch.dtype = torch.float32) -> Trainer:
    trainer = Trainer(runs, data, dtype=dtype)
    for _ in range(trainer.steps):
        trainer.step()
    return trainer


def every_loss(trainer: Trainer) -> list[np.ndarray]:
    """Trains to the end; the loss `[runs]` of every step."""
    losses = []
    for _ in range(trainer.steps):
        trainer.step()
        losses.append(trainer.loss_since_last_point())
    return losses


def results(runs: Sequence[Run], data: Data) -> list[Outcome]:
    """Outcomes without the one thing that a clock measures."""
    return [dataclasses.replace(outcome, train_seconds=0.0) for outcome in train(runs, data)]


def assert_same_bits(one: oracle.State, other: oracle.State) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def assert_fused_is_unfused(runs: Sequence[Run], data: Data, method: MethodName | None = None) -> None:
    """Trains in float64 both ways and compares every step's loss, all that was learnt, and the evaluation."""
    trainer = Trainer(runs, data, dtype=torch.float64, method=method)
    losses = every_loss(trainer)
    correct, test_loss = trainer.evaluator.evaluate(*trainer.data.test)
    close: Any = {"rtol": 1e-9, "atol": 1e-9}
    for slot, run in enumerate(runs):
        alone = oracle.train(run, data)
        np.testing.assert_allclose([each[slot] for each in losses], alone.losses, **close)
        fused, wanted = oracle.fused(trainer, slot), alone.state()
        if run.batch_norm and run.optimizer == "adamw":
            # Batch norm takes a bias before it away: its gradient is rounding alone, which AdamW blows up to a step.
            for name in [name for name in wanted if name.startswith("conv") and name.endswith("bias")]:
                torch.testing.assert_close(fused.pop(name), wanted.pop(name), rtol=0, atol=1e-6)
            close["atol"] = 1e-8  # running means hold the bias
        torch.testing.assert_close(fused, wanted, **close)
        expected_correct, expected_loss = oracle.evaluate(run, data, alone.network, data.test)
        np.testing.assert_array_equal(correct[slot], expected_correct)
        np.testing.assert_allclose(test_loss[slot], expected_loss, **close)


def runs_of(common: dict[str, Any]) -> st.SearchStrategy[Run]:
    """Any run that may share an array with one of the settings `common`."""
    return st.builds(
        Run,
        bias=st.booleans(),
        seed=st.integers(0, 3),
        learning_rate=st.sampled_from([0.01, 0.05, 0.1]),
        weight_init=st.sampled_from(["he", "truncated_normal", "uniform"]),
        bias_init=st.sampled_from(["zeros", "uniform", "original"]),
        input_scaling=st.sampled_from(["standardized", "centered", "unit"]),
        # Whether there is any of these is shared, how much is each run's own.
        dropout=st.sampled_from([0.1, 0.5]) if common["dropout"] else st.just(0.0),
        momentum=st.sampled_from([0.5, 0.9]) if common["momentum"] else st.just(0.0),
        weight_decay=st.sampled_from([0.01, 0.1]) if common["weight_decay"] else st.just(0.0),
        **{
            name: st.just(value)
            for name, value in common.items()
            if name not in ("dropout", "momentum", "weight_decay")
        },
    )


@st.composite
def shapes(draw: st.DrawFn, batch_sizes: Sequence[int] = (5, 16), steps: int = 6) -> dict[str, Any]:
    """The settings that the runs of one array share."""
    batch_size = draw(st.sampled_from(batch_sizes))
    optimizer = draw(st.sampled_from(["sgd", "sgd", "adamw"]))
    return {
        "depth": draw(st.integers(1, 4)),
        "width": draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16])),
        "batch_norm": batch_size > 1 and draw(st.booleans()),
        "kernel_size": draw(st.sampled_from([1, 3, 5])),
        "hidden": draw(st.sampled_from([0, 5, 64])),
        "batch_size": batch_size,
        "steps": draw(st.integers(3, steps)),
        "bias_layers": draw(st.sampled_from(["conv", "first_conv", "later_conv", "all"])),
        "activation": draw(st.sampled_from(["relu", "gelu", "tanh", "leaky_relu", "identity"])),
        "pooling": draw(st.sampled_from(["stride", "max", "average", "none"])),
        "train_examples": draw(st.sampled_from([None, 20])),
        "schedule": draw(st.sampled_from(["constant", "cosine"])),
        "optimizer": optimizer,
        "dropout": draw(st.booleans()),
        "momentum": optimizer == "sgd" and draw(st.booleans()),
        "weight_decay": draw(st.booleans()),
    }


# Fused equals unfused


@settings(bounded, max_examples=60)
@given(st.data())
def test_the_fused_array_trains_as_the_plain_network_does(draw: st.DataObject) -> None:
    common = draw.draw(shapes(batch_sizes=(1, 5, 16)))
    # PyTorch's float64 convolution refuses a single filter whose channels are last in memory.
    runs = draw.draw(st.lists(runs_of(common), min_size=1 if common["width"] > 1 else 2, max_size=4))
    assert_fused_is_unfused(runs, draw.draw(st.sampled_from([GREY, COLOUR])))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_fused_array_trains_as_the_plain_network_does_at_every_depth(depth: int, batch_norm: bool) -> None:
    runs = vary(
        dataclasses.replace(SMALL, depth=depth, batch_norm=batch_norm, learning_rate=0.1),
        bias=[True, False, True, False],
        seed=[0, 0, 1, 1],
        bias_init=["original", "original", "uniform", "uniform"],
        weight_init=["truncated_normal", "truncated_normal", "uniform", "he"],
        input_scaling=["centered", "centered", "standardized", "unit"],
        learning_rate=[0.1, 0.1, 0.02, 0.3],
    )
    assert_fused_is_unfused(runs, COLOUR)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_fused_array_trains_as_the_plain_network_does_with_many_channels(batch_norm: bool) -> None:
    common = dataclasses.replace(SMALL, width=64, kernel_size=5, batch_norm=batch_norm, momentum=0.9)
    runs = vary(common, bias=[True, False, True], seed=[0, 0, 7], bias_init=["original", "original", "uniform"])
    assert_fused_is_unfused(runs, GREY)


def test_the_fused_array_trains_as_the_plain_network_does_on_mnist() -> None:
    runs = vary(
        Run(width=4, batch_norm=True, steps=5),
        bias=[True, False, True],
        seed=[0, 0, 7],
        input_scaling=["standardized", "standardized", "centered"],
    )
    assert_fused_is_unfused(runs, load("mnist5k"))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("width", "data"), [(8, COLOUR), (64, GREY)], ids=["narrow", "wide"])
def test_the_gradients_of_a_step_in_float32_are_those_of_the_plain_network(
    width: int, data: Data, batch_norm: bool
) -> None:
    common = Run(depth=3, width=width, batch_norm=batch_norm, steps=1, learning_rate=1.0, bias_init="uniform")
    runs = vary(common, bias=[True, False, True], seed=[0, 0, 1])
    fused, before = trained(runs, data), Trainer(runs, data)
    for slot, run in enumerate(runs):
        after, start = oracle.fused(fused, slot), oracle.fused(before, slot)
        for dtype in (torch.float32, torch.float64):
            net, alone = oracle.network(run, data, dtype), oracle.train(run, data, dtype).network
            for (name, old), new in zip(net.named_parameters(), alone.parameters(), strict=True):
                wanted = (new - old).detach().double()
                error = (after[name] - start[name]).double() - wanted
                # Batch norm takes a bias before it away: its gradient is rounding alone.
                scale = wanted.norm() + (1e-2 if batch_norm else 0)
                assert error.norm() <= 1e-4 * scale, (run, name, dtype)


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 16, "width": 2},
        {"width": 33, "hidden": 3},
        {"kernel_size": 7, "pooling": "none"},
        {"kernel_size": 15, "depth": 1},
        {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.1, "learning_rate": 0.01},
        {"momentum": 0.9, "schedule": "cosine", "weight_decay": 0.1},
        {"bias_layers": "all", "bias_init": "original"},
        {"dropout": 0.5, "hidden": 0},
    ],
    ids=str,
)
def test_the_fused_array_trains_as_the_plain_network_does_at_the_ends_of_every_setting(
    settings: dict[str, Any],
) -> None:
    common = dataclasses.replace(SMALL, **settings)
    assert_fused_is_unfused(vary(common, bias=[True, False], seed=[3, 3]), COLOUR)


@pytest.mark.parametrize("method", ["grouped", "im2col"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_method_trains_as_the_plain_network_does(method: MethodName, batch_norm: bool) -> None:
    common = dataclasses.replace(
        SMALL, width=4, depth=3, batch_norm=batch_norm, dropout=0.2, momentum=0.5, weight_decay=0.1, pooling="max"
    )
    runs = vary(common, bias=[True, False, True], seed=[0, 0, 1], input_scaling=["unit", "unit", "centered"])
    assert_fused_is_unfused(runs, COLOUR, method)


def test_the_largest_pictures_and_batches_that_one_meets_train_too() -> None:
    data = oracle.synthetic(channels=3, height=32, width=32, examples=140)
    assert_fused_is_unfused(vary(dataclasses.replace(SMALL, batch_size=128, steps=2), bias=[True, False]), data)


# Weights that both arms share


@pytest.mark.parametrize(
    ("settings", "data"),
    [
        ({}, COLOUR),
        ({"batch_norm": True, "depth": 3}, COLOUR),
        ({"momentum": 0.9, "weight_decay": 0.1, "schedule": "cosine"}, COLOUR),
        ({"optimizer": "adamw", "bias_layers": "all", "weight_decay": 0.1}, COLOUR),
        ({"dropout": 0.5, "bias_layers": "later_conv"}, COLOUR),
        ({"width": 64, "kernel_size": 5}, GREY),
    ],
    ids=["plain", "batch norm", "momentum", "AdamW", "dropout", "wide"],
)
def test_two_arms_that_take_turns_on_shared_weights_train_as_two_plain_networks_with_the_same_parameters(
    settings: dict[str, Any], data: Data
) -> None:
    common = dataclasses.replace(SMALL, protocol="shared_weights", bias_init="original", **settings)
    runs = vary(common, bias=[False, True, True, False], seed=[1, 0, 1, 0])
    trainer = Trainer(runs, data, dtype=torch.float64)
    losses = every_loss(trainer)
    correct, test_loss = trainer.evaluator.evaluate(*trainer.data.test)
    close: Any = {"rtol": 1e-9, "atol": 1e-9}
    for seed, rows in {0: (1, 3), 1: (2, 0)}.items():
        arms = oracle.train_shared(dataclasses.replace(common, seed=seed), data)
        network = next(n for n, run in enumerate(trainer.assignment.networks) if run.seed == seed)
        torch.testing.assert_close(oracle.fused(trainer, network), arms[0].state(), **close)
        for row, arm in zip(rows, arms, strict=True):
            np.testing.assert_allclose([each[row] for each in losses], arm.losses, **close)
            expected_correct, expected_loss = oracle.evaluate(runs[row], data, arm.network, data.test)
            np.testing.assert_array_equal(correct[row], expected_correct)
            np.testing.assert_allclose(test_loss[row], expected_loss, **close)


def test_shared_weights_give_a_row_for_each_arm_with_its_own_parameters() -> None:
    runs = vary(dataclasses.replace(SMALL, protocol="shared_weights", bias_init="original"), bias=[True, False])
    with_bias, without = results(runs, GREY)
    assert with_bias.parameters - without.parameters == 2 * SMALL.width
    assert with_bias.test_loss != without.test_loss
    assert with_bias.array_size == without.array_size == 2


# Dropout


@pytest.mark.parametrize("method", ["grouped", "im2col"])
def test_masks_are_those_of_the_reference_whoever_shares_the_array(method: MethodName) -> None:
    run = dataclasses.replace(SMALL, dropout=0.4, seed=5, steps=ORDER_BLOCK + 3)
    runs = [dataclasses.replace(run, seed=9, dropout=0.1), dataclasses.replace(run, bias=False), run]
    trainer = Trainer(runs, COLOUR, method=method)
    for step in (0, 1, ORDER_BLOCK + 2):
        trainer.batches.send(step)
        dropouts = trainer.batches.masks.at(torch.tensor([step % ORDER_BLOCK]))
        assert dropouts.keys() == {"conv0", "conv1", "hidden"}
        for layer, (height, width) in {"conv0": (6, 5), "conv1": (3, 3)}.items():
            ones = trainer.model.method.join(torch.ones(3, 5, height, width, 3))
            found = trainer.model.method.split(trainer.model.method.dropout(ones, dropouts[layer]), 3)
            wanted = oracle.HashedDropout(run, layer).mask((5, 3, height, width), step)
            for slot in (1, 2):
                np.testing.assert_allclose(found[slot].permute(0, 3, 1, 2), wanted / 0.6, rtol=1e-6)
        hidden = trainer.model.method.dropout(torch.ones(3, 5, 16), dropouts["hidden"])
        np.testing.assert_allclose(
            hidden[1, :, :5], oracle.HashedDropout(run, "hidden").mask((5, 5), step) / 0.6, rtol=1e-6
        )


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.5, 0.9])
def test_masks_drop_their_share_and_differ_between_steps_layers_and_seeds(rate: float) -> None:
    def mask(layer: str, seed: int, step: int) -> np.ndarray:
        run = dataclasses.replace(SMALL, dropout=rate, seed=seed)
        return oracle.HashedDropout(run, layer).mask((16, 16, 14, 14), step)

    first = mask("conv0", 0, 0)
    for other in (mask("conv1", 0, 0), mask("conv0", 1, 0), mask("conv0", 0, 1)):
        # Independent masks: kept shares and agreements within five standard errors.
        agree = rate**2 + (1 - rate) ** 2
        assert abs(other.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / other.size) ** 0.5
        assert abs((first == other).mean() - agree) < 5 * (agree * (1 - agree) / other.size) ** 0.5
    for shifted in (first[1:] == first[:-1], first[:, 1:] == first[:, :-1], first[..., 1:] == first[..., :-1]):
        agree = rate**2 + (1 - rate) ** 2
        assert abs(shifted.mean() - agree) < 6 * (agree * (1 - agree) / shifted.size) ** 0.5


# Precision


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 10), ("bfloat16", 7)])
def test_a_lower_precision_rounds_the_operands_of_products_and_nothing_else(precision: str, bits: int) -> None:
    def difference(precision: str) -> float:
        run = dataclasses.replace(SMALL, width=8, depth=3, steps=1, learning_rate=1.0, precision=precision)
        fused, exact = oracle.fused(trained([run], COLOUR), 0), oracle.train(run, COLOUR).state()
        start = oracle.network(run, COLOUR).state_dict()
        moved = [(exact[name] - start[name]).norm() for name in start]
        return max(float((fused[name] - exact[name]).norm() / step) for name, step in zip(start, moved, strict=True))

    assert difference("float32") < 1e-5
    assert 2.0 ** -(bits + 4) < difference(precision) < 2.0 ** -(bits - 3)


def test_rounding_is_to_the_nearest_number_that_the_precision_holds() -> None:
    x = torch.tensor([1.0, 1 + 2**-11, 1 + 2**-10, 1 + 3 * 2**-11, -1 - 2**-11, 0.0, 3e38, float("inf"), float("nan")])
    tf32 = backends._to_tf32(x)
    wanted = [1.0, 1 + 2**-10, 1 + 2**-10, 1 + 2**-9, -1 - 2**-10, 0.0]
    assert tf32[:6].tolist() == wanted
    assert abs(tf32[6].item() / 3e38 - 1) < 2**-10 and tf32[7].isinf() and tf32[8].isnan()
    assert backends._to_bfloat16(torch.tensor([1 + 2**-9, 1 + 2**-7])).tolist() == [1.0, 1 + 2**-7]


@pytest.mark.parametrize("method", ["grouped", "im2col"])
def test_the_gradient_of_a_bias_is_no_product_and_is_not_rounded(method: MethodName) -> None:
    way = backends.METHODS[method]("bfloat16")
    x = way.join(torch.randn(2, 3, 5, 5, 4, generator=torch.Generator().manual_seed(0)))
    weight, bias = torch.zeros(2, 3, 3, 4, 6), torch.zeros(2, 6, requires_grad=True)
    y = way.convolution(x, weight, bias, 1, False)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(y, bias, gradient)
    exact = way.split(gradient.contiguous(memory_format=torch.channels_last), 2).sum((1, 2, 3))
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


# Memory that runs out


def test_an_array_for_which_memory_is_short_is_split_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = vary(SMALL, seed=[0, 0, 1, 1, 2, 2, 3, 3], bias=[True, False] * 4)
    sizes: list[int] = []
    step = Trainer.step

    def short(trainer: Trainer, at_most: int) -> None:
        if trainer.done == 3:
            sizes.append(len(trainer.runs))
            if len(trainer.runs) > 2:
                raise torch.OutOfMemoryError("no memory left")
        step(trainer)

    whole = train(runs, GREY)
    monkeypatch.setattr(Trainer, "step", short)
    split = train(runs, GREY)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert [outcome.array_size for outcome in split] == [2] * 8
    for one, other in zip(whole, split, strict=True):
        assert one.test_loss == pytest.approx(other.test_loss, rel=1e-4)
    monkeypatch.setattr(
        Trainer, "step", lambda trainer, at_most: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all"))
    )
    with pytest.raises(torch.OutOfMemoryError, match="none at all"):
        train(runs, GREY)


def test_what_a_step_changes_is_what_a_checkpoint_keeps_and_a_graph_undoes() -> None:
    programs: list[dict[str, Any]] = [{"momentum": 0.9, "batch_norm": True}, {"optimizer": "adamw", "dropout": 0.5}]
    for program in programs:
        trainer = Trainer(vary(dataclasses.replace(SMALL, **program), bias=[True, False]), GREY)
        trainer.batches.send(0)
        kept = {id(tensor) for tensor in trainer.array_state.tensors.values()} | {id(trainer.array_step.at)}
        holders = [
            vars(trainer.array_step),
            vars(trainer.losses),
            vars(trainer.optimizer),
            vars(trainer.data),
            vars(trainer.batches),
        ]
        holders += [trainer.batches.scaling._asdict(), vars(trainer.batches.masks), trainer.batches.masks.states]
        holders += [trainer.model.parameters, trainer.model.statistics, trainer.optimizer.state, trainer.model.absent]
        tensors = [value for holder in holders for value in holder.values() if isinstance(value, torch.Tensor)]
        before = [tensor.detach().clone() for tensor in tensors]
        trainer.array_step.take()
        changed = [t for t, old in zip(tensors, before, strict=True) if not torch.equal(t, old)]
        assert changed and {id(tensor) for tensor in changed} <= kept


def test_what_an_array_holds_is_free_as_soon_as_nothing_refers_to_its_trainer() -> None:
    trainer = trained([SMALL], GREY)
    trainer.graph_step = GraphStep(trainer.array_step, trainer.array_state.tensors.values())  # as a GPU's holds them
    held = [weakref.ref(part) for part in (trainer, trainer.model.parameters["conv0.weight"], trainer.batches)]
    gc.disable()
    try:
        del trainer
        assert [part() for part in held] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_what_libraries_say_when_memory_is_short_splits_an_array_too(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def short(trainer: Trainer, at_most: int) -> None:
        if len(trainer.runs) > 2:
            raise RuntimeError(words)
        step(trainer)

    monkeypatch.setattr(Trainer, "step", short)
    assert [outcome.array_size for outcome in train(vary(SMALL, seed=[0, 1, 2]), GREY)] == [1, 2, 2]


def test_another_mistake_splits_no_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Trainer, "step", lambda trainer, at_most: (_ for _ in ()).throw(RuntimeError("another mistake"))
    )
    with pytest.raises(RuntimeError, match="another mistake"):
        train(vary(SMALL, seed=[0, 1, 2]), GREY)


def test_an_array_that_ran_out_of_memory_is_gone_while_its_batches_are_still_being_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, permutations = Trainer.step, random_streams.permutations
    begun, go_on = threading.Event(), threading.Event()
    tried: list[weakref.ref[Trainer]] = []
    drawers: list[set[threading.Thread]] = []
    drawn: set[tuple[threading.Thread, int]] = set()
    gone: list[bool] = []

    def short(trainer: Trainer, at_most: int) -> None:
        step(trainer)
        if len(trainer.runs) > 2:
            tried.append(weakref.ref(trainer))
            drawers.append({thread for thread in threading.enumerate() if thread.name.startswith("batches")})
            assert begun.wait(timeout=60)
            raise torch.OutOfMemoryError("no memory left")
        gone.append(tried[0]() is None)
        go_on.set()

    def slow(seeds: Sequence[int], purpose: str, count: int) -> np.ndarray:
        first_of_the_second_block = ORDER_BLOCK * SMALL.batch_size // len(GREY.split.train) + 1
        if int(purpose.removeprefix("order/")) >= first_of_the_second_block:
            drawn.update((threading.current_thread(), seed) for seed in seeds)
            begun.set()
            assert go_on.wait(timeout=60)
        return permutations(seeds, purpose, count)

    monkeypatch.setattr(Trainer, "step", short)
    monkeypatch.setattr(random_streams, "permutations", slow)
    monkeypatch.setattr("sweep.training.device_batches._drawing_threads", lambda device: 1)
    monkeypatch.setattr("sweep.training.batch_feed.SEEDS_PER_TASK", 1)
    train(vary(dataclasses.replace(SMALL, steps=2 * ORDER_BLOCK), bias=[True, False] * 2, seed=[0, 0, 1, 1]), GREY)
    assert gone and all(gone)
    [own] = drawers
    for thread in own:
        thread.join(timeout=60)
    assert own and not any(thread.is_alive() for thread in own)
    assert len({seed for thread, seed in drawn if thread in own}) == 1, "nobody ended the drawing"


def test_drawing_ahead_in_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    run = dataclasses.replace(SMALL, width=1, depth=1, dropout=0.1, steps=2 * ORDER_BLOCK + 3)
    runs = vary(run, seed=[3, 0, 0], bias=[True, True, False])
    wanted = results(runs, GREY)
    monkeypatch.setattr("sweep.training.device_batches._drawing_threads", lambda device: 2)
    assert results(runs, GREY) == wanted


def test_cells_that_share_an_array_are_parted_where_one_seed_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = vary(SMALL, learning_rate=[0.1, 0.1, 0.2, 0.2], bias=[True, False] * 2)
    assert _halves(runs) in ([runs[:2], runs[2:]], [runs[2:], runs[:2]])
    assert _halves(runs[:2]) == [runs[:2]]


# No neighbour, no slot


@settings(bounded, max_examples=60)
@given(st.data())
def test_neighbours_and_slots_leave_no_bit_of_a_run_s_result(draw: st.DataObject) -> None:
    common = draw.draw(shapes())
    data = draw.draw(st.sampled_from([GREY, COLOUR]))
    size = draw.draw(st.sampled_from([2, 3, 4, 5, 7, 8, 9]))
    run = draw.draw(runs_of(common))
    arrays, slots, states, outcomes = [], [], [], []
    for _ in range(2):
        arrays.append(draw.draw(st.lists(runs_of(common), min_size=size, max_size=size)))
        slots.append(draw.draw(st.integers(0, size - 1)))
    for array, slot in zip(arrays, slots, strict=True):
        array[slot] = run
        states.append(oracle.fused(trained(array, data), slot))
        outcomes.append(results(array, data)[slot])
    assert_same_bits(*states)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("width", "kernel_size"), [(1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (7, 3), (8, 3), (16, 3), (64, 5), (80, 5)]
)
def test_a_run_has_the_same_bits_in_every_slot(width: int, kernel_size: int, batch_norm: bool) -> None:
    common = dataclasses.replace(SMALL, width=width, kernel_size=kernel_size, batch_norm=batch_norm, steps=4)
    for size in (4, 7):
        outcomes = results([common] * size, GREY)
        assert outcomes == [outcomes[0]] * size


@pytest.mark.parametrize("data", [COLOUR, load("mnist5k")], ids=["colour", "mnist5k"])
@pytest.mark.parametrize("width", [2, 8])
def test_a_neighbour_with_another_input_scaling_leaves_no_bit(width: int, data: Data) -> None:
    run = dataclasses.replace(SMALL, bias_init="uniform", width=width, kernel_size=5)
    alike = results([run, dataclasses.replace(run, seed=1)], data)
    mixed = results([run, dataclasses.replace(run, seed=1, input_scaling="unit")], data)
    assert alike[0] == mixed[0]
    assert alike[1] != mixed[1]


def test_the_same_array_twice_is_the_same_result() -> None:
    runs = vary(SMALL, bias=[True, False, True], seed=[0, 0, 1])
    assert results(runs, GREY) == results(runs, GREY)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_size_of_the_array_changes_no_more_than_rounding(batch_norm: bool) -> None:
    runs = [dataclasses.replace(SMALL, batch_norm=batch_norm, seed=seed, width=4) for seed in range(8)]
    whole = trained(runs, COLOUR)
    for part in (runs[:1], runs[:3]):
        smaller = trained(part, COLOUR)
        for slot in range(len(part)):
            torch.testing.assert_close(oracle.fused(smaller, slot), oracle.fused(whole, slot), rtol=1e-4, atol=1e-5)


def test_no_run_scales_another_s_learning_rate() -> None:
    runs = vary(
        SMALL, seed=range(8), learning_rate=[0.01, 0.02, 0.04, 0.08, 0.1, 0.2, 0.3, 0.4], bias=[True, False] * 4
    )
    whole = trained(runs, GREY, torch.float64)
    for slot, run in enumerate(runs):
        alone = trained([run], GREY, torch.float64)
        torch.testing.assert_close(oracle.fused(alone, 0), oracle.fused(whole, slot), rtol=1e-10, atol=1e-12)


# Pairs


@pytest.mark.parametrize("bias_init", ["zeros", "uniform", "original"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_without_bias_a_convolution_s_bias_stays_exactly_zero(bias_init: str, batch_norm: bool) -> None:
    common = dataclasses.replace(SMALL, depth=3, batch_norm=batch_norm, bias_init=bias_init)
    for biases in ([False], [True, False, True]):
        trainer = trained([dataclasses.replace(common, bias=bias) for bias in biases], GREY)
        for slot, bias in enumerate(biases):
            for layer in range(3):
                assert bool(trainer.model.parameters[f"conv{layer}.bias"][slot].any()) == bias
            for layer in ("hidden", "logits"):
                assert trainer.model.parameters[f"{layer}.bias"][slot].any()


def test_a_pair_sees_the_same_batches_and_another_seed_sees_others() -> None:
    trainer = Trainer(vary(SMALL, bias=[True, False, True], seed=[3, 3, 4]), GREY)
    trainer.batches.send(0)
    order = trainer.batches.order[: trainer.steps].index_select(2, trainer.batches.seed_of_network)
    assert order.shape == (trainer.steps, SMALL.batch_size, 3)
    assert torch.equal(order[..., 0], order[..., 1])
    assert not torch.equal(order[..., 0], order[..., 2])


def test_a_pair_whose_bias_starts_at_zero_parts_with_the_first_update_of_that_bias() -> None:
    trainer = Trainer(vary(SMALL, bias=[True, False]), GREY)
    trainer.step()
    first = trainer.loss_since_last_point()
    with_bias, without = oracle.fused(trainer, 0), oracle.fused(trainer, 1)
    assert first[0] == first[1]
    assert {name for name, value in with_bias.items() if not torch.equal(value, without[name])} == {
        "conv0.bias",
        "conv1.bias",
    }
    trainer.step()
    second = trainer.loss_since_last_point()
    assert second[0] != second[1]


# Runs that diverge


def test_a_diverged_run_is_a_result_and_touches_no_other() -> None:
    runs = [dataclasses.replace(SMALL, seed=seed, bias=seed % 2 == 0, steps=20) for seed in range(5)]
    healthy = results(runs, GREY)
    runs[2] = dataclasses.replace(runs[2], learning_rate=1000.0)
    mixed = results(runs, GREY)
    lost = mixed[2]
    assert (lost.status, lost.test_loss, lost.train_loss) == ("diverged", None, None)
    assert 0 <= lost.test_accuracy <= 1 and 0 <= lost.validation_accuracy <= 1
    assert lost.curve[-1].train_loss is None and 0 <= lost.curve[-1].validation_accuracy <= 1
    assert np.unpackbits(np.frombuffer(lost.test_correct, np.uint8)).sum() == round(lost.test_accuracy * 37)
    assert [outcome.status for outcome in healthy] == ["ok"] * 5
    assert mixed[:2] + mixed[3:] == healthy[:2] + healthy[3:]


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("width", "kernel_size"), [(1, 3), (3, 3), (16, 3), (64, 5)])
def test_weights_that_are_not_finite_stay_with_their_run(
    width: int, kernel_size: int, batch_norm: bool, poison: float
) -> None:
    common = dataclasses.replace(SMALL, width=width, kernel_size=kernel_size, batch_norm=batch_norm)
    runs = [dataclasses.replace(common, seed=s) for s in range(4)]
    healthy, poisoned = Trainer(runs, GREY), Trainer(runs, GREY)
    for name in ("conv0.weight", "conv1.weight", "hidden.weight"):
        with torch.no_grad():
            poisoned.model.parameters[name][1].fill_(poison)
    for _ in range(SMALL.steps):
        healthy.step()
        poisoned.step()
    assert [bool(np.isfinite(loss)) for loss in poisoned.loss_since_last_point()] == [True, False, True, True]
    (right, loss), (expected_right, expected_loss) = (t.evaluator.evaluate(*t.data.test) for t in (poisoned, healthy))
    for slot in (0, 2, 3):
        assert_same_bits(oracle.fused(poisoned, slot), oracle.fused(healthy, slot))
        assert loss[slot] == expected_loss[slot] and (right[slot] == expected_right[slot]).all()


def test_a_run_that_was_once_not_finite_has_diverged_however_it_ends() -> None:
    trainer = Trainer([dataclasses.replace(SMALL, seed=seed) for seed in range(3)], GREY)
    for step, loss in enumerate((float("inf"), 0.5), start=1):
        trainer.losses.loss_sum[0], trainer.progress.since_point = torch.tensor([loss, 0.25, 0.25]), 1
        trainer.progress.points.append(CurvePoint(step, trainer.loss_since_last_point(), np.full(3, 0.5)))
    trainer.losses.last_loss_sum[:] = 0.25 * (trainer.steps - trainer.losses.last_tenth)
    right, test_loss = np.ones((3, 8), dtype=bool), np.array([0.1, 0.1, np.nan])
    first, second, third = trainer.outcomes(right, right, test_loss, 1.0)
    assert (first.status, first.train_loss, first.test_loss) == ("diverged", None, None)
    assert [point.train_loss for point in first.curve] == [None, 0.5]
    assert (second.status, second.train_loss, second.test_loss) == ("ok", 0.25, 0.1)
    assert (third.status, third.train_loss, third.test_loss, third.test_accuracy) == ("diverged", None, None, 1.0)


# Outcomes and curves


@pytest.mark.parametrize(
    ("steps", "every", "points"),
    [
        (25, 10, [10, 20, 25]),
        (20, 10, [10, 20]),
        (25, None, [3, 6, 9, 12, 15, 18, 21, 24, 25]),
        (7, None, [1, 2, 3, 4, 5, 6, 7]),
        (40, None, [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]),
        (3, 100, [3]),
        (1, None, [1]),
    ],
)
def test_the_curve_has_a_point_every_so_many_steps_and_one_at_the_end(
    steps: int, every: int | None, points: list[int]
) -> None:
    [outcome] = train([dataclasses.replace(SMALL, steps=steps, evaluate_every=every)], GREY)
    assert [point.step for point in outcome.curve] == points


def test_the_outcome_is_what_the_plain_network_gives() -> None:
    run = dataclasses.replace(SMALL, steps=25, evaluate_every=10, batch_norm=True)
    [_, outcome] = train([dataclasses.replace(run, seed=8), run], COLOUR)
    alone = oracle.train(run, COLOUR)
    losses = [np.mean(alone.losses[start : start + 10]) for start in (0, 10, 20)]
    correct, test_loss = oracle.evaluate(run, COLOUR, alone.network, COLOUR.test)
    held_out, _ = oracle.evaluate(run, COLOUR, alone.network, COLOUR.validation)
    assert [point.train_loss for point in outcome.curve] == pytest.approx(losses, rel=1e-4)
    # The last of ten intervals of three steps, which holds one step alone.
    assert outcome.train_loss == pytest.approx(alone.losses[24], rel=1e-4)
    assert outcome.test_loss == pytest.approx(test_loss, rel=1e-4)
    assert outcome.test_correct == np.packbits(correct).tobytes()
    assert outcome.test_accuracy == correct.mean() and outcome.validation_accuracy == held_out.mean()
    assert outcome.parameters == sum(p.numel() for p in alone.network.parameters())


@pytest.mark.parametrize("batch_norm", [False, True])
def test_looking_more_often_changes_nothing_but_the_curve(batch_norm: bool) -> None:
    runs = vary(dataclasses.replace(SMALL, steps=12, batch_norm=batch_norm), bias=[True, False])

    def outcomes(every: int | None) -> list[Outcome]:
        looked = results([dataclasses.replace(run, evaluate_every=every) for run in runs], GREY)
        return [dataclasses.replace(outcome, curve=()) for outcome in looked]

    assert outcomes(None) == outcomes(1) == outcomes(5) == outcomes(100)


@settings(bounded, max_examples=60)
@given(steps=st.integers(1, 5000), batch_size=st.integers(1, 40), every=st.none() | st.integers(1, 6000))
def test_the_curve_costs_at_most_its_share_and_uses_it(steps: int, batch_size: int, every: int | None) -> None:
    run = dataclasses.replace(SMALL, steps=steps, batch_size=batch_size, evaluate_every=every)
    points = len({*range(run.curve_interval, steps + 1, run.curve_interval), steps})
    share = CURVE_COST * 3 * steps * batch_size
    pictures = curve_examples(run, 500)
    assert 1 <= pictures <= 500
    assert pictures == 1 or pictures * points <= share
    assert pictures == 500 or (pictures + 1) * points > share


def test_a_point_of_the_curve_is_the_accuracy_on_the_first_validation_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = trained([SMALL, dataclasses.replace(SMALL, seed=1)], GREY)
    right, _ = trainer.evaluator.evaluate(*trainer.data.validation)
    monkeypatch.setattr("sweep.training.evaluation.curve_examples", lambda run, available: 11)
    assert trainer.evaluator.curve_accuracy().tolist() == right[:, :11].mean(axis=1).tolist()


def test_evaluation_in_pieces_is_evaluation_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trained(vary(SMALL, input_scaling=["unit", "centered"]), COLOUR)
    right, loss = trainer.evaluator.evaluate(*trainer.data.test)
    for numbers in (1, 1000):
        monkeypatch.setitem(EVALUATION_NUMBERS, "cpu", numbers)
        in_pieces, pieces_loss = trainer.evaluator.evaluate(*trainer.data.test)
        assert (in_pieces == right).all()
        np.testing.assert_allclose(pieces_loss, loss, rtol=1e-5)


def test_every_step_of_a_run_longer_than_a_block_sees_its_own_batch() -> None:
    run = dataclasses.replace(SMALL, width=1, depth=1, hidden=0, steps=2 * ORDER_BLOCK + 3, learning_rate=0.01)
    assert_fused_is_unfused([run, dataclasses.replace(run, seed=5)], GREY)


def test_ticks_come_at_every_point_and_after_every_block_of_batches() -> None:
    ticks: list[int] = []
    run = dataclasses.replace(SMALL, width=1, depth=1, steps=300, evaluate_every=200)
    train([run], GREY, tick=ticks.append)
    assert ticks == [128, 200, 256, 300]


# The data on a device


def test_a_data_set_stays_on_its_device_from_one_array_to_the_next_and_is_not_copied_on_a_cpu() -> None:
    data, other_split = load("mnist5k"), load("mnist5k", 1)
    runs = [(Run(width=1, steps=1), data), (Run(width=2, train_examples=50), data), (Run(split=1), other_split)]
    trainers = [Trainer([run], each) for run, each in runs]
    assert trainers[0].data is trainers[1].data
    places = {trainer.data.pictures.data_ptr() for trainer in trainers}
    assert places == {data.pool.pictures.ctypes.data}


def test_pictures_out_of_shared_memory_need_not_be_writable() -> None:
    frozen = Pool(GREY.pool.pictures.copy(), GREY.pool.labels.copy(), GREY.pool.class_names)
    frozen.pictures.flags.writeable = frozen.labels.flags.writeable = False
    runs = vary(SMALL, seed=[0, 1])
    assert results(runs, dataclasses.replace(GREY, pool=frozen)) == results(runs, GREY)


@pytest.mark.parametrize("examples", [None, 7])
@pytest.mark.parametrize("data", [GREY, COLOUR], ids=["grey", "colour"])
def test_standardizing_uses_the_exact_moments_of_the_training_pictures_in_use(examples: int | None, data: Data) -> None:
    scaled = data.train[0][:examples] / 255
    mean, deviation = DeviceData(data, "cpu").moments(examples or len(data.train[1]))
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(deviation, scaled.std(axis=(0, 2, 3)), rtol=1e-12)
