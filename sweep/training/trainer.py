"""Trains one array: all its runs at once, fused, on one device. Knows nothing of clusters and keeps no rows."""

import dataclasses
import gc
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.data.splits import Data
from sweep.networks.conv.backends import Pictures
from sweep.networks.conv.shape import MethodName, Shape
from sweep.plan import DeviceKind
from sweep.space.runs import TRAINER_VERSION, Run, program
from sweep.store.outcomes import Outcome, Point
from sweep.training.array_step import ArrayStep, Losses
from sweep.training.assignment import Assignment
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.checkpoint import Checkpoint, State
from sweep.training.device import exact_arithmetic, kind_of, out_of_memory
from sweep.training.device_batches import DeviceBatches
from sweep.training.device_data import device_data
from sweep.training.fused_model import FusedModel, cross_entropies
from sweep.training.graph_step import GraphStep
from sweep.training.optimizers import Optimizer

CURVE_COST: Final = 0.015
"""Largest share of the training's arithmetic that points of the learning curve may cost."""

SUMS: Final = frozenset({"loss_sum", "last_loss_sum", "finite"})
"""What a trainer keeps as `[turns, networks]`; all else that it keeps is `[networks, …]`."""

EVALUATION_NUMBERS: Final[dict[DeviceKind, int]] = {"cpu": 2**22, "cuda": 2**27}
"""Largest activation of an evaluation, in numbers of all runs together: what caches and a worker's memory stand."""


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

    Takes up the training that `checkpoint` kept, and keeps it there while it goes on. Where memory runs out, the array
    is split in two; `halvings` times it is split before it is tried at all. `tick` is called with the number of steps
    done, at every point of the curve and after every block of batches. Raises `sweep.training.checkpoint.Stopped` when
    `checkpoint` is asked to stop.
    """
    halves = _halves(runs)
    if not halvings or len(halves) == 1:
        try:
            with exact_arithmetic(runs[0].precision):
                return _train(Trainer(runs, data, device=device, method=method), tick, checkpoint)
        except (RuntimeError, MemoryError) as error:
            if len(halves) == 1 or not out_of_memory(error):
                raise
            # The traceback holds on to the tensors of the array that was too large.
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
    """Steps of one part of an array as steps of the whole."""
    return None if tick is None else lambda step: tick((part * steps + step) // parts)


def _halves(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in two parts, or in one where they cannot be parted; runs of one seed stay together."""
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
    kept = next(filter(trainer.takes, checkpoint.states()), None) if checkpoint else None
    if kept is not None:
        trainer.restore(kept)
        started -= trainer.seconds_before
    for step in range(trainer.done + 1, trainer.steps + 1):
        trainer.step()
        at_point = step % trainer.runs[0].curve_interval == 0 or step == trainer.steps
        if at_point:
            trainer.add_point()
        if tick and (at_point or step % ORDER_BLOCK == 0):
            tick(step)
        if checkpoint and step < trainer.steps and checkpoint.due():
            checkpoint.save(trainer.state(time.perf_counter() - started))
    validation_correct, _ = trainer.evaluate(*trainer.data.validation)
    correct, loss = trainer.evaluate(*trainer.data.test)
    return trainer.outcomes(validation_correct, correct, loss, time.perf_counter() - started)


class Trainer:
    """An array in training: parameters, running statistics and the sums that its outcomes are made of.

    Runs that share weights (`protocol: shared_weights`) are two rows of one network, whose arms take turns; everywhere
    else a run is a network of its own, and there is one turn a batch. Tensors of sums are `[turns, networks]`.
    """

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
        first = runs[0]
        self.runs, self.device = tuple(runs), device
        self.data = device_data(data, device)
        self.steps = first.steps
        self.assignment = Assignment.of(runs)
        shape = Shape.of(first, self.data.shape, self.data.classes)
        networks = self.assignment.networks
        self.scaling = self.data.scalings(networks, dtype)
        # Before the weights are drawn: a GPU would wait for its first batches else.
        self.batches = DeviceBatches(networks, self.data, self.scaling, shape.dropping)
        self.model = FusedModel(self.assignment, shape, method, dtype, device)
        self.optimizer = Optimizer(
            networks, self.model.parameters, shape.decayed, self.model.frozen, self.model.method.kernels
        )
        self.losses = Losses(self.model.turns, len(networks), self.steps, device)
        self.array_step = ArrayStep(self.model, self.batches, self.optimizer, self.losses)
        changing = [*self._tensors().values(), self.array_step.at]
        self.graph_step = None if device == "cpu" else GraphStep(self.array_step, changing)
        scaled = np.array([run.input_scaling for run in networks])
        self.scaled_alike = [torch.from_numpy(np.flatnonzero(scaled == each)) for each in np.unique(scaled)]
        self.done = 0
        self.since_point = 0
        self.seconds_before = 0.0  # of training that a checkpoint kept
        self.points: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = []

    def step(self) -> None:
        """Trains every run on its next batch; on a GPU, as one graph of the whole step."""
        if self.done % ORDER_BLOCK == 0:
            self.batches.send(self.done)
        (self.graph_step or self.array_step).take()
        self.done += 1
        self.since_point += 1

    def add_point(self) -> None:
        """Adds a point to the learning curves: mean loss since the last one, and accuracy on some pictures."""
        self.points.append((self.done, self.loss_since_last_point(), self.curve_accuracy()))

    def loss_since_last_point(self) -> NDArray[np.float64]:
        """Mean minibatch loss `[runs]` of the steps since the last call."""
        # Divided here: a GPU would multiply by the reciprocal.
        mean = self.assignment.by_run(self.losses.flush()) / self.since_point
        self.since_point = 0
        return mean

    def curve_accuracy(self) -> NDArray[np.float64]:
        """Accuracy `[runs]` on the first `curve_examples` validation pictures."""
        places = self.data.split.validation
        chosen = self.data.part(places[: curve_examples(self.runs[0], len(places))])
        return np.asarray(self.evaluate(*chosen)[0].mean(axis=1))

    @torch.no_grad()
    def evaluate(self, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which pictures each run gets right `[runs, n]`, and each run's mean loss `[runs]`."""
        shape, networks = self.model.shape, len(self.assignment.networks)
        patches = shape.kernel_size**2 if self.model.method.name == "im2col" else 1
        largest = (
            patches
            * networks
            * max(
                shape.channels * shape.height * shape.width,
                shape.filters * max(map(shape.pixels, range(shape.depth))),
                shape.hidden,
            )
        )
        size = max(1, min(len(labels), EVALUATION_NUMBERS[kind_of(self.device)] // largest))
        correct, loss = [], torch.zeros_like(self.losses.loss_sum)
        for start in range(0, len(labels), size):
            wanted = labels[start : start + size].expand(networks, -1)
            right = []
            for turn in range(self.model.turns):
                logits = self._logits(turn, pictures[start : start + size])
                right.append(logits.argmax(2) == wanted)
                losses = cross_entropies(logits, wanted)
                loss[turn] += losses.double().sum(1)
            correct.append(torch.stack(right))
        return self.assignment.by_run(torch.cat(correct, dim=2)), self.assignment.by_run(loss / len(labels))

    def _logits(self, turn: int, pictures: torch.Tensor) -> torch.Tensor:
        """What every network makes of the same pictures: `[networks, pictures, classes]`."""
        places = torch.arange(len(pictures), device=self.device)
        if self.device != "cpu" or self.model.method.runs_first:
            each = places.expand(len(self.assignment.networks), -1)
            return self.model.logits(turn, Pictures(pictures, each, *self.scaling), training=False)
        # One input does for all channels of networks that scale alike. Where some scale otherwise, all are computed
        # with that input, too: by another shape of convolution, its numbers would tell who the neighbours are.
        logits = torch.empty(0)
        for slots in self.scaled_alike:
            first = slots[:1]
            seen = Pictures(pictures, places[None], *(part[first] for part in self.scaling))
            found = self.model.logits(turn, seen, training=False)
            logits = found if len(logits) == 0 else logits.index_copy(0, slots, found[slots])
        return logits

    def outcomes(
        self,
        validation_correct: NDArray[np.bool_],
        correct: NDArray[np.bool_],
        loss: NDArray[np.float64],
        seconds: float,
    ) -> list[Outcome]:
        """The outcome of every run; a run whose loss was ever not finite has diverged."""
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
                parameters=self.model.shape.parameter_count(run.bias),
                train_seconds=seconds / len(self.runs),
                array_size=len(self.runs),
                curve=tuple(Point(step, _number(losses[slot]), float(acc[slot])) for step, losses, acc in self.points),
            )
            for slot, run in enumerate(self.runs)
        ]

    def state(self, seconds: float) -> State:
        """What `restore` needs to go on from here, after `seconds` of training."""
        curve = {
            "curve/steps": torch.tensor([step for step, *_ in self.points], dtype=torch.int64),
            "curve/losses": torch.tensor(np.array([losses for _, losses, _ in self.points])),
            "curve/accuracies": torch.tensor(np.array([accuracies for *_, accuracies in self.points])),
        }
        numbers = {"done": self.done, "since_point": self.since_point, "seconds": seconds}
        whose = {"runs": self._names(self.runs), "networks": self._names(self.assignment.networks)}
        tensors = {name: tensor.detach().cpu() for name, tensor in self._tensors().items()}
        return State({**tensors, **curve}, numbers | whose)

    def takes(self, state: State) -> bool:
        """Whether `state` holds these runs, be it among others."""
        wanted = {"runs": self.runs, "networks": self.assignment.networks}
        return all(set(state.numbers.get(part, ())).issuperset(self._names(own)) for part, own in wanted.items())

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Goes on from a `state` that it `takes`, with these runs' part of it."""
        networks, runs = (
            _places(self._names(own), state.numbers[part])
            for part, own in (("networks", self.assignment.networks), ("runs", self.runs))
        )
        for name, tensor in self._tensors().items():
            tensor.copy_(state.tensors[name].index_select(1 if name in SUMS else 0, networks))
        # These runs' share of the time that all of them took.
        self.seconds_before = state.numbers["seconds"] * len(self.runs) / len(state.numbers["runs"])
        self.done, self.since_point = state.numbers["done"], state.numbers["since_point"]
        self.array_step.at.fill_(self.done)
        steps = state.tensors["curve/steps"].tolist()
        curve = [state.tensors[f"curve/{part}"] for part in ("losses", "accuracies")]
        points = [each.index_select(1, runs).numpy() for each in curve] if steps else curve
        self.points = [(step, losses, accuracies) for step, losses, accuracies in zip(steps, *points, strict=True)]
        if self.done % ORDER_BLOCK:
            self.batches.send(self.done)

    def _names(self, runs: Sequence[Run]) -> list[str]:
        """What each run is called in a checkpoint: all that its training goes by."""
        about = TRAINER_VERSION, self.data.fingerprint
        return [hashlib.sha256(repr((*about, run)).encode()).hexdigest()[:20] for run in runs]

    def _tensors(self) -> dict[str, torch.Tensor]:
        """All that training changes, by name."""
        return {**self.model.parameters, **self.model.statistics, **self.optimizer.state, **self.losses.tensors}


def _places(wanted: Sequence[str], there: Sequence[str]) -> torch.Tensor:
    place = {name: number for number, name in enumerate(there)}
    return torch.tensor([place[name] for name in wanted], dtype=torch.int64)


def curve_examples(run: Run, available: int) -> int:
    """Validation pictures of a point of the curve: as many as keep all points within `CURVE_COST`.

    A step costs three forward passes of its batch: one forward, two backward.
    """
    points = -(-run.steps // run.curve_interval)
    affordable = int(CURVE_COST * 3 * run.steps * run.batch_size / points)
    return max(1, min(affordable, available))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
