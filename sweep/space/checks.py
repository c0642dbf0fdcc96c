"""Rules between parts of a search space that are valid by themselves. A violation is raised as a `problem`."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from sweep.space import catalogue
from sweep.space.catalogue import Facts
from sweep.space.grid import Grid
from sweep.space.schema import Clause, problem
from sweep.space.yaml_lines import Location, show

MAX_RUNS: Final = 10**7


class Conflict(NamedTuple):
    """Levels of some settings that make no sense together."""

    names: tuple[str, ...]
    clash: Callable[..., bool]
    words: str


CONFLICTS: Final = (
    Conflict(
        ("momentum", "optimizer"),
        lambda momentum, optimizer: momentum > 0 and optimizer == "adamw",
        "momentum belongs to sgd; adamw has its own",
    ),
    Conflict(
        ("bias_layers", "depth"),
        lambda layers, depth: layers == "later_conv" and depth == 1,
        "there is no later convolution, so bias would change nothing",
    ),
)


def axes(grid: Grid) -> None:
    """Rejects settings given in two places, clauses that match nothing, and grids with no runs or too many."""
    for name in grid.axes:
        if name in grid.settings:
            raise problem("also given under settings; give it in one place only", ("axes", name))
    runs = math.prod(map(len, grid.levels.values()))
    if runs > MAX_RUNS:
        raise problem(f"{runs:,} runs; at most {MAX_RUNS:,}", ("axes",))
    for index, clause in enumerate(grid.exclude):
        _check_clause(grid, clause, ("exclude", index))
    if grid.exclude and next(grid.cells(), None) is None:
        raise problem("leaves no runs", ("exclude",))


def tuning(grid: Grid, tune: Iterable[str]) -> None:
    """Rejects tuning of a setting that has fewer than two levels."""
    for name in tune:
        if len(grid.levels.get(name, ())) < 2:
            raise problem(f"{name} is not an axis with several levels: nothing to tune", ("analysis", "tune"))


def conflicts(grid: Grid) -> None:
    """Rejects levels that make no sense together, unless their cells are excluded."""
    for names, clash, why in CONFLICTS:
        clashes = [levels for levels in itertools.product(*map(grid.levels_of, names)) if clash(*levels)]
        if clashes and any(clash(*(cell[name] for name in names)) for cell, _ in grid.cells()):
            words = ", ".join(f"{name} {show(level)}" for name, level in zip(names, clashes[0], strict=True))
            raise problem(f"{words}: {why}; if both are axes, exclude the combination", _place(grid, names[0]))


def data(grid: Grid, pinned: Iterable[str]) -> None:
    """Rejects resizing and pinning of pictures that do not come from files."""
    datasets = grid.levels_of("dataset")
    if grid.fixed["image_size"] is not None:
        for dataset in datasets:
            if catalogue.kind(dataset) != "folder":
                words = f"only the pictures of folder:PATH can be resized, not those of {dataset}"
                raise problem(words, ("settings", "image_size"))
    for dataset in pinned:
        if catalogue.has_constant(dataset):
            raise problem("its pictures are fixed by the program, so they need no entry here", ("data", dataset))
        if dataset not in datasets:
            words = f"not a data set of this search space, which has {', '.join(datasets)}"
            raise problem(words, ("data", dataset))


def pictures(grid: Grid, facts: Mapping[str, Facts]) -> None:
    """Rejects data sets with too few or too small pictures, where their `facts` are known."""
    for dataset, known in facts.items():
        _check_counts(grid, dataset, known.train)
    for dataset, known in facts.items():
        _check_pooling(grid, dataset, known.picture[1:])


def shared_weights(grid: Grid) -> None:
    """Rejects a single arm where both arms take turns on one set of weights."""
    protocols = set(grid.levels_of("protocol"))
    if "shared_weights" not in protocols:
        return
    if set(grid.levels["bias"]) != {True, False}:
        words = "shared_weights trains both arms of a pair on one set of weights: bias must be [true, false]"
        raise problem(words, _place(grid, "protocol"))
    for index, clause in enumerate(grid.exclude):
        if "bias" in clause and "shared_weights" in clause.get("protocol", protocols):
            words = "would leave half of a pair that shares its weights (protocol shared_weights)"
            raise problem(words, ("exclude", index, "bias"))


def _check_clause(grid: Grid, clause: Clause, location: Location) -> None:
    if not clause:
        raise problem("names no axis, so it would exclude everything", location)
    for name, levels in clause.items():
        if name not in grid.levels:
            words = f"not an axis, but fixed at {show(grid.fixed[name])}; the axes are {', '.join(grid.levels)}"
            raise problem(words, (*location, name))
        known = set(grid.levels[name])
        for index, level in enumerate(levels):
            if level not in known:
                words = f"{show(level)} is not a level of this axis, which has {show(list(grid.levels[name]))}"
                raise problem(words, (*location, name, index))


def _check_counts(grid: Grid, dataset: str, there: int) -> None:
    """Rejects more training pictures than there are, and batches larger than the training set."""
    for examples, batch in itertools.product(grid.levels_of("train_examples"), grid.levels_of("batch_size")):
        wanted: dict[str, Any] = {"dataset": dataset, "train_examples": examples}
        if examples and examples > there and grid.has(**wanted):
            words = f"{examples:,} is not allowed: {dataset} has {there:,} training pictures"
            raise problem(words, _place(grid, "train_examples"))
        size = examples or there
        if batch > size and grid.has(**wanted, batch_size=batch):
            words = f"a batch of {batch:,} pictures is larger than the training set ({size:,} of {dataset})"
            given = [name for name in ("batch_size", "train_examples") if name in {**grid.settings, **grid.axes}]
            raise problem(words, _place(grid, [*given, "dataset"][0]))


def _check_pooling(grid: Grid, dataset: str, sides: tuple[int, ...]) -> None:
    """Rejects pooling that shrinks pictures to nothing."""
    for pooling, depth in itertools.product(grid.levels_of("pooling"), grid.levels_of("depth")):
        smallest = 2 ** min(depth, 2)  # pooling follows the first two convolutions
        if pooling not in ("max", "average") or min(sides) >= smallest:
            continue
        if grid.has(dataset=dataset, pooling=pooling, depth=depth):
            words = f"pooling {pooling} at depth {depth} needs pictures of at least {smallest} x {smallest}; "
            raise problem(f"{words}those of {dataset} are {' x '.join(map(str, sides))}", _place(grid, "pooling"))


def _place(grid: Grid, name: str) -> Location:
    return ("axes" if name in grid.axes else "settings", name)
