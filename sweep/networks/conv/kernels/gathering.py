"""Gathers every run's pictures from the stored bytes, as the first convolution needs them."""

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from sweep.networks.conv.kernels.memory import BLOCK, activations, check_size


def gathered(
    stored: torch.Tensor, places: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor, padding: int
) -> torch.Tensor:
    """Every run's pictures from the stored ones, in one pass, as activations with `padding` zeros on each side.

    `stored` `[n, channels, height, width]` are uint8, `places` `[runs, pictures]` int64 are indices into them, and a
    run sees a byte as `factor * byte + offset`, both `[runs, channels]` float32. Returns
    `[runs x pictures, channels, height + 2 padding, width + 2 padding]`.
    """
    runs, pictures = places.shape
    channels, height, width = stored.shape[1:]
    assert stored.dtype == torch.uint8 and places.dtype == torch.int64
    assert factor.dtype == offset.dtype == torch.float32 and factor.shape == offset.shape == (runs, channels)
    x = activations(factor, runs * pictures, channels, height + 2 * padding, width + 2 * padding)
    count = x[0].numel()
    check_size(count)
    _gather[runs * pictures, triton.cdiv(count, BLOCK)](  # only the first axis may be longer than 65,535
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
    """A block of one picture's numbers, in the order rows, columns, channels."""
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
