"""The Ray Tune experiment of a launch: one trial an array, scheduled, retried and spread by Tune."""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import contextlib
import functools
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ray
from ray import tune
from rich.console import Console

from sweep.cluster import ray_environment, ray_internals
from sweep.cluster.crew import Crew
from sweep.cluster.local_ray import LocalRay
from sweep.cluster.prometheus import Metrics
from sweep.cluster.stop_signal import StopSignal
from sweep.cluster.trial import Trial, note_failure, shared, train_one
from sweep.cluster.watcher import Watcher
from sweep.common.fault_options import FaultOptions
from sweep.common.progress import Meter, say
from sweep.data.splits import Data
from sweep.plan import Array, Pictures
from sweep.store.rows import Store


class Experiment:
    """The arrays that a launch trains, with the pictures that they are trained on; `watcher` hears of every trial.

    They train on the launch's `own` Ray, or on the cluster that was joined. `running` holds the ids of those in
    training.
    """

    def __init__(
        self,
        arrays: Sequence[Array],
        data: Mapping[Pictures, Data],
        store: Store,
        crew: Crew,
        own: LocalRay | None,
        faults: FaultOptions,
        signal: StopSignal,
        running: set[str],
        console: Console,
    ) -> None:
        self.arrays, self.data, self.store, self.crew, self.own = arrays, data, store, crew, own
        self.faults, self.signal, self.console = faults, signal, console
        self.watcher = Watcher(arrays, running)

    def run(self, name: str, kept: Mapping[str, frozenset[str]], folder: Path) -> None:
        """Trains the arrays, first what nobody else is training; `kept` names the runs of the checkpoints there are.

        Tune has places in `folder`: with nothing kept there, hosts need not share it.
        """
        runs, work, watcher = sum(map(len, self.arrays)), sum(array.work for array in self.arrays), self.watcher
        with self._at_work(), Meter(runs, work, self.console) as watcher.meter:
            watcher.metrics = Metrics(name, runs)
            trial = functools.partial(
                Trial,
                data=shared(self.data),
                address=self.store.address,
                crew=self.crew,
                signal=self.signal,
                checkpoint_seconds=self.faults.checkpoint_seconds,
            )
            self._tune(self.arrays, kept, trial, folder, patient=False)
            while watcher.put_off:
                waiting = f"{len(watcher.put_off):,} arrays are being trained by another launch: waiting for them"
                say(self.console, waiting)
                left, watcher.put_off = [watcher.arrays[array_id] for array_id in watcher.put_off], {}
                self._tune(left, kept, trial, folder, patient=True)
            watcher.metrics.over()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        ray_environment.hush()
        with contextlib.ExitStack() as leaving:
            leaving.enter_context(ray_internals.every_death_is_one_trials_own())
            leaving.enter_context(ray_internals.tune_leaves_signals_alone())
            if self.own:
                leaving.enter_context(ray_internals.waiting_workers_train())
                self.own.connect()
            else:
                from sweep.cluster.nodes import watched

                leaving.enter_context(watched(self.crew, self.console))
            yield

    def _tune(
        self,
        todo: Sequence[Array],
        kept: Mapping[str, frozenset[str]],
        trial: "functools.partial[Trial]",
        folder: Path,
        patient: bool,
    ) -> None:
        """Runs one trial an array, in their order; `patient` ones wait where another launch is training their array."""
        specifications = ray.put({array.array_id: pickle.dumps((array, self._larger(array, kept))) for array in todo})
        trainable = functools.partial(train_one, trial=trial(specifications=specifications, patient=patient))
        trainable.__name__ = "array"  # type: ignore[attr-defined]
        tune.Tuner(
            tune.with_resources(trainable, self.crew.resources),
            param_space={"array": tune.grid_search([array.array_id for array in todo]), "halvings": 0},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                name="arrays",
                storage_path=tempfile.mkdtemp(dir=folder),
                verbose=0,
                callbacks=[self.watcher],
                failure_config=tune.FailureConfig(max_failures=self.faults.retries),
            ),
        ).fit()
        for array_id, message in self.watcher.lost.items():
            note_failure(self.store, self.watcher.arrays[array_id], message)

    def _larger(self, array: Array, kept: Mapping[str, frozenset[str]]) -> list[str]:
        """The checkpoints that hold an array's runs among others: it was larger before some of them were done."""
        own = self.store.checkpoint(array.array_id)
        return [name for name, run_ids in kept.items() if name != own and run_ids.issuperset(array.run_ids)]
