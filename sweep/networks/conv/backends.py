"""Ways to compute all runs at once: where the axis of runs lies in memory, and how convolutions treat it.

Activations have four axes, channels last in memory, so that operations on single pictures (activations, pooling) are
PyTorch's own. The axis of runs is part of the channels (`[pictures, runs x channels, height, width]`: a convolution of
all runs is one grouped convolution) or of the pictures (`[runs x pictures, channels, height, width]`: it is a batch of
matrix products). Nothing is ever summed over runs.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F

from sweep.common import random_streams
from sweep.networks.conv import winograd
from sweep.networks.conv.shape import NORM_EPSILON, NORM_MOMENTUM, MethodName

Rounding = Callable[[torch.Tensor], torch.Tensor]

ALIGNMENT: Final = 16
"""Inputs and units of linear layers, and normalized channels, are padded to a multiple of this many numbers.

A matrix product chooses its algorithm by the address of its operands, and where vectors do not divide a row, its end is
computed differently: without padding, a run's bits would depend on its slot. Padded units stay zero, since their
weights and biases are zero, and so are all their gradients.
"""


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """One layer's scale, shift and running statistics, each `[runs, channels]`."""

    weight: torch.Tensor
    bias: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Dropout:
    """What one layer's masks of one step are hashed from (`sweep.common.random_streams.dropout_states`).

    `states` holds a word for each seed `[seeds]`, and `seeds` the place of each run's seed in it `[runs]`, or None
    where every run has its own. Units whose hash is below `threshold` `[runs]` are dropped, the others multiplied by
    `scale` `[runs]`. Words and hashes are stored as int32. A linear layer's padded units are counted with the others.
    """

    states: torch.Tensor
    seeds: torch.Tensor | None
    threshold: torch.Tensor
    scale: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A batch of every run: which stored pictures it holds, and how the run scales their bytes.

    `stored` `[n, channels, height, width]` are uint8; `places` `[runs, batch]` are int64 indices into them. A run sees
    a byte as `factor * byte + offset`, both `[runs, channels]`. A single row of each serves all runs.
    """

    stored: torch.Tensor
    places: torch.Tensor
    factor: torch.Tensor
    offset: torch.Tensor


class Method:
    """How one array is computed; `runs_first` says that the axis of runs comes before that of the pictures."""

    name: MethodName
    runs_first = True

    kernels: Any = None

    def __init__(self, precision: str = "float32", device: str = "cpu") -> None:
        self.precision = precision
        self.round = _rounding(precision)

    def arrange(self, weight: torch.Tensor, stride: int, size: tuple[int, int]) -> torch.Tensor:
        """Convolution weights `[runs, outputs, inputs, side, side]` as `[runs, side, side, inputs, outputs]`.

        The memory is laid out as `convolution` needs it for pictures of `size` (height, width).
        """
        return weight.permute(0, 3, 4, 2, 1).contiguous()

    def join(self, pictures: torch.Tensor) -> torch.Tensor:
        """`[runs, pictures, height, width, channels]` as this method's activations, contiguous in its layout."""
        return pictures.contiguous().flatten(0, 1).permute(0, 3, 1, 2)

    def split(self, x: torch.Tensor, runs: int) -> torch.Tensor:
        """Activations as a view `[runs, pictures, height, width, channels]`."""
        pixels = x.permute(0, 2, 3, 1)
        return pixels.view(runs, -1, *pixels.shape[1:])

    def read(self, pictures: Pictures, padding: int) -> Any:
        """The input of the first convolution: activations, or padded ones that only its own `convolution` takes."""
        places = pictures.places if self.runs_first else pictures.places.T
        # Indexing with a tensor takes several times as long as `index_select`.
        batch = pictures.stored.index_select(0, places.flatten()).view(*places.shape, len(pictures.stored[0]), -1)
        factor, offset = pictures.factor, pictures.offset
        if self.runs_first:  # [networks, batch, channels, pixels]
            factor, offset = factor[:, None], offset[:, None]
        # Scaled first, while the pixels of a channel, which share a factor and an offset, lie side by side.
        scaled = batch.to(factor.dtype).mul_(factor.unsqueeze(-1)).add_(offset.unsqueeze(-1)).transpose(2, 3)
        # [networks, pictures, pixels, channels] or [pictures, pixels, networks, channels]
        scaled = scaled.flatten(0, 1) if self.runs_first else scaled.transpose(1, 2)
        flat = scaled.reshape(-1)  # axes of length one would keep strides of their own
        return flat.view(len(scaled), *pictures.stored.shape[2:], -1).permute(0, 3, 1, 2)

    def convolution(
        self,
        x: Any,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        relu: bool,
        *,
        rectified: bool = False,
        masked: bool = False,
    ) -> torch.Tensor:
        """One convolution of all runs, with its bias `[runs, outputs]` and, on request, a ReLU.

        `rectified` says that `x` is the output of the previous layer's ReLU, `masked` that the next layer is told so
        about this one's: a kernel then applies the ReLU's backward pass where it writes the gradient of `x`, and the
        layer with the ReLU need not.
        """
        raise NotImplementedError

    def linear(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        relu: bool = False,
        *,
        rectified: bool = False,
        masked: bool = False,
        step: Any = None,
    ) -> torch.Tensor:
        """`[runs, pictures, inputs]` to `[runs, pictures, units]`, one matrix product per run; both axes are padded.

        `rectified` and `masked` are as in `convolution`. Kernels take an optimizer's `step`, if given, in the backward
        pass.
        """
        assert step is None
        y = self._product(x, weight, bias)
        return torch.relu_(y) if relu else y

    def _product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """`[runs, rows, inputs]` times `[runs, inputs, units]`, with a bias `[runs, units]`."""
        if self.round is _same:
            return torch.baddbmm(bias.unsqueeze(1), x, weight)
        product = _rounded_gradient(torch.bmm(self.round(x), self.round(weight)), self.round)
        return product + bias.unsqueeze(1)  # the bias is not a factor: its gradient is not rounded

    def batch_norm(self, x: torch.Tensor, norm: BatchNorm, training: bool, relu: bool) -> torch.Tensor:
        """PyTorch's batch normalization, of each run's channels alone; running statistics are updated in training."""
        runs = len(norm.weight)
        grouped = Grouped().join(self.split(x, runs))
        return self.join(Grouped().split(Grouped().batch_norm(grouped, norm, training, relu), runs))

    def dropout(self, x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        """Drops units of activations, or of a linear layer's `[runs, pictures, units]`."""
        if x.dim() == 3:
            return _dropout(x.flatten(1).unsqueeze(0), dropout).view_as(x)
        runs = len(dropout.threshold)
        pictures = self.split(x, runs)
        return self.join(_dropout(pictures.flatten(1).unsqueeze(0), dropout).view_as(pictures))


class Grouped(Method):
    """One grouped convolution: fastest on CPUs, and on GPUs at the smallest widths.

    A CPU computes strided convolutions of many channels by minimal filtering instead (`sweep.networks.conv.winograd`).
    """

    name = "grouped"
    runs_first = False

    def __init__(self, precision: str = "float32", device: str = "cpu") -> None:
        super().__init__(precision, device)
        self.transforms = device == "cpu" and self.round is _same

    def arrange(self, weight: torch.Tensor, stride: int, size: tuple[int, int]) -> torch.Tensor:
        _, outputs, inputs, side, _ = weight.shape
        if self._transformed(inputs, outputs, side, stride, size):
            return super().arrange(weight, stride, size)
        return weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 2, 3, 4, 1)

    def _transformed(self, inputs: int, outputs: int, side: int, stride: int, size: tuple[int, int]) -> bool:
        return self.transforms and winograd.takes(inputs, outputs, side, stride, size)

    def join(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.permute(1, 2, 3, 0, 4).contiguous().flatten(3).permute(0, 3, 1, 2)

    def split(self, x: torch.Tensor, runs: int) -> torch.Tensor:
        pixels = x.permute(0, 2, 3, 1)
        return pixels.view(*pixels.shape[:3], runs, -1).permute(3, 0, 1, 2, 4)

    def convolution(
        self, x: Any, weight: torch.Tensor, bias: torch.Tensor, stride: int, relu: bool, **flags: bool
    ) -> torch.Tensor:
        height, width = x.shape[2:]
        runs, side, _, inputs, outputs = weight.shape
        if x.shape[1] == runs * inputs and self._transformed(inputs, outputs, side, stride, (height, width)):
            y = winograd.convolution(x, weight, bias)
            return torch.relu_(y) if relu else y
        filters = weight.permute(0, 4, 3, 1, 2).flatten(0, 1)
        # Pictures that all runs share need no groups: their channels are the inputs of every run's filters.
        padding, groups = weight.shape[1] // 2, x.shape[1] // weight.shape[3]
        if self.round is _same:
            y = F.conv2d(x, filters, bias.flatten(), stride, padding, 1, groups)
        else:  # the bias is not a factor: its gradient is not rounded
            product = F.conv2d(self.round(x), self.round(filters), None, stride, padding, 1, groups)
            y = _rounded_gradient(product, self.round) + bias.view(1, -1, 1, 1)
        return torch.relu_(y) if relu else y

    def batch_norm(self, x: torch.Tensor, norm: BatchNorm, training: bool, relu: bool) -> torch.Tensor:
        channels, missing = x.shape[1], -x.shape[1] % ALIGNMENT
        weight, bias = norm.weight.flatten(), norm.bias.flatten()
        mean, variance = norm.mean.view(-1), norm.variance.view(-1)
        if missing:
            x = F.pad(x, (0, 0, 0, 0, 0, missing))
            weight, bias, mean, variance = (F.pad(part, (0, missing)) for part in (weight, bias, mean, variance))
        x = F.batch_norm(x, mean, variance, weight, bias, training=training, momentum=NORM_MOMENTUM, eps=NORM_EPSILON)
        if missing:
            norm.mean.view(-1).copy_(mean[:channels])
            norm.variance.view(-1).copy_(variance[:channels])
            x = x[:, :channels].contiguous(memory_format=torch.channels_last)
        return torch.relu_(x) if relu else x

    def dropout(self, x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        if x.dim() == 3:
            return super().dropout(x, dropout)
        pixels = x.permute(0, 2, 3, 1)
        rows = pixels.view(-1, len(dropout.threshold), pixels.shape[3] // len(dropout.threshold))
        return _dropout(rows, dropout).view_as(pixels).permute(0, 3, 1, 2)


class Im2col(Method):
    """Patches as rows of a matrix, and one matrix product per run: for GPUs where Triton is missing."""

    name = "im2col"

    def convolution(
        self, x: Any, weight: torch.Tensor, bias: torch.Tensor, stride: int, relu: bool, **flags: bool
    ) -> torch.Tensor:
        runs, side, _, _, outputs = weight.shape
        padding = side // 2
        pictures = F.pad(self.split(x, runs), (0, 0, padding, padding, padding, padding))
        # [runs, n, height, width, inputs, side, side]
        patches = pictures.unfold(2, side, stride).unfold(3, side, stride)
        _, count, height, width = patches.shape[:4]
        rows = patches.permute(0, 1, 2, 3, 5, 6, 4).reshape(runs, count * height * width, -1)
        missing = -rows.shape[2] % ALIGNMENT, -outputs % ALIGNMENT
        filters = F.pad(weight.flatten(1, 3), (0, missing[1], 0, missing[0]))
        y = self._product(F.pad(rows, (0, missing[0])), filters, F.pad(bias, (0, missing[1])))
        y = y[..., :outputs].contiguous()
        if relu:
            y = torch.relu_(y)
        return y.view(runs * count, height, width, outputs).permute(0, 3, 1, 2)


class _Padded(NamedTuple):
    """Activations with the zero padding that the first convolution needs."""

    pixels: torch.Tensor


class Triton(Method):
    """Our own kernels: the usual method on GPUs."""

    name = "triton"

    def __init__(self, precision: str = "float32", device: str = "cuda") -> None:
        super().__init__(precision, device)
        from sweep.networks.conv import kernels

        self.kernels = kernels

    def read(self, pictures: Pictures, padding: int) -> Any:
        parts = pictures.stored, pictures.places, pictures.factor, pictures.offset
        return _Padded(self.kernels.gathered(*parts, padding))

    def convolution(
        self, x: Any, weight: torch.Tensor, bias: torch.Tensor, stride: int, relu: bool, **flags: bool
    ) -> torch.Tensor:
        padded = isinstance(x, _Padded)
        x, precision = x.pixels if padded else x, self.precision
        y: torch.Tensor = self.kernels.convolution(x, weight, bias, stride, relu, precision, padded=padded, **flags)
        return y

    def linear(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, relu: bool = False, **settings: Any
    ) -> torch.Tensor:
        y: torch.Tensor = self.kernels.linear(x, weight, bias, relu, self.precision, **settings)
        return y

    def batch_norm(self, x: torch.Tensor, norm: BatchNorm, training: bool, relu: bool) -> torch.Tensor:
        parts = (norm.weight, norm.bias, norm.mean, norm.variance)
        y: torch.Tensor = self.kernels.batch_norm(x, *parts, len(norm.weight), training, relu)
        return y

    def dropout(self, x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
        states = dropout.states if dropout.seeds is None else dropout.states.index_select(0, dropout.seeds)
        y: torch.Tensor = self.kernels.dropout(x, states, dropout.threshold, dropout.scale, len(states))
        return y


METHODS: Final[dict[MethodName, type[Method]]] = {"grouped": Grouped, "im2col": Im2col, "triton": Triton}


def has_triton() -> bool:
    """Whether Triton is installed; it comes with PyTorch on Linux."""
    return importlib.util.find_spec("triton") is not None


def _dropout(x: torch.Tensor, dropout: Dropout) -> torch.Tensor:
    """Drops units of `[rows, runs, units]`; a run's units are counted along its rows."""
    rows, _, units = x.shape
    hashes = _hash(_counters(rows, units, x.device), dropout.states)
    if dropout.seeds is not None:
        hashes = hashes.index_select(1, dropout.seeds)
    keep = hashes >= dropout.threshold.view(-1, 1)
    return x * (keep * dropout.scale.view(-1, 1))


@functools.lru_cache(maxsize=64)
def _counters(rows: int, units: int, device: torch.device) -> torch.Tensor:
    """Each unit's index times `GOLDEN`, modulo 2 ** 32: `[rows, 1, units]` of int32."""
    numbers = torch.arange(rows * units, dtype=torch.int64, device=device) * (random_streams.GOLDEN - 2**32)
    return numbers.bitwise_and_(0xFFFFFFFF).to(torch.int32).view(rows, 1, units)


def _hash(counters: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """`random_streams.mix(counters + states)` as int32: `[rows, 1, units]` and `[seeds]` to `[rows, seeds, units]`."""
    words = counters + states.view(-1, 1)
    # PyTorch shifts only signed words, which repeats the sign bit: the repeated bits are masked.
    for shift, factor in random_streams.MIX:
        signed = factor - 2**32 if factor >= 2**31 else factor
        words.bitwise_xor_((words >> shift).bitwise_and_(2 ** (32 - shift) - 1)).mul_(signed)
    last = random_streams.LAST_SHIFT
    return words.bitwise_xor_((words >> last).bitwise_and_(2 ** (32 - last) - 1))


def _rounding(precision: str) -> Rounding:
    """How operands of products are rounded before they are multiplied; sums are always in float32.

    A GPU's tensor cores truncate to tf32; numbers that were rounded before pass through them unchanged.
    """
    if precision == "float32":
        return _same
    to = _to_bfloat16 if precision == "bfloat16" else _to_tf32
    return lambda x: _Rounded.apply(x, to)


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _to_bfloat16(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.bfloat16).to(x.dtype)


def _to_tf32(x: torch.Tensor) -> torch.Tensor:
    """To ten bits after the leading one, ties away from zero, as a GPU's `cvt.rna.tf32` does."""
    words = x.float().view(torch.int32)
    rounded = (words + 0x1000).bitwise_and_(~0x1FFF).view(torch.float32).to(x.dtype)
    return torch.where(x.isfinite(), rounded, x)


def _rounded_gradient(y: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """`y`, a product whose gradient is rounded, since it is an operand of two more products in the backward pass."""
    if rounding is not _same and y.requires_grad:
        y.register_hook(rounding)  # type: ignore[no-untyped-call]
    return y


class _Rounded(torch.autograd.Function):
    """Rounds in the forward pass only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rounding: Rounding) -> torch.Tensor:
        return rounding(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None
