"""How long a sweep will take on this machine, from a short measurement of a few of its shapes."""

import os
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from sweep import data as data_sets
from sweep.plan import Array
from sweep.train import Trainer, exact_arithmetic

SHAPES: Final = 3
"""At most this many shapes are measured; the others are read off them by their arithmetic."""


def seconds(arrays: Sequence[Array], device: str, budget: float = 5.0) -> float:
    """Seconds that training `arrays` takes with all cores of this machine, measured for at most `budget` seconds.

    Time a step is interpolated over a run's forward operations; evaluations count by theirs. That cores share memory
    is left out, so that the estimate is on the low side by some percent.
    """
    if not arrays:
        return 0.0
    data = data_sets.load(arrays[0].cell.dataset)
    ordered = sorted(arrays, key=lambda array: array.shape.forward_flops())
    chosen = [ordered[round(i * (len(ordered) - 1) / (SHAPES - 1))] for i in range(SHAPES)]
    by_flops = {array.shape.forward_flops(): array for array in chosen}
    known = sorted((flops, _step_seconds(array, data, device, budget / SHAPES)) for flops, array in by_flops.items())
    flops, times = (np.array(part, dtype=np.float64) for part in zip(*known, strict=True))
    evaluated = len(data.validation[1]) + len(data.test[1])
    total = 0.0
    for array in arrays:
        wanted = array.shape.forward_flops()
        step = np.interp(wanted, flops, times) * max(1.0, wanted / flops[-1])
        steps = array.cell.steps + evaluated / (3 * array.cell.batch_size)
        total += len(array.members) * steps * float(step)
    return total / (_cores() if device == "cpu" else torch.cuda.device_count())


def _step_seconds(array: Array, data: data_sets.Data, device: str, budget: float) -> float:
    """Seconds a run's step takes in this array."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    with exact_arithmetic():
        trainer = Trainer(array.runs(), data, device=device)
        trainer.step()  # the first step also sets up memory
        steps, begun = 0, time.perf_counter()
        while steps < array.cell.steps - 1 and (steps < 1 or time.perf_counter() - started < budget):
            trainer.step()
            steps += 1
    return (time.perf_counter() - begun) / (max(steps, 1) * len(array.members))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
