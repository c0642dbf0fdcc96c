"""How long a sweep will take on this machine, from a short measurement of a few of its shapes."""

import functools
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from sweep.common.host import cores
from sweep.data.library import Library
from sweep.networks.conv.shape import MethodName
from sweep.plan import Array
from sweep.training.device import exact_arithmetic
from sweep.training.trainer import Trainer

SHAPES: Final = 3
"""At most this many shapes of a method are measured; the others are interpolated by their arithmetic."""

LARGEST: Final = 20_000_000
"""Parameters of the largest array that is measured: drawing more would take longer than the measurement itself."""


def seconds(arrays: Sequence[Array], library: Library, device: str, budget: float = 5.0) -> float | None:
    """Seconds that training `arrays` takes with this whole machine to itself, measured for about `budget` seconds.

    Shapes share the budget; setup, and a GPU's compilation, come on top of it and are not counted. The time per step is
    interpolated over the operations of a run's forward pass, for each method by itself, and evaluations are added by
    theirs. That cores share
    memory is left out, so the estimate is some percent too low. None where every shape is too large to measure. Raises
    NotHere where a data set is not at hand.
    """
    each: list[float] = []
    methods = sorted({array.method for array in arrays})
    for method in methods:
        mine = [array for array in arrays if array.method == method]
        known = _measured(mine, library, device, budget / len(methods))
        if not known:
            return None
        flops, times = (np.array(part, dtype=np.float64) for part in zip(*known, strict=True))
        for array in mine:
            wanted = array.shape.forward_flops()
            step = float(np.interp(wanted, flops, times)) * max(1.0, wanted / flops[-1])
            evaluated = _evaluated(library, array.cell.dataset, array.cell.image_size)
            each.append(len(array) * step * (array.cell.steps + evaluated / (3 * array.cell.batch_size)))
    return float(max(sum(each) / devices(device), *each)) if each else 0.0


def _measured(arrays: Sequence[Array], library: Library, device: str, budget: float) -> list[tuple[int, float]]:
    """Operations and seconds per step of a run of the smallest, the middle and the largest of these shapes."""
    small = [array for array in arrays if _parameters(array) <= LARGEST]
    if not small:
        return []
    ordered = sorted(small, key=lambda array: array.shape.forward_flops())
    chosen = [ordered[round(i * (len(ordered) - 1) / (SHAPES - 1))] for i in range(SHAPES)]
    by_flops = {array.shape.forward_flops(): array for array in chosen}
    return sorted((flops, _step_seconds(array, library, device, budget / SHAPES)) for flops, array in by_flops.items())


def devices(device: str) -> int:
    """How many arrays this machine trains at once: one per core, or per GPU."""
    return cores() if device == "cpu" else torch.cuda.device_count()


def _parameters(array: Array) -> int:
    return array.parameter_count()


@functools.lru_cache(maxsize=64)
def _evaluated(library: Library, dataset: str, image_size: int | None) -> int:
    """Pictures that a run is evaluated on at its end; between splits, at most repeats change their number."""
    data = library.load(dataset, 0, image_size)
    return len(data.split.validation) + len(data.split.test)


def _step_seconds(array: Array, library: Library, device: str, budget: float) -> float:
    """Seconds per step of one run in this array."""
    torch.set_num_threads(1)
    cell = array.cell
    data = library.load(cell.dataset, cell.split, cell.image_size)
    data.check_counts(cell)
    with exact_arithmetic(array.cell.precision):
        way: MethodName | None = "native" if array.method == "native" else None  # on a GPU, by what it can do
        trainer = Trainer(array.runs(), data, device=device, method=way)
        if cell.steps > 1:
            trainer.step()  # the first step also allocates memory, and compiles
            _finish(device)
        # On a CPU, time that other programs take from the core does not count.
        clock = time.process_time if device == "cpu" else time.perf_counter
        begun, done, passed, worked = time.perf_counter(), trainer.done, 0.0, clock()
        while trainer.done < cell.steps and (trainer.done == done or passed < budget):
            trainer.step(at_most=cell.steps - trainer.done)
            _finish(device)  # a GPU would queue far more steps than fit into the budget
            passed = time.perf_counter() - begun
    return (clock() - worked) / ((trainer.done - done) * len(array))


def _finish(device: str) -> None:
    """Waits until the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)
