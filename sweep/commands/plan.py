"""What a launch would train: counts, arithmetic and time."""

import dataclasses
import os
import sys
from collections.abc import Sequence

from sweep import plan as plans
from sweep.common.errors import InputError
from sweep.data.library import Library
from sweep.networks.conv.shape import training_flops
from sweep.plan import Array
from sweep.space import catalogue
from sweep.space.catalogue import Facts
from sweep.space.search_space import SearchSpace
from sweep.store.rows import Store


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a launch would train.

    `runs`, `cells` and `arrays` count the whole grid; `parameters` and `flops` are totals over the runs to train.
    Where pictures are not at hand, what is in the store is not known, and all runs are to train; where not even their
    shape is known, arrays, parameters and flops are not known either, nor what several search spaces share.
    """

    name: str
    runs: int | None
    cells: int | None
    arrays: int | None
    in_store: int | None
    to_train: int | None
    parameters: int | None
    flops: int | None
    estimated_seconds: float | None
    device: str


def located(space: SearchSpace, library: Library) -> SearchSpace:
    """The search space with the facts of all its data sets; files are read where no constant stands for them.

    Raises NotHere where they cannot be had, InputError where they are not the pictures that the search space names.
    """
    size = space.fixed["image_size"]
    found = {dataset: library.facts(dataset, size) for dataset in space.datasets if not catalogue.has_constant(dataset)}
    names: dict[tuple[str, str], str] = {}
    for dataset, facts in found.items():
        wanted = space.data.get(dataset)
        if wanted and wanted.fingerprint != facts.identity:
            raise InputError(
                f"data set {dataset!r}: its pictures have the fingerprint {facts.identity}, "
                f"but {space.name} names {wanted.fingerprint} under data"
            )
        other = names.setdefault((catalogue.kind(dataset), facts.identity), dataset)
        if other != dataset:
            raise InputError(f"data sets {other!r} and {dataset!r} hold the same pictures; name one of them")
    return space.pinned(found)


def plan(spaces: Sequence[SearchSpace], store: Store, library: Library) -> Plan:
    """Counts what a launch of all `spaces` would train, and measures for a few seconds how long that takes here.

    Runs, cells and arrays that search spaces share count once. Downloads nothing; what cannot be known without
    pictures that are not here is None.
    """
    from sweep.training.device import device_name, local_device, planned_kind

    device = local_device()
    here = all(library.here(dataset) for space in spaces for dataset in space.datasets)
    spaces = [located(space, library) if here else _imagined(space) for space in spaces]
    runs: int | None = None
    cells = arrays = todo = None
    if all(space.facts(dataset) for space in spaces for dataset in space.datasets):
        arrays = plans.arrays_of_all(spaces, planned_kind())
        todo = plans.missing(arrays, store.statuses() if here else ())
        runs, cells = sum(map(len, arrays)), plans.cell_count(spaces)
    elif len(spaces) == 1:
        runs, cells = spaces[0].run_count(), spaces[0].cell_count()
    to_train = runs if todo is None else sum(map(len, todo))
    return Plan(
        name=", ".join(space.name for space in spaces),
        runs=runs,
        cells=cells,
        arrays=None if arrays is None else len(arrays),
        in_store=runs - to_train if here and runs is not None and to_train is not None else None,
        to_train=to_train,
        parameters=None if todo is None else sum(array.parameter_count() for array in todo),
        flops=None if todo is None else sum(len(array) * training_flops(array.cell, array.shape) for array in todo),
        estimated_seconds=_seconds(todo, library, device) if here and todo is not None else None,
        device=device_name(device),
    )


def devices(planned: Plan) -> int:
    """The cores, or GPUs, that the estimate of a plan counts with."""
    from sweep.training.estimate import devices as at_hand

    return at_hand("cpu" if planned.device.startswith("cpu ") else "cuda")


def load() -> float:
    """Programs per core that have been running over the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return 0.0


def pictured(space: SearchSpace, library: Library) -> SearchSpace:
    """The search space with the facts of its data sets, as far as they are known without a download."""
    return located(space, library) if all(map(library.here, space.datasets)) else _imagined(space)


def _imagined(space: SearchSpace) -> SearchSpace:
    """The search space with facts of such data sets as are not here and have a known shape, under no identity."""
    entries = {name: catalogue.CATALOGUE[name] for name in space.datasets if name in catalogue.CATALOGUE}
    unknown = {name: entry for name, entry in entries.items() if space.facts(name) is None}
    return space.pinned(
        {
            name: Facts("0" * 16, entry.picture, entry.classes, entry.train or sys.maxsize)
            for name, entry in unknown.items()
        }
    )


def _seconds(todo: list[Array], library: Library, device: str) -> float | None:
    from sweep.training.estimate import seconds

    return seconds(todo, library, device)
