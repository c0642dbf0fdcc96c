"""Trains what a search space has and the store has not: one Ray Tune trial an array.

Tune schedules, retries and spreads; the store remembers. Nothing is restored from
Tune's own state: to go on after any crash is to launch again.
"""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import contextlib
import dataclasses
import functools
import pickle
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune
from rich.console import Console

from sweep import plan
from sweep.cluster import ray_internals, scratch
from sweep.cluster.address import Where
from sweep.cluster.nodes import Crew, muster
from sweep.cluster.prometheus import Metrics
from sweep.cluster.stop_signal import StopSignal, stopping
from sweep.cluster.trial import DataKey, Trial, data_key, note_failure, shared, train_one
from sweep.cluster.watcher import Watcher
from sweep.common.fault_options import FaultOptions
from sweep.common.progress import Meter, say
from sweep.data.library import Library
from sweep.data.splits import Data
from sweep.plan import Array
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
) -> Launched:
    """Trains the missing runs of all `spaces`, on this machine unless `where` says otherwise.

    Runs that search spaces share are trained once. Arrays that another launch on this store is training are left for
    last, and waited for. Failed arrays are named in the summary and stop no other. KeyboardInterrupt leaves what is
    done in the store.
    """
    started, running, signal = time.monotonic(), set[str](), StopSignal()
    store.place.on_wait = functools.partial(say, console)
    run_ids = plan.run_ids_of_all(spaces)
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(stopping(running, signal))
        statuses = store.statuses()
        missing = None
        if not all(map(statuses.__contains__, run_ids)):
            missing = _Missing.of(spaces, statuses, library, muster(where or Where(), store, console), console)
            leaving.callback(missing.crew.dismiss)
        # What is wrong with the pictures has been said by now: nothing is written for a launch that cannot start.
        for space in spaces:
            store.save_sweep(space.name, space.resolved())
        kept = store.tidy(statuses)
        watcher = Watcher(missing.arrays if missing else [], ", ".join(space.name for space in spaces), running)
        if missing:
            _train(missing, len(run_ids), _Training(store, kept, missing.crew, watcher, faults, signal), console)
            trained = [array.array_id for array in missing.arrays]
            statuses |= store.statuses(trained)
            store.clear_failures(statuses)
            store.tidy(statuses)
    seconds = time.monotonic() - started

    def summary(name: str, run_ids: list[str]) -> Summary:
        done = [statuses[run_id] for run_id in run_ids if run_id in statuses]
        trained = sum(run_id in watcher.trained for run_id in run_ids) if watcher.trained else 0
        failed = len(run_ids) - len(done)
        return Summary(name, len(run_ids), trained, len(done) - trained, failed, done.count("diverged"), seconds)

    total = summary(", ".join(space.name for space in spaces), run_ids)
    each = (total,) if len(spaces) == 1 else tuple(summary(space.name, plan.run_ids(space)) for space in spaces)
    return Launched(total, each, watcher.named_failures(statuses))


@dataclasses.dataclass(frozen=True)
class _Missing:
    """The arrays to train, longest first, by whom, and the pictures that they are trained on."""

    arrays: list[Array]
    crew: Crew
    data: dict[DataKey, Data]

    @classmethod
    def of(
        cls, spaces: Sequence[SearchSpace], done: Collection[str], library: Library, crew: Crew, console: Console
    ) -> "_Missing":
        """What is not `done`; its pictures are read, or downloaded, here."""
        try:
            todo = sorted(plan.missing(plan.arrays_of_all(spaces, crew.device), done), key=lambda array: -array.work)
            return cls(todo, crew, _load(todo, library, console))
        except BaseException:
            crew.dismiss()
            raise


@dataclasses.dataclass(frozen=True)
class _Training:
    """What all arrays of a launch are trained with; `kept` names the runs of the checkpoints that there are."""

    store: Store
    kept: Mapping[str, frozenset[str]]
    crew: Crew
    watcher: Watcher
    faults: FaultOptions
    signal: StopSignal

    def larger(self, array: Array) -> list[str]:
        """The checkpoints that hold an array's runs among others: it was larger before some of them were done."""
        own = self.store.checkpoint(array.array_id)
        return [name for name, run_ids in self.kept.items() if name != own and run_ids.issuperset(array.run_ids)]


def _train(missing: _Missing, wanted: int, training: _Training, console: Console) -> None:
    """Trains what is missing of so many runs, first what nobody else is training."""
    runs, work = sum(map(len, missing.arrays)), sum(array.work for array in missing.arrays)
    say(console, f"{runs:,} of {wanted:,} runs to train, in {len(missing.arrays):,} arrays")
    watcher = training.watcher
    with (
        scratch.folder() as folder,
        missing.crew.at_work(folder, console),
        Meter(runs, work, console) as watcher.meter,
    ):
        references, watcher.metrics = shared(missing.data), Metrics(watcher.name, runs)
        _tune(missing.arrays, training, references, folder, patient=False)
        while watcher.put_off:
            say(console, f"{len(watcher.put_off):,} arrays are being trained by another launch: waiting for them")
            left, watcher.put_off = [watcher.arrays[array_id] for array_id in watcher.put_off], {}
            _tune(left, training, references, folder, patient=True)
        watcher.metrics.over()


def _load(todo: Sequence[Array], library: Library, console: Console) -> dict[DataKey, Data]:
    """The data that the arrays are trained on, read or downloaded here, once for all workers."""
    loaded: dict[DataKey, Data] = {}
    for array in sorted(todo, key=lambda array: repr(data_key(array))):
        key, cell = data_key(array), array.cell
        if key not in loaded:
            loaded[key] = library.load(*key)
            for note in loaded[key].notes:
                say(console, f"{cell.dataset}, split {cell.split}: {note}")
        # The search space was checked against what there is before repeated pictures are left out.
        loaded[key].check_counts(cell)
    return loaded


def _tune(
    todo: Sequence[Array], training: _Training, data: dict[DataKey, tuple[Any, Any]], folder: Path, patient: bool
) -> None:
    """Runs one trial an array, in their order; `patient` ones wait where another launch is training their array.

    Tune has a place in `folder`: with nothing kept there, hosts need not share it.
    """
    specifications = ray.put({array.array_id: pickle.dumps((array, training.larger(array))) for array in todo})
    trial = Trial(
        *(specifications, data, training.store.address, training.crew, training.signal, patient),
        training.faults.checkpoint_seconds,
    )
    trainable = functools.partial(train_one, trial=trial)
    trainable.__name__ = "array"  # type: ignore[attr-defined]
    with ray_internals.every_death_is_one_trials_own(), ray_internals.tune_leaves_signals_alone():
        tune.Tuner(
            tune.with_resources(trainable, training.crew.resources),
            param_space={"array": tune.grid_search([array.array_id for array in todo]), "halvings": 0},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="arrays",
                storage_path=tempfile.mkdtemp(dir=folder),
                verbose=0,
                callbacks=[training.watcher],
                failure_config=tune.FailureConfig(max_failures=training.faults.retries),
            ),
        ).fit()
    for array_id, message in training.watcher.lost.items():
        note_failure(training.store, training.watcher.arrays[array_id], message)
