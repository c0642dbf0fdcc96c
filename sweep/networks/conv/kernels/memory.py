"""How activations lie in memory, and what fits into an offset."""

from typing import Final

import torch

BLOCK: Final = 1024
"""Numbers per program of the kernels that work number by number."""


def in_memory(x: torch.Tensor) -> torch.Tensor:
    """Activations as `[pictures, height, width, channels]`, contiguous; a copy only if they were not.

    The strides of one channel or one pixel say nothing about the format, so the order is asked for and not read off.
    """
    return x.permute(0, 2, 3, 1).contiguous()


def activations(like: torch.Tensor, pictures: int, channels: int, height: int, width: int) -> torch.Tensor:
    size = (pictures, channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def check_size(*counts: int) -> None:
    """Offsets within one run are 32 bits wide; only those of the runs themselves are wider."""
    assert all(count < 2**31 - 2**16 for count in counts), f"a run's tensor has {max(counts)} numbers, too many"


def cut_off(gradient: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """The gradient of what a ReLU was given, where it left `y`; a NaN there lets it pass."""
    return gradient if y is None else torch.ops.aten.threshold_backward(gradient, y, 0)
