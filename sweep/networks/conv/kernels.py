"""Hand-written kernels of the GPU's main way: convolutions, linear layers, batch norm, dropout and updates.

Each kernel computes all runs of an array at once. A program works on one run alone and its tiles depend on the shape of
one run only, never on how many runs there are: a run's bits do not depend on its neighbours, its slot or their number.
Sums are taken in a fixed order, without atomics: the same call gives the same bits.

Activations are `[runs x pictures, channels, height, width]` in channels-last memory: the numbers of one run lie
together, in the order pictures, rows, columns, channels. All numbers in memory are float32. Nothing waits for the
device, and memory is only ever asked of PyTorch's allocator: steps can be captured in a CUDA graph.

Without a GPU, Triton's interpreter runs the kernels if TRITON_INTERPRET=1 is set before this module is imported.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

Precision = Literal["float32", "tf32", "bfloat16"]

EPSILON: Final = 1e-5
"""Added to the variance by batch norm: PyTorch's default."""

MOMENTUM: Final = 0.1
"""Share of the new batch in batch norm's running statistics: PyTorch's default."""

SPLIT_PIXELS: Final = 1024
"""Pixels of the output that one program of the weight gradient sums over, about; more are split over programs."""

PIXELS_PER_STEP: Final = 32
"""Pixels that the weight gradient multiplies at once."""

BLOCK: Final = 1024
"""Numbers per program of the kernels that work number by number."""


@dataclass(frozen=True)
class Tile:
    """The part of a matrix product that one program computes, `rows` x `columns`, in steps of `depth`.

    The product's long axis runs over taps and channels, channels fastest. If `flat`, a block of it may span taps, so
    that few channels fill it; otherwise it lies within one tap, whose position is computed once for the whole block.
    """

    rows: int
    columns: int
    depth: int
    flat: bool = False
    least_warps: int = 1

    @property
    def warps(self) -> int:
        """A warp for every 1024 numbers of the largest of the three matrices: 32 registers of each thread.

        With four warps, products of 64 rows go to the matrix units of Hopper, which want as many.
        """
        largest = max(self.rows * self.columns, self.rows * self.depth, self.depth * self.columns)
        return 4 if self.rows == 64 else max(self.least_warps, largest // 1024)

    @property
    def stages(self) -> int:
        """Small tiles hide latency by many programs on a multiprocessor, so they leave shared memory free."""
        return 2 if self.warps == 1 else 3

    def launch(self) -> dict[str, int]:
        """The tile as constants of a kernel."""
        sizes = {"ROWS": self.rows, "COLUMNS": self.columns, "DEPTH": self.depth}
        return {**sizes, "num_warps": self.warps, "num_stages": self.stages}


def pixel_tile(columns: int, channels: int, taps: int) -> Tile:
    """Tile of a product of pixels x (taps x channels) with (taps x channels) x columns."""
    flat = channels % 16 != 0
    narrow = taps * channels <= 16 if flat else channels % 32 != 0
    return Tile(32 if columns <= 32 else 64, _columns(columns), 16 if narrow else 32, flat)


def weight_tile(rows: int, columns: int) -> Tile:
    """Tile of a product of filters x pixels with pixels x (taps x channels).

    Where the pixels lie takes registers, too: of a single warp, all that there are.
    """
    return Tile(_columns(rows), _columns(columns), PIXELS_PER_STEP, least_warps=2)


def _columns(columns: int) -> int:
    return min(64, max(16, int(triton.next_power_of_2(columns))))  # the matrix unit's least is 16


# Products


@triton.jit  # type: ignore[untyped-decorator]
def _cut(x: tl.tensor) -> tl.tensor:
    """The high part of a float32: what the tensor cores read of it, ten bits behind the leading one."""
    return (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _nearest(x: tl.tensor) -> tl.tensor:
    """The nearest TF32, ties away from zero; NaN stays NaN, whose bits would run over into those of zero."""
    nearest = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(x == x, nearest, x)


INTERPRETED: Final = tl.constexpr(not isinstance(_cut, triton.runtime.JITFunction))
"""The interpreter multiplies float32 alone: what the tensor cores would cut off is cut off before."""


@triton.jit  # type: ignore[untyped-decorator]
def _multiply_add(a: tl.tensor, b: tl.tensor, total: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """`total + a @ b`: factors of `PRECISION`, sums in float32.

    A float32 is the sum of two TF32. Of their four products that of the low parts is smaller than a float32's rounding
    and left out; the small ones are added first. Tensor cores cut a sum off wherever they add to it (Fasi et al.,
    PeerJ Computer Science 7:e330): they sum one block by itself, and the blocks are added in float32. An infinite
    factor gives NaN: such a run has diverged in either case.
    """
    if PRECISION == "float32":
        a_high, b_high = _cut(a), _cut(b)
        a_low, b_low = a - a_high, b - b_high
        if INTERPRETED:
            a_low, b_low = _cut(a_low), _cut(b_low)
        block = tl.dot(a_low, b_high, input_precision="tf32")
        block = tl.dot(a_high, b_low, block, input_precision="tf32")
        return total + tl.dot(a_high, b_high, block, input_precision="tf32")
    elif PRECISION == "tf32":
        return tl.dot(_nearest(a), _nearest(b), total, input_precision="tf32")
    elif INTERPRETED:
        return tl.dot(a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32), total)
    else:
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)


# Convolution


def gathered(
    stored: torch.Tensor, places: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor, padding: int
) -> torch.Tensor:
    """Every run's pictures out of the stored ones, in one pass, as activations with `padding` zeros on each side.

    `stored` `[n, channels, height, width]` are uint8, `places` `[runs, pictures]` int64 say which of them are a run's
    pictures, and the run sees a byte as `factor * byte + offset`, both `[runs, channels]` float32. Gives
    `[runs x pictures, channels, height + 2 padding, width + 2 padding]`.
    """
    runs, pictures = places.shape
    channels, height, width = stored.shape[1:]
    assert stored.dtype == torch.uint8 and places.dtype == torch.int64
    assert factor.dtype == offset.dtype == torch.float32 and factor.shape == offset.shape == (runs, channels)
    x = _activations(factor, runs * pictures, channels, height + 2 * padding, width + 2 * padding)
    count = x[0].numel()
    _check_size(count)
    _gather[runs * pictures, triton.cdiv(count, BLOCK)](  # the first axis alone may be longer than 65,535
        stored.contiguous(),
        places.contiguous(),
        factor.contiguous(),
        offset.contiguous(),
        x,
        pictures,
        CHANNELS=channels,
        HEIGHT=height,
        WIDTH=width,
        PADDING=padding,
        BLOCK=BLOCK,
    )
    return x


@triton.jit(do_not_specialize=["pictures"])  # type: ignore[untyped-decorator]
def _gather(
    stored: tl.tensor,
    places: tl.tensor,
    factor: tl.tensor,
    offset: tl.tensor,
    x: tl.tensor,
    pictures: tl.tensor,
    CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A stretch of one picture's numbers, in the order rows, columns, channels."""
    COUNT: tl.constexpr = (HEIGHT + 2 * PADDING) * (WIDTH + 2 * PADDING) * CHANNELS
    picture = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel = index % CHANNELS
    row = index // CHANNELS // (WIDTH + 2 * PADDING) - PADDING
    column = index // CHANNELS % (WIDTH + 2 * PADDING) - PADDING
    inside = (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
    stored += tl.load(places + picture) * (CHANNELS * HEIGHT * WIDTH)
    byte = tl.load(stored + channel * (HEIGHT * WIDTH) + row * WIDTH + column, mask=inside, other=0)
    own = picture // pictures * CHANNELS + channel
    value = byte.to(tl.float32) * tl.load(factor + own) + tl.load(offset + own)
    tl.store(x + picture * COUNT + index, tl.where(inside, value, 0.0), mask=index < COUNT)


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
    """Every run's pictures convolved with its own filters, plus its biases, through ReLU if `relu`.

    `x` is `[runs x pictures, inputs, height, width]`, `weight` `[runs, side, side, inputs, outputs]` of an odd side,
    `bias` `[runs, outputs]`, `stride` 1 or 2. Zeros pad the pictures by `side // 2`; if `padded`, they are there
    already, all numbers are finite, and `x` has no gradient. Gives
    `[runs x pictures, outputs, height / stride, width / stride]` of the height and width without padding, rounded up.

    The multiplications are float32 (by three of TF32 each), TF32 or bfloat16, the sums always float32.

    The gradient of a ReLU is cut off where it is written: `rectified` says that `x` is what a ReLU left, so that its
    gradient is to be zero where `x` is, and `masked` that whoever takes the result does the same for it.
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
        y = _activations(x, runs * pictures, outputs, -(-height // stride), -(-width // stride))
        rows = pictures * y.shape[2] * y.shape[3]
        _check_size(rows * outputs, pictures * x[0].numel())
        tile = pixel_tile(outputs, inputs, side**2)
        _convolution_forward[triton.cdiv(rows, tile.rows), triton.cdiv(outputs, tile.columns), runs](
            _memory(x),
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
        memory = _memory(_cut_off(gradient, *ys))
        x_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = _input_gradient(memory, x, weight, stride, rectified, precision)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            weight_gradient, bias_gradient = _weight_gradient(memory, x, weight, stride, precision, padded)
        return x_gradient, weight_gradient, bias_gradient, *[None] * 6


def _cut_off(gradient: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """The gradient of what a ReLU was given, where it left `y`; a NaN there lets it pass."""
    return gradient if y is None else torch.ops.aten.threshold_backward(gradient, y, 0)


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
    x_gradient = _activations(x, *x.shape)
    rows = pictures * -(-height // stride) * -(-width // stride)
    tile = pixel_tile(inputs, outputs, (-(-side // stride)) ** 2)
    _convolution_input[triton.cdiv(rows, tile.rows), triton.cdiv(inputs, tile.columns), runs](
        gradient,
        _memory(x),
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
    """Gradients of weights and biases; `gradient` and `y` are `[runs pictures, height, width, outputs]`, contiguous.

    Many pixels are split into parts, whose sums are then added in their order.
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
    _check_size(splits * (weights + outputs))
    if splits > 1:
        weight_parts = weight.new_empty(runs, splits, weights + outputs)
        bias_parts = weight_parts[..., weights:]
        weight_step = bias_step = weights + outputs
    tile = weight_tile(outputs, side**2 * inputs)
    rows = triton.cdiv(outputs, tile.rows)
    _convolution_weight[triton.cdiv(side**2 * inputs, tile.columns), rows * splits, runs](
        gradient,
        _memory(x),
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


def pixel_blocks(pixels: int, pictures: int) -> tuple[int, int]:
    """How many pictures of so many pixels are cut into blocks of `PIXELS_PER_STEP` together, and into how many blocks.

    A block's pixels lie at the same places in every group of pictures; to work out where costs about half as much as
    to multiply them. Groups share that, and leave more or fewer pixels of their last block over.
    """

    def blocks(group: int) -> int:
        return -(-group * pixels // PIXELS_PER_STEP)

    group = min((2**power for power in range(6)), key=lambda each: blocks(each) * (-(-pictures // each) + 0.5))
    return group, blocks(group)


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
        if PADDED:  # numbers behind the last term meet weights of zero, those of pixels behind the last are not kept
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
        total = _multiply_add(a, b, total, PRECISION)
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
    """One tile of input pixels x inputs, of one run, and of each parity by itself."""
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
    """Gradient of the pixels whose rows and columns leave these remainders by the stride.

    They are all reached by the same taps, every `STRIDE`-th of a row and of a column: there may be none.
    """
    FIRST_ROW: tl.constexpr = (PARITY_ROW + SIDE // 2) % STRIDE
    FIRST_COLUMN: tl.constexpr = (PARITY_COLUMN + SIDE // 2) % STRIDE
    TAP_ROWS: tl.constexpr = (SIDE - FIRST_ROW + STRIDE - 1) // STRIDE
    TAP_COLUMNS: tl.constexpr = (SIDE - FIRST_COLUMN + STRIDE - 1) // STRIDE
    TERMS: tl.constexpr = TAP_ROWS * TAP_COLUMNS * OUTPUTS
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    if TERMS > 0:
        # The output pixel that the first of the taps links with each input pixel; further taps lead back from there.
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
            total = _multiply_add(a, b, total, PRECISION)
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

    Pictures come in groups, and the pixels of a group in blocks: see `pixel_blocks`. The programs of the first taps sum
    the gradient itself too, in float32: the gradient of the biases.
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
    near = tl.minimum(term, TERMS - 1) if PADDED else term  # what the terms behind the last give is not kept
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
            total = _multiply_add(a, b, total, PRECISION)
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


# Linear layers


@dataclass(frozen=True)
class SgdStep:
    """What a step of torch.optim.SGD needs beside the gradient: see `sgd`."""

    velocity: torch.Tensor | None
    rate: torch.Tensor
    momentum: torch.Tensor
    decay: torch.Tensor


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
    """Every run's `[pictures, inputs]` times its own weights, plus its biases, through ReLU if `relu`.

    `x` is `[runs, pictures, inputs]`, `weight` `[runs, inputs, units]`, `bias` `[runs, units]`; inputs and units are
    multiples of 16. Precision, `rectified` and `masked` are as in `convolution`. With a `step`, the backward pass takes
    it: it changes the weights in place, once it has used them, and gives them no gradient.
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
        _check_size(pictures * max(inputs, units), inputs * units)
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
        # Not by save_for_backward, which would take a step in place for somebody's mistake.
        ctx.weight, ctx.step = weight, step
        ctx.save_for_backward(x, *([y] if relu and not masked else []))
        ctx.settings = precision, rectified
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *ys = ctx.saved_tensors
        weight, step = ctx.weight, ctx.step
        precision, rectified = ctx.settings
        gradient = _cut_off(gradient, *ys).contiguous()
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
    """Never 64, which another instruction would multiply: an evaluation's last pictures are fewer than those before."""
    return 16 if pictures <= 16 else 32


def _dividing(count: int, most: int = 64) -> int:
    """The widest tile that a multiple of 16 falls into without a rest."""
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
        total = _multiply_add(a, b, total, PRECISION)
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
        total = _multiply_add(a, b, total, PRECISION)
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
    """One tile of inputs x units of one run: its gradient or, given a `rate`, the weights' step by it.

    The programs of the first inputs sum the gradient itself too, in float32: the gradient of the biases.
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
        total = _multiply_add(a, b, total, PRECISION)
        bias_total += b
    offset = run * (INPUTS * UNITS) + (term[:, None] * UNITS + unit[None, :])
    if rate is None:
        tl.store(weight + offset, total)
    else:
        _sgd_step(weight, velocity, total, rate + run, momentum + run, decay + run, offset, offset >= 0)
    if tl.program_id(0) == 0:
        tl.store(bias_gradient + run * UNITS + unit, tl.sum(bias_total, 0))


# Batch norm


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
    """PyTorch's batch normalization of every run's channels by themselves, through ReLU if `relu`.

    `x` is `[runs x pictures, channels, height, width]`, the rest `[runs, channels]`. In training the running `mean` and
    `variance` are updated in place. Raises ValueError in training on a single number a channel, as PyTorch does.
    """
    assert x.dtype == torch.float32 and x.shape[0] % runs == 0
    assert all(part.shape == (runs, x.shape[1]) for part in (weight, bias, mean, variance))
    assert mean.is_contiguous() and variance.is_contiguous(), "updated in place"
    if training and x.shape[0] // runs * x.shape[2] * x.shape[3] == 1:
        raise ValueError("batch norm in training wants more than one number a channel")
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
        y = _activations(x, *x.shape)
        center, scale = torch.empty_like(mean), torch.empty_like(mean)
        grid, launch = _norm_launch(x, runs)
        _norm_forward[grid](
            _memory(x),
            weight.contiguous(),
            bias.contiguous(),
            mean,
            variance,
            y,
            center,
            scale,
            EPSILON=EPSILON,
            MOMENTUM=MOMENTUM,
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
        x_gradient = _activations(x, *x.shape)
        weight_gradient, bias_gradient = torch.empty_like(center), torch.empty_like(center)
        memory = _memory(gradient)
        grid, launch = _norm_launch(x, runs)
        _norm_backward[grid](
            memory,
            _memory(ys[0]) if relu else memory,  # without ReLU the kernel does not read it
            _memory(x),
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
    """Grid and sizes of batch norm's kernels: 8 channels at once are the 32 bytes that memory gives at once."""
    pixels, channels = x.shape[0] // runs * x.shape[2] * x.shape[3], x.shape[1]
    _check_size(pixels * channels)
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
    """Some channels of one run. `center` and `scale` keep for the backward pass what it was normalized by."""
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
    """Some channels of one run; in training the mean and the variance depend on `x` too."""
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


# Dropout


def dropout(
    x: torch.Tensor, state: torch.Tensor, threshold: torch.Tensor, scale: torch.Tensor, runs: int
) -> torch.Tensor:
    """Every run's numbers, each kept and scaled or set to zero, as a hash of its position and the run's state says.

    `x` is `[runs x pictures, channels, height, width]` or `[runs, pictures, units]`; a number's position is its index
    in the run's memory: channels fastest, pictures slowest. `state` `[runs]` int32 holds the bits of an unsigned
    number, another one at every step and layer. A number is kept if its hash, read as a signed number, is at least
    `threshold` `[runs]` int32, and then multiplied by `scale` `[runs]` float32.
    """
    assert x.dtype == scale.dtype == torch.float32 and state.dtype == threshold.dtype == torch.int32
    assert x.shape[0] % runs == 0 and all(part.shape == (runs,) for part in (state, threshold, scale))
    y: torch.Tensor = _Dropout.apply(x, state, threshold, scale)
    return y


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, state: torch.Tensor, threshold: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(state, threshold, scale)
        return _dropped(x, state, threshold, scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _dropped(gradient, *ctx.saved_tensors), None, None, None


def _dropped(x: torch.Tensor, state: torch.Tensor, threshold: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    y = _activations(x, *x.shape) if x.dim() == 4 else torch.empty_like(x, memory_format=torch.contiguous_format)
    memory = _memory(x) if x.dim() == 4 else x.contiguous()
    runs = len(state)
    count = x.numel() // runs
    _check_size(count)
    _drop[triton.cdiv(count, BLOCK), runs](memory, state, threshold, scale, y, count, BLOCK=BLOCK)
    return y


@triton.jit  # type: ignore[untyped-decorator]
def _drop(
    x: tl.tensor,
    state: tl.tensor,
    threshold: tl.tensor,
    scale: tl.tensor,
    y: tl.tensor,
    count: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """A stretch of one run's numbers. The hash is "lowbias32" of Chris Wellons (nullprogram.com/blog/2018/07/31)."""
    run = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # Products of 64 bits, cut to 32: the interpreter takes a 32-bit overflow for a mistake.
    position = (index.to(tl.uint64) * 0x9E3779B9).to(tl.uint32).to(tl.uint64)
    h = (tl.load(state + run).to(tl.uint32, bitcast=True).to(tl.uint64) + position).to(tl.uint32)
    h = h ^ (h >> 16)
    h = (h.to(tl.uint64) * 0x7FEB352D).to(tl.uint32)
    h = h ^ (h >> 15)
    h = (h.to(tl.uint64) * 0x846CA68B).to(tl.uint32)
    h = h ^ (h >> 16)
    kept = h.to(tl.int32, bitcast=True) >= tl.load(threshold + run)
    offset = run * count + index
    value = tl.load(x + offset, mask=index < count, other=0.0)
    tl.store(y + offset, tl.where(kept, value * tl.load(scale + run), 0.0), mask=index < count)


# Optimizers


def adamw(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    rate: torch.Tensor,
    decay: torch.Tensor,
    corrections: torch.Tensor,
    frozen: torch.Tensor | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """One step of torch.optim.AdamW, in place, each run with its own learning rate and weight decay, `[runs]` float32.

    The moments are shaped as `parameter`, `[runs, ...]`. `corrections` is 1 - beta1^t and the square root of
    1 - beta2^t at step t, float32. In runs that are `frozen`, `[runs]` bool or int8, the gradient counts as zero.
    """
    runs = _check_update(parameter, gradient, (first, second), (rate, decay))
    assert corrections.shape == (2,) and corrections.dtype == torch.float32
    count = parameter.numel() // runs
    _adamw[triton.cdiv(count, BLOCK), runs](
        parameter,
        gradient.contiguous(),
        first,
        second,
        rate,
        decay,
        corrections,
        None if frozen is None else frozen.view(torch.int8),
        count,
        BETA1=beta1,
        BETA2=beta2,
        EPSILON=epsilon,
        BLOCK=BLOCK,
    )


def sgd(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    velocity: torch.Tensor | None,
    rate: torch.Tensor,
    momentum: torch.Tensor,
    decay: torch.Tensor,
    frozen: torch.Tensor | None = None,
) -> None:
    """One step of torch.optim.SGD, in place, each run with its own numbers, `[runs]` float32.

    `velocity` is shaped as `parameter`, `[runs, ...]`, and zero at the start; without it there is no momentum. In runs
    that are `frozen`, `[runs]` bool or int8, the gradient counts as zero.
    """
    runs = _check_update(parameter, gradient, () if velocity is None else (velocity,), (rate, momentum, decay))
    count = parameter.numel() // runs
    _sgd[triton.cdiv(count, BLOCK), runs](
        parameter,
        gradient.contiguous(),
        velocity,
        rate,
        momentum,
        decay,
        None if frozen is None else frozen.view(torch.int8),
        count,
        BLOCK=BLOCK,
    )


def _check_update(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, ...],
    numbers: tuple[torch.Tensor, ...],
) -> int:
    """The number of runs, if all tensors of an update fit together."""
    assert all(part.shape == parameter.shape for part in (gradient, *moments))
    assert all(part.is_contiguous() for part in (parameter, *moments)), "updated in place"
    assert all(part.shape == parameter.shape[:1] for part in numbers)
    assert all(part.dtype == torch.float32 for part in (parameter, gradient, *moments, *numbers))
    _check_size(parameter[0].numel())
    return len(parameter)


@triton.jit  # type: ignore[untyped-decorator]
def _adamw(
    parameter: tl.tensor,
    gradient: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    rate: tl.tensor,
    decay: tl.tensor,
    corrections: tl.tensor,
    frozen: tl.tensor,
    count: tl.tensor,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A stretch of one run's numbers; the order of operations is that of torch.optim.AdamW."""
    run = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    offset, real = run * count + index, index < count
    p = tl.load(parameter + offset, mask=real, other=0.0)
    g = tl.load(gradient + offset, mask=real, other=0.0)
    if frozen is not None:
        g = tl.where(tl.load(frozen + run) != 0, 0.0, g)
    m = tl.load(first + offset, mask=real, other=0.0)
    v = tl.load(second + offset, mask=real, other=0.0)
    r = tl.load(rate + run)
    p = p * (1 - r * tl.load(decay + run))
    m = m + (g - m) * (1 - BETA1)
    v = v * BETA2 + g * g * (1 - BETA2)
    denominator = tl.div_rn(tl.sqrt_rn(v), tl.load(corrections + 1)) + EPSILON
    p = p - tl.div_rn(r, tl.load(corrections)) * tl.div_rn(m, denominator)
    tl.store(parameter + offset, p, mask=real)
    tl.store(first + offset, m, mask=real)
    tl.store(second + offset, v, mask=real)


@triton.jit  # type: ignore[untyped-decorator]
def _sgd(
    parameter: tl.tensor,
    gradient: tl.tensor,
    velocity: tl.tensor,
    rate: tl.tensor,
    momentum: tl.tensor,
    decay: tl.tensor,
    frozen: tl.tensor,
    count: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """A stretch of one run's numbers."""
    run = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    offset, real = run * count + index, index < count
    g = tl.load(gradient + offset, mask=real, other=0.0)
    if frozen is not None:
        g = tl.where(tl.load(frozen + run) != 0, 0.0, g)
    _sgd_step(parameter, velocity, g, rate + run, momentum + run, decay + run, offset, real)


@triton.jit  # type: ignore[untyped-decorator]
def _sgd_step(
    parameter: tl.tensor,
    velocity: tl.tensor,
    g: tl.tensor,
    rate: tl.tensor,
    momentum: tl.tensor,
    decay: tl.tensor,
    offset: tl.tensor,
    real: tl.tensor,
) -> None:
    """Steps by the gradient `g` where it is `real`; the order of operations is that of torch.optim.SGD."""
    p = tl.load(parameter + offset, mask=real, other=0.0)
    g = g + tl.load(decay) * p
    if velocity is not None:
        g = tl.load(momentum) * tl.load(velocity + offset, mask=real, other=0.0) + g
        tl.store(velocity + offset, g, mask=real)
    tl.store(parameter + offset, p - tl.load(rate) * g, mask=real)


# Memory


def _memory(x: torch.Tensor) -> torch.Tensor:
    """Activations as `[pictures, height, width, channels]`, contiguous; a copy only if they were not.

    The strides of one channel or one pixel say nothing about the format, so the order is asked for and not read off.
    """
    return x.permute(0, 2, 3, 1).contiguous()


def _activations(like: torch.Tensor, pictures: int, channels: int, height: int, width: int) -> torch.Tensor:
    size = (pictures, channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _check_size(*counts: int) -> None:
    """Offsets within one run are 32 bits wide; only those of the runs themselves are wider."""
    assert all(count < 2**31 - 2**16 for count in counts), f"a run's tensor has {max(counts)} numbers, too many"
