"""The grid of a search space: the levels of its axes, and its cells and runs in a fixed order, less those excluded."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

from sweep.space.runs import DEFAULTS, SETTINGS
from sweep.space.schema import Axes, Clause, Settings

MEMBER: Final = ("seed", "bias")
"""The settings in which the runs of one cell differ."""

Members = tuple[tuple[bool, int], ...]
"""The runs of a cell, each as (bias, seed)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The product of `axes` over what all runs share, less the runs that match a clause of `exclude`."""

    settings: Settings
    axes: Axes
    exclude: list[Clause]

    @functools.cached_property
    def levels(self) -> dict[str, tuple[Any, ...]]:
        """The levels of each axis, in the settings' order; always with `bias` and `seed`, even if they do not vary."""
        given: dict[str, list[Any]] = {"bias": [True, False], "seed": [0]}
        given |= {name: [self.settings[name]] for name in MEMBER if name in self.settings}
        given |= self.axes
        return {name: tuple(given[name]) for name in SETTINGS if name in given}

    @functools.cached_property
    def fixed(self) -> dict[str, Any]:
        """Every setting that is not an axis, with defaults filled in."""
        settings = DEFAULTS | self.settings
        return {name: settings[name] for name in SETTINGS if name not in self.levels}

    def levels_of(self, name: str) -> tuple[Any, ...]:
        """The levels of any setting; one that is not an axis has a single level."""
        return self.levels.get(name) or (self.fixed[name],)

    def cells(self) -> Iterator[tuple[dict[str, Any], Members]]:
        """Each cell that has runs: all its settings but bias and seed, and its members.

        Cells come in the order of the settings (the last axis varies fastest) and of their levels; members by
        seed, then bias, as declared. Each mapping is a new one.
        """
        order = {name: self.fixed.get(name) for name in SETTINGS if name not in MEMBER}
        for cell, members in self._walk():
            yield {**order, **dict(zip(self._cell_axes, cell, strict=True))}, members

    def has(self, **levels: Any) -> bool:
        """Whether some cell has these levels and is not excluded."""
        return any(all(cell[name] == level for name, level in levels.items()) for cell, _ in self.cells())

    @functools.cached_property
    def counts(self) -> tuple[int, int]:
        """How many cells have runs, and how many runs there are."""
        if not self.exclude:
            cells = math.prod(len(self.levels[name]) for name in self._cell_axes)
            return cells, cells * len(self.levels["seed"]) * len(self.levels["bias"])
        cells = runs = 0
        for _, members in self._walk():
            cells, runs = cells + 1, runs + len(members)
        return cells, runs

    @functools.cached_property
    def _cell_axes(self) -> tuple[str, ...]:
        return tuple(name for name in self.levels if name not in MEMBER)

    def _walk(self) -> Iterator[tuple[tuple[Any, ...], Members]]:
        """The cells' levels and members; each clause of `exclude` is one bit of a mask."""
        everyone = tuple((bias, seed) for seed in self.levels["seed"] for bias in self.levels["bias"])
        masks = {name: self._masks(name) for name in self.levels}
        of_members = [masks["bias"][bias] & masks["seed"][seed] for bias, seed in everyone]
        whole = _bits("bias" not in clause and "seed" not in clause for clause in self.exclude)
        anyone = _bits(True for _ in self.exclude)

        @functools.lru_cache(maxsize=16)  # cells that match the same clauses have the same members
        def members(met: int) -> Members:
            return tuple(member for member, mask in zip(everyone, of_members, strict=True) if not mask & met)

        by_level = [[masks[name][level] for level in self.levels[name]] for name in self._cell_axes]
        cells = itertools.product(*(self.levels[name] for name in self._cell_axes))
        for cell, met_by_axis in zip(cells, itertools.product(*by_level), strict=True):
            met = anyone
            for mask in met_by_axis:
                met &= mask
            left = everyone if not met else () if met & whole else members(met)
            if left:
                yield cell, left

    def _masks(self, name: str) -> dict[Any, int]:
        """For each level of an axis, the clauses that match it: they name it or do not mention the axis."""
        silent = _bits(name not in clause for clause in self.exclude)
        masks = dict.fromkeys(self.levels[name], silent)
        for index, clause in enumerate(self.exclude):
            for level in clause.get(name, ()):
                masks[level] |= 1 << index
        return masks


def _bits(flags: Iterable[bool]) -> int:
    return int("".join("01"[flag] for flag in flags)[::-1] or "0", 2)
