"""Receives the results of all trials in the driver: updates the meter, counts trained runs, collects failures."""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it when imported)

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ray import tune

from sweep.cluster import ray_internals
from sweep.cluster.messages import Failed, Note, Progress, PutOff, Trained, TrainedElsewhere, from_report
from sweep.cluster.prometheus import Metrics
from sweep.common.progress import Meter, say
from sweep.plan import Array
from sweep.space.runs import DEFAULTS, settings_of


class Watcher(tune.Callback):  # type: ignore[misc]
    """The state of one launch: `running` are the ids of the arrays in training, `put_off` those that another launch
    trains, `failures` and `lost` the errors by array, `trained` the ids of the runs that this launch has trained.
    """

    meter: Meter
    metrics: Metrics

    def __init__(self, arrays: Sequence[Array], running: set[str] | None = None) -> None:
        self.arrays = {array.array_id: array for array in arrays}
        self.running: set[str] = set() if running is None else running
        self.put_off: dict[str, None] = {}  # ordered; an array that is retried may be put off twice
        self.failures: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self.trained: set[str] = set()
        self.notes: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return ray_internals.pickled_callback()

    def named_failures(self, done: Collection[str]) -> dict[str, str]:
        """Errors by array, which is named with its settings.

        Omits arrays whose runs are all `done`: the worker died after the last row, or another launch trained them.
        """
        failed = (self.failures | self.lost).items()
        both = {name: message for name, message in failed if not all(map(done.__contains__, self.arrays[name].run_ids))}
        return {f"{array_id} ({_words(self.arrays[array_id])})": message for array_id, message in both.items()}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        array, message = self.arrays[trial.config["array"]], from_report(result)
        match message:
            case Note(text):
                self._say_once(text)
            case Progress(share):
                self.running.add(array.array_id)
                self.meter.partly(array.array_id, share * array.work)
                self.metrics.partly(array.array_id, share * len(array) * array.cell.steps)
            case PutOff():
                self.running.discard(array.array_id)
                self.put_off[array.array_id] = None
            case Trained() | TrainedElsewhere() | Failed():
                self._ended(array, message)

    def _say_once(self, text: str) -> None:
        if text not in self.notes:
            self.notes.add(text)
            say(self.meter.console, text)

    def _ended(self, array: Array, message: Trained | TrainedElsewhere | Failed) -> None:
        self.running.discard(array.array_id)
        match message:
            case Trained(diverged):
                self.trained.update(array.run_ids)
                self._finished(array, diverged)
            case TrainedElsewhere():
                self._finished(array)
            case Failed(error):
                self.failures[array.array_id] = error
                self._finished(array, failed=True)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        ray_internals.forget_numbers(trial)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.running.discard(trial.config["array"])
        if ray_internals.ran_out_of_memory(trial):  # the next try needs less
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
        """`diverged` counts its runs that did, None if it was not trained here."""
        self.meter.finished(array.array_id, len(array), array.work, failed)
        self.metrics.finished(array.array_id, len(array), len(array) * array.cell.steps, diverged, failed)


def _words(array: Array) -> str:
    """The settings of an array that are not the default: `width=1, batch_norm=True, seeds 0 to 31`."""
    chosen = [f"{name}={level}" for name, level in settings_of(array.cell).items() if level != DEFAULTS[name]]
    seeds = sorted({seed for _, members in array.parts for _, seed in members})
    if len(array.parts) > 1:
        chosen.append(f"and {len(array.parts) - 1} cells that differ in {_list_own(array)}")
    return ", ".join([*chosen, f"seeds {seeds[0]} to {seeds[-1]}"])


def _list_own(array: Array) -> str:
    """The settings in which the cells of an array differ."""
    cells = [settings_of(cell) for cell, _ in array.parts]
    return " and ".join(name for name in DEFAULTS if any(cell[name] != cells[0][name] for cell in cells))
