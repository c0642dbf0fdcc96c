"""Section `sizes`: rates by width, method and array size, which the table of array sizes is made of."""

import dataclasses

from rates import RECIPE

from gpu_kit import device
from gpu_kit.recorder import Recorder
from gpu_kit.scale import Scale
from sweep import plan
from sweep.networks.conv.backends import has_triton
from sweep.networks.conv.shape import Shape, training_flops
from sweep.space.runs import Run
from sweep.training.device import exact_arithmetic

DROPPED = 3.0
"""A way this many times slower than the best one is followed no further."""

STEPS = 1001
"""Of the sweeps that arrays are made for."""

LONGEST_MEASUREMENT = 8.0
"""Seconds that one size takes at most, setting it up included: what is asked for before it is begun."""


def measure(recorder: Recorder, scale: Scale) -> None:
    """Model-steps a second of every method and size that can be best, the largest first."""
    for width in scale.size_widths:
        _Width(recorder, scale, width).measure()


def fitting(run: Run, scale: Scale) -> list[int]:
    """The sizes that plans may make of this run's arrays, by memory and by the time that an array may take."""
    shape = Shape.of(run, (1, 28, 28), 10)
    work = training_flops(dataclasses.replace(run, steps=STEPS), shape) + plan.OVERHEAD * STEPS
    largest = min(plan.MEMORY[scale.kind] // plan.array_bytes(run, shape), plan.LONGEST[scale.kind] // work)
    return [size for size in scale.sizes if size <= max(2, largest)]


class _Width:
    """The search at one width."""

    def __init__(self, recorder: Recorder, scale: Scale, width: int) -> None:
        self.recorder, self.scale = recorder, scale
        self.run = dataclasses.replace(RECIPE, width=width)
        self.best, self.best_size = 0.0, max(scale.sizes)
        self.tried: dict[tuple[plan.MethodName, int], float | None] = {}

    def measure(self) -> None:
        """Method by method, the one of today's table first: others are tried at the best size that it had."""
        sizes = fitting(self.run, self.scale)
        for method in self._methods():
            if self.best and self._hopeless(method, self.best_size):
                continue
            for size in sizes:
                if self._hopeless(method, size):
                    break

    def _methods(self) -> list[plan.MethodName]:
        known: list[plan.MethodName] = ["grouped", "im2col"]
        if self.scale.kind == "cuda" and has_triton():
            known.append("triton")
        first = plan.method(self.run, self.scale.kind)
        return sorted(known, key=lambda method: method != first)

    def _hopeless(self, method: plan.MethodName, size: int) -> bool:
        """Whether this way, once measured, is so slow that smaller arrays of it need not be tried."""
        if (method, size) not in self.tried:
            self.tried[method, size] = self._rate(method, size)
        rate = self.tried[method, size]
        if rate is not None and rate > self.best:
            self.best, self.best_size = rate, size
        return rate is not None and DROPPED * rate < self.best

    def _rate(self, method: plan.MethodName, size: int) -> float | None:
        labels = {"width": self.run.width, "method": method, "runs": size}
        with device.released(self.scale.kind), self.recorder.guard("fused", "model-steps/s", **labels):
            self.recorder.need(LONGEST_MEASUREMENT)
            rate = self._timed(method, size)
            self.recorder.add("fused", rate, "model-steps/s", **labels)
            return rate
        return None

    def _timed(self, method: plan.MethodName, size: int) -> float:
        with exact_arithmetic(), device.alike_weights():
            trainer = device.array(self.scale.kind, self.run, size, method)
            return size / device.step_seconds(trainer, self.scale.replays)
