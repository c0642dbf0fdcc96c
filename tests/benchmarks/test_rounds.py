"""Ways to train take turns, and only rates of one round are compared."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
import rounds
from rates import RECIPE

from sweep import plan
from sweep.networks.conv.native.library import is_here, library
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclasses.dataclass
class Told:
    """A contestant that writes down when it is measured."""

    name: str
    log: list[str]

    def start(self, rank: int) -> rounds.Rate:
        self.log.append(f"{self.name} starts as {rank}")

        def rate(seconds: float) -> float:
            self.log.append(f"{self.name} {seconds:g}")
            return float(len(self.log))

        return rate


def test_all_are_ready_before_they_take_turns() -> None:
    log: list[str] = []

    def wait() -> int:
        log.append("-")
        return 1

    found = rounds.in_turns(SimpleNamespace(wait=wait), [Told("a", log), Told("b", log)], 2, 0.5)
    assert log == ["-", "a starts as 1", "b starts as 1", *["-", "a 0.5", "-", "b 0.5"] * 2]
    assert found == [5.0, 7.0, 9.0, 11.0]


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    found = rounds.Found(np.array([[10.0, 5.0], [30.0, 10.0], [8.0, 8.0]]))
    assert found.rate(0) == 10.0 and found.rate(1) == 8.0
    assert found.ratio(0, 1) == 2.0 and found.ratio(1, 0) == 0.5


@pytest.mark.parametrize(("seconds", "whole", "steps"), [(0.0, 8, 8), (3.0, 2, 4), (3.0, 1, 3)])
def test_a_pace_is_that_of_whole_blocks(
    seconds: float, whole: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0

    def take(steps: int) -> None:
        nonlocal done
        done += steps

    monkeypatch.setattr("time.perf_counter", lambda: float(done))  # a step takes a second
    assert rounds.pace(take, seconds, whole) == 1.0
    assert done == steps


@pytest.mark.parametrize("method", ["native", "grouped"])
@pytest.mark.parametrize(("seconds", "whole"), [(1e9, 2 * ORDER_BLOCK), (1e-9, rounds.FEW)], ids=["epoch", "few steps"])
def test_an_array_is_measured_over_whole_epochs_where_they_are_short(
    method: plan.MethodName, seconds: float, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "native" and not is_here():
        pytest.skip("no compiler, and no build for this CPU")
    rate = rounds.Fused(dataclasses.replace(RECIPE, width=1), 4, method).start(0)
    wholes: list[int] = []

    def pace(take: object, seconds: float, whole: int) -> float:
        wholes.append(whole)
        return 5.0

    monkeypatch.setattr(rounds, "pace", pace)
    assert rate(seconds) == 4 * 5.0
    assert wholes == [whole]


def test_an_array_takes_no_more_steps_at_once_than_lie_between_two_points_of_a_curve() -> None:
    asked: list[int] = []
    trainer = SimpleNamespace(done=0, runs=(RECIPE,))

    def step(at_most: int) -> None:
        asked.append(at_most)
        trainer.done += min(at_most, 90)

    trainer.step = step
    rounds.advance(cast(Trainer, trainer), 256)
    assert trainer.done == 256 and asked == [101, 101, 76]


def test_a_plain_network_is_measured() -> None:
    assert rounds.Plain(dataclasses.replace(RECIPE, width=1)).start(0)(0.0) > 0


@pytest.mark.skipif(not is_here(), reason="no compiler, and no build for this CPU")
def test_arithmetic_is_counted_in_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = library()
    assert kernels
    monkeypatch.setattr(rounds, "pace", lambda take, seconds, whole: take(whole) / kernels.multiply_adds(1))
    assert rounds.Arithmetic().start(0)(1.0) == rounds.ROUNDS * kernels.multiply_adds(1)
