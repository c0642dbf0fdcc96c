"""What the trainer's benchmark measures, and that it ends whatever happens to its processes."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parent))
import rates as benchmark

from sweep.networks.conv.shape import MethodName
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

ALONE = SimpleNamespace(parties=1, wait=lambda: 0)


def two_numbers(barrier: Any) -> list[float]:
    return [float(barrier.wait()), 1.0]


def dies(barrier: Any) -> list[float]:
    if barrier.wait() == 0:
        os._exit(3)
    barrier.wait()
    return [1.0]


def fails(barrier: Any) -> list[float]:
    if barrier.wait() == 0:
        raise ValueError("no such width")
    barrier.wait()
    return [1.0]


@pytest.mark.slow
def test_what_processes_measure_together_is_summed() -> None:
    assert benchmark.together(two_numbers, 2) == [0.0 + 1.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "words"), [(dies, "died with exit code 3"), (fails, "ValueError: no such width")], ids=["dies", "fails"]
)
def test_a_process_that_dies_or_fails_ends_the_measurement(measure: Callable[..., Any], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        benchmark.together(measure, 2)


@pytest.mark.parametrize(
    ("step_seconds", "whole", "steps", "rate"),
    [
        (lambda step: 0.5, 1, 3 + 6, 2.0),
        (lambda step: 0.5, 4, 3 + 2 * 4, 2.0),  # two take longer than there is time
        (lambda step: 1.5 if step % 8 == 3 else 0.5, 8, 3 + 8, 8 / 5),  # the batches' drawing is met in the one part
        (lambda step: 0.25 if step < 3 + 4 else 0.5, 1, 3 + 4 + 2 * 2, 4.0),
    ],
    ids=["three parts", "two parts", "epochs", "the best"],
)
def test_a_rate_is_that_of_the_best_of_three_parts_of_whole_steps(
    step_seconds: Callable[[int], float], whole: int, steps: int, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, done = 0.0, 0

    def step() -> None:
        nonlocal clock, done
        clock, done = clock + step_seconds(done), done + 1

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    found = benchmark.steps_a_second(step, "cpu", ALONE, 3.0, whole)
    assert (done, found) == (steps, pytest.approx(rate))


def test_an_array_is_measured_in_its_precision_over_steps_that_meet_a_new_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    wholes: list[int] = []

    @contextlib.contextmanager
    def arithmetic(precision: str) -> Iterator[None]:
        opened.append(precision)
        yield

    def rate(step: Any, kind: str, barrier: Any, seconds: float, whole: int) -> float:
        wholes.append(whole)
        return 5.0

    monkeypatch.setattr(benchmark, "exact_arithmetic", arithmetic)
    monkeypatch.setattr(benchmark, "steps_a_second", rate)
    run = dataclasses.replace(benchmark.RECIPE, width=1, precision="tf32")
    assert benchmark.fused_rate(ALONE, "cpu", run, 4, "grouped", 1.0) == [20.0]
    assert opened == ["tf32"] and wholes == [2 * ORDER_BLOCK]  # 3,500 pictures, 16 a step
    monkeypatch.setattr(benchmark, "drawn_steps_a_second", lambda trainer: 2.0)
    assert benchmark.brief_rate(ALONE, "cpu", run, 4, "grouped", 1.0) == [4 * 2.0]
    assert opened == ["tf32"] * 2


def test_the_drawing_is_timed_over_whole_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = benchmark.fused_trainer("cpu", benchmark.RECIPE, 2, "grouped")
    clock, starts = 0.0, []

    def block(start: int) -> None:
        nonlocal clock
        clock += 2.0
        starts.append(start // ORDER_BLOCK)

    monkeypatch.setattr(trainer.batches.feed, "block", block)
    monkeypatch.setattr("time.perf_counter", lambda: clock)
    assert benchmark.drawn_steps_a_second(trainer) == ORDER_BLOCK / 2
    assert starts == list(range(9))


@pytest.mark.parametrize("measure", [benchmark.fused_rates, benchmark.brief_rates])
def test_an_array_for_which_memory_is_short_has_no_rate(
    measure: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(trainer: Trainer) -> None:
        if len(trainer.runs) > 2:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(Trainer, "step", short)
    run = dataclasses.replace(benchmark.RECIPE, width=1)
    found = measure(ALONE, "cpu", run, [(2, "grouped"), (4, "grouped")], 0.0)
    assert found[0] > 0 and found[1] == 0
    monkeypatch.setattr(Trainer, "step", lambda trainer: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        measure(ALONE, "cpu", run, [(2, "grouped")], 0.0)


def test_slow_ways_are_dropped_and_the_others_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[tuple[int, MethodName], list[float]] = {
        (2, "grouped"): [40.0],
        (2, "triton"): [100.0, 90.0],
        (2, "im2col"): [30.0],
        (8, "grouped"): [150.0, 170.0],
        (8, "triton"): [200.0, 220.0],
    }
    asked: list[tuple[int, MethodName]] = []

    def rate(barrier: Any, kind: str, run: Any, size: int, method: MethodName, seconds: float) -> list[float]:
        asked.append((size, method))
        return [known[size, method][asked.count((size, method)) - 1]]

    monkeypatch.setattr(benchmark, "brief_rate", rate)
    ways: list[benchmark.Way] = [(size, method) for method in ("grouped", "triton", "im2col") for size in (2, 8)]
    rates = benchmark.brief_rates(ALONE, "cuda", benchmark.RECIPE, ways, 1.0)
    assert dict(zip(ways, rates, strict=True)) == {
        **{way: max(looks) for way, looks in known.items()},
        (8, "im2col"): 0.0,
    }
    assert [asked.count(way) for way in known] == [1, 2, 1, 2, 2]
