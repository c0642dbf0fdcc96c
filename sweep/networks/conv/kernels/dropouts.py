"""Dropout by a hash of each number's position."""

from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from sweep.common import random_streams
from sweep.networks.conv.kernels.memory import BLOCK, activations, check_size, in_memory

GOLDEN = tl.constexpr(random_streams.GOLDEN)
FIRST_SHIFT, FIRST = map(tl.constexpr, random_streams.MIX[0])
SECOND_SHIFT, SECOND = map(tl.constexpr, random_streams.MIX[1])
LAST_SHIFT = tl.constexpr(random_streams.LAST_SHIFT)


def dropout(
    x: torch.Tensor, state: torch.Tensor, threshold: torch.Tensor, scale: torch.Tensor, runs: int
) -> torch.Tensor:
    """Keeps and scales each number, or sets it to zero, according to a hash of its position and its run's state.

    `x` is `[runs x pictures, channels, height, width]` or `[runs, pictures, units]`; a number's position is its index
    in the run's memory: channels fastest, pictures slowest. `state` `[runs]` int32 holds the bits of an unsigned
    number, a different one at every step and layer. A number is kept if its hash, read as a signed number, is at least
    `threshold` `[runs]` int32, and is then multiplied by `scale` `[runs]` float32.
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
    y = activations(x, *x.shape) if x.dim() == 4 else torch.empty_like(x, memory_format=torch.contiguous_format)
    memory = in_memory(x) if x.dim() == 4 else x.contiguous()
    runs = len(state)
    count = x.numel() // runs
    check_size(count)
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
    """A block of one run's numbers. The hash is `random_streams.mix`."""
    run = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # 64-bit products, truncated to 32 bits: the interpreter treats a 32-bit overflow as an error.
    position = (index.to(tl.uint64) * GOLDEN).to(tl.uint32).to(tl.uint64)
    h = (tl.load(state + run).to(tl.uint32, bitcast=True).to(tl.uint64) + position).to(tl.uint32)
    h = h ^ (h >> FIRST_SHIFT)
    h = (h.to(tl.uint64) * FIRST).to(tl.uint32)
    h = h ^ (h >> SECOND_SHIFT)
    h = (h.to(tl.uint64) * SECOND).to(tl.uint32)
    h = h ^ (h >> LAST_SHIFT)
    kept = h.to(tl.int32, bitcast=True) >= tl.load(threshold + run)
    offset = run * count + index
    value = tl.load(x + offset, mask=index < count, other=0.0)
    tl.store(y + offset, tl.where(kept, value * tl.load(scale + run), 0.0), mask=index < count)
