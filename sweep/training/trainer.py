"""Trains one array: all its runs at once, fused, on one device. Knows nothing of clusters and writes no rows."""

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.data.splits import Data
from sweep.networks.conv.native.library import library
from sweep.networks.conv.shape import MethodName, Shape
from sweep.space.runs import Run, program
from sweep.store.outcomes import Outcome
from sweep.training.array_step import ArrayStep, Losses
from sweep.training.assignment import Assignment
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.checkpoint import Checkpoint, State
from sweep.training.device import exact_arithmetic, out_of_memory
from sweep.training.device_batches import DeviceBatches
from sweep.training.device_data import Scaling, device_data
from sweep.training.evaluation import Evaluator
from sweep.training.fused_model import FusedModel
from sweep.training.graph_step import GraphStep
from sweep.training.native_array import NativeArray, NativeEvaluator
from sweep.training.optimizers import Optimizer
from sweep.training.state import ArrayState, CurvePoint, Progress
from sweep.training.tiles import Tiles


def train(
    runs: Sequence[Run],
    data: Data,
    *,
    device: str = "cpu",
    method: MethodName | None = None,
    tick: Callable[[int], None] | None = None,
    checkpoint: Checkpoint | None = None,
    halvings: int = 0,
) -> list[Outcome]:
    """Trains the runs of one array to the end and evaluates them; outcomes come in the order of `runs`.

    Resumes from `checkpoint`, and saves to it on the way. Where memory runs out, the array is split in two; `halvings`
    says how often it is split before the first try. `tick` is called with the number of steps done, at every point of
    the curve and after every block of batches. Raises `sweep.training.checkpoint.Stopped` when `checkpoint` is asked to
    stop.
    """
    halves = _halves(runs)
    if not halvings or len(halves) == 1:
        try:
            with exact_arithmetic(runs[0].precision):
                return _train(Trainer(runs, data, device=device, method=method), tick, checkpoint)
        except (RuntimeError, MemoryError) as error:
            if len(halves) == 1 or not out_of_memory(error):
                raise
            # The traceback keeps the tensors of the array that was too large alive.
            error.__traceback__ = None
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
    outcomes = [
        train(
            half,
            data,
            device=device,
            method=method,
            tick=_of_part(tick, part, len(halves), runs[0].steps),
            checkpoint=checkpoint.part(part) if checkpoint else None,
            halvings=max(0, halvings - 1),
        )
        for part, half in enumerate(halves)
    ]
    by_run = {
        run: outcome
        for half, part in zip(halves, outcomes, strict=True)
        for run, outcome in zip(half, part, strict=True)
    }
    return [by_run[run] for run in runs]


def _of_part(tick: Callable[[int], None] | None, part: int, parts: int, steps: int) -> Callable[[int], None] | None:
    """`tick` for one part of an array, which counts its steps as those of the whole."""
    return None if tick is None else lambda step: tick((part * steps + step) // parts)


def _halves(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in two parts, or in one if they cannot be split; pairs stay together."""
    seeds = sorted({run.seed for run in runs})
    if len(seeds) == 1:
        cells = sorted({dataclasses.astuple(dataclasses.replace(run, bias=True)) for run in runs}, key=repr)
        first: set[Any] = set(cells[: len(cells) // 2])
        chosen = [dataclasses.astuple(dataclasses.replace(run, bias=True)) in first for run in runs]
    else:
        chosen = [run.seed in seeds[: len(seeds) // 2] for run in runs]
    parts = [[run for run, mine in zip(runs, chosen, strict=True) if mine == wanted] for wanted in (True, False)]
    return [part for part in parts if part]


def _train(trainer: "Trainer", tick: Callable[[int], None] | None, checkpoint: Checkpoint | None) -> list[Outcome]:
    started = time.perf_counter()
    kept = next(filter(trainer.array_state.fits, checkpoint.states()), None) if checkpoint else None
    if kept is not None:
        trainer.restore(kept)
        started -= trainer.progress.seconds
    interval = trainer.runs[0].curve_interval
    while trainer.done < trainer.steps:
        trainer.step(at_most=min(interval - trainer.done % interval, trainer.steps - trainer.done))
        step = trainer.done
        at_point = step % interval == 0 or step == trainer.steps
        if at_point:
            trainer.add_point()
        if tick and (at_point or step % ORDER_BLOCK == 0):
            tick(step)
        if checkpoint and step < trainer.steps and checkpoint.due():
            checkpoint.save(trainer.state(time.perf_counter() - started))
    validation_correct, _ = trainer.evaluator.evaluate(*trainer.data.validation)
    correct, loss = trainer.evaluator.evaluate(*trainer.data.test)
    return trainer.outcomes(validation_correct, correct, loss, time.perf_counter() - started)


class Trainer:
    """An array in training, step by step. Nothing that it holds refers back to it, so its memory is freed with it."""

    def __init__(
        self,
        runs: Sequence[Run],
        data: Data,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        method: MethodName | None = None,
    ) -> None:
        assert len({program(run) for run in runs}) == 1, "runs of one array share their program"
        self.runs, self.device, self.steps = tuple(runs), device, runs[0].steps
        self.assignment = Assignment.of(runs)
        self.data = device_data(data, device)
        networks, shape = self.assignment.networks, Shape.of(runs[0], self.data.shape, self.data.classes)
        scaling = self.data.scalings(networks, dtype)
        # Before the weights are drawn; otherwise a GPU would wait for its first batches.
        self.batches = DeviceBatches(networks, self.data, scaling, shape.dropping)
        self.shape = shape
        self.losses = Losses(len(self.assignment.turns), len(networks), self.steps, device)
        if method == "native":
            self._make_native(scaling)
        else:
            self._make_fused(scaling, method, dtype)
        self.progress = Progress()

    def _make_fused(self, scaling: Scaling, method: MethodName | None, dtype: torch.dtype) -> None:
        networks, shape, device = self.assignment.networks, self.shape, self.device
        self.model = FusedModel(self.assignment, shape, method, dtype, device)
        parameters, statistics = self.model.parameters, self.model.statistics
        self.optimizer = Optimizer(networks, parameters, shape.decayed, self.model.frozen, self.model.method.kernels)
        tensors = {**parameters, **statistics, **self.optimizer.state, **self.losses.tensors}
        self.array_state = ArrayState(self.runs, networks, self.data.fingerprint, tensors)
        self.array_step: ArrayStep | NativeArray = ArrayStep(self.model, self.batches, self.optimizer, self.losses)
        self.graph_step = None if device == "cpu" else GraphStep(self.array_step, tensors.values())
        self.evaluator = Evaluator(self.assignment, self.model, self.data, scaling)

    def _make_native(self, scaling: Scaling) -> None:
        kernels = library()
        assert kernels, "the native kernels are not here"
        array = NativeArray(self.assignment, self.shape, self.data, scaling, self.batches, self.losses, kernels)
        tensors: dict[str, torch.Tensor | Tiles] = {**array.tensors, **self.losses.tensors}
        self.array_state = ArrayState(self.runs, self.assignment.networks, self.data.fingerprint, tensors, native=True)
        self.array_step, self.graph_step, self.evaluator = array, None, NativeEvaluator(array, self.data)

    @property
    def done(self) -> int:
        """Steps that have been taken."""
        return self.progress.done

    def step(self, at_most: int = 1) -> None:
        """Trains every run on its next batch; on a GPU, as one graph of the whole step.

        The native kernels take several steps at once, `at_most` so many.
        """
        if self.done % ORDER_BLOCK == 0:
            self.batches.send(self.done)
        steps = 1
        if isinstance(self.array_step, NativeArray):
            steps = self.array_step.take(at_most)
        else:
            (self.graph_step or self.array_step).take()
        self.progress.done += steps
        self.progress.since_point += steps

    def add_point(self) -> None:
        """Adds a point to the learning curves: mean loss since the last one, and accuracy on validation pictures."""
        losses = self.loss_since_last_point()
        self.progress.points.append(CurvePoint(self.done, losses, self.evaluator.curve_accuracy()))

    def loss_since_last_point(self) -> NDArray[np.float64]:
        """Mean minibatch loss `[runs]` of the steps since the last call."""
        # Divided on the CPU: a GPU would multiply by the reciprocal.
        mean = self.assignment.by_run(self.losses.flush()) / self.progress.since_point
        self.progress.since_point = 0
        return mean

    def outcomes(
        self,
        validation_correct: NDArray[np.bool_],
        correct: NDArray[np.bool_],
        loss: NDArray[np.float64],
        seconds: float,
    ) -> list[Outcome]:
        """The outcome of every run; one with a loss that was ever not finite has diverged."""
        finite = self.assignment.by_run(self.losses.finite) & np.isfinite(loss)
        train_loss = self.assignment.by_run(self.losses.last_mean())
        return [
            Outcome(
                status="ok" if finite[slot] else "diverged",
                test_accuracy=float(correct[slot].mean()),
                test_loss=float(loss[slot]) if finite[slot] else None,
                train_loss=float(train_loss[slot]) if finite[slot] else None,
                validation_accuracy=float(validation_correct[slot].mean()),
                test_correct=np.packbits(correct[slot]).tobytes(),
                parameters=self.shape.parameter_count(run.bias),
                train_seconds=seconds / len(self.runs),
                array_size=len(self.runs),
                curve=tuple(point.of(slot) for point in self.progress.points),
            )
            for slot, run in enumerate(self.runs)
        ]

    def state(self, seconds: float) -> State:
        """What `restore` needs to go on from here, after `seconds` of training."""
        return self.array_state.snapshot(self.progress, seconds)

    def restore(self, state: State) -> None:
        """Resumes from these runs' part of a `state` that fits `array_state`."""
        self.progress = self.array_state.restore(state)
        self.array_step.at.fill_(self.done)
        if self.done % ORDER_BLOCK:
            self.batches.send(self.done)
