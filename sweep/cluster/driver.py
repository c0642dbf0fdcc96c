"""Trains what a search space has and the store has not: one Ray Tune trial an array.

Tune schedules, retries and spreads; the store remembers. Nothing is restored from
Tune's own state: to go on after any crash is to launch again.
"""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import contextlib
import dataclasses
import functools
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import ray
from ray import tune
from rich.console import Console

from sweep import plan
from sweep.cluster import ray_internals
from sweep.cluster.address import Where
from sweep.cluster.nodes import Crew, StopSign, muster
from sweep.cluster.prometheus import Metrics
from sweep.cluster.trial import STOPPING, DataKey, Trial, data_key, note_failure, shared, train_one
from sweep.common.errors import Terminated
from sweep.common.fault_options import Care
from sweep.common.progress import Meter, say
from sweep.data.library import Library
from sweep.data.splits import Data
from sweep.plan import Array
from sweep.space.runs import DEFAULTS, settings_of
from sweep.space.search_space import SearchSpace
from sweep.store.rows import Store

if TYPE_CHECKING:
    pass


OUT_OF_MEMORY: Final = ("running low on memory", "exceeds the memory usage threshold")
"""Words of Ray when it ends a worker for want of memory on its node."""


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
        watcher = _Watcher(missing.arrays if missing else [], ", ".join(space.name for space in spaces))
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
    watcher: "_Watcher",
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
    watcher: "_Watcher",
    care: Care,
    patient: bool,
) -> None:
    """Runs one trial an array, in their order; `patient` ones wait where another launch is training their array."""
    specifications = ray.put({array.array_id: pickle.dumps((array, _larger(array, kept, store))) for array in todo})
    sign = StopSign()
    # Tune's own folder; with nothing kept there, hosts need not share it.
    with (
        tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as scratch,
        _stopping(watcher, sign),
        ray_internals.every_death_is_one_trials_own(),
    ):
        trial = Trial(specifications, data, store.address, crew, sign, patient, care.checkpoint_seconds)
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


@contextlib.contextmanager
def _stopping(watcher: "_Watcher", sign: StopSign) -> Iterator[None]:
    """On Ctrl-C, has the arrays in training save a checkpoint before KeyboardInterrupt is raised; twice, it is at once.

    SIGTERM does the same, as Terminated.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears of signals
        return

    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        sign.wait_until_obeyed(set(watcher.running), STOPPING)
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:  # whatever stood in the handler, Ray hands on this
        if signal.SIGTERM in received:
            raise Terminated from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sign.clear()


def _words(array: Array) -> str:
    """What an array trains, as far as it is not the default: `width=1, batch_norm=True, seeds 0 to 31`."""
    chosen = [f"{name}={level}" for name, level in settings_of(array.cell).items() if level != DEFAULTS[name]]
    seeds = sorted({seed for _, members in array.parts for _, seed in members})
    if len(array.parts) > 1:
        chosen.append(f"and {len(array.parts) - 1} cells that differ in {_list_own(array)}")
    return ", ".join([*chosen, f"seeds {seeds[0]} to {seeds[-1]}"])


def _list_own(array: Array) -> str:
    """The settings in which the cells of an array differ."""
    cells = [settings_of(cell) for cell, _ in array.parts]
    return " and ".join(name for name in DEFAULTS if any(cell[name] != cells[0][name] for cell in cells))


class _Watcher(tune.Callback):  # type: ignore[misc]
    """Hears of every trial in the driver: moves the meter, counts what was trained, gathers failures."""

    meter: Meter
    metrics: Metrics

    def __init__(self, arrays: Sequence[Array], name: str) -> None:
        self.name = name
        self.arrays = {array.array_id: array for array in arrays}
        self.running: set[str] = set()
        self.put_off: dict[str, None] = {}  # in their order; an array that is tried again may be so twice
        self.failures: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self.trained: set[str] = set()
        self.notes: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return ray_internals.pickled_callback()

    def named_failures(self, done: Collection[str]) -> dict[str, str]:
        """What went wrong by array, which is named with its settings.

        Where all its runs are `done` nothing did: its worker died behind the last row, or another launch trained it.
        """
        failed = (self.failures | self.lost).items()
        both = {name: message for name, message in failed if not all(map(done.__contains__, self.arrays[name].run_ids))}
        return {f"{array_id} ({_words(self.arrays[array_id])})": message for array_id, message in both.items()}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        array = self.arrays[trial.config["array"]]
        if "note" in result:
            if result["note"] not in self.notes:
                self.notes.add(result["note"])
                say(self.meter.console, result["note"])
            return
        if "share" in result:
            self.running.add(array.array_id)
            self.meter.partly(array.array_id, result["share"] * array.work)
            self.metrics.partly(array.array_id, result["share"] * len(array) * array.cell.steps)
            return
        self.running.discard(array.array_id)
        if "put_off" in result:
            self.put_off[array.array_id] = None
            return
        if "failed" in result:
            self.failures[array.array_id] = result["failed"]
        if "trained" in result:
            self.trained.update(array.run_ids)
        self._finished(array, diverged=result.get("trained"), failed="failed" in result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        ray_internals.forget_numbers(trial)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.running.discard(trial.config["array"])
        # Ray ended a worker because its node ran out of memory: the next try needs less.
        if any(word in line for line in ray_internals.last_failure(trial) for word in OUT_OF_MEMORY):
            trial.config["halvings"] += 1

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        array = self.arrays[trial.config["array"]]
        self.running.discard(array.array_id)
        words = ray_internals.last_failure(trial)
        raised = any("Traceback" in line for line in words)
        happened = f"failed: {words[-1]}" if raised else f"its worker was lost: {words[0]}"
        self.lost[array.array_id] = f"tried {trial.num_failures} times, {happened}"
        self._finished(array, failed=True)

    def _finished(self, array: Array, diverged: int | None = None, failed: bool = False) -> None:
        """`diverged` are that many of its runs, None where it was not trained here."""
        self.meter.finished(array.array_id, len(array), array.work, failed)
        self.metrics.finished(array.array_id, len(array), len(array) * array.cell.steps, diverged, failed)
