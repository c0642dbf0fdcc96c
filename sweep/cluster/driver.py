"""A launch: finds what search spaces have and the store has not, has it trained, and says what came of it.

The store remembers. Nothing is restored from Tune's own state: to go on after any crash is to launch again. Ray is
loaded where something is missing, while it starts.
"""

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from sweep import plan
from sweep.cluster import local_ray, scratch
from sweep.cluster.address import Where
from sweep.cluster.crew import Crew, mustered, own_gpus
from sweep.cluster.local_ray import LocalRay
from sweep.cluster.stop_signal import StopSignal, stopping
from sweep.common.fault_options import FaultOptions
from sweep.common.host import cores
from sweep.common.progress import say
from sweep.data.library import Library
from sweep.data.splits import Data
from sweep.plan import Array, Pictures
from sweep.space.search_space import SearchSpace
from sweep.store.rows import Store

DEFAULT_FAULT_OPTIONS: Final = FaultOptions()
"""What a launch does against loss unless it is told otherwise."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a launch did for a sweep, or for several together, in runs."""

    name: str
    runs: int
    trained: int
    already: int
    failed: int
    diverged: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Launched:
    """What a launch did: for all its sweeps together, where runs that they share count once, and for each.

    `failures` are messages by array, which is named with its settings.
    """

    total: Summary
    sweeps: tuple[Summary, ...]
    failures: dict[str, str]


def launch(
    spaces: Sequence[SearchSpace],
    store: Store,
    library: Library,
    console: Console,
    faults: FaultOptions = DEFAULT_FAULT_OPTIONS,
    where: Where | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Launched:
    """Trains the missing runs of all `spaces`, on this machine unless `where` says otherwise.

    Runs that search spaces share are trained once. Arrays that another launch on this store is training are left for
    last, and waited for. Failed arrays are named in the summary and stop no other. KeyboardInterrupt leaves what is
    done in the store. If anything is missing, a thread calls `meanwhile` before training begins.
    """
    started, running, signal = time.monotonic(), set[str](), StopSignal()
    store.place.on_wait = functools.partial(say, console)
    run_ids = plan.run_ids_of_all(spaces)
    experiment = None
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(stopping(running, signal))
        statuses = store.statuses()
        if not all(map(statuses.__contains__, run_ids)):
            crew = leaving.enter_context(mustered(where or Where(), store, console))
            leaving.callback(signal.clear)
            arrays = _missing(spaces, statuses, crew)
            data = _load(arrays, library, console)
            folder = leaving.enter_context(scratch.folder())
            own = leaving.enter_context(_own_ray(crew, arrays, folder))
            from sweep.cluster.experiment import Experiment  # loads Ray, while ours starts

            experiment = Experiment(arrays, data, store, crew, own, faults, signal, running, console)
            if meanwhile:
                threading.Thread(target=meanwhile, daemon=True).start()
        # What is wrong with the pictures has been said by now: nothing is written for a launch that cannot start.
        for space in spaces:
            store.save_sweep(space.name, space.resolved())
        kept = store.tidy(statuses)
        if experiment:
            runs = sum(map(len, arrays))
            count = f"{len(arrays):,} array{'s' * (len(arrays) != 1)}"
            say(console, f"{runs:,} of {len(run_ids):,} runs to train, in {count}")
            experiment.run(", ".join(space.name for space in spaces), kept, folder)
            statuses |= store.statuses([array.array_id for array in arrays])
            store.clear_failures(statuses)
            store.tidy(statuses)
    seconds = time.monotonic() - started
    mine = experiment.watcher.trained if experiment else set[str]()

    def summary(name: str, run_ids: list[str]) -> Summary:
        done = [statuses[run_id] for run_id in run_ids if run_id in statuses]
        trained = sum(run_id in mine for run_id in run_ids) if mine else 0
        failed = len(run_ids) - len(done)
        return Summary(name, len(run_ids), trained, len(done) - trained, failed, done.count("diverged"), seconds)

    total = summary(", ".join(space.name for space in spaces), run_ids)
    each = (total,) if len(spaces) == 1 else tuple(summary(space.name, plan.run_ids(space)) for space in spaces)
    return Launched(total, each, experiment.watcher.named_failures(statuses) if experiment else {})


def _missing(spaces: Sequence[SearchSpace], done: Collection[str], crew: Crew) -> list[Array]:
    """The arrays to train, longest first."""
    planned = plan.arrays_of_all(spaces, crew.kind)
    return sorted(plan.missing(planned, done), key=lambda array: -array.work)


def _own_ray(crew: Crew, arrays: Sequence[Array], folder: Path) -> contextlib.AbstractContextManager[LocalRay | None]:
    """A Ray of our own, in which so many arrays train at once as this machine has cores for; None on a cluster."""
    if crew.where.kind != "here":
        return contextlib.nullcontext()
    return local_ray.starting(min(cores(), len(arrays) * crew.cpus), own_gpus(crew), folder)


def _load(todo: Sequence[Array], library: Library, console: Console) -> dict[Pictures, Data]:
    """The data that the arrays are trained on, read or downloaded here, once for all workers."""
    loaded: dict[Pictures, Data] = {}
    for array in sorted(todo, key=lambda array: repr(array.pictures)):
        key, cell = array.pictures, array.cell
        if key not in loaded:
            loaded[key] = library.load(*key)
            for note in loaded[key].notes:
                say(console, f"{cell.dataset}, split {cell.split}: {note}")
        # The search space was checked against what there is before repeated pictures are left out.
        loaded[key].check_counts(cell)
    return loaded
