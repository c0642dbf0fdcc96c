"""The network, with a leading axis of runs: its starting weights and one forward pass.

Every tensor of parameters starts with the axis of runs; nothing is ever summed over it, so a run's numbers do not
depend on its neighbours.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sweep.common import random_streams
from sweep.networks.conv.backends import ALIGNMENT, BatchNorm, Dropout, Grouped, Method, Pictures
from sweep.networks.conv.shape import Layer, Shape
from sweep.space.runs import Run

Tensors = dict[str, torch.Tensor]


def initial(
    runs: Sequence[Run],
    shape: Shape,
    method: Method | None = None,
    dtype: torch.dtype = torch.float32,
    threads: int = 1,
) -> tuple[Tensors, Tensors]:
    """Starting parameters and running statistics of the runs, each tensor with the axis of runs first.

    Weights depend on the run's seed, the layer's name and the kind of draw alone, so the two runs of a pair start from
    equal weights. Convolution weights are `[runs, side, side, inputs, outputs]`, linear ones `[runs, inputs, outputs]`
    and padded to `ALIGNMENT`, biases `[runs, outputs]`. `threads` threads share the drawing.
    """
    method = method or Grouped()
    parameters: Tensors = {}
    for layer in (*shape.convolutions, *shape.linears):
        parameters[layer.weight] = _arranged(layer, drawn(runs, layer, dtype, threads), shape, method)
        bias = biases(runs, shape, layer, dtype)
        parameters[layer.bias] = F.pad(bias, (0, -bias.shape[1] % ALIGNMENT)) if layer.kind == "linear" else bias
    statistics: Tensors = {}
    for layer in shape.norms:
        size = (len(runs), *layer.shape)
        parameters[layer.weight] = torch.ones(size, dtype=dtype)
        parameters[layer.bias] = torch.zeros(size, dtype=dtype)
        statistics[f"{layer.name}.mean"] = torch.zeros(size, dtype=dtype)
        statistics[f"{layer.name}.variance"] = torch.ones(size, dtype=dtype)
    return parameters, statistics


def drawn(runs: Sequence[Run], layer: Layer, dtype: torch.dtype = torch.float32, threads: int = 1) -> torch.Tensor:
    """A layer's starting weights `[runs, outputs, …]`, in PyTorch's order; so many threads share the drawing."""
    weight = torch.empty(len(runs), *layer.shape, dtype=dtype)
    slots: dict[tuple[int, str], list[int]] = {}
    for slot, run in enumerate(runs):
        slots.setdefault((run.seed, run.weight_init), []).append(slot)
    draw = functools.partial(_draw, weight, runs, layer)
    if threads == 1:
        for chosen in slots.values():
            draw(chosen)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, slots.values()))
    return weight


def biases(runs: Sequence[Run], shape: Shape, layer: Layer, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A layer's starting biases `[runs, outputs]`."""
    return torch.from_numpy(np.stack([_biases(run, shape, layer) for run in runs])).to(dtype)


def _arranged(layer: Layer, weight: torch.Tensor, shape: Shape, method: Method) -> torch.Tensor:
    """A layer's weights `[runs, outputs, …]`, drawn in PyTorch's order, as `forward` needs them.

    Convolutions become `[runs, side, side, inputs, outputs]`, linear layers `[runs, inputs, outputs]` with both axes
    padded; the first linear layer takes its inputs in the order of `features`.
    """
    if layer.kind == "convolution":
        number = shape.convolutions.index(layer)
        return method.arrange(weight, shape.stride(number), shape.input_size(number))
    if layer == shape.linears[0]:
        weight = weight.view(*weight.shape[:2], shape.filters, -1).transpose(2, 3).flatten(2)
    missing = 0, -weight.shape[1] % ALIGNMENT, 0, -weight.shape[2] % ALIGNMENT
    return F.pad(weight.transpose(1, 2), missing).contiguous()  # without padding it would stay transposed


def forward(
    shape: Shape,
    method: Method,
    parameters: Tensors,
    statistics: Tensors,
    pictures: Pictures,
    training: bool,
    dropouts: Mapping[str, Dropout] | None = None,
    steps: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Logits `[runs, pictures, classes]` of a batch of every run.

    In training, `statistics` are updated in place; `dropouts` holds the masks of each layer, by its name, and
    `steps` the steps that weights of linear layers take in the backward pass, by the weight's name.
    """
    x = method.read(pictures, shape.kernel_size // 2)
    runs = len(parameters[shape.convolutions[0].bias])
    relu, last = shape.activation == "relu", shape.depth - 1
    # Where the features are a copy in another order, the ReLU is applied to that copy, since its gradient has that
    # order too; but not after batch norm, which computes its own gradient differently in that order.
    late = relu and not (method.runs_first or shape.batch_norm or shape.pools(last) or dropouts)
    rectified = False  # whether x is the output of the previous layer's ReLU, with nothing in between
    for number, layer in enumerate(shape.convolutions):
        weight, bias = parameters[layer.weight], parameters[layer.bias]
        here = relu and not shape.batch_norm and not (late and number == last)
        masked = here and not shape.pools(number) and not dropouts
        x = method.convolution(x, weight, bias, shape.stride(number), here, rectified=rectified, masked=masked)
        rectified = masked
        if shape.batch_norm:
            x = method.batch_norm(x, _norm(parameters, statistics, shape.norms[number]), training, relu)
        x = activation(x, shape.activation)
        if shape.pools(number):
            x = F.max_pool2d(x, 2) if shape.pooling == "max" else F.avg_pool2d(x, 2)
        if dropouts:
            x = method.dropout(x, dropouts[layer.name])
    x = features(method.split(x, runs))
    x = torch.relu_(x) if late else x
    for layer in shape.linears:
        weight, bias = parameters[layer.weight], parameters[layer.bias]
        hidden = layer is not shape.linears[-1]
        here = relu and hidden
        masked = here and not dropouts
        step = steps.get(layer.weight) if steps else None
        x = method.linear(x, weight, bias, here, rectified=rectified, masked=masked, step=step)
        rectified = masked
        if hidden:
            x = activation(x, shape.activation)
            x = method.dropout(x, dropouts[layer.name]) if dropouts else x
    return x[..., : shape.classes]


def activation(x: torch.Tensor, name: str) -> torch.Tensor:
    """Every activation but ReLU, which the previous layer has applied in place."""
    match name:
        case "gelu":
            return _gelu(x)
        case "tanh":
            return torch.tanh(x)
        case "leaky_relu":
            return F.leaky_relu(x)
    return x


def _gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU of whole vectors: PyTorch computes the numbers after the last whole one differently, with other bits."""
    missing = -x.numel() % ALIGNMENT
    if not missing:
        return F.gelu(x)
    rows = x.permute(0, 2, 3, 1)
    flat = F.gelu(F.pad(rows.flatten(), (0, missing)))[: x.numel()]
    return flat.view_as(rows).permute(0, 3, 1, 2)


def features(x: torch.Tensor) -> torch.Tensor:
    """`[runs, pictures, height, width, channels]` to `[runs, pictures, height x width x channels]`, padded.

    The order of the features is that of channels-last memory, so forward and backward each copy once, in long pieces.
    """
    flat = x.flatten(2)
    missing = -flat.shape[-1] % ALIGNMENT
    return F.pad(flat, (0, missing)) if missing else flat


def _norm(parameters: Tensors, statistics: Tensors, layer: Layer) -> BatchNorm:
    return BatchNorm(
        parameters[layer.weight],
        parameters[layer.bias],
        statistics[f"{layer.name}.mean"],
        statistics[f"{layer.name}.variance"],
    )


def _draw(weight: torch.Tensor, runs: Sequence[Run], layer: Layer, slots: list[int]) -> None:
    """Fills some slots of a layer's weights, all of one seed and kind of draw."""
    weight[slots] = torch.from_numpy(_weights(runs[slots[0]], layer)).to(weight.dtype)


def _weights(run: Run, layer: Layer) -> NDArray[np.float64]:
    purpose, count = f"init/{layer.name}/{run.weight_init}", math.prod(layer.shape)
    match run.weight_init:
        case "he":  # arXiv 1502.01852, equation 10
            flat = np.sqrt(2 / layer.fan_in) * random_streams.normal(run.seed, purpose, count)
        case "truncated_normal":
            flat = 0.1 * random_streams.truncated_normal(run.seed, purpose, count)
        case "uniform":  # torch.nn.Linear.reset_parameters
            flat = (2 * random_streams.uniform(run.seed, purpose, count) - 1) / np.sqrt(layer.fan_in)
    return np.asarray(flat).reshape(layer.shape)


def _biases(run: Run, shape: Shape, layer: Layer) -> NDArray[np.float64]:
    count = layer.shape[0]
    if not run.bias and layer.bias in layer.treated:
        return np.zeros(count)
    match run.bias_init:
        case "zeros":
            return np.zeros(count)
        case "uniform":
            draws = random_streams.uniform(run.seed, f"init/{layer.name}/bias", count)
            return np.asarray((2 * draws - 1) / np.sqrt(layer.fan_in))
        case "original":
            return np.zeros(count) if layer == shape.convolutions[0] else np.ones(count)
