"""How long a sweep will take on this machine, from a short measurement of a few of its shapes."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from sweep import data as data_sets
from sweep.machine import cores
from sweep.plan import Array
from sweep.train import Trainer, exact_arithmetic

SHAPES: Final = 3
"""At most this many shapes are measured; the others are read off them by their arithmetic."""

LARGEST: Final = 20_000_000
"""Parameters of the largest array that is tried: drawing more of them would take longer than the measurement."""


def seconds(arrays: Sequence[Array], device: str, budget: float = 5.0) -> float | None:
    """Seconds that training `arrays` takes with all of this machine, measured for about `budget` seconds.

    Time a step is interpolated over a run's forward operations; evaluations count by theirs. That cores share memory
    is left out, so that the estimate is on the low side by some percent. None where every shape is too large to be
    tried in passing.
    """
    small = [array for array in arrays if _parameters(array) <= LARGEST]
    if not arrays or not small:
        return None if arrays else 0.0
    data = data_sets.load(small[0].cell.dataset)
    ordered = sorted(small, key=lambda array: array.shape.forward_flops())
    chosen = [ordered[round(i * (len(ordered) - 1) / (SHAPES - 1))] for i in range(SHAPES)]
    by_flops = {array.shape.forward_flops(): array for array in chosen}
    known = sorted((flops, _step_seconds(array, data, device, budget / SHAPES)) for flops, array in by_flops.items())
    flops, times = (np.array(part, dtype=np.float64) for part in zip(*known, strict=True))
    evaluated = len(data.validation[1]) + len(data.test[1])
    each = []
    for array in arrays:
        wanted = array.shape.forward_flops()
        step = float(np.interp(wanted, flops, times)) * max(1.0, wanted / flops[-1])
        each.append(len(array) * step * (array.cell.steps + evaluated / (3 * array.cell.batch_size)))
    workers = cores() if device == "cpu" else torch.cuda.device_count()
    return float(max(sum(each) / workers, *each))


def _parameters(array: Array) -> int:
    return array.parameter_count()


def _step_seconds(array: Array, data: data_sets.Data, device: str, budget: float) -> float:
    """Seconds a run's step takes in this array."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    with exact_arithmetic(array.cell.precision):
        trainer = Trainer(array.runs(), data, device=device)
        if array.cell.steps > 1:
            trainer.step()  # the first step also sets up memory
        begun, done = time.perf_counter(), trainer.done
        while trainer.done < array.cell.steps and (trainer.done == done or time.perf_counter() - started < budget):
            trainer.step()
        if device != "cpu":
            torch.cuda.synchronize()
    return (time.perf_counter() - begun) / ((trainer.done - done) * len(array))
