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
from typing import Any, Final

import ray
from ray import tune
from rich.console import Console

from sweep import plan
from sweep.cluster import ray_internals
from sweep.cluster.address import Where
from sweep.cluster.nodes import Crew, muster
from sweep.cluster.prometheus import Metrics
from sweep.cluster.stop_signal import StopSignal, stopping
from sweep.cluster.trial import DataKey, Trial, data_key, note_failure, shared, train_one
from sweep.cluster.watcher import Watcher
from sweep.common.fault_options import Care
from sweep.common.progress import Meter, say
from sweep.data.library import Library
from sweep.data.splits import Data
from sweep.plan import Array
from sweep.space.search_space import SearchSpace
from sweep.store.rows import Store

CARE: Final = Care()
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
    care: Care = CARE,
    where: Where | None = None,
) -> Launched:
    """Trains the missing runs of all `spaces`, on this machine unless `where` says otherwise.

    Runs that search spaces share are trained once. Arrays that another launch on this store is training are left for
    last, and waited for. Failed arrays are named in the summary and stop no other. KeyboardInterrupt leaves what is
    done in the store.
    """
    started = time.monotonic()
    store.place.on_wait = functools.partial(say, console)
    run_ids = plan.run_ids_of_all(spaces)
    statuses = store.statuses()
    already = sum(run_id in statuses for run_id in run_ids)
    missing = None
    if already < len(run_ids):
        missing = _Missing.of(spaces, statuses, library, muster(where or Where(), store, console), console)
    with contextlib.ExitStack() as leaving:
        if missing:
            leaving.callback(missing.crew.dismiss)
        # What is wrong with the pictures has been said by now: nothing is written for a launch that cannot start.
        for space in spaces:
            store.save_sweep(space.name, space.resolved())
        kept = store.tidy(statuses)
        watcher = Watcher(missing.arrays if missing else [], ", ".join(space.name for space in spaces))
        if missing:
            _train(missing, len(run_ids), store, kept, watcher, care, console)
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


def _train(
    missing: _Missing,
    wanted: int,
    store: Store,
    kept: Mapping[str, frozenset[str]],
    watcher: Watcher,
    care: Care,
    console: Console,
) -> None:
    """Trains what is missing of so many runs, first what nobody else is training; `watcher` hears how it goes.

    `kept` names the runs of the checkpoints that there are.
    """
    runs, work = sum(map(len, missing.arrays)), sum(array.work for array in missing.arrays)
    say(console, f"{runs:,} of {wanted:,} runs to train, in {len(missing.arrays):,} arrays")
    with missing.crew.at_work(console), Meter(runs, work, console) as watcher.meter:
        references, watcher.metrics = shared(missing.data), Metrics(watcher.name, runs)
        _tune(missing.arrays, store, kept, references, missing.crew, watcher, care, patient=False)
        while watcher.put_off:
            say(console, f"{len(watcher.put_off):,} arrays are being trained by another launch: waiting for them")
            left, watcher.put_off = [watcher.arrays[array_id] for array_id in watcher.put_off], {}
            _tune(left, store, kept, references, missing.crew, watcher, care, patient=True)
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
    todo: Sequence[Array],
    store: Store,
    kept: Mapping[str, frozenset[str]],
    data: dict[DataKey, tuple[Any, Any]],
    crew: Crew,
    watcher: Watcher,
    care: Care,
    patient: bool,
) -> None:
    """Runs one trial an array, in their order; `patient` ones wait where another launch is training their array."""
    specifications = ray.put({array.array_id: pickle.dumps((array, _larger(array, kept, store))) for array in todo})
    signal = StopSignal()
    # Tune's own folder; with nothing kept there, hosts need not share it.
    with (
        tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as scratch,
        stopping(watcher.running, signal),
        ray_internals.every_death_is_one_trials_own(),
    ):
        trial = Trial(specifications, data, store.address, crew, signal, patient, care.checkpoint_seconds)
        trainable = functools.partial(train_one, trial=trial)
        trainable.__name__ = "array"  # type: ignore[attr-defined]
        tune.Tuner(
            tune.with_resources(trainable, crew.resources),
            param_space={"array": tune.grid_search([array.array_id for array in todo]), "halvings": 0},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="arrays",
                storage_path=scratch,
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=care.retries),
            ),
        ).fit()
    for array_id, message in watcher.lost.items():
        note_failure(store, watcher.arrays[array_id], message)


def _larger(array: Array, kept: Mapping[str, frozenset[str]], store: Store) -> list[str]:
    """The checkpoints that hold this array's runs among others: it was larger before some of them were done."""
    own = store.checkpoint(array.array_id)
    return [name for name, run_ids in kept.items() if name != own and run_ids.issuperset(array.run_ids)]
