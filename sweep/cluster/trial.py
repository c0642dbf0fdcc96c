"""One Tune trial, in a worker: trains one array unless somebody else does, keeps its rows, says how it went."""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import contextlib
import dataclasses
import functools
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import ray
from ray import tune

from sweep.cluster.crew import Crew
from sweep.cluster.messages import Failed, Message, Note, Progress, PutOff, Trained, TrainedElsewhere, to_report
from sweep.cluster.orphan_watch import orphaned
from sweep.cluster.report_queue import Reports
from sweep.cluster.stop_signal import STOPPING, Notice, StopSignal
from sweep.data.pool import Pool
from sweep.data.splits import Data
from sweep.networks.conv.shape import MethodName
from sweep.plan import Array, Pictures
from sweep.store import leases
from sweep.store.rows import Provenance, Store
from sweep.store.storage import PASSING

if TYPE_CHECKING:
    from sweep.training.checkpoint import Checkpoint

REPORT_EVERY: Final = 2.0
"""Seconds between two signs of life of an array in training."""

WAIT: Final = 1.0
"""Seconds between two looks whether another launch has finished an array."""

_NOT_HERE: Final = Pool(np.empty((0, 1, 1, 1), np.uint8), np.empty(0, np.int64), ())
"""What stands for the pool in data that travels without it."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What all trials of a launch share.

    `specifications` and `data` are references into Ray's store: arrays by their ids, pictures by what they are of.
    `patient` trials wait where another launch is training their array.
    """

    specifications: Any
    data: dict[Pictures, tuple[Any, Any]]
    address: str
    crew: Crew
    signal: StopSignal
    patient: bool
    checkpoint_seconds: float


def train_one(config: dict[str, Any], trial: Trial) -> None:
    """One array, in a worker: trains it unless somebody else does, keeps its rows, and reports how it went.

    `config` names the array, and how many times it is to be split before it is tried.
    """
    array, larger = _specification(trial.specifications, config["array"])
    lost = orphaned()
    trial.crew.check_here()
    tune.report(to_report(Progress(0.0)))
    reports = Reports(lambda message: tune.report(to_report(message)))
    try:
        outcome = _tried(array, larger, trial, reports, config["halvings"], lost)
        # A launch that has been asked to stop waits for this, and takes no report.
        trial.signal.obeyed(array.array_id)
    finally:
        reports.end()
    if outcome is None:
        time.sleep(STOPPING)  # the driver ends this process
    else:
        reports.finish(outcome)


def _tried(
    array: Array, larger: list[str], trial: Trial, reports: Reports, halvings: int, lost: threading.Event
) -> Message | None:
    """How an array went; None where it was stopped. Raises what another try, perhaps on another node, may mend."""
    from sweep.training.checkpoint import Stopped

    store = Store(trial.address, there=True)  # the launch has made it
    store.place.on_wait = lambda reason: reports.add(Note(reason))

    def stopping() -> bool:
        return lost.is_set() or trial.signal.asked()

    checkpoint = _checkpoint(array, larger, trial, store, reports, stopping)
    while trial.patient and leases.held_elsewhere(store.place, array.array_id) and not stopping():
        time.sleep(WAIT)
    with leases.taken(store.place, array.array_id) as mine:
        try:
            if not mine:
                return PutOff()
            if store.has_rows(array.array_id):
                checkpoint.remove()  # it may be that of a worker that died just before it could
                return TrainedElsewhere()
            pictures = _data(*trial.data[array.pictures])
            return Trained(_train_array(array, store, pictures, trial.crew, checkpoint, reports, halvings))
        except Stopped:
            return None
        except Exception as error:
            if may_pass(error):
                raise  # Tune tries again, on another node if there is one
            # The same array on the same machine would fail again.
            message = f"{type(error).__name__}: {error}"
            note_failure(store, array, message, traceback.format_exc())
            return Failed(message)


def _checkpoint(
    array: Array, larger: list[str], trial: Trial, store: Store, reports: Reports, stopping: Callable[[], bool]
) -> "Checkpoint":
    from sweep.training.checkpoint import Checkpoint

    def uninsured(error: OSError) -> None:
        reports.add(Note(f"no checkpoint could be written, training goes on: {error.strerror or error}"))

    return Checkpoint(
        store.place,
        store.checkpoint(array.array_id),
        about={"run_ids": array.run_ids},
        every=trial.checkpoint_seconds,
        stopping=stopping,
        hurried=Notice(trial.crew).given,
        others=larger,
        failing=uninsured,
    )


def may_pass(error: Exception) -> bool:
    """Whether what went wrong lies with the machine or the store, not with the array."""
    if isinstance(error, OSError):
        return error.errno is None or error.errno in PASSING  # an object store's errors have no number
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def _train_array(
    array: Array, store: Store, data: Data, crew: Crew, checkpoint: "Checkpoint", reports: Reports, halvings: int
) -> int:
    import torch

    from sweep.training.device import device_name
    from sweep.training.evaluation import curve_examples
    from sweep.training.fused_model import usual_method
    from sweep.training.trainer import train

    torch.set_num_threads(crew.cpus)
    last = time.monotonic()

    def tick(step: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY and not reports.behind():
            last = time.monotonic()
            reports.add(Progress(step / array.cell.steps))

    way: MethodName | None = "native" if array.method == "native" else None  # on a GPU, by what it can do
    outcomes = train(
        array.runs(), data, device=crew.device, method=way, tick=tick, checkpoint=checkpoint, halvings=halvings
    )
    by = Provenance(
        device=device_name(crew.device),
        dataset_fingerprint=data.fingerprint,
        torch_version=torch.__version__,
        curve_examples=curve_examples(array.cell, len(data.split.validation)),
        method=way or usual_method(array.cell, crew.device),
    )
    store.write(array.array_id, array.runs(), array.run_ids, outcomes, by)
    checkpoint.remove()
    return sum(outcome.status == "diverged" for outcome in outcomes)


def note_failure(store: Store, array: Array, message: str, trace: str | None = None) -> None:
    # A store that cannot be written is often why the array failed: the message goes to the driver all the same.
    with contextlib.suppress(OSError):
        store.save_failure(array.array_id, {"error": message, "run_ids": list(array.run_ids), "traceback": trace})


def _specification(reference: Any, array_id: str) -> tuple[Array, list[str]]:
    """An array, and the checkpoints of larger ones that hold its runs."""
    specification: tuple[Array, list[str]] = pickle.loads(_fetched(reference)[array_id])
    return specification


def shared(data: Mapping[Pictures, Data]) -> dict[Pictures, tuple[Any, Any]]:
    """The data for workers: each pool stands in Ray's store once, whatever the number of its splits."""
    pools = {id(each.pool): each.pool for each in data.values()}
    references = {place: ray.put(pool) for place, pool in pools.items()}
    return {
        key: (ray.put(dataclasses.replace(each, pool=_NOT_HERE)), references[id(each.pool)])
        for key, each in data.items()
    }


@functools.lru_cache(maxsize=8)
def _data(split: Any, pool: Any) -> Data:
    """The data that `shared` put away; one object a worker."""
    data: Data = dataclasses.replace(_fetched(split), pool=_fetched(pool))
    return data


@functools.lru_cache(maxsize=8)
def _fetched(reference: Any) -> Any:
    """An object of Ray's store, deserialised once a worker rather than once an array."""
    return ray.get(reference)
