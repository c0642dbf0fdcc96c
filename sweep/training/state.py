"""What a checkpoint holds of an array in training: its tensors by name, its progress, and whose they are."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.space.runs import TRAINER_VERSION, Run
from sweep.store.outcomes import Point
from sweep.training.checkpoint import State
from sweep.training.tiles import Tiles

SUMS: Final = frozenset({"loss_sum", "last_loss_sum", "finite"})
"""The tensors that are `[turns, networks]`; all others are `[networks, …]`."""


class CurvePoint(NamedTuple):
    """A point of every run's learning curve: mean loss since the last one, and accuracy, both `[runs]`."""

    step: int
    losses: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    def of(self, slot: int) -> Point:
        """The point of one run; a loss that is not finite becomes None."""
        loss = float(self.losses[slot])
        return Point(self.step, loss if math.isfinite(loss) else None, float(self.accuracies[slot]))


@dataclasses.dataclass
class Progress:
    """How far training has come: steps done, steps since the last point of the curve, and all points.

    `seconds` is these runs' share of the training time before the checkpoint.
    """

    done: int = 0
    since_point: int = 0
    seconds: float = 0.0
    points: list[CurvePoint] = dataclasses.field(default_factory=list)


class ArrayState:
    """All that training changes in an array, by name, and the runs and networks it belongs to."""

    def __init__(
        self,
        runs: Sequence[Run],
        networks: Sequence[Run],
        fingerprint: str,
        tensors: Mapping[str, torch.Tensor | Tiles],
        native: bool = False,
    ) -> None:
        """`fingerprint` is the data's; `tensors` stay the same objects while their contents change.

        Native kernels order parameters in their own way: what they have begun, they go on with, and nothing else.
        """
        self.runs, self.networks, self.fingerprint, self.tensors = runs, networks, fingerprint, tensors
        self.native = native

    def snapshot(self, progress: Progress, seconds: float) -> State:
        """What `restore` needs to go on from here, after `seconds` of training."""
        curve = {
            "curve/steps": torch.tensor([point.step for point in progress.points], dtype=torch.int64),
            "curve/losses": torch.tensor(np.array([point.losses for point in progress.points])),
            "curve/accuracies": torch.tensor(np.array([point.accuracies for point in progress.points])),
        }
        numbers = {"done": progress.done, "since_point": progress.since_point, "seconds": seconds}
        tensors = {name: tensor.detach().cpu() for name, tensor in self.tensors.items()}
        return State({**tensors, **curve}, numbers | self._owners)

    def fits(self, state: State) -> bool:
        """Whether `state` holds these runs, possibly among others, as trained by the same kernels."""
        return all(set(state.numbers.get(part, ())).issuperset(names) for part, names in self._owners.items())

    @torch.no_grad()
    def restore(self, state: State) -> Progress:
        """Loads these runs' part of a `state` that fits."""
        networks, runs = (_places(self._owners[part], state.numbers[part]) for part in ("networks", "runs"))
        for name, tensor in self.tensors.items():
            tensor.copy_(state.tensors[name].index_select(1 if name in SUMS else 0, networks))
        steps = state.tensors["curve/steps"].tolist()
        curve = [state.tensors[f"curve/{part}"] for part in ("losses", "accuracies")]
        values = [each.index_select(1, runs).numpy() for each in curve] if steps else curve
        return Progress(
            done=state.numbers["done"],
            since_point=state.numbers["since_point"],
            seconds=state.numbers["seconds"] * len(self.runs) / len(state.numbers["runs"]),
            points=[CurvePoint(*point) for point in zip(steps, *values, strict=True)],
        )

    @functools.cached_property
    def _owners(self) -> dict[str, list[str]]:
        """What each run, and each network, is called in a checkpoint: a hash of all that its training depends on."""
        return {"runs": self._names(self.runs), "networks": self._names(self.networks)}

    def _names(self, runs: Sequence[Run]) -> list[str]:
        about = TRAINER_VERSION, self.fingerprint, *(["native"] if self.native else [])
        return [hashlib.sha256(repr((*about, run)).encode()).hexdigest()[:20] for run in runs]


def _places(wanted: Sequence[str], there: Sequence[str]) -> torch.Tensor:
    place = {name: number for number, name in enumerate(there)}
    return torch.tensor([place[name] for name in wanted], dtype=torch.int64)
