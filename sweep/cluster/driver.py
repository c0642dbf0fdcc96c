"""Trains what a search space has and the store has not: one Ray Tune trial an array.

Tune schedules, retries and spreads; the store remembers. Nothing is restored from
Tune's own state: to go on after any crash is to launch again.
"""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import contextlib
import dataclasses
import functools
import pickle
import re
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import ray
from ray import tune
from rich.console import Console

from sweep import plan
from sweep.cluster.address import Where
from sweep.cluster.nodes import Crew, Notice, StopSign, muster
from sweep.cluster.orphan_watch import orphaned
from sweep.cluster.prometheus import Metrics
from sweep.cluster.report_queue import Reports
from sweep.common.errors import Terminated
from sweep.common.fault_options import Care
from sweep.common.progress import Meter, say
from sweep.data.library import Library
from sweep.data.splits import Data, Pool
from sweep.plan import Array
from sweep.space.runs import DEFAULTS, settings_of
from sweep.space.search_space import SearchSpace
from sweep.store import leases
from sweep.store.rows import Provenance, Store
from sweep.store.storage import PASSING

if TYPE_CHECKING:
    from sweep.training.checkpoint import Checkpoint

REPORT_EVERY: Final = 2.0
"""Seconds between two signs of life of an array in training."""


STOPPING: Final = 20.0
"""Seconds that arrays in training have to save a checkpoint when a launch is interrupted."""

OUT_OF_MEMORY: Final = ("running low on memory", "exceeds the memory usage threshold")
"""Words of Ray when it ends a worker for want of memory on its node."""

WAIT: Final = 1.0
"""Seconds between two looks whether another launch has finished an array."""

DataKey = tuple[str, int, int | None]
"""Data set, split and image size: what arrays with the same pictures share."""

_NOT_HERE: Final = Pool(np.empty((0, 1, 1, 1), np.uint8), np.empty(0, np.int64), ())
"""What stands for the pool in data that travels without it."""


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
        references, watcher.metrics = _shared(missing.data), Metrics(watcher.name, runs)
        _tune(missing.arrays, store, kept, references, missing.crew, watcher, care, patient=False)
        while watcher.put_off:
            say(console, f"{len(watcher.put_off):,} arrays are being trained by another launch: waiting for them")
            left, watcher.put_off = [watcher.arrays[array_id] for array_id in watcher.put_off], {}
            _tune(left, store, kept, references, missing.crew, watcher, care, patient=True)
        watcher.metrics.over()


def _load(todo: Sequence[Array], library: Library, console: Console) -> dict[DataKey, Data]:
    """The data that the arrays are trained on, read or downloaded here, once for all workers."""
    loaded: dict[DataKey, Data] = {}
    for array in sorted(todo, key=lambda array: repr(_data_key(array))):
        key, cell = _data_key(array), array.cell
        if key not in loaded:
            loaded[key] = library.load(*key)
            for note in loaded[key].notes:
                say(console, f"{cell.dataset}, split {cell.split}: {note}")
        # The search space was checked against what there is before repeated pictures are left out.
        loaded[key].check_counts(cell)
    return loaded


def _shared(data: dict[DataKey, Data]) -> dict[DataKey, tuple[Any, Any]]:
    """The data for workers: each pool stands in Ray's store once, whatever the number of its splits."""
    pools = {id(each.pool): each.pool for each in data.values()}
    references = {place: ray.put(pool) for place, pool in pools.items()}
    return {
        key: (ray.put(dataclasses.replace(each, pool=_NOT_HERE)), references[id(each.pool)])
        for key, each in data.items()
    }


@functools.lru_cache(maxsize=8)
def _data(split: Any, pool: Any) -> Data:
    """The data that `_shared` put away; one object a worker."""
    data: Data = dataclasses.replace(_fetched(split), pool=_fetched(pool))
    return data


def _data_key(array: Array) -> DataKey:
    return array.cell.dataset, array.cell.split, array.cell.image_size


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
        _every_death_is_one_trials_own(),
    ):
        trainable = functools.partial(
            _trial,
            specifications=specifications,
            data=data,
            address=store.address,
            crew=crew,
            sign=sign,
            patient=patient,
            checkpoint_seconds=care.checkpoint_seconds,
        )
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
        _note_failure(store, watcher.arrays[array_id], message)


@contextlib.contextmanager
def _every_death_is_one_trials_own() -> Iterator[None]:
    """Has Tune take all that Ray says of a lost worker as the failure of its trial.

    As it is (Ray 2.60), Tune ends all trials where Ray ended one worker for want of memory: it knows no other errors
    than those of an actor and of a task.
    """
    try:
        from ray.air.execution._internal.actor_manager import RayActorManager
    except ImportError:  # another Ray, with other ways
        yield
        return
    known = ray.exceptions.RayActorError, ray.exceptions.RayTaskError
    failed = RayActorManager._actor_task_failed

    def tolerant(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.RayError) and not isinstance(exception, known):
            exception = ray.exceptions.RayActorError(error_msg=str(exception))
        failed(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = tolerant
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = failed


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


def _note_failure(store: Store, array: Array, message: str, trace: str | None = None) -> None:
    # A store that cannot be written is often why the array failed: the message goes to the driver all the same.
    with contextlib.suppress(OSError):
        store.save_failure(array.array_id, {"error": message, "run_ids": list(array.run_ids), "traceback": trace})


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


def _trial(
    config: dict[str, Any],
    specifications: Any,
    data: dict[DataKey, tuple[Any, Any]],
    address: str,
    crew: Crew,
    sign: StopSign,
    patient: bool,
    checkpoint_seconds: float,
) -> None:
    """One array, in a worker: trains it unless somebody else does, keeps its rows, and reports how it went."""
    from sweep.training.checkpoint import Checkpoint, Stopped

    (array, larger), store = _specification(specifications, config["array"]), Store(address)
    lost = orphaned()
    crew.check_here()
    tune.report({"array": array.array_id, "share": 0.0})
    reports = Reports(lambda fields: tune.report({"array": array.array_id, **fields}))

    def stopping() -> bool:
        return lost.is_set() or sign.asked()

    def uninsured(error: OSError) -> None:
        reports.add(note=f"no checkpoint could be written, training goes on: {error.strerror or error}")

    store.place.on_wait = lambda reason: reports.add(note=reason)
    checkpoint = Checkpoint(
        store.place,
        store.checkpoint(array.array_id),
        about={"run_ids": array.run_ids},
        every=checkpoint_seconds,
        stopping=stopping,
        hurried=Notice(crew).given,
        others=larger,
        failing=uninsured,
    )
    try:
        while patient and leases.held_elsewhere(store.place, array.array_id) and not stopping():
            time.sleep(WAIT)
        with leases.taken(store.place, array.array_id) as mine:
            try:
                if not mine:
                    result: dict[str, Any] = {"put_off": True}
                elif store.has_rows(array.array_id):
                    checkpoint.remove()  # it may be that of a worker that died just before it could
                    result = {"by_another": True}
                else:
                    pictures = _data(*data[_data_key(array)])
                    diverged = _train_array(array, store, pictures, crew, checkpoint, reports, config["halvings"])
                    result = {"trained": diverged}
            except Stopped:
                result = {}
            except Exception as error:
                if _may_pass(error):
                    raise  # Tune tries again, on another node if there is one
                # The same array on the same machine would fail again.
                message = f"{type(error).__name__}: {error}"
                _note_failure(store, array, message, traceback.format_exc())
                result = {"failed": message}
        # A launch that has been asked to stop waits for this, and takes no report.
        sign.obeyed(array.array_id)
    finally:
        reports.end()
    if not result:
        time.sleep(STOPPING)  # the driver ends this process
    reports.finish(**result)


def _may_pass(error: Exception) -> bool:
    """Whether what went wrong lies with the machine or the store, not with the array."""
    if isinstance(error, OSError):
        return error.errno is None or error.errno in PASSING  # an object store's errors have no number
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def _train_array(
    array: Array, store: Store, data: Data, crew: Crew, checkpoint: "Checkpoint", reports: Reports, halvings: int
) -> int:
    import torch

    from sweep.training.trainer import curve_examples, device_name, train

    torch.set_num_threads(crew.cpus)
    last = time.monotonic()

    def tick(step: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY and not reports.behind():
            last = time.monotonic()
            reports.add(share=step / array.cell.steps)

    outcomes = train(array.runs(), data, device=crew.device, tick=tick, checkpoint=checkpoint, halvings=halvings)
    by = Provenance(
        device=device_name(crew.device),
        dataset_fingerprint=data.fingerprint,
        torch_version=torch.__version__,
        curve_examples=curve_examples(array.cell, len(data.split.validation)),
    )
    store.write(array.array_id, array.runs(), array.run_ids, outcomes, by)
    checkpoint.remove()
    return sum(outcome.status == "diverged" for outcome in outcomes)


def _specification(reference: Any, array_id: str) -> tuple[Array, list[str]]:
    """An array, and the checkpoints of larger ones that hold its runs."""
    specification: tuple[Array, list[str]] = pickle.loads(_fetched(reference)[array_id])
    return specification


@functools.lru_cache(maxsize=8)
def _fetched(reference: Any) -> Any:
    """An object of Ray's store, deserialised once a worker rather than once an array."""
    return ray.get(reference)


def _last_failure(trial: Any) -> list[str]:
    """The lines of what last went wrong; Tune keeps all failures of a trial in one file of the driver's."""
    try:
        text = Path(trial.error_file).read_text()
    except (OSError, TypeError):  # there is none
        text = ""
    last = re.split(r"^Failure # \d+ \(occurred at .*\)$", text, flags=re.MULTILINE)[-1]
    return last.strip().splitlines() or ["unknown"]


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
        # Tune pickles its callbacks for a restoration that we never ask for; a terminal cannot be pickled.
        return tune.Callback, ()

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
        # Tune keeps means, extremes and queues of every number that was ever reported, for each trial until the end:
        # nobody asks for them, and over many thousand arrays they fill the driver's memory.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.running.discard(trial.config["array"])
        # Ray ended a worker because its node ran out of memory: the next try needs less.
        if any(word in line for line in _last_failure(trial) for word in OUT_OF_MEMORY):
            trial.config["halvings"] += 1

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        array = self.arrays[trial.config["array"]]
        self.running.discard(array.array_id)
        words = _last_failure(trial)
        raised = any("Traceback" in line for line in words)
        happened = f"failed: {words[-1]}" if raised else f"its worker was lost: {words[0]}"
        self.lost[array.array_id] = f"tried {trial.num_failures} times, {happened}"
        self._finished(array, failed=True)

    def _finished(self, array: Array, diverged: int | None = None, failed: bool = False) -> None:
        """`diverged` are that many of its runs, None where it was not trained here."""
        self.meter.finished(array.array_id, len(array), array.work, failed)
        self.metrics.finished(array.array_id, len(array), len(array) * array.cell.steps, diverged, failed)
