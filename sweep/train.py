"""Trains one array: all its runs at once, fused, on one device. Knows nothing of clusters and writes nothing."""

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sweep import model
from sweep.data import Data, batches
from sweep.plan import DeviceKind
from sweep.runs import DEFAULTS, IDENTITY, TRAINED, Run, settings_of
from sweep.shape import Shape

CURVE_COST: Final = 0.015
"""Largest share of the training's arithmetic that points of the learning curve may cost."""

ORDER_BLOCK: Final = 128
"""Steps whose batches are drawn at once."""

EVALUATION_NUMBERS: Final = 2**22
"""Largest activation of an evaluation, in numbers of all runs together: what caches and a worker's memory stand."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a learning curve; a loss that is not finite is None."""

    step: int
    train_loss: float | None
    validation_accuracy: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What training one run gave: accuracies in 0 … 1, mean losses in nats (None where the run diverged)."""

    status: Literal["ok", "diverged"]
    test_accuracy: float
    test_loss: float | None
    train_loss: float | None
    validation_accuracy: float
    test_correct: bytes
    parameters: int
    train_seconds: float
    curve: tuple[Point, ...]


def train(
    runs: Sequence[Run],
    data: Data,
    *,
    device: str = "cpu",
    tick: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Trains the runs of one array to the end and evaluates them; outcomes come in the order of `runs`.

    `tick` is called with the number of steps done, at every point of the curve and after every block of batches.
    """
    with exact_arithmetic():
        return _train(Trainer(runs, data, device=device), tick)


def _train(trainer: "Trainer", tick: Callable[[int], None] | None) -> list[Outcome]:
    started = time.perf_counter()
    points: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = []
    for step in range(1, trainer.steps + 1):
        trainer.step()
        at_point = step % trainer.runs[0].curve_interval == 0 or step == trainer.steps
        if at_point:
            points.append((step, trainer.loss_since_last_point(), trainer.curve_accuracy()))
        if tick and (at_point or step % ORDER_BLOCK == 0):
            tick(step)
    validation_correct, _ = trainer.evaluate(*trainer.data.validation)
    correct, loss = trainer.evaluate(*trainer.data.test)
    return trainer.outcomes(points, validation_correct, correct, loss, time.perf_counter() - started)


class DeviceData:
    """A data set on a device: pictures as uint8 `[n, channels, pixels]`, labels as int64, and their scaling."""

    def __init__(self, data: Data, device: str) -> None:
        def part(pair: tuple[NDArray[np.uint8], NDArray[np.int64]]) -> tuple[torch.Tensor, torch.Tensor]:
            # torch.tensor copies: arrays out of shared memory are read-only.
            return torch.tensor(pair[0], device=device).flatten(2), torch.tensor(pair[1], device=device)

        self.train, self.validation, self.test = part(data.train), part(data.validation), part(data.test)
        self.shape, self.classes = data.picture_shape, data.classes
        pixels = data.train[0].astype(np.float64) / 255
        self.mean, deviation = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
        self.deviation = np.where(deviation > 0, deviation, 1)  # a channel that never varies is only centered

    def scaling(self, run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factor and offset `[channels]` that turn a byte into the run's input."""
        ones = np.ones(len(self.mean))
        match run.input_scaling:
            case "unit":
                return ones / 255, 0 * ones
            case "centered":
                return ones / 255, -0.5 * ones
            case "standardized":
                return 1 / (255 * self.deviation), -self.mean / self.deviation


class Trainer:
    """An array in training: parameters, running statistics and the sums that its outcomes are made of."""

    def __init__(
        self, runs: Sequence[Run], data: Data, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        assert len({_program(run) for run in runs}) == 1, "runs of one array share their program"
        assert all(getattr(runs[0], name) == DEFAULTS[name] for name in set(IDENTITY) - TRAINED - {"dataset", "split"})
        self.runs, self.device, self.dtype = tuple(runs), device, dtype
        self.data = DeviceData(data, device)
        self.shape = Shape.of(runs[0], self.data.shape, self.data.classes)
        self.steps, self.batch_size = runs[0].steps, runs[0].batch_size
        parameters, statistics = model.initial(runs, self.shape, dtype)
        self.parameters = {name: p.to(device).requires_grad_() for name, p in parameters.items()}
        self.statistics = {name: s.to(device) for name, s in statistics.items()}
        self.frozen = {
            name: torch.tensor([[not model.has_bias(run, name.split(".")[0])] for run in runs], device=device)
            for name in self.parameters
            if name.endswith(".bias") and not name.startswith("norm")
        }
        self.frozen = {name: mask for name, mask in self.frozen.items() if mask.any()}
        rates = torch.tensor([-run.learning_rate for run in runs], dtype=dtype, device=device)
        self.rates = {n: rates.view(-1, *[1] * (p.dim() - 1)) for n, p in self.parameters.items()}
        scalings = [self.data.scaling(run) for run in runs]
        self.factor, self.offset = (
            torch.tensor(np.stack(part), dtype=dtype, device=device).flatten() for part in zip(*scalings, strict=True)
        )
        self.same_input = len({run.input_scaling for run in runs}) == 1
        self.done = 0
        self.loss_sum = torch.zeros(len(runs), dtype=torch.float64, device=device)
        self.finite = torch.ones(len(runs), dtype=torch.bool, device=device)
        self.since_point = 0
        # A row's training loss does not depend on how often the curve is drawn: it is that of the last of ten points.
        tenth = -(-self.steps // 10)
        self.last_tenth = (self.steps - 1) // tenth * tenth
        self.last_loss_sum = torch.zeros_like(self.loss_sum)

    def step(self) -> None:
        """One update of every run. The loss is the sum over runs of each run's mean: no run scales another's rate."""
        pictures, labels = self._batch()
        logits = model.forward(self.shape, self.parameters, self.statistics, pictures, training=True)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        losses = losses.view(len(self.runs), -1).mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True):
                if name in self.frozen:
                    gradient = gradient.masked_fill(self.frozen[name], 0)
                parameter.addcmul_(gradient, self.rates[name])
            self.loss_sum += losses
            if self.done >= self.last_tenth:
                self.last_loss_sum += losses
        self.done += 1
        self.since_point += 1

    def loss_since_last_point(self) -> NDArray[np.float64]:
        """Mean minibatch loss `[runs]` of the steps since the last call."""
        self.finite &= self.loss_sum.isfinite()
        mean: NDArray[np.float64] = (self.loss_sum / self.since_point).cpu().numpy()
        self.loss_sum.zero_()
        self.since_point = 0
        return mean

    def curve_accuracy(self) -> NDArray[np.float64]:
        """Accuracy `[runs]` on the first `curve_examples` validation pictures."""
        pictures, labels = self.data.validation
        count = curve_examples(self.runs[0], len(labels))
        return np.asarray(self.evaluate(pictures[:count], labels[:count])[0].mean(axis=1))

    @torch.no_grad()
    def evaluate(self, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which pictures each run gets right `[runs, n]`, and each run's mean loss `[runs]`."""
        runs = len(self.runs)
        largest = runs * max(
            self.shape.channels * self.shape.height * self.shape.width,
            self.shape.filters * self.shape.pixels(0),
            self.shape.hidden,
        )
        size = max(1, min(len(labels), EVALUATION_NUMBERS // largest))
        correct, loss = [], torch.zeros(runs, dtype=torch.float64, device=self.device)
        for start in range(0, len(labels), size):
            wanted = labels[start : start + size].expand(runs, -1)
            logits = model.forward(
                self.shape,
                self.parameters,
                self.statistics,
                self._evaluated(pictures[start : start + size]),
                False,
            )
            correct.append(logits.argmax(2) == wanted)
            losses = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
            loss += losses.view(runs, -1).double().sum(1)
        return torch.cat(correct, dim=1).cpu().numpy(), (loss / len(labels)).cpu().numpy()

    def outcomes(
        self,
        points: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]],
        validation_correct: NDArray[np.bool_],
        correct: NDArray[np.bool_],
        loss: NDArray[np.float64],
        seconds: float,
    ) -> list[Outcome]:
        """The outcome of every run; a run whose loss was ever not finite has diverged."""
        finite = self.finite.cpu().numpy() & np.isfinite(loss)
        train_loss = (self.last_loss_sum / (self.steps - self.last_tenth)).cpu().numpy()
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
                curve=tuple(Point(step, _number(losses[slot]), float(acc[slot])) for step, losses, acc in points),
            )
            for slot, run in enumerate(self.runs)
        ]

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures `[batch, runs x channels, height, width]`, channels last in memory, and labels `[runs, batch]`."""
        if self.done % ORDER_BLOCK == 0:
            self.order = self._order(self.done, min(self.done + ORDER_BLOCK, self.steps))
        chosen = self.order[self.done % ORDER_BLOCK]
        pictures, labels = self.data.train
        batch = pictures[chosen.flatten()].view(*chosen.shape, *pictures.shape[1:])  # [batch, runs, channels, pixels]
        batch = batch.permute(0, 3, 1, 2).flatten(2).to(self.dtype, memory_format=torch.contiguous_format)
        return self._picture_axes(batch.mul_(self.factor).add_(self.offset)), labels[chosen].T

    def _order(self, start: int, stop: int) -> torch.Tensor:
        """Indices `[steps, batch, runs]` of the pictures; runs of one seed see the same."""
        examples = len(self.data.train[1])
        orders = {s: batches(s, examples, self.batch_size, start, stop) for s in {run.seed for run in self.runs}}
        return torch.from_numpy(np.stack([orders[run.seed] for run in self.runs], axis=2)).to(self.device)

    def _evaluated(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures of an evaluation: one input for all runs where they scale alike, else one for each."""
        batch = pictures.transpose(1, 2).to(self.dtype)  # [n, pixels, channels]
        channels = batch.shape[2]
        copies = 1 if self.same_input else len(self.runs)
        batch = batch.repeat(1, 1, copies)
        return self._picture_axes(batch.mul_(self.factor[: copies * channels]).add_(self.offset[: copies * channels]))

    def _picture_axes(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.view(len(batch), self.shape.height, self.shape.width, -1).permute(0, 3, 1, 2)


def curve_examples(run: Run, available: int) -> int:
    """Validation pictures of a point of the curve: as many as keep all points within `CURVE_COST`.

    A step costs three forward passes of its batch: one forward, two backward.
    """
    points = -(-run.steps // run.curve_interval)
    affordable = int(CURVE_COST * 3 * run.steps * run.batch_size / points)
    return max(1, min(affordable, available))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _program(run: Run) -> tuple[object, ...]:
    """Everything that fixes the program; what is left out is a number of each run's own."""
    own = {"bias", "seed", "learning_rate", "weight_init", "bias_init", "input_scaling"}
    return tuple(level for name, level in settings_of(run).items() if name not in own)


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Float32 means float32, and the same program gives the same bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # Confident runs have gradients below the normal range, which CPUs compute many times slower.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def local_device() -> DeviceKind:
    """The kind of device that this machine trains on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """What the store calls the device: "cpu (…)" with its model, or the GPU's name."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"cpu ({names[0] if names else platform.processor() or platform.machine()})"
