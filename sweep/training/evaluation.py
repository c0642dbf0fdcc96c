"""Accuracy and loss of an array's networks on pictures that all of them see, and points of the learning curve."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.networks.conv.backends import Pictures
from sweep.plan import DeviceKind
from sweep.space.runs import Run
from sweep.training.assignment import Assignment
from sweep.training.device import kind_of
from sweep.training.device_data import DeviceData, Scaling
from sweep.training.fused_model import FusedModel, cross_entropies

CURVE_COST: Final = 0.015
"""Largest share of the training's arithmetic that points of the learning curve may cost."""

EVALUATION_NUMBERS: Final[dict[DeviceKind, int]] = {"cpu": 2**22, "cuda": 2**27}
"""Most numbers in one activation of an evaluation, all runs together: what caches and a worker's memory can take."""


class Evaluator:
    """Evaluates every run of an array in the current state of its networks."""

    def __init__(self, assignment: Assignment, model: FusedModel, data: DeviceData, scaling: Scaling) -> None:
        self.assignment, self.model, self.data, self.scaling = assignment, model, data, scaling
        scaled = np.array([run.input_scaling for run in assignment.networks])
        self.scaled_alike = [torch.from_numpy(np.flatnonzero(scaled == each)) for each in np.unique(scaled)]

    def curve_accuracy(self) -> NDArray[np.float64]:
        """Accuracy `[runs]` on the first `curve_examples` validation pictures."""
        places = self.data.split.validation
        chosen = self.data.part(places[: curve_examples(self.assignment.networks[0], len(places))])
        return np.asarray(self.evaluate(*chosen)[0].mean(axis=1))

    @torch.no_grad()
    def evaluate(self, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which pictures each run gets right `[runs, n]`, and each run's mean loss `[runs]`."""
        networks, turns, size = len(self.assignment.networks), self.model.turns, self._pictures_at_once()
        correct, loss = [], torch.zeros(turns, networks, dtype=torch.float64, device=self.data.device)
        for start in range(0, len(labels), size):
            targets = labels[start : start + size].expand(networks, -1)
            right = []
            for turn in range(turns):
                logits = self._logits(turn, pictures[start : start + size])
                right.append(logits.argmax(2) == targets)
                losses = cross_entropies(logits, targets)
                loss[turn] += losses.double().sum(1)
            correct.append(torch.stack(right))
        return self.assignment.by_run(torch.cat(correct, dim=2)), self.assignment.by_run(loss / len(labels))

    def _pictures_at_once(self) -> int:
        patches = self.model.shape.kernel_size**2 if self.model.method.name == "im2col" else 1
        largest = patches * len(self.assignment.networks) * self.model.shape.largest_activation()
        return max(1, EVALUATION_NUMBERS[kind_of(self.data.device)] // largest)

    def _logits(self, turn: int, pictures: torch.Tensor) -> torch.Tensor:
        """Every network's logits `[networks, pictures, classes]` on the same pictures."""
        places = torch.arange(len(pictures), device=self.data.device)
        if self.data.device != "cpu" or self.model.method.runs_first:
            each = places.expand(len(self.assignment.networks), -1)
            return self.model.logits(turn, Pictures(pictures, each, *self.scaling), training=False)
        # Networks that scale alike share one input. Where scalings differ, all networks are computed with each input:
        # a convolution over some of them would have another shape, and a run's bits would depend on its neighbours.
        logits = torch.empty(0)
        for slots in self.scaled_alike:
            first = slots[:1]
            seen = Pictures(pictures, places[None], *(part[first] for part in self.scaling))
            found = self.model.logits(turn, seen, training=False)
            logits = found if len(logits) == 0 else logits.index_copy(0, slots, found[slots])
        return logits


def curve_examples(run: Run, available: int) -> int:
    """Validation pictures of a point of the curve: as many as keep all points within `CURVE_COST`.

    A step costs as much as three forward passes of its batch: one forward, and twice that backward.
    """
    points = -(-run.steps // run.curve_interval)
    affordable = int(CURVE_COST * 3 * run.steps * run.batch_size / points)
    return max(1, min(affordable, available))
