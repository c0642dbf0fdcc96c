"""Trains what a search space has and the store has not: one Ray Tune trial an array.

The only module that imports ray. Tune schedules, retries and spreads; the store remembers. Nothing is restored from
Tune's own state: to go on after any crash is to launch again.
"""

import sweep.environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import contextlib
import dataclasses
import functools
import logging
import pickle
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune
from rich.console import Console

from sweep import data as data_sets
from sweep import plan
from sweep.plan import Array, DeviceKind
from sweep.progress import Meter, say
from sweep.runs import DEFAULTS, settings_of
from sweep.search_space import SearchSpace
from sweep.store import Provenance, Store

RETRIES: Final = 2
"""Further tries of an array whose worker or node was lost."""

REPORT_EVERY: Final = 2.0
"""Seconds between two signs of life of an array in training."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a launch did, in runs; `failures` are messages by array, named with its settings."""

    name: str
    runs: int
    trained: int
    already: int
    failed: int
    diverged: int
    seconds: float
    failures: dict[str, str]


def launch(space: SearchSpace, store: Store, console: Console) -> Summary:
    """Trains the missing runs of `space` on this machine, one array a core or GPU at a time.

    Failed arrays are named in the summary and stop no other. KeyboardInterrupt leaves what is done in the store.
    """
    started = time.monotonic()
    statuses = store.statuses()
    store.save_sweep(space.name, space.resolved())
    # Ray is started only where something is missing, which does not depend on how the grid falls into arrays.
    planned = list(plan.arrays(space, "cpu"))
    already = sum(run_id in statuses for array in planned for run_id in array.run_ids)
    runs = space.run_count()
    failures: dict[str, str] = {}
    if already < runs:
        data = data_sets.load(space.fixed["dataset"])
        with _ray() as device:
            if device != "cpu":
                planned = list(plan.arrays(space, device))
            todo = sorted(plan.missing(planned, statuses), key=lambda array: -array.work)
            say(console, f"{runs - already:,} of {runs:,} runs to train, in {len(todo):,} arrays")
            with Meter(runs - already, sum(array.work for array in todo), console) as meter:
                failures = _tune(todo, store, data, device, meter)
        statuses = store.statuses()
    done = [statuses[run_id] for array in planned for run_id in array.run_ids if run_id in statuses]
    return Summary(
        name=space.name,
        runs=runs,
        trained=len(done) - already,
        already=already,
        failed=runs - len(done),
        diverged=done.count("diverged"),
        seconds=time.monotonic() - started,
        failures=failures,
    )


@contextlib.contextmanager
def _ray() -> Iterator[DeviceKind]:
    """A Ray of our own on this machine, gone at the end; yields the kind of device that arrays train on."""
    for logger in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
        yield "cuda" if ray.cluster_resources().get("GPU") else "cpu"
    finally:
        ray.shutdown()


def _tune(
    todo: Sequence[Array], store: Store, data: data_sets.Data, device: DeviceKind, meter: Meter
) -> dict[str, str]:
    """Runs one trial an array, longest first; returns the message of each array that failed."""
    specifications = ray.put({array.array_id: pickle.dumps(array) for array in todo})
    trainable = functools.partial(
        _trial, specifications=specifications, data=ray.put(data), root=str(store.root.absolute()), device=device
    )
    trainable.__name__ = "array"  # type: ignore[attr-defined]
    watcher = _Watcher({array.array_id: array for array in todo}, meter)
    with tempfile.TemporaryDirectory(prefix="sweep-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": 1 if device == "cuda" else 0}),
            param_space={"array": tune.grid_search([array.array_id for array in todo])},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="arrays",
                storage_path=scratch,
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    for array_id, message in watcher.lost.items():
        store.save_failure(array_id, {"error": message, "run_ids": list(watcher.arrays[array_id].run_ids)})
    failures = watcher.failures | watcher.lost
    return {f"{array_id} ({_words(watcher.arrays[array_id])})": message for array_id, message in failures.items()}


def _words(array: Array) -> str:
    """What an array trains, as far as it is not the default: `width=1, batch_norm=True, seeds 0 to 31`."""
    chosen = [f"{name}={level}" for name, level in settings_of(array.cell).items() if level != DEFAULTS[name]]
    seeds = sorted({seed for _, seed in array.members})
    return ", ".join([*chosen, f"seeds {seeds[0]} to {seeds[-1]}"])


def _trial(config: dict[str, str], specifications: Any, data: Any, root: str, device: DeviceKind) -> None:
    """One array, in a worker: trains it, keeps its rows, and reports how it went."""
    array, store = _specification(specifications, config["array"]), Store(Path(root))
    try:
        diverged = _train(array, store, _fetched(data), device)
        store.clear_failure(array.array_id)
    except Exception as error:
        # The same array on the same machine would fail again: Tune's retries are for lost workers.
        message = f"{type(error).__name__}: {error}"
        failure = {"error": message, "run_ids": list(array.run_ids), "traceback": traceback.format_exc()}
        store.save_failure(array.array_id, failure)
        tune.report({"array": array.array_id, "failed": message})
    else:
        tune.report({"array": array.array_id, "diverged": diverged})


def _train(array: Array, store: Store, data: data_sets.Data, device: DeviceKind) -> int:
    import torch

    from sweep.train import curve_examples, device_name, train

    torch.set_num_threads(1)
    last = time.monotonic()

    def tick(step: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY:
            last = time.monotonic()
            tune.report({"array": array.array_id, "share": step / array.cell.steps})

    outcomes = train(array.runs(), data, device=device, tick=tick)
    by = Provenance(
        device=device_name(device),
        dataset_fingerprint=data.fingerprint,
        torch_version=torch.__version__,
        curve_examples=curve_examples(array.cell, len(data.validation[1])),
    )
    store.write(array.array_id, array.runs(), array.run_ids, outcomes, by)
    return sum(outcome.status == "diverged" for outcome in outcomes)


def _specification(reference: Any, array_id: str) -> Array:
    array: Array = pickle.loads(_fetched(reference)[array_id])
    return array


@functools.lru_cache(maxsize=4)
def _fetched(reference: Any) -> Any:
    """An object of Ray's store, deserialised once a worker rather than once an array."""
    return ray.get(reference)


class _Watcher(tune.Callback):  # type: ignore[misc]
    """Hears of every trial in the driver: moves the meter, gathers failures."""

    def __init__(self, arrays: dict[str, Array], meter: Meter) -> None:
        self.arrays, self.meter = arrays, meter
        self.failures: dict[str, str] = {}
        self.lost: dict[str, str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its callbacks for a restoration that we never ask for; a terminal cannot be pickled.
        return tune.Callback, ()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        array = self.arrays[trial.config["array"]]
        if "share" in result:
            self.meter.partly(array.array_id, result["share"] * array.work)
            return
        if "failed" in result:
            self.failures[array.array_id] = result["failed"]
        self.meter.finished(array.array_id, len(array.members), array.work, failed="failed" in result)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        array = self.arrays[trial.config["array"]]
        self.lost[array.array_id] = f"its worker was lost {RETRIES + 1} times"
        self.meter.finished(array.array_id, len(array.members), array.work, failed=True)
