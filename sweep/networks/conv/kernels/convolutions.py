"""Convolutions of all runs: implicit matrix products over the taps, one program per tile of one run."""

from typing import Any, Final

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from sweep.networks.conv.kernels.memory import BLOCK, activations, check_size, in_memory, relu_backward
from sweep.networks.conv.kernels.products import Precision, multiply_add
from sweep.networks.conv.kernels.tiles import PIXELS_PER_STEP, pixel_blocks, pixel_tile, weight_tile

SPLIT_PIXELS: Final = 1024
"""About how many output pixels one program of the weight gradient sums over; more are split among programs."""


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    stride: int,
    relu: bool,
    precision: Precision,
    *,
    padded: bool = False,
    rectified: bool = False,
    masked: bool = False,
) -> torch.Tensor:
    """Every run's pictures convolved with its own filters, plus its biases, followed by ReLU if `relu`.

    `x` is `[runs x pictures, inputs, height, width]`, `weight` `[runs, side, side, inputs, outputs]` with an odd side,
    `bias` `[runs, outputs]`, `stride` 1 or 2. Zeros pad the pictures by `side // 2`; if `padded`, they are there
    already, all numbers are finite, and `x` has no gradient. Returns
    `[runs x pictures, outputs, height / stride, width / stride]` of the height and width without padding, rounded up.

    The multiplications are float32 (by three of TF32 each), TF32 or bfloat16, the sums always float32.

    A ReLU's backward pass is part of the kernel that writes its gradient: `rectified` says that `x` is the output of a
    ReLU, so its gradient must be zero where `x` is, and `masked` that the next layer does the same for this result.
    """
    assert x.dtype == weight.dtype == bias.dtype == torch.float32
    runs, side, _, inputs, outputs = weight.shape
    assert side % 2 == 1 and weight.shape[2] == side and x.shape[1] == inputs and bias.shape == (runs, outputs)
    assert stride in (1, 2) and x.shape[0] % runs == 0 and not (padded and x.requires_grad)
    y: torch.Tensor = _Convolution.apply(x, weight, bias, stride, relu, precision, padded, rectified, masked)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        relu: bool,
        precision: Precision,
        padded: bool,
        rectified: bool,
        masked: bool,
    ) -> torch.Tensor:
        runs, side, _, inputs, outputs = weight.shape
        pictures = x.shape[0] // runs
        height, width = (size - 2 * (side // 2) * padded for size in x.shape[2:])
        y = activations(x, runs * pictures, outputs, -(-height // stride), -(-width // stride))
        rows = pictures * y.shape[2] * y.shape[3]
        check_size(rows * outputs, pictures * x[0].numel())
        tile = pixel_tile(outputs, inputs, side**2)
        _convolution_forward[triton.cdiv(rows, tile.rows), triton.cdiv(outputs, tile.columns), runs](
            in_memory(x),
            weight.contiguous(),
            bias.contiguous(),
            y,
            pictures,
            HEIGHT=height,
            WIDTH=width,
            INPUTS=inputs,
            OUTPUTS=outputs,
            SIDE=side,
            STRIDE=stride,
            RELU=relu,
            PADDED=padded,
            PRECISION=precision,
            FLAT=tile.flat,
            **tile.launch(),
        )
        ctx.save_for_backward(x, weight, *([y] if relu and not masked else []))
        ctx.settings = stride, precision, padded, rectified
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, *ys = ctx.saved_tensors
        stride, precision, padded, rectified = ctx.settings
        memory = in_memory(relu_backward(gradient, *ys))
        x_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = _input_gradient(memory, x, weight, stride, rectified, precision)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            weight_gradient, bias_gradient = _weight_gradient(memory, x, weight, stride, precision, padded)
        return x_gradient, weight_gradient, bias_gradient, *[None] * 6


def _input_gradient(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: int,
    rectified: bool,
    precision: Precision,
) -> torch.Tensor:
    """Gradient of `x`; `gradient` is `[runs x pictures, height, width, outputs]`, contiguous."""
    runs, side, _, inputs, outputs = weight.shape
    pictures, (height, width) = x.shape[0] // runs, x.shape[2:]
    x_gradient = activations(x, *x.shape)
    rows = pictures * -(-height // stride) * -(-width // stride)
    tile = pixel_tile(inputs, outputs, (-(-side // stride)) ** 2)
    _convolution_input[triton.cdiv(rows, tile.rows), triton.cdiv(inputs, tile.columns), runs](
        gradient,
        in_memory(x),
        weight.contiguous(),
        x_gradient,
        pictures,
        HEIGHT=height,
        WIDTH=width,
        INPUTS=inputs,
        OUTPUTS=outputs,
        SIDE=side,
        STRIDE=stride,
        RECTIFIED=rectified,
        PRECISION=precision,
        FLAT=tile.flat,
        **tile.launch(),
    )
    return x_gradient


def _weight_gradient(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: int,
    precision: Precision,
    padded: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of weights and biases; `gradient` is `[runs x pictures, height, width, outputs]`, contiguous.

    Many pixels are split into parts, whose sums are then added in a fixed order.
    """
    runs, side, _, inputs, outputs = weight.shape
    pictures = x.shape[0] // runs
    height, width = (size - 2 * (side // 2) * padded for size in x.shape[2:])
    group, blocks = pixel_blocks(gradient.shape[1] * gradient.shape[2], pictures)
    groups = triton.cdiv(pictures, group)
    blocks_each = max(1, SPLIT_PIXELS // (groups * PIXELS_PER_STEP))
    splits = triton.cdiv(blocks, blocks_each)
    weight_gradient = torch.empty_like(weight, memory_format=torch.contiguous_format)
    bias_gradient = weight.new_empty(runs, outputs)
    weights = side**2 * inputs * outputs
    weight_parts, bias_parts, weight_step, bias_step = weight_gradient, bias_gradient, weights, outputs
    check_size(splits * (weights + outputs))
    if splits > 1:
        weight_parts = weight.new_empty(runs, splits, weights + outputs)
        bias_parts = weight_parts[..., weights:]
        weight_step = bias_step = weights + outputs
    tile = weight_tile(outputs, side**2 * inputs)
    rows = triton.cdiv(outputs, tile.rows)
    _convolution_weight[triton.cdiv(side**2 * inputs, tile.columns), rows * splits, runs](
        gradient,
        in_memory(x),
        weight_parts,
        bias_parts,
        weight_step,
        bias_step,
        PICTURES=pictures,
        GROUP=group,
        BLOCKS=blocks,
        BLOCKS_EACH=blocks_each,
        HEIGHT=height,
        WIDTH=width,
        INPUTS=inputs,
        OUTPUTS=outputs,
        SIDE=side,
        STRIDE=stride,
        PADDED=padded,
        PRECISION=precision,
        **tile.launch(),
    )
    if splits > 1:
        _add_parts[triton.cdiv(weights + outputs, BLOCK), runs](
            weight_parts, weight_gradient, bias_gradient, splits, WEIGHTS=weights, OUTPUTS=outputs, BLOCK=BLOCK
        )
    return weight_gradient, bias_gradient


@triton.jit(do_not_specialize=["pictures"])  # type: ignore[untyped-decorator]
def _convolution_forward(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    pictures: tl.tensor,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    RELU: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    FLAT: tl.constexpr,
) -> None:
    """One tile of output pixels x filters, of one run."""
    OUT_HEIGHT: tl.constexpr = (HEIGHT + STRIDE - 1) // STRIDE
    OUT_WIDTH: tl.constexpr = (WIDTH + STRIDE - 1) // STRIDE
    TERMS: tl.constexpr = SIDE * SIDE * INPUTS
    BLOCKS: tl.constexpr = (TERMS + DEPTH - 1) // DEPTH
    run = tl.program_id(2).to(tl.int64)
    pixels = pictures * (OUT_HEIGHT * OUT_WIDTH)
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    weight += run * (TERMS * OUTPUTS)
    y += run * pixels * OUTPUTS
    LINE: tl.constexpr = WIDTH + 2 * (SIDE // 2) * PADDED
    LINES: tl.constexpr = HEIGHT + 2 * (SIDE // 2) * PADDED
    x += run * pictures * (LINES * LINE * INPUTS)
    # Where each pixel's window starts: its first row and column, and the address of its first number.
    place = tl.minimum(pixel, pixels - 1) if PADDED else pixel
    row = place // OUT_WIDTH % OUT_HEIGHT * STRIDE - SIDE // 2 * (1 - PADDED)
    column = place % OUT_WIDTH * STRIDE - SIDE // 2 * (1 - PADDED)
    start = ((place // (OUT_HEIGHT * OUT_WIDTH) * LINES + row) * LINE + column) * INPUTS
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for block in range(BLOCKS):
        term = block * DEPTH + tl.arange(0, DEPTH)  # tap * INPUTS + input
        if PADDED:  # numbers after the last term meet zero weights, and those of pixels after the last are not kept
            near = tl.minimum(term, TERMS - 1)
            tap = near // INPUTS
            a = tl.load(x + (start[:, None] + ((tap // SIDE * LINE + tap % SIDE - tap) * INPUTS + near)[None, :]))
        else:
            tap = term[None, :] // INPUTS if FLAT else block * DEPTH // INPUTS
            tap_row = tap // SIDE
            tap_column = tap % SIDE
            r = row[:, None] + tap_row
            c = column[:, None] + tap_column
            inside = (r >= 0) & (r < HEIGHT) & (c >= 0) & (c < WIDTH) & (pixel < pixels)[:, None]
            offset = start[:, None] + (tap_row * WIDTH + tap_column - tap) * INPUTS + term[None, :]
            a = tl.load(x + offset, mask=inside & (term < TERMS)[None, :], other=0.0)
        kept = (term < TERMS)[:, None] & (output < OUTPUTS)[None, :]
        b = tl.load(weight + term[:, None] * OUTPUTS + output[None, :], mask=kept, other=0.0)
        total = multiply_add(a, b, total, PRECISION)
    total += tl.load(bias + run * OUTPUTS + output, mask=output < OUTPUTS, other=0.0)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # not a maximum: NaN stays NaN
    kept = (pixel < pixels)[:, None] & (output < OUTPUTS)[None, :]
    tl.store(y + pixel[:, None] * OUTPUTS + output[None, :], total, mask=kept)


@triton.jit(do_not_specialize=["pictures"])  # type: ignore[untyped-decorator]
def _convolution_input(
    gradient: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    x_gradient: tl.tensor,
    pictures: tl.tensor,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    RECTIFIED: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    FLAT: tl.constexpr,
) -> None:
    """One tile of input pixels x inputs, of one run, each parity by itself."""
    OUT_HEIGHT: tl.constexpr = (HEIGHT + STRIDE - 1) // STRIDE
    OUT_WIDTH: tl.constexpr = (WIDTH + STRIDE - 1) // STRIDE
    run = tl.program_id(2).to(tl.int64)
    pixels = pictures * (OUT_HEIGHT * OUT_WIDTH)
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    weight += run * (SIDE * SIDE * INPUTS * OUTPUTS)
    gradient += run * pictures * (OUT_HEIGHT * OUT_WIDTH * OUTPUTS)
    x += run * pictures * (HEIGHT * WIDTH * INPUTS)
    x_gradient += run * pictures * (HEIGHT * WIDTH * INPUTS)
    picture = pixel // (OUT_HEIGHT * OUT_WIDTH)
    row = pixel // OUT_WIDTH % OUT_HEIGHT
    column = pixel % OUT_WIDTH
    for parity in tl.static_range(STRIDE * STRIDE):
        in_row = row * STRIDE + parity // STRIDE
        in_column = column * STRIDE + parity % STRIDE
        # An odd height or width has no last row or column of the second parity.
        real = (pixel < pixels) & (in_row < HEIGHT) & (in_column < WIDTH)
        total = _of_parity(
            gradient,
            weight,
            picture,
            row,
            column,
            channel,
            real,
            parity // STRIDE,
            parity % STRIDE,
            OUT_HEIGHT,
            OUT_WIDTH,
            INPUTS,
            OUTPUTS,
            SIDE,
            STRIDE,
            PRECISION,
            ROWS,
            COLUMNS,
            DEPTH,
            FLAT,
        )
        offset = (((picture * HEIGHT + in_row) * WIDTH + in_column) * INPUTS)[:, None] + channel[None, :]
        kept = real[:, None] & (channel < INPUTS)[None, :]
        if RECTIFIED:
            total = tl.where(tl.load(x + offset, mask=kept, other=0.0) <= 0, 0.0, total)
        tl.store(x_gradient + offset, total, mask=kept)


@triton.jit  # type: ignore[untyped-decorator]
def _of_parity(
    gradient: tl.tensor,
    weight: tl.tensor,
    picture: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    channel: tl.tensor,
    real: tl.tensor,
    PARITY_ROW: tl.constexpr,
    PARITY_COLUMN: tl.constexpr,
    OUT_HEIGHT: tl.constexpr,
    OUT_WIDTH: tl.constexpr,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    FLAT: tl.constexpr,
) -> tl.tensor:
    """Gradient of the pixels whose rows and columns, divided by the stride, leave these remainders.

    The same taps reach all of them, every `STRIDE`-th of a row and of a column; there may be none.
    """
    FIRST_ROW: tl.constexpr = (PARITY_ROW + SIDE // 2) % STRIDE
    FIRST_COLUMN: tl.constexpr = (PARITY_COLUMN + SIDE // 2) % STRIDE
    TAP_ROWS: tl.constexpr = (SIDE - FIRST_ROW + STRIDE - 1) // STRIDE
    TAP_COLUMNS: tl.constexpr = (SIDE - FIRST_COLUMN + STRIDE - 1) // STRIDE
    TERMS: tl.constexpr = TAP_ROWS * TAP_COLUMNS * OUTPUTS
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    if TERMS > 0:
        # The output pixel that the first tap links to each input pixel; further taps lead to the pixels before it.
        out_row = row + (PARITY_ROW + SIDE // 2 - FIRST_ROW) // STRIDE
        out_column = column + (PARITY_COLUMN + SIDE // 2 - FIRST_COLUMN) // STRIDE
        start = ((picture * OUT_HEIGHT + out_row) * OUT_WIDTH + out_column) * OUTPUTS
        for block in range((TERMS + DEPTH - 1) // DEPTH):
            term = block * DEPTH + tl.arange(0, DEPTH)  # tap * OUTPUTS + output
            tap = term[None, :] // OUTPUTS if FLAT else block * DEPTH // OUTPUTS
            tap_row = tap // TAP_COLUMNS
            tap_column = tap % TAP_COLUMNS
            r = out_row[:, None] - tap_row
            c = out_column[:, None] - tap_column
            inside = (r >= 0) & (r < OUT_HEIGHT) & (c >= 0) & (c < OUT_WIDTH) & real[:, None]
            offset = start[:, None] + term[None, :] - (tap_row * OUT_WIDTH + tap_column + tap) * OUTPUTS
            a = tl.load(gradient + offset, mask=inside & (term < TERMS)[None, :], other=0.0)
            tap = term // OUTPUTS if FLAT else block * DEPTH // OUTPUTS
            weight_tap = (FIRST_ROW + tap // TAP_COLUMNS * STRIDE) * SIDE + FIRST_COLUMN + tap % TAP_COLUMNS * STRIDE
            offset = (weight_tap * INPUTS - tap) * OUTPUTS + term
            kept = (term < TERMS)[:, None] & (channel < INPUTS)[None, :]
            b = tl.load(weight + (offset[:, None] + channel[None, :] * OUTPUTS), mask=kept, other=0.0)
            total = multiply_add(a, b, total, PRECISION)
    return total


@triton.jit  # type: ignore[untyped-decorator]
def _convolution_weight(
    gradient: tl.tensor,
    x: tl.tensor,
    weight_parts: tl.tensor,
    bias_parts: tl.tensor,
    weight_step: tl.tensor,
    bias_step: tl.tensor,
    PICTURES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCKS: tl.constexpr,
    BLOCKS_EACH: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SIDE: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """One tile of filters x (taps x inputs) of one run, summed over one split of the output's pixels.

    Pictures come in groups, and the pixels of a group in blocks (see `pixel_blocks`). The programs of the first taps
    also sum the gradient itself, in float32, which gives the gradient of the biases.
    """
    OUT_HEIGHT: tl.constexpr = (HEIGHT + STRIDE - 1) // STRIDE
    OUT_WIDTH: tl.constexpr = (WIDTH + STRIDE - 1) // STRIDE
    OUT_PIXELS: tl.constexpr = OUT_HEIGHT * OUT_WIDTH
    TERMS: tl.constexpr = SIDE * SIDE * INPUTS
    SPLITS: tl.constexpr = (BLOCKS + BLOCKS_EACH - 1) // BLOCKS_EACH
    WHOLE: tl.constexpr = PICTURES % GROUP == 0
    run = tl.program_id(2).to(tl.int64)
    split = tl.program_id(1) % SPLITS
    first_term = tl.program_id(0) * COLUMNS
    term = first_term + tl.arange(0, COLUMNS)  # tap * INPUTS + input
    output = tl.program_id(1) // SPLITS * ROWS + tl.arange(0, ROWS)
    gradient += run * (PICTURES * OUT_PIXELS * OUTPUTS)
    LINE: tl.constexpr = WIDTH + 2 * (SIDE // 2) * PADDED
    LINES: tl.constexpr = HEIGHT + 2 * (SIDE // 2) * PADDED
    x += run * (PICTURES * LINES * LINE * INPUTS)
    near = tl.minimum(term, TERMS - 1) if PADDED else term  # results of terms after the last are not kept
    tap = near // INPUTS
    tap_row = tap // SIDE - SIDE // 2 * (1 - PADDED)
    tap_column = tap % SIDE - SIDE // 2 * (1 - PADDED)
    reach = (tap_row * LINE + tap_column - tap) * INPUTS + near
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    bias_total = tl.zeros([ROWS, DEPTH], tl.float32)
    for block in range(split * BLOCKS_EACH, min((split + 1) * BLOCKS_EACH, BLOCKS)):
        pixel = block * DEPTH + tl.arange(0, DEPTH)  # within a group
        there = pixel < GROUP * OUT_PIXELS
        place = tl.minimum(pixel, GROUP * OUT_PIXELS - 1)
        picture = place // OUT_PIXELS
        row = place // OUT_WIDTH % OUT_HEIGHT * STRIDE
        column = place % OUT_WIDTH * STRIDE
        from_output = output[:, None] + place[None, :] * OUTPUTS
        from_input = (((picture * LINES + row) * LINE + column) * INPUTS)[:, None] + reach[None, :]
        r = row[:, None] + tap_row[None, :]
        c = column[:, None] + tap_column[None, :]
        inside = (r >= 0) & (r < HEIGHT) & (c >= 0) & (c < WIDTH) & (term < TERMS)[None, :]
        for first in range(0, PICTURES, GROUP):
            real = there if WHOLE else there & (first + picture < PICTURES)
            kept = (output < OUTPUTS)[:, None] & real[None, :]
            offset = from_output + first * (OUT_PIXELS * OUTPUTS)
            a = tl.load(gradient + offset, mask=kept, other=0.0)
            offset = from_input + first * (LINES * LINE * INPUTS)
            if PADDED and WHOLE:
                b = tl.load(x + offset)
            else:
                kept = real[:, None] & (PADDED | inside)
                b = tl.load(x + offset, mask=kept, other=0.0)
            total = multiply_add(a, b, total, PRECISION)
            bias_total += a
    part = run * SPLITS + split
    kept = (output < OUTPUTS)[:, None] & (term < TERMS)[None, :]
    tl.store(weight_parts + part * weight_step + (term[None, :] * OUTPUTS + output[:, None]), total, mask=kept)
    if first_term == 0:
        tl.store(bias_parts + part * bias_step + output, tl.sum(bias_total, 1), mask=output < OUTPUTS)


@triton.jit(do_not_specialize=["splits"])  # type: ignore[untyped-decorator]
def _add_parts(
    parts: tl.tensor,
    weight_gradient: tl.tensor,
    bias_gradient: tl.tensor,
    splits: tl.tensor,
    WEIGHTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """The sum over splits of `[runs, splits, weights, then biases]`, first split first."""
    run = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    parts += run * splits * (WEIGHTS + OUTPUTS)
    total = tl.zeros([BLOCK], tl.float32)
    for split in range(splits):
        total += tl.load(parts + split * (WEIGHTS + OUTPUTS) + index, mask=index < WEIGHTS + OUTPUTS, other=0.0)
    tl.store(weight_gradient + run * WEIGHTS + index, total, mask=index < WEIGHTS)
    of_bias = (index >= WEIGHTS) & (index < WEIGHTS + OUTPUTS)
    tl.store(bias_gradient + run * OUTPUTS + (index - WEIGHTS), total, mask=of_bias)
