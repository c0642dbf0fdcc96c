"""Trains one array: all its runs at once, fused, on one device. Knows nothing of clusters and keeps no rows."""

import dataclasses
import functools
import gc
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sweep import plan
from sweep.common.host import cores
from sweep.data.splits import Data
from sweep.networks.conv import model
from sweep.networks.conv.backends import METHODS, Dropout, Pictures, has_triton
from sweep.networks.conv.shape import MethodName, Shape
from sweep.plan import DeviceKind
from sweep.space.runs import TRAINER_VERSION, Run, program
from sweep.store.outcomes import Outcome, Point
from sweep.training.assignment import Assignment
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.checkpoint import Checkpoint, State
from sweep.training.device import exact_arithmetic, out_of_memory
from sweep.training.device_batches import DeviceBatches
from sweep.training.device_data import device_data
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
        self.runs, self.device, self.dtype = tuple(runs), device, dtype
        self.data = device_data(data, device)
        self.shape = Shape.of(first, self.data.shape, self.data.classes)
        self.method = METHODS[method or _method(first, device)](first.precision, device)
        self.steps = first.steps
        self.assignment = Assignment.of(runs)
        self.networks = self.assignment.networks
        self.scaling = self.data.scalings(self.networks, dtype)
        # Before the weights are drawn: a GPU would wait for its first batches else.
        self.batches = DeviceBatches(self.networks, self.data, self.scaling, self.shape.dropping)
        threads = 1 if device == "cpu" else cores()
        parameters, statistics = model.initial(self.networks, self.shape, self.method, dtype, threads)
        self.parameters = {name: _moved(p, device).requires_grad_() for name, p in parameters.items()}
        self.statistics = {name: s.to(device) for name, s in statistics.items()}
        if (
            len(self.assignment.turns) == 2
        ):  # shared weights: the turn without bias computes, and leaves, these biases as zeros
            self.absent = {name: torch.zeros_like(self.parameters[name]) for name in self.shape.treated}
            frozen = {}
        else:
            self.absent = {}
            without = torch.tensor([not run.bias for run in self.networks], device=device)
            frozen = dict.fromkeys(self.shape.treated, without) if any(not run.bias for run in self.networks) else {}
        self.optimizer = Optimizer(self.networks, self.parameters, self.shape.decayed, frozen, self.method.kernels)
        scaled = np.array([run.input_scaling for run in self.networks])
        self.scaled_alike = [torch.from_numpy(np.flatnonzero(scaled == each)) for each in np.unique(scaled)]

        turns, count = len(self.assignment.turns), len(self.networks)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)  # batches done, as the device counts them
        self.done = 0
        self.loss_sum = torch.zeros(turns, count, dtype=torch.float64, device=device)
        self.finite = torch.ones(turns, count, dtype=torch.bool, device=device)
        self.since_point = 0
        self.seconds_before = 0.0  # of training that a checkpoint kept
        # A row's training loss does not depend on how often the curve is drawn: it is that of the last of ten points.
        tenth = -(-self.steps // 10)
        self.last_tenth = (self.steps - 1) // tenth * tenth
        self.last_loss_sum = torch.zeros_like(self.loss_sum)
        self.points: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = []
        self.graph: torch.cuda.CUDAGraph | None = None

    def step(self) -> None:
        """Trains every run on its next batch; on a GPU, as one graph of the whole step."""
        if self.done % ORDER_BLOCK == 0:
            self.batches.send(self.done)
        if self.device == "cpu":
            self._advance()
        else:
            self._replay()
        self.done += 1
        self.since_point += 1

    def add_point(self) -> None:
        """Adds a point to the learning curves: mean loss since the last one, and accuracy on some pictures."""
        self.points.append((self.done, self.loss_since_last_point(), self.curve_accuracy()))

    def loss_since_last_point(self) -> NDArray[np.float64]:
        """Mean minibatch loss `[runs]` of the steps since the last call."""
        self.finite &= self.loss_sum.isfinite()
        mean = self.assignment.by_run(self.loss_sum) / self.since_point
        self.loss_sum.zero_()
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
        networks = len(self.networks)
        patches = self.shape.kernel_size**2 if self.method.name == "im2col" else 1
        largest = (
            patches
            * networks
            * max(
                self.shape.channels * self.shape.height * self.shape.width,
                self.shape.filters * max(map(self.shape.pixels, range(self.shape.depth))),
                self.shape.hidden,
            )
        )
        size = max(1, min(len(labels), EVALUATION_NUMBERS["cpu" if self.device == "cpu" else "cuda"] // largest))
        correct, loss = [], torch.zeros_like(self.loss_sum)
        for start in range(0, len(labels), size):
            wanted = labels[start : start + size].expand(networks, -1)
            right = []
            for turn in range(len(self.assignment.turns)):
                logits = self._logits(turn, pictures[start : start + size])
                right.append(logits.argmax(2) == wanted)
                losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
                loss[turn] += losses.view(networks, -1).double().sum(1)
            correct.append(torch.stack(right))
        return self.assignment.by_run(torch.cat(correct, dim=2)), self.assignment.by_run(loss / len(labels))

    def _logits(self, turn: int, pictures: torch.Tensor) -> torch.Tensor:
        """What every network makes of the same pictures: `[networks, pictures, classes]`."""
        places = torch.arange(len(pictures), device=self.device)
        if self.device != "cpu" or self.method.runs_first:
            each = places.expand(len(self.networks), -1)
            return self._forward(turn, Pictures(pictures, each, *self.scaling), training=False)
        # One input does for all channels of networks that scale alike. Where some scale otherwise, all are computed
        # with that input, too: by another shape of convolution, its numbers would tell who the neighbours are.
        logits = torch.empty(0)
        for slots in self.scaled_alike:
            first = slots[:1]
            seen = Pictures(pictures, places[None], *(part[first] for part in self.scaling))
            found = self._forward(turn, seen, training=False)
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
        finite = self.assignment.by_run(self.finite) & np.isfinite(loss)
        train_loss = self.assignment.by_run(self.last_loss_sum / (self.steps - self.last_tenth))
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
        whose = {"runs": self._names(self.runs), "networks": self._names(self.networks)}
        tensors = {name: tensor.detach().cpu() for name, tensor in self._tensors().items()}
        return State({**tensors, **curve}, numbers | whose)

    def takes(self, state: State) -> bool:
        """Whether `state` holds these runs, be it among others."""
        wanted = {"runs": self.runs, "networks": self.networks}
        return all(set(state.numbers.get(part, ())).issuperset(self._names(own)) for part, own in wanted.items())

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Goes on from a `state` that it `takes`, with these runs' part of it."""
        networks, runs = (
            _places(self._names(own), state.numbers[part])
            for part, own in (("networks", self.networks), ("runs", self.runs))
        )
        for name, tensor in self._tensors().items():
            tensor.copy_(state.tensors[name].index_select(1 if name in SUMS else 0, networks))
        # These runs' share of the time that all of them took.
        self.seconds_before = state.numbers["seconds"] * len(self.runs) / len(state.numbers["runs"])
        self.done, self.since_point = state.numbers["done"], state.numbers["since_point"]
        self.at.fill_(self.done)
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
        sums = {"loss_sum": self.loss_sum, "last_loss_sum": self.last_loss_sum, "finite": self.finite}
        return {**self.parameters, **self.statistics, **self.optimizer.state, **sums}

    def _replay(self) -> None:
        if self.graph is None:
            self.graph = self._capture()
        self.graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """The whole step as a CUDA graph. Libraries set themselves up in the first steps, which are then undone."""
        changing = [*self._tensors().values(), self.at]
        before = [tensor.detach().clone() for tensor in changing]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._advance()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        with torch.no_grad():
            for tensor, value in zip(changing, before, strict=True):
                tensor.copy_(value)
        return graph

    def _advance(self) -> None:
        """One batch of every run, as the device does it: everything that changes between steps is a tensor's content.

        The loss is the sum over networks of each one's mean: none scales another's learning rate.
        """
        place = self.at.remainder(ORDER_BLOCK)
        pictures, labels = self.batches.batch(place)
        dropouts = self.batches.masks.at(place)
        own = self.at + 1  # updates of what one of two turns leaves as it is
        rates = self.optimizer.rates_after(self.at)
        steps = self.optimizer.steps_in_backward([layer.weight for layer in self.shape.linears], rates)
        for turn in range(len(self.assignment.turns)):
            logits = self._forward(turn, pictures, training=True, dropouts=dropouts, steps=steps)
            losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            losses = losses.view(len(self.networks), -1).mean(1)
            left = steps.keys() | (self.absent.keys() if turn == 1 else set())
            learning = {name: p for name, p in self.parameters.items() if name not in left}
            gradients = dict(zip(learning, torch.autograd.grad(losses.sum(), list(learning.values())), strict=True))
            with torch.no_grad():
                count = self.at * len(self.assignment.turns) + turn + 1
                counts = {name: own if name in self.absent else count for name in gradients}
                self.optimizer.update(self.parameters, gradients, rates, counts)
                self.loss_sum[turn] += losses
                self.last_loss_sum[turn] += torch.where(self.at >= self.last_tenth, losses, 0)
        self.at += 1

    def _forward(
        self,
        turn: int,
        pictures: Pictures,
        training: bool,
        dropouts: dict[str, Dropout] | None = None,
        steps: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        parameters = self.parameters if turn == 0 else {**self.parameters, **self.absent}
        return model.forward(self.shape, self.method, parameters, self.statistics, pictures, training, dropouts, steps)


def _places(wanted: Sequence[str], there: Sequence[str]) -> torch.Tensor:
    place = {name: number for number, name in enumerate(there)}
    return torch.tensor([place[name] for name in wanted], dtype=torch.int64)


def _moved(parameter: torch.Tensor, device: str) -> torch.Tensor:
    return parameter.to(device, memory_format=torch.preserve_format)


def _method(run: Run, device: str) -> MethodName:
    """The method that the table names for this device; without Triton, the one that comes next."""
    wanted = plan.method(run.width, "cpu" if device == "cpu" else "cuda")
    return "im2col" if wanted == "triton" and not _runs_triton(device) else wanted


@functools.cache
def _runs_triton(device: str) -> bool:
    """Whether our kernels run there: their tiles want the shared memory of compute capability 8.0."""
    return has_triton() and torch.cuda.get_device_capability(device) >= (8, 0)


def curve_examples(run: Run, available: int) -> int:
    """Validation pictures of a point of the curve: as many as keep all points within `CURVE_COST`.

    A step costs three forward passes of its batch: one forward, two backward.
    """
    points = -(-run.steps // run.curve_interval)
    affordable = int(CURVE_COST * 3 * run.steps * run.batch_size / points)
    return max(1, min(affordable, available))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
