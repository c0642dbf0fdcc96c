"""Linear layers of all runs; a step of SGD can be taken where the weights' gradient is computed."""

from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from sweep.networks.conv.kernels.memory import check_size, relu_backward
from sweep.networks.conv.kernels.products import Precision, multiply_add
from sweep.networks.conv.kernels.tiles import Tile
from sweep.networks.conv.kernels.updates import SgdStep, sgd_step


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    relu: bool,
    precision: Precision,
    *,
    rectified: bool = False,
    masked: bool = False,
    step: SgdStep | None = None,
) -> torch.Tensor:
    """Every run's `[pictures, inputs]` times its own weights, plus its biases, followed by ReLU if `relu`.

    `x` is `[runs, pictures, inputs]`, `weight` `[runs, inputs, units]`, `bias` `[runs, units]`; inputs and units are
    multiples of 16. Precision, `rectified` and `masked` are as in `convolution`. The backward pass takes the `step`, if
    given: it changes the weights in place once it has used them, and returns no gradient for them.
    """
    runs, inputs, units = weight.shape
    assert x.dtype == weight.dtype == bias.dtype == torch.float32 and weight.is_contiguous()
    assert inputs % 16 == 0 and units % 16 == 0 and bias.shape == (runs, units)
    assert x.dim() == 3 and x.shape[0] == runs and x.shape[2] == inputs
    y: torch.Tensor = _Linear.apply(x, weight, bias, relu, precision, rectified, masked, step)
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        relu: bool,
        precision: Precision,
        rectified: bool,
        masked: bool,
        step: SgdStep | None,
    ) -> torch.Tensor:
        runs, inputs, units = weight.shape
        x = x.contiguous()
        pictures = x.shape[1]
        check_size(pictures * max(inputs, units), inputs * units)
        y = x.new_empty(runs, pictures, units)
        tile = Tile(_rows(pictures), _dividing(units), _dividing(inputs, 32))
        _linear_forward[units // tile.columns, triton.cdiv(pictures, tile.rows), runs](
            x,
            weight,
            bias.contiguous(),
            y,
            pictures,
            INPUTS=inputs,
            UNITS=units,
            RELU=relu,
            PRECISION=precision,
            **tile.launch(),
        )
        # Not by save_for_backward, which would report a step in place as an error.
        ctx.weight, ctx.step = weight, step
        ctx.save_for_backward(x, *([y] if relu and not masked else []))
        ctx.settings = precision, rectified
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *ys = ctx.saved_tensors
        weight, step = ctx.weight, ctx.step
        precision, rectified = ctx.settings
        gradient = relu_backward(gradient, *ys).contiguous()
        runs, pictures, inputs = x.shape
        units = weight.shape[2]
        shape = {"INPUTS": inputs, "UNITS": units, "PRECISION": precision}
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.empty_like(x)
            tile = Tile(_rows(pictures), _dividing(inputs), _dividing(units, 32))
            _linear_input[inputs // tile.columns, triton.cdiv(pictures, tile.rows), runs](
                gradient, weight, x, x_gradient, pictures, RECTIFIED=rectified, **shape, **tile.launch()
            )
        if step is None:
            weight_gradient = torch.empty_like(weight)
            target = weight_gradient, None, None, None, None
        else:
            target = weight, step.velocity, step.rate, step.momentum, step.decay
        bias_gradient = gradient.new_empty(runs, units)
        tile = Tile(_dividing(inputs), _dividing(units), 16 if pictures <= 16 else 32)
        _linear_weight[inputs // tile.rows, units // tile.columns, runs](
            gradient, x, bias_gradient, *target, PICTURES=pictures, **shape, **tile.launch()
        )
        return x_gradient, weight_gradient, bias_gradient, *[None] * 5


def _rows(pictures: int) -> int:
    """Never 64, which uses another instruction: the last batch of an evaluation has fewer pictures than the others."""
    return 16 if pictures <= 16 else 32


def _dividing(count: int, most: int = 64) -> int:
    """The widest tile that divides a multiple of 16."""
    return next(size for size in (64, 32, 16) if size <= most and count % size == 0)


@triton.jit(do_not_specialize=["pictures"])  # type: ignore[untyped-decorator]
def _linear_forward(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    pictures: tl.tensor,
    INPUTS: tl.constexpr,
    UNITS: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """One tile of pictures x units, of one run."""
    run = tl.program_id(2).to(tl.int64)
    unit = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    picture = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    real = (picture < pictures)[:, None]
    x += run * pictures * INPUTS
    weight += run * (INPUTS * UNITS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, INPUTS, DEPTH):
        term = first + tl.arange(0, DEPTH)
        a = tl.load(x + (picture[:, None] * INPUTS + term[None, :]), mask=real, other=0.0)
        b = tl.load(weight + (term[:, None] * UNITS + unit[None, :]))
        total = multiply_add(a, b, total, PRECISION)
    total += tl.load(bias + run * UNITS + unit)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # not a maximum: NaN stays NaN
    tl.store(y + run * pictures * UNITS + (picture[:, None] * UNITS + unit[None, :]), total, mask=real)


@triton.jit(do_not_specialize=["pictures"])  # type: ignore[untyped-decorator]
def _linear_input(
    gradient: tl.tensor,
    weight: tl.tensor,
    x: tl.tensor,
    x_gradient: tl.tensor,
    pictures: tl.tensor,
    RECTIFIED: tl.constexpr,
    INPUTS: tl.constexpr,
    UNITS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """One tile of pictures x inputs, of one run."""
    run = tl.program_id(2).to(tl.int64)
    term = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    picture = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    real = (picture < pictures)[:, None]
    gradient += run * pictures * UNITS
    weight += run * (INPUTS * UNITS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, UNITS, DEPTH):
        unit = first + tl.arange(0, DEPTH)
        a = tl.load(gradient + (picture[:, None] * UNITS + unit[None, :]), mask=real, other=0.0)
        b = tl.load(weight + (unit[:, None] + term[None, :] * UNITS))
        total = multiply_add(a, b, total, PRECISION)
    offset = run * pictures * INPUTS + (picture[:, None] * INPUTS + term[None, :])
    if RECTIFIED:
        total = tl.where(tl.load(x + offset, mask=real, other=0.0) <= 0, 0.0, total)
    tl.store(x_gradient + offset, total, mask=real)


@triton.jit  # type: ignore[untyped-decorator]
def _linear_weight(
    gradient: tl.tensor,
    x: tl.tensor,
    bias_gradient: tl.tensor,
    weight: tl.tensor,
    velocity: tl.tensor,
    rate: tl.tensor,
    momentum: tl.tensor,
    decay: tl.tensor,
    PICTURES: tl.constexpr,
    INPUTS: tl.constexpr,
    UNITS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """One tile of inputs x units of one run: its gradient or, given a `rate`, the step of the weights.

    The programs of the first inputs also sum the gradient itself, in float32, which gives the gradient of the biases.
    """
    run = tl.program_id(2).to(tl.int64)
    term = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    unit = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    gradient += run * (PICTURES * UNITS)
    x += run * (PICTURES * INPUTS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    bias_total = tl.zeros([DEPTH, COLUMNS], tl.float32)
    for first in range(0, PICTURES, DEPTH):
        picture = first + tl.arange(0, DEPTH)
        real = picture < PICTURES
        a = tl.load(x + (term[:, None] + picture[None, :] * INPUTS), mask=real[None, :], other=0.0)
        b = tl.load(gradient + (picture[:, None] * UNITS + unit[None, :]), mask=real[:, None], other=0.0)
        total = multiply_add(a, b, total, PRECISION)
        bias_total += b
    offset = run * (INPUTS * UNITS) + (term[:, None] * UNITS + unit[None, :])
    if rate is None:
        tl.store(weight + offset, total)
    else:
        sgd_step(weight, velocity, total, rate + run, momentum + run, decay + run, offset, offset >= 0)
    if tl.program_id(0) == 0:
        tl.store(bias_gradient + run * UNITS + unit, tl.sum(bias_total, 0))
