"""What has to hold between parts of a search space that are fine by themselves. A breach is raised as a `problem`."""

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
        "momentum is that of sgd; adamw has its own",
    ),
    Conflict(
        ("bias_layers", "depth"),
        lambda layers, depth: layers == "later_conv" and depth == 1,
        "there is no later convolution, and so nothing that bias could touch",
    ),
)


def axes(grid: Grid) -> None:
    """That settings stand in one place, clauses match something, and runs are left, but not too many."""
    for name in grid.axes:
        if name in grid.settings:
            raise problem("also stands under settings; give it in one place", ("axes", name))
    runs = math.prod(map(len, grid.levels.values()))
    if runs > MAX_RUNS:
        raise problem(f"{runs:,} runs; at most {MAX_RUNS:,}", ("axes",))
    for index, clause in enumerate(grid.exclude):
        _check_clause(grid, clause, ("exclude", index))
    if grid.exclude and next(grid.cells(), None) is None:
        raise problem("leaves no run at all", ("exclude",))


def tuning(grid: Grid, tune: Iterable[str]) -> None:
    """That there is something to tune."""
    for name in tune:
        if len(grid.levels.get(name, ())) < 2:
            raise problem(f"{name} is no axis with several levels, there is nothing to tune", ("analysis", "tune"))


def conflicts(grid: Grid) -> None:
    """That no cell that is not excluded has settings that make no sense together."""
    for names, clash, why in CONFLICTS:
        clashes = [levels for levels in itertools.product(*map(grid.levels_of, names)) if clash(*levels)]
        if clashes and any(clash(*(cell[name] for name in names)) for cell, _ in grid.cells()):
            words = ", ".join(f"{name} {show(level)}" for name, level in zip(names, clashes[0], strict=True))
            raise problem(f"{words}: {why}; exclude it where both are axes", _place(grid, names[0]))


def data(grid: Grid, pinned: Iterable[str]) -> None:
    """That pictures are resized and pinned only where they come from files."""
    datasets = grid.levels_of("dataset")
    if grid.fixed["image_size"] is not None:
        for dataset in datasets:
            if catalogue.kind(dataset) != "folder":
                words = f"resizes the pictures of folder:PATH; those of {dataset} are used as they are"
                raise problem(words, ("settings", "image_size"))
    for dataset in pinned:
        if catalogue.has_constant(dataset):
            raise problem("its pictures are fixed by the program; there is nothing to say of them", ("data", dataset))
        if dataset not in datasets:
            raise problem(f"is no data set of this search space: {', '.join(datasets)}", ("data", dataset))


def pictures(grid: Grid, facts: Mapping[str, Facts]) -> None:
    """That there are pictures enough, and large enough, in the data sets whose `facts` are known."""
    for dataset, known in facts.items():
        _check_counts(grid, dataset, known.train)
    for dataset, known in facts.items():
        _check_pooling(grid, dataset, known.picture[1:])


def shared_weights(grid: Grid) -> None:
    """That both arms are there wherever they take turns on one set of weights."""
    protocols = set(grid.levels_of("protocol"))
    if "shared_weights" not in protocols:
        return
    if set(grid.levels["bias"]) != {True, False}:
        words = "shared_weights trains both arms of a pair on one set of weights: bias must be [true, false]"
        raise problem(words, _place(grid, "protocol"))
    for index, clause in enumerate(grid.exclude):
        if "bias" in clause and "shared_weights" in clause.get("protocol", protocols):
            words = "would leave half a pair whose arms share their weights (protocol shared_weights)"
            raise problem(words, ("exclude", index, "bias"))


def _check_clause(grid: Grid, clause: Clause, location: Location) -> None:
    if not clause:
        raise problem("names no axis, and so would leave out everything", location)
    for name, levels in clause.items():
        if name not in grid.levels:
            words = f"is no axis, but fixed at {show(grid.fixed[name])}; the axes are {', '.join(grid.levels)}"
            raise problem(words, (*location, name))
        known = set(grid.levels[name])
        for index, level in enumerate(levels):
            if level not in known:
                words = f"{show(level)} is no level of that axis: {show(list(grid.levels[name]))}"
                raise problem(words, (*location, name, index))


def _check_counts(grid: Grid, dataset: str, there: int) -> None:
    """That there are as many training pictures as are asked for, and as a batch takes."""
    for examples, batch in itertools.product(grid.levels_of("train_examples"), grid.levels_of("batch_size")):
        wanted: dict[str, Any] = {"dataset": dataset, "train_examples": examples}
        if examples and examples > there and grid.has(**wanted):
            words = f"{examples:,} is not allowed: {dataset} has {there:,} training pictures"
            raise problem(words, _place(grid, "train_examples"))
        if batch > (examples or there) and grid.has(**wanted, batch_size=batch):
            words = f"fewer training pictures ({examples or there:,}, of {dataset}) than a batch takes ({batch:,})"
            given = [name for name in ("batch_size", "train_examples") if name in {**grid.settings, **grid.axes}]
            raise problem(words, _place(grid, [*given, "dataset"][0]))


def _check_pooling(grid: Grid, dataset: str, sides: tuple[int, ...]) -> None:
    """That no pooling shrinks the pictures to nothing."""
    for pooling, depth in itertools.product(grid.levels_of("pooling"), grid.levels_of("depth")):
        smallest = 2 ** min(depth, 2)  # the first two convolutions are followed by a pooling
        if pooling not in ("max", "average") or min(sides) >= smallest:
            continue
        if grid.has(dataset=dataset, pooling=pooling, depth=depth):
            words = f"pooling {pooling} at depth {depth} needs pictures of {smallest} x {smallest} or more; "
            raise problem(f"{words}those of {dataset} are {' x '.join(map(str, sides))}", _place(grid, "pooling"))


def _place(grid: Grid, name: str) -> Location:
    return ("axes" if name in grid.axes else "settings", name)
