"""Which network trains each run of an array, and in which turn on a batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.space.runs import Run


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The networks of an array, each given as one of its runs, and for every turn the run that each network trains.

    Runs that share weights (`protocol: shared_weights`) are two runs of one network, whose arms take turns on every
    batch. Everywhere else each run has its own network, and there is one turn.
    """

    networks: tuple[Run, ...]
    turns: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Assignment":
        """The assignment of an array's runs; `turns` holds indices into `runs`."""
        if runs[0].protocol == "paired":
            return cls(tuple(runs), (tuple(range(len(runs))),))
        place = {run: number for number, run in enumerate(runs)}
        networks = tuple(run for run in runs if run.bias)
        partners = [dataclasses.replace(run, bias=False) for run in networks]
        assert {*networks, *partners} == place.keys(), "shared weights are trained by both arms together"
        return cls(networks, tuple(tuple(place[run] for run in arm) for arm in (networks, partners)))

    def by_run(self, numbers: torch.Tensor) -> NDArray[Any]:
        """Numbers `[turns, networks, …]` on the device, rearranged as `[runs, …]`."""
        found = numbers.cpu().numpy()
        by_run = np.empty((sum(map(len, self.turns)), *found.shape[2:]), found.dtype)
        for turn, runs in enumerate(self.turns):
            by_run[list(runs)] = found[turn]
        return by_run
