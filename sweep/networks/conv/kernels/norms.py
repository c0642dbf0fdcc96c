"""Batch normalization of each run by itself."""

from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from sweep.networks.conv.kernels.memory import activations, check_size, in_memory
from sweep.networks.conv.shape import NORM_EPSILON, NORM_MOMENTUM


def batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    runs: int,
    training: bool,
    relu: bool,
) -> torch.Tensor:
    """PyTorch's batch normalization, of each run's channels alone, followed by ReLU if `relu`.

    `x` is `[runs x pictures, channels, height, width]`, the rest `[runs, channels]`. In training the running `mean` and
    `variance` are updated in place. Raises ValueError in training on a single number per channel, as PyTorch does.
    """
    assert x.dtype == torch.float32 and x.shape[0] % runs == 0
    assert all(part.shape == (runs, x.shape[1]) for part in (weight, bias, mean, variance))
    assert mean.is_contiguous() and variance.is_contiguous(), "updated in place"
    if training and x.shape[0] // runs * x.shape[2] * x.shape[3] == 1:
        raise ValueError("batch norm needs more than one number per channel in training")
    y: torch.Tensor = _BatchNorm.apply(x, weight, bias, mean, variance, runs, training, relu)
    return y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        runs: int,
        training: bool,
        relu: bool,
    ) -> torch.Tensor:
        y = activations(x, *x.shape)
        center, scale = torch.empty_like(mean), torch.empty_like(mean)
        grid, launch = _norm_launch(x, runs)
        _norm_forward[grid](
            in_memory(x),
            weight.contiguous(),
            bias.contiguous(),
            mean,
            variance,
            y,
            center,
            scale,
            EPSILON=NORM_EPSILON,
            MOMENTUM=NORM_MOMENTUM,
            TRAINING=training,
            RELU=relu,
            **launch,
        )
        ctx.save_for_backward(x, weight, center, scale, *([y] if relu else []))
        ctx.settings = runs, training, relu
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, center, scale, *ys = ctx.saved_tensors
        runs, training, relu = ctx.settings
        x_gradient = activations(x, *x.shape)
        weight_gradient, bias_gradient = torch.empty_like(center), torch.empty_like(center)
        memory = in_memory(gradient)
        grid, launch = _norm_launch(x, runs)
        _norm_backward[grid](
            memory,
            in_memory(ys[0]) if relu else memory,  # without ReLU the kernel does not read it
            in_memory(x),
            weight.contiguous(),
            center,
            scale,
            x_gradient,
            weight_gradient,
            bias_gradient,
            TRAINING=training,
            RELU=relu,
            **launch,
        )
        return x_gradient, weight_gradient, bias_gradient, None, None, None, None, None


def _norm_launch(x: torch.Tensor, runs: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid and sizes of batch norm's kernels; 8 channels at a time, since memory is read 32 bytes at a time."""
    pixels, channels = x.shape[0] // runs * x.shape[2] * x.shape[3], x.shape[1]
    check_size(pixels * channels)
    columns = min(8, triton.next_power_of_2(channels))
    rows = min(4096 // columns, max(32, triton.next_power_of_2(pixels)))
    warps = max(1, rows * columns // 512)
    sizes = {"pixels": pixels, "CHANNELS": channels, "ROWS": rows, "COLUMNS": columns, "num_warps": warps}
    return (triton.cdiv(channels, columns), runs), sizes


@triton.jit  # type: ignore[untyped-decorator]
def _norm_forward(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    mean: tl.tensor,
    variance: tl.tensor,
    y: tl.tensor,
    center: tl.tensor,
    scale: tl.tensor,
    pixels: tl.tensor,
    EPSILON: tl.constexpr,
    MOMENTUM: tl.constexpr,
    CHANNELS: tl.constexpr,
    TRAINING: tl.constexpr,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Some channels of one run. `center` and `scale` keep the mean and the scale for the backward pass."""
    run = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    real = channel < CHANNELS
    x += run * pixels * CHANNELS
    y += run * pixels * CHANNELS
    slot = run * CHANNELS + channel
    if TRAINING:
        sums = tl.zeros([ROWS, COLUMNS], tl.float32)
        for start in range(0, pixels, ROWS):
            pixel = start + tl.arange(0, ROWS)
            kept = (pixel < pixels)[:, None] & real[None, :]
            sums += tl.load(x + (pixel[:, None] * CHANNELS + channel[None, :]), mask=kept, other=0.0)
        m = tl.sum(sums, 0) / pixels
        squares = tl.zeros([ROWS, COLUMNS], tl.float32)
        for start in range(0, pixels, ROWS):
            pixel = start + tl.arange(0, ROWS)
            kept = (pixel < pixels)[:, None] & real[None, :]
            value = tl.load(x + (pixel[:, None] * CHANNELS + channel[None, :]), mask=kept, other=0.0)
            distance = tl.where(kept, value - m[None, :], 0.0)
            squares += distance * distance
        square_sum = tl.sum(squares, 0)
        v = square_sum / pixels
        old = tl.load(mean + slot, mask=real, other=0.0)
        tl.store(mean + slot, (1 - MOMENTUM) * old + MOMENTUM * m, mask=real)
        old = tl.load(variance + slot, mask=real, other=0.0)
        tl.store(variance + slot, (1 - MOMENTUM) * old + MOMENTUM * (square_sum / (pixels - 1)), mask=real)
    else:
        m = tl.load(mean + slot, mask=real, other=0.0)
        v = tl.load(variance + slot, mask=real, other=0.0)
    s = 1 / tl.sqrt(v + EPSILON)
    tl.store(center + slot, m, mask=real)
    tl.store(scale + slot, s, mask=real)
    factor = s * tl.load(weight + slot, mask=real, other=0.0)
    offset = tl.load(bias + slot, mask=real, other=0.0)
    for start in range(0, pixels, ROWS):
        pixel = start + tl.arange(0, ROWS)
        kept = (pixel < pixels)[:, None] & real[None, :]
        value = tl.load(x + (pixel[:, None] * CHANNELS + channel[None, :]), mask=kept, other=0.0)
        value = (value - m[None, :]) * factor[None, :] + offset[None, :]
        if RELU:
            value = tl.where(value < 0, 0.0, value)  # not a maximum: NaN stays NaN
        tl.store(y + (pixel[:, None] * CHANNELS + channel[None, :]), value, mask=kept)


@triton.jit  # type: ignore[untyped-decorator]
def _norm_backward(
    gradient: tl.tensor,
    y: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    center: tl.tensor,
    scale: tl.tensor,
    x_gradient: tl.tensor,
    weight_gradient: tl.tensor,
    bias_gradient: tl.tensor,
    pixels: tl.tensor,
    CHANNELS: tl.constexpr,
    TRAINING: tl.constexpr,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Some channels of one run; in training, the mean and the variance depend on `x` too."""
    run = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    real = channel < CHANNELS
    gradient += run * pixels * CHANNELS
    y += run * pixels * CHANNELS
    x += run * pixels * CHANNELS
    x_gradient += run * pixels * CHANNELS
    slot = run * CHANNELS + channel
    m = tl.load(center + slot, mask=real, other=0.0)[None, :]
    s = tl.load(scale + slot, mask=real, other=0.0)[None, :]
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    products = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, pixels, ROWS):
        pixel = start + tl.arange(0, ROWS)
        kept = (pixel < pixels)[:, None] & real[None, :]
        offset = pixel[:, None] * CHANNELS + channel[None, :]
        g = tl.load(gradient + offset, mask=kept, other=0.0)
        if RELU:
            g = tl.where(tl.load(y + offset, mask=kept, other=0.0) <= 0, 0.0, g)
        value = tl.load(x + offset, mask=kept, other=0.0)
        sums += g
        products += tl.where(kept, g * ((value - m) * s), 0.0)
    g_sum = tl.sum(sums, 0)
    product_sum = tl.sum(products, 0)
    tl.store(bias_gradient + slot, g_sum, mask=real)
    tl.store(weight_gradient + slot, product_sum, mask=real)
    factor = s * tl.load(weight + slot, mask=real, other=0.0)[None, :]
    g_mean = (g_sum / pixels)[None, :]
    product_mean = (product_sum / pixels)[None, :]
    for start in range(0, pixels, ROWS):
        pixel = start + tl.arange(0, ROWS)
        kept = (pixel < pixels)[:, None] & real[None, :]
        offset = pixel[:, None] * CHANNELS + channel[None, :]
        g = tl.load(gradient + offset, mask=kept, other=0.0)
        if RELU:
            g = tl.where(tl.load(y + offset, mask=kept, other=0.0) <= 0, 0.0, g)
        if TRAINING:
            value = tl.load(x + offset, mask=kept, other=0.0)
            g = g - g_mean - (value - m) * s * product_mean
        tl.store(x_gradient + offset, g * factor, mask=kept)
