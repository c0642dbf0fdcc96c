"""Networks packed as tiles, as the library takes them. Lanes past the last network repeat it."""

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F

from sweep.networks.conv.native.costs import ACTIVATIONS, UNITS
from sweep.networks.conv.native.library import Address, Convolution, Library, Network
from sweep.networks.conv.shape import Layer, Shape

POOLING: Final = {"none": 0, "stride": 0, "max": 1, "average": 2}
"""By their names in a search space."""


def scratch(library: Library, network: Network) -> torch.Tensor:
    """Working memory for networks of one shape, all of it in its first state."""
    memory = torch.zeros(library.scratch_bytes(network) // 4 + 16)
    library.prepare(network, memory.data_ptr())
    return memory


def network(shape: Shape, pictures: int) -> Network:
    """A shape as the library takes it, for batches of so many pictures."""
    made = Network(
        depth=shape.depth,
        side=shape.kernel_size,
        activation=ACTIVATIONS.index(shape.activation),
        norm=shape.batch_norm,
        pooling=POOLING[shape.pooling],
        dropout=shape.dropout,
        hidden=shape.hidden,
        classes=shape.classes,
        pictures=pictures,
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
    )
    for number, layer in enumerate(shape.convolutions):
        outputs, inputs = layer.shape[:2]
        out = shape.sizes[number]
        behind = shape.input_size(number + 1) if number + 1 < shape.depth else shape.sizes[shape.depth]
        made.convolutions[number] = Convolution(
            inputs, outputs, *shape.input_size(number), *out, shape.stride(number), *behind
        )
    return made


def names(shape: Shape) -> list[str]:
    """The parameters in the library's order."""
    found = []
    for number, layer in enumerate(shape.convolutions):
        found += [layer.weight, layer.bias]
        if shape.batch_norm:
            found += [shape.norms[number].weight, shape.norms[number].bias]
    return found + [name for layer in shape.linears for name in (layer.weight, layer.bias)]


def arranged(shape: Shape, layer: Layer, weight: torch.Tensor) -> torch.Tensor:
    """A layer's weights `[runs, outputs, …]`, in PyTorch's order, as `[runs, numbers]` in the library's."""
    runs = len(weight)
    if layer.kind == "convolution":
        return weight.permute(0, 3, 2, 4, 1).reshape(runs, -1)  # [side, inputs, side, outputs]
    if layer == shape.linears[0]:
        planes = weight.view(runs, -1, shape.filters, *shape.sizes[shape.depth])
        weight = planes.transpose(2, 3).flatten(2)  # features are rows of all channels
    else:
        weight = F.pad(weight, (0, -weight.shape[2] % UNITS))
    weight = F.pad(weight, (0, 0, 0, -weight.shape[1] % UNITS))
    return weight.view(runs, -1, UNITS, weight.shape[2]).transpose(2, 3).reshape(runs, -1)


def restored(shape: Shape, layer: Layer, numbers: torch.Tensor) -> torch.Tensor:
    """The inverse of `arranged`: `[runs, outputs, …]`."""
    runs = len(numbers)
    if layer.kind == "convolution":
        outputs, inputs, side, _ = layer.shape
        return numbers.view(runs, side, inputs, side, outputs).permute(0, 4, 2, 1, 3)
    units, inputs = layer.shape
    padded = inputs if layer == shape.linears[0] else inputs + -inputs % UNITS
    weight = numbers.view(runs, -1, padded, UNITS).transpose(2, 3).flatten(1, 2)[:, :units, :inputs]
    if layer == shape.linears[0]:
        height, width = shape.sizes[shape.depth]
        weight = weight.reshape(runs, units, height, shape.filters, width).transpose(2, 3).flatten(2)
    return weight


def packed(numbers: torch.Tensor, lanes: int) -> torch.Tensor:
    """`[runs, numbers]` as tiles `[tiles, numbers, lanes]`."""
    tiles = -(-len(numbers) // lanes)
    chosen = torch.arange(tiles * lanes).clamp_(max=len(numbers) - 1)
    return numbers[chosen].view(tiles, lanes, -1).transpose(1, 2).contiguous()


def unpacked(tiles: torch.Tensor, runs: int) -> torch.Tensor:
    """The inverse of `packed`."""
    return tiles.transpose(1, 2).flatten(0, 1)[:runs].contiguous()


def addresses(tensors: Sequence[torch.Tensor | None]) -> Any:
    """Their addresses as the library takes a list; 0 where there is none."""
    return (Address * max(1, len(tensors)))(*(None if each is None else each.data_ptr() for each in tensors))
