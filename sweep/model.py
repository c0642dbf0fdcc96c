"""The network, with a leading axis of runs: its starting weights and one forward pass.

Every tensor of parameters starts with the axis of runs; nothing is ever summed over it, so a run's numbers do not
depend on its neighbours. Activations are `[pictures, runs x channels, height, width]` in channels-last memory, so that
a convolution of all runs is one grouped convolution.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sweep import streams
from sweep.runs import Run
from sweep.shape import Shape

Tensors = dict[str, torch.Tensor]

ALIGNMENT: Final = 16
"""Inputs and units of linear layers are padded with zeros to a multiple of this many numbers (64 bytes of float32).

A matrix product chooses its way by the address of its operands: without padding, a run's bits would depend on its slot.
Padded units stay zero, since their weights, their biases and so all their gradients are.
"""


def initial(runs: Sequence[Run], shape: Shape, dtype: torch.dtype = torch.float32) -> tuple[Tensors, Tensors]:
    """Starting parameters and running statistics of the runs, each tensor with the axis of runs first.

    Weights are drawn from the run's seed, the layer's name and the kind of draw alone: the two runs of a pair start
    from equal weights. Convolution weights are `[runs, outputs, inputs, side, side]`, linear ones
    `[runs, inputs, outputs]` and padded to `ALIGNMENT`, biases `[runs, outputs]`.
    """
    parameters: Tensors = {}
    for name, weight_shape, fan_in in shape.layers():
        drawn: dict[tuple[int, str], NDArray[np.float64]] = {}
        for run in runs:
            if (run.seed, run.weight_init) not in drawn:
                drawn[run.seed, run.weight_init] = _weights(run, name, weight_shape, fan_in)
        weight = torch.from_numpy(np.stack([drawn[run.seed, run.weight_init] for run in runs])).to(dtype)
        parameters[f"{name}.weight"] = arrange(name, weight, shape)
        biases = np.stack([_biases(run, name, weight_shape[0], fan_in) for run in runs])
        bias = torch.from_numpy(biases).to(dtype)
        parameters[f"{name}.bias"] = bias if name.startswith("conv") else F.pad(bias, (0, -bias.shape[1] % ALIGNMENT))
    statistics: Tensors = {}
    for layer in range(shape.depth if shape.batch_norm else 0):
        size = (len(runs), shape.filters)
        parameters[f"norm{layer}.weight"] = torch.ones(size, dtype=dtype)
        parameters[f"norm{layer}.bias"] = torch.zeros(size, dtype=dtype)
        statistics[f"norm{layer}.mean"] = torch.zeros(size, dtype=dtype)
        statistics[f"norm{layer}.variance"] = torch.ones(size, dtype=dtype)
    return parameters, statistics


def arrange(layer: str, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """A layer's weights `[runs, outputs, …]`, drawn in PyTorch's order, as `forward` wants them.

    Convolutions keep their axes, with the inputs last in memory; linear layers become `[runs, inputs, outputs]`, those
    behind the convolutions with inputs in the order of `features`, both axes padded.
    """
    if layer.startswith("conv"):
        return weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    if layer == shape.layers()[shape.depth][0]:
        weight = weight.view(*weight.shape[:2], shape.filters, -1).transpose(2, 3).flatten(2)
    return F.pad(weight.transpose(1, 2), (0, -weight.shape[1] % ALIGNMENT, 0, -weight.shape[2] % ALIGNMENT))


def has_bias(run: Run, layer: str) -> bool:
    """Whether the run's `layer` has a bias that trains: the treatment touches the convolutions."""
    return run.bias or not layer.startswith("conv")


def forward(
    shape: Shape, parameters: Tensors, statistics: Tensors, pictures: torch.Tensor, training: bool
) -> torch.Tensor:
    """Logits `[runs, pictures, classes]`.

    `pictures` is `[pictures, runs x channels, height, width]`, or `[pictures, channels, height, width]` where all
    runs see the same. In training, `statistics` are updated in place.
    """
    x = pictures
    runs = parameters["logits.bias"].shape[0]
    for layer in range(shape.depth):
        x = convolution(x, parameters[f"conv{layer}.weight"], parameters[f"conv{layer}.bias"], shape.stride(layer))
        if shape.batch_norm:
            x = batch_norm(x, parameters, statistics, layer, training)
        x = torch.relu_(x)
    x = features(x, runs)
    if shape.hidden:
        x = torch.relu_(linear(x, parameters["hidden.weight"], parameters["hidden.bias"]))
    return linear(x, parameters["logits.weight"], parameters["logits.bias"])[..., : shape.classes]


def convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int) -> torch.Tensor:
    """One convolution of all runs: `weight` is `[runs, outputs, inputs, side, side]`, `bias` `[runs, outputs]`."""
    # Pictures that all runs share need no groups: their channels are then the inputs of every run's filters.
    groups = x.shape[1] // weight.shape[2]
    padding = weight.shape[-1] // 2
    return F.conv2d(x, weight.flatten(0, 1), bias.flatten(), stride=stride, padding=padding, groups=groups)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`[runs, pictures, inputs]` to `[runs, pictures, units]`, a matrix product a run; inputs and units are padded."""
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def batch_norm(x: torch.Tensor, parameters: Tensors, statistics: Tensors, layer: int, training: bool) -> torch.Tensor:
    """PyTorch's batch normalization (momentum 0.1, epsilon 1e-5), of every run's channels by themselves.

    The last channels of a number that vectors do not divide are computed another way, with other bits: channels are
    padded, as the units of linear layers are.
    """
    channels, missing = x.shape[1], -x.shape[1] % ALIGNMENT
    weight, bias = (parameters[f"norm{layer}.{part}"].flatten() for part in ("weight", "bias"))
    running = [statistics[f"norm{layer}.{part}"].view(-1) for part in ("mean", "variance")]
    if not missing:
        return F.batch_norm(x, running[0], running[1], weight, bias, training=training)
    padded = [F.pad(part, (0, missing)) for part in running]
    weight, bias = F.pad(weight, (0, missing)), F.pad(bias, (0, missing))
    x = F.pad(x, (0, 0, 0, 0, 0, missing))
    x = F.batch_norm(x, padded[0], padded[1], weight, bias, training=training)[:, :channels]
    for part, value in zip(running, padded, strict=True):
        part.copy_(value[:channels])
    return x.contiguous(memory_format=torch.channels_last)


def features(x: torch.Tensor, runs: int) -> torch.Tensor:
    """`[pictures, runs x channels, height, width]` to `[runs, pictures, height x width x channels]`, padded.

    The order of the features is that of channels-last memory: forward and backward each copy once, in long pieces.
    """
    pictures, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(pictures, height * width, runs, channels // runs)
    flat = pixels.permute(2, 0, 1, 3).reshape(runs, pictures, -1)
    missing = -flat.shape[-1] % ALIGNMENT
    return F.pad(flat, (0, missing)) if missing else flat


def _weights(run: Run, layer: str, size: tuple[int, ...], fan_in: int) -> NDArray[np.float64]:
    purpose, count = f"init/{layer}/{run.weight_init}", int(np.prod(size))
    match run.weight_init:
        case "he":  # arXiv 1502.01852, equation 10
            flat = np.sqrt(2 / fan_in) * streams.normal(run.seed, purpose, count)
        case "truncated_normal":
            flat = 0.1 * streams.truncated_normal(run.seed, purpose, count)
        case "uniform":  # torch.nn.Linear.reset_parameters
            flat = (2 * streams.uniform(run.seed, purpose, count) - 1) / np.sqrt(fan_in)
    return np.asarray(flat).reshape(size)


def _biases(run: Run, layer: str, count: int, fan_in: int) -> NDArray[np.float64]:
    if not has_bias(run, layer):
        return np.zeros(count)
    match run.bias_init:
        case "zeros":
            return np.zeros(count)
        case "uniform":
            return np.asarray((2 * streams.uniform(run.seed, f"init/{layer}/bias", count) - 1) / np.sqrt(fan_in))
        case "original":
            return np.zeros(count) if layer == "conv0" else np.ones(count)
