"""The memory layout of activations, and the largest tensor that offsets can address."""

from typing import Final

import torch

BLOCK: Final = 1024
"""Numbers per program of the element-wise kernels."""


def in_memory(x: torch.Tensor) -> torch.Tensor:
    """Activations as contiguous `[pictures, height, width, channels]`; a copy only if they were not contiguous.

    With one channel or one pixel, strides do not tell the format, so this layout is requested, not inferred.
    """
    return x.permute(0, 2, 3, 1).contiguous()


def activations(like: torch.Tensor, pictures: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Uninitialized activations in channels-last memory, with the type and the device of `like`."""
    size = (pictures, channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def check_size(*counts: int) -> None:
    """Asserts that a run's tensors are small enough: offsets within a run have 32 bits, only those of runs have 64."""
    assert all(count < 2**31 - 2**16 for count in counts), f"a run's tensor has {max(counts)} numbers, too many"


def relu_backward(gradient: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """The gradient of a ReLU's input, if its output was `y`; where that is NaN, the gradient passes."""
    return gradient if y is None else torch.ops.aten.threshold_backward(gradient, y, 0)
