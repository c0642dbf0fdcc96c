"""A convolution with fewer products is the same convolution, and is taken where `takes` says and nowhere else."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle

from sweep.data.splits import Data
from sweep.networks.conv import winograd
from sweep.networks.conv.shape import Shape
from sweep.space.runs import Run
from sweep.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = oracle.synthetic(channels=3, height=22, width=12)  # the second convolution sees 11 x 6 pixels
WIDE = Run(width=64, hidden=5, batch_size=5, steps=4, bias_init="uniform")

Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("taps", [2, 3])
@pytest.mark.parametrize("outputs", range(1, winograd.ROWS + 1))
def test_a_minimal_filter_is_the_convolution_with_fewer_products(outputs: int, taps: int) -> None:
    points = winograd.EVEN if taps == 3 else winograd.ODD
    of_input, of_kernel, to_output = winograd.minimal_filter(outputs, taps, points)
    assert len(of_input) == len(of_kernel) == to_output.shape[1] == outputs + taps - 1
    random = np.random.default_rng(outputs)
    column, kernel = random.normal(size=outputs + taps - 1), random.normal(size=taps)
    found = to_output @ ((of_kernel @ kernel) * (of_input @ column))
    np.testing.assert_allclose(found, np.correlate(column, kernel, "valid"), rtol=0, atol=1e-13)


def test_a_filter_of_more_outputs_than_points_is_refused() -> None:
    with pytest.raises(AssertionError, match="too few points"):
        winograd.minimal_filter(winograd.ROWS + 1, 3, winograd.EVEN)


def plain(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    filters = weight.permute(0, 4, 3, 1, 2).flatten(0, 1)
    return F.conv2d(x, filters, bias.flatten(), 2, 2, 1, len(weight))


def gradients(y: torch.Tensor, parts: Parts, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The result and the gradients of what it was made of, behind a ReLU in place as the network has it."""
    y = torch.relu_(y)
    return y, *torch.autograd.grad(y, parts, gradient)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    runs=st.integers(1, 3),
    pictures=st.integers(1, 5),
    inputs=st.sampled_from([64, 80]),
    outputs=st.sampled_from([64, 96]),
    height=st.integers(1, 2 * winograd.ROWS),
    columns=st.integers(1, 8),
)
def test_the_convolution_and_its_gradients_are_pytorch_s(
    runs: int, pictures: int, inputs: int, outputs: int, height: int, columns: int
) -> None:
    size = height, 2 * columns
    assert winograd.takes(inputs, outputs, 5, 2, size)
    torch.manual_seed(height)
    x = torch.randn(pictures, runs * inputs, *size).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(runs, 5, 5, inputs, outputs) / 40, torch.randn(runs, outputs)
    exact = [part.double().requires_grad_() for part in (x, weight, bias)]
    y = plain(exact[0], exact[1], exact[2])
    gradient = torch.randn(y.shape)
    wanted = gradients(y, (exact[0], exact[1], exact[2]), gradient.double())
    # A unit within rounding of zero may be on in one of the two: in float32, norms are compared with room for one.
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        parts = [part.to(dtype).requires_grad_() for part in (x, weight, bias)]
        y = winograd.convolution(parts[0], parts[1], parts[2])
        assert y.permute(0, 2, 3, 1).is_contiguous()
        found = gradients(y, (parts[0], parts[1], parts[2]), gradient.to(dtype))
        for one, other in zip(found, wanted, strict=True):
            assert one.shape == other.shape
            assert (one - other).norm() <= bound * other.norm()


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (26, 28)])
def test_float32_rounds_within_its_bound_beside_pytorch_s_own(size: tuple[int, int]) -> None:
    height, width = (side // 2 for side in size)
    torch.manual_seed(0)
    x = torch.randn(16, 128, height, width).relu_().to(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, 5, 5, 64, 64) / 40, torch.randn(2, 64)
    exact = plain(x.double(), weight.double(), bias.double())
    for found, bound in ((plain(x, weight, bias), 1e-6), (winograd.convolution(x, weight, bias), 5e-6)):
        assert 1e-8 < (found - exact).norm() / exact.norm() < bound


@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({}, True),
        ({"inputs": 48}, False),
        ({"outputs": 48}, False),
        ({"inputs": 72}, False),
        ({"outputs": 528}, False),
        ({"inputs": 512, "outputs": 512}, True),
        ({"side": 3}, False),
        ({"stride": 1}, False),
        ({"size": (16, 2)}, True),
        ({"size": (17, 14)}, False),
        ({"size": (13, 14)}, True),
        ({"size": (14, 13)}, False),
    ],
    ids=str,
)
def test_it_is_taken_where_it_pays(changed: dict[str, Any], taken: bool) -> None:
    usual: dict[str, Any] = {"inputs": 64, "outputs": 64, "side": 5, "stride": 2, "size": (14, 14)}
    assert winograd.takes(**(usual | changed)) == taken


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The weights' shape of every convolution that is computed this way."""
    seen: list[tuple[int, ...]] = []
    convolution = winograd.convolution

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        assert weight.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        seen.append(tuple(weight.shape))
        return convolution(x, weight, bias)

    monkeypatch.setattr(winograd, "convolution", counted)
    return seen


@pytest.mark.parametrize(
    ("run", "data", "layers"),
    [
        (WIDE, DATA, 1),
        (dataclasses.replace(WIDE, depth=4), DATA, 1),
        (dataclasses.replace(WIDE, width=48), DATA, 0),
        (dataclasses.replace(WIDE, pooling="max"), DATA, 0),
        (dataclasses.replace(WIDE, kernel_size=3), DATA, 0),
        (WIDE, oracle.synthetic(height=12, width=9), 0),  # five columns
        (dataclasses.replace(WIDE, precision="bfloat16"), DATA, 0),
        (dataclasses.replace(WIDE, precision="tf32"), DATA, 0),
    ],
    ids=["wide", "deep", "narrow", "pooled", "small kernels", "odd", "bfloat16", "tf32"],
)
def test_a_network_computes_these_layers_of_its_own_this_way(
    run: Run, data: Data, layers: int, calls: list[tuple[int, ...]]
) -> None:
    trainer = Trainer([run, dataclasses.replace(run, bias=False)], data)
    trainer.step()
    assert calls == [(2, 5, 5, 64, 64)] * layers
    trainer.evaluator.evaluate(*trainer.data.test)
    assert len(calls) == 2 * layers


def test_a_convolution_s_input_is_as_large_as_the_network_s_passes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for run in [Run(depth=4, width=2, pooling=pooling) for pooling in ("stride", "max", "average", "none")]:
        for data in (DATA, oracle.synthetic(height=13, width=9)):
            seen: list[tuple[int, ...]] = []
            convolution = F.conv2d

            def watched(x: torch.Tensor, *rest: Any, seen: Any = seen, convolution: Any = convolution) -> torch.Tensor:
                seen.append(tuple(x.shape[2:]))
                y: torch.Tensor = convolution(x, *rest)
                return y

            with monkeypatch.context() as patched:
                patched.setattr(F, "conv2d", watched)
                Trainer([run], data).step()
            shape = Shape.of(run, data.picture_shape, data.classes)
            assert seen == [shape.input_size(layer) for layer in range(4)], run
