"""Rates of several ways to train the same networks, on all cores at once, in rounds in which the ways take turns.

Machines speed up and slow down, so only rates of one round are compared: ratios are medians of the rounds' own.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from rates import FEW, ROUNDS, STEPS, epoch_steps, fused_trainer, plain_step, together

from sweep import plan
from sweep.common.host import cores
from sweep.networks.conv.native.library import library
from sweep.space.runs import Run
from sweep.training.device import exact_arithmetic
from sweep.training.trainer import Trainer

Rate = Callable[[float], float]
"""Model-steps a second, measured for so many seconds."""

PATIENCE: Final = 2
"""How many times the seconds that are asked for an epoch may take; of longer ones, a few steps are measured."""


class Contestant(Protocol):
    """A way to train, which can be sent to a process."""

    def start(self, rank: int) -> Rate:
        """Sets it up and warms it up in the process of this rank; all of them measure at once."""


@dataclasses.dataclass(frozen=True)
class Fused:
    """Arrays of pairs of `run`, one in each process."""

    run: Run
    size: int
    method: plan.MethodName

    def start(self, rank: int) -> Rate:
        with exact_arithmetic():
            trainer = fused_trainer("cpu", self.run, self.size, self.method)
            pace(partial(advance, trainer), 0.0)
            brief = pace(partial(advance, trainer), 0.0)
        epoch = epoch_steps(trainer)

        def rate(seconds: float) -> float:
            whole = epoch if epoch / brief <= PATIENCE * seconds else FEW
            with exact_arithmetic():
                return self.size * pace(partial(advance, trainer), seconds, whole)

        return rate


def advance(trainer: Trainer, steps: int) -> None:
    """Takes so many steps, with no more of them at once than there are between two points of a learning curve."""
    end, interval = trainer.done + steps, dataclasses.replace(trainer.runs[0], steps=STEPS).curve_interval
    while trainer.done < end:
        trainer.step(at_most=min(interval, end - trainer.done))


@dataclasses.dataclass(frozen=True)
class Plain:
    """The network as a user writes it, one in each process."""

    run: Run

    def start(self, rank: int) -> Rate:
        step = plain_step(self.run, "cpu")

        def take(steps: int) -> None:
            for _ in range(steps):
                step()

        pace(take, 0.0)
        return lambda seconds: pace(take, seconds)


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Multiply-adds in registers, in place of a network: its rate is in floating-point operations a second."""

    def start(self, rank: int) -> Rate:
        kernels = library()
        assert kernels, "the native kernels are not here"
        operations = kernels.multiply_adds(1)
        return lambda seconds: operations * pace(kernels.multiply_adds, seconds, ROUNDS)


class Found:
    """What was measured: `rates` [rounds, contestants], those of all processes together."""

    def __init__(self, rates: NDArray[np.float64]) -> None:
        self.rates = rates

    def rate(self, contestant: int) -> float:
        """The median of its rates."""
        return float(np.median(self.rates[:, contestant]))

    def ratio(self, contestant: int, other: int) -> float:
        """The median of its ratios to another."""
        return float(np.median(self.rates[:, contestant] / self.rates[:, other]))


def measure(contestants: Sequence[Contestant], rounds: int, seconds: float) -> Found:
    """Every contestant's rates, for about `seconds` in each round, with one process a core."""
    totals = together(in_turns, cores(), tuple(contestants), rounds, seconds)
    return Found(np.array(totals).reshape(rounds, len(contestants)))


def in_turns(barrier: Any, contestants: Sequence[Contestant], rounds: int, seconds: float) -> list[float]:
    """This process's rates, round by round; nobody begins before all are ready."""
    rank, found = barrier.wait(), []
    rates = [contestant.start(rank) for contestant in contestants]
    for _ in range(rounds):
        for rate in rates:
            barrier.wait()
            found.append(rate(seconds))
    return found


def pace(take: Callable[[int], object], seconds: float, whole: int = FEW) -> float:
    """Steps a second, where `take` takes `whole` of them at a time until the time is over."""
    started, done = time.perf_counter(), 0
    while not done or time.perf_counter() - started < seconds:
        take(whole)
        done += whole
    return done / (time.perf_counter() - started)
