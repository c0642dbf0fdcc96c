"""Which arrays a search space falls into, and what of them is missing. Pure Python: neither torch nor ray.

The partition is made of the whole grid by a fixed rule, before the store is looked at: blocks of absolute seed numbers
within a cell. Adding seeds or levels adds arrays and leaves the others as they are.
"""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterator
from typing import Final, Literal

from sweep import data
from sweep.runs import Identities, Run, array_id
from sweep.search_space import SearchSpace
from sweep.shape import Shape, training_flops

DeviceKind = Literal["cpu", "cuda"]
Members = tuple[tuple[bool, int], ...]
"""(bias, seed) of each run."""

SATURATION: Final[dict[DeviceKind, tuple[tuple[int, int], ...]]] = {
    "cpu": ((2, 64), (8, 32), (16, 8), (32, 4), (1024, 2)),
    "cuda": ((4, 2048), (16, 512), (1024, 64)),
}
"""Runs that fill a device: (up to this width, this many). More would only make arrays longer."""


OVERHEAD: Final = 10_000_000
"""What a run's step costs beside its multiplications, in floating-point operations; fitted on a CPU, width 1 to 64."""


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """Runs of one cell that train together: what they share, and each member's (bias, seed)."""

    array_id: str
    cell: Run
    members: Members
    run_ids: tuple[str, ...]

    def runs(self) -> list[Run]:
        """The members as records, in the order of `run_ids`."""
        return [dataclasses.replace(self.cell, bias=bias, seed=seed) for bias, seed in self.members]

    @property
    def shape(self) -> Shape:
        """The shape of its networks."""
        *picture, classes = data.SHAPES[self.cell.dataset]
        return Shape.of(self.cell, (picture[0], picture[1], picture[2]), classes)

    @property
    def work(self) -> int:
        """How long it takes beside others, in floating-point operations: sorts arrays and weighs progress."""
        return len(self.members) * (training_flops(self.cell, self.shape) + OVERHEAD * self.cell.steps)

    def without(self, done: Collection[str]) -> "Array | None":
        """This array less the runs in `done`; None when nothing is left."""
        left = [
            (run_id, member) for run_id, member in zip(self.run_ids, self.members, strict=True) if run_id not in done
        ]
        if len(left) == len(self.members):
            return self
        if not left:
            return None
        run_ids, members = zip(*left, strict=True)
        return Array(array_id(run_ids), self.cell, members, run_ids)


def arrays(space: SearchSpace, device: DeviceKind) -> Iterator[Array]:
    """The arrays of the whole grid, cell by cell."""
    evaluate_every = space.fixed["evaluate_every"]
    blocks = functools.lru_cache(maxsize=64)(_blocks)
    for levels, members in space.grid():
        levels["evaluate_every"] = evaluate_every
        cell = Run(**levels)
        identities = Identities(cell, data.identity(cell.dataset))
        for chosen in blocks(members, array_size(cell.width, device) // 2):
            run_ids = tuple([identities.run_id(bias, seed) for bias, seed in chosen])
            yield Array(array_id(run_ids), cell, chosen, run_ids)


def run_ids(space: SearchSpace) -> list[str]:
    """The runs of the whole grid."""
    return [run_id for array in arrays(space, "cpu") for run_id in array.run_ids]


def missing(planned: list[Array], done: Collection[str]) -> list[Array]:
    """What remains to be trained: arrays wholly done are left out, partly done ones reduced."""
    left = (array.without(done) for array in planned)
    return [array for array in left if array is not None]


@functools.cache
def array_size(width: int, device: DeviceKind) -> int:
    """How many runs of this width fill a device of this kind."""
    return next(runs for limit, runs in SATURATION[device] if width <= limit)


def _blocks(members: Members, seeds: int) -> list[Members]:
    """Members by blocks of `seeds` absolute seed numbers, in order; the arms of a pair stand side by side."""
    ordered = sorted(members, key=lambda member: (member[1], not member[0]))
    return [tuple(block) for _, block in itertools.groupby(ordered, key=lambda member: member[1] // seeds)]
