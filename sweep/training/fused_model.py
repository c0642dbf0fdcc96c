"""All networks of an array as one model: their parameters on their device, and their forward pass."""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from sweep import plan
from sweep.common.host import cores
from sweep.networks.conv import model
from sweep.networks.conv.backends import METHODS, Dropout, Pictures, has_triton
from sweep.networks.conv.shape import MethodName, Shape
from sweep.space.runs import Run
from sweep.training.assignment import Assignment
from sweep.training.device import kind_of


class FusedModel:
    """Parameters and running statistics by name, each `[networks, …]`, and which of them an arm goes without.

    Where each run has its own network, `frozen` masks `[networks]` those whose treated parameters keep their starting
    values. Where two arms take turns, the second computes with the values in `absent` instead, and trains neither.
    """

    def __init__(
        self, assignment: Assignment, shape: Shape, method: MethodName | None, dtype: torch.dtype, device: str
    ) -> None:
        """`method` is the device's usual one if None."""
        networks = assignment.networks
        first, threads = networks[0], 1 if device == "cpu" else cores()
        self.shape, self.turns = shape, len(assignment.turns)
        self.method = METHODS[method or usual_method(first, device)](first.precision, device)
        parameters, statistics = model.initial(networks, shape, self.method, dtype, threads)
        self.parameters = {name: _moved(p, device).requires_grad_() for name, p in parameters.items()}
        self.statistics = {name: s.to(device) for name, s in statistics.items()}
        without = torch.tensor([not run.bias for run in networks], device=device)
        self.frozen = dict.fromkeys(shape.treated, without) if not all(run.bias for run in networks) else {}
        treated = shape.treated if self.turns == 2 else ()
        self.absent = {name: torch.zeros_like(self.parameters[name]) for name in treated}

    def logits(
        self,
        turn: int,
        pictures: Pictures,
        *,
        training: bool,
        dropouts: Mapping[str, Dropout] | None = None,
        steps: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        """Logits `[networks, pictures, classes]` in a turn; see `model.forward` for `dropouts` and `steps`."""
        parameters = self.parameters if turn == 0 else {**self.parameters, **self.absent}
        return model.forward(self.shape, self.method, parameters, self.statistics, pictures, training, dropouts, steps)

    def learning(self, turn: int, done: Collection[str]) -> dict[str, torch.Tensor]:
        """The parameters that a turn trains, except those in `done`, which are updated elsewhere."""
        left = {*done, *(self.absent if turn == 1 else ())}
        return {name: parameter for name, parameter in self.parameters.items() if name not in left}


def cross_entropies(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss of each network on each picture; like the labels, `[networks, pictures]`."""
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(len(logits), -1)


def usual_method(run: Run, device: str) -> MethodName:
    """The method that the table names for this device; im2col instead of Triton where that does not run."""
    wanted = plan.method(run, kind_of(device))
    return "im2col" if wanted == "triton" and not _runs_triton(device) else wanted


@functools.cache
def _runs_triton(device: str) -> bool:
    """Whether our kernels run there: their tiles need the shared memory of compute capability 8.0."""
    return has_triton() and torch.cuda.get_device_capability(device) >= (8, 0)


def _moved(parameter: torch.Tensor, device: str) -> torch.Tensor:
    return parameter.to(device, memory_format=torch.preserve_format)
