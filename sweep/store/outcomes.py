"""The outcome of training a run, which becomes a row and a curve of the store."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a learning curve; a loss that is not finite is None."""

    step: int
    train_loss: float | None
    validation_accuracy: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one run: accuracies in 0 … 1, mean losses in nats (None if the run diverged)."""

    status: Literal["ok", "diverged"]
    test_accuracy: float
    test_loss: float | None
    train_loss: float | None
    validation_accuracy: float
    test_correct: bytes
    parameters: int
    train_seconds: float
    array_size: int
    curve: tuple[Point, ...]
