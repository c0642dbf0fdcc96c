"""What the native kernels take, and what they cost in memory and time: from settings and shapes alone, for the plan."""

import math
from typing import Final

from sweep.networks.conv.shape import Shape, training_flops
from sweep.space.runs import Run

ACTIVATIONS: Final = ("identity", "relu", "leaky_relu")
"""In the order in which the library numbers them."""

LANES: Final = 16
"""Networks of a tile, at most."""

UNITS: Final = 4
"""Units of a linear layer are padded to whole blocks of so many."""

ROWS: Final = 32
"""Rows of a picture that a convolution keeps scaled, at most."""

COPIES: Final = 4
"""Of what a network keeps: a checkpoint needs three while it is written."""

OVERHEAD: Final = 600_000
SPEED: Final = 2
"""What a step costs besides multiplications, in operations, and how many times as fast they are as in PyTorch.

Fitted on a CPU, widths 1 to 32.
"""


def knows(cell: Run) -> bool:
    """Whether the native kernels know all that this cell's program needs."""
    return cell.activation in ACTIVATIONS and cell.precision == "float32"


def work(cell: Run, shape: Shape) -> int:
    """How long training takes, in floating-point operations of PyTorch."""
    return (training_flops(cell, shape) + OVERHEAD * cell.steps) // SPEED


def most_runs(cell: Run, shape: Shape, memory: int) -> int:
    """How many runs an array of at most `memory` bytes may have: whole tiles, or none."""
    tiles = (memory // (4 * LANES) - _working_numbers(cell, shape)) // (COPIES * _kept_numbers(cell, shape))
    return LANES * max(0, tiles)


def array_bytes(cell: Run, shape: Shape, runs: int) -> int:
    """Memory that an array of so many runs needs, in bytes; an estimate on the high side.

    It counts working memory for one tile, and for every tile parameters and the optimizer's moments with their copies.
    """
    return 4 * LANES * (_working_numbers(cell, shape) + -(-runs // LANES) * COPIES * _kept_numbers(cell, shape))


def _kept_numbers(cell: Run, shape: Shape) -> int:
    """Numbers that a network keeps between steps."""
    moments = 2 if cell.optimizer == "adamw" else 1 if cell.momentum > 0 else 0
    return _parameters(shape) * (1 + moments) + 2 * sum(math.prod(layer.shape) for layer in shape.norms)


def _working_numbers(cell: Run, shape: Shape) -> int:
    """Numbers per network while it is trained: gradients, and a batch's pictures and activations.

    Rows are padded by half a kernel at both ends. A layer has up to three copies of its activations; the last has a
    gradient of its own, while the others' take the place of activations.
    """
    padded = 2 * (shape.kernel_size // 2)
    layers = [shape.filters * height * (width + padded) for height, width in shape.sizes]
    copies = 2 + shape.batch_norm
    units = 2 * _blocks(shape.hidden) + _blocks(shape.classes)
    picture = shape.channels * shape.height * shape.width
    each = sum(layers[:-1]) * copies + layers[-1] + units + picture + 1
    scaled = ROWS * shape.channels * (shape.width + padded)
    return cell.batch_size * each + scaled + _parameters(shape) + 8 * shape.depth * shape.filters + 1024


def _parameters(shape: Shape) -> int:
    linears = sum((_blocks(inputs) + 1) * _blocks(units) for units, inputs in (layer.shape for layer in shape.linears))
    convolutions = sum(math.prod(layer.shape) + layer.shape[0] for layer in shape.convolutions)
    return convolutions + linears + 2 * sum(math.prod(layer.shape) for layer in shape.norms)


def _blocks(units: int) -> int:
    return -(-units // UNITS) * UNITS
