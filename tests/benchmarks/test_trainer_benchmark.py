"""What the trainer's benchmark measures, and that it ends whatever happens to its processes."""

import contextlib
import dataclasses
import json
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
import trainer as tables

from sweep import plan
from sweep.common.host import cores
from sweep.networks.conv.native.library import library
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


def rates_of(grouped: float, native: float) -> dict[benchmark.Way, float]:
    return {**{(size, "native"): native for size in tables.SIZES["native"]}, (4, "grouped"): grouped}


def test_a_native_row_has_the_smallest_size_that_trains_long_enough_where_native_arrays_are_faster() -> None:
    two_seconds = 32 * tables.STEPS * cores() / tables.ENOUGH
    for native, size in ((two_seconds, 32), (two_seconds + 1, 64), (1.0, 16), (1e9, 128)):
        assert tables.best_row("native", 4, rates_of(0.5, native)) == plan.Saturation(4, "native", size)
    assert tables.best_row("native", 64, rates_of(21.0, 20.0)) is None
    assert tables.best_row("cpu", 4, {(4, "grouped"): 10.0, (8, "grouped"): 10.4}) == plan.Saturation(4, "grouped", 4)


def test_rows_end_before_the_first_width_that_has_none() -> None:
    row = plan.Saturation(1, "native", 32)
    assert tables.merged({1: row, 2: row, 4: None, 8: row}) == [{"width": 2, "method": "native", "runs": 32}]
    assert tables.merged({1: row, 2: row}) == [{"width": 1024, "method": "native", "runs": 32}]


@pytest.mark.parametrize(
    ("widths", "last", "said"),
    [(list(tables.WRITTEN), 16, ""), ([32], 32, "by hand; width 32: "), ([8, 32], 4, "by hand; width 8, 32: ")],
    ids=["all", "one more", "fewer"],
)
def test_the_native_part_is_written_up_to_where_grouped_arrays_are_faster(
    widths: list[int], last: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = {"measured": "by hand", "rows": [{"width": 16, "method": "native", "runs": 64}]}
    before = {**json.loads(plan.TABLE.read_text()), "native": native}
    table = tmp_path / "saturation.json"
    table.write_text(tables.format_table(before))
    monkeypatch.setattr(plan, "TABLE", table)
    monkeypatch.setattr(plan, "SATURATION", {"native": (plan.Saturation(16, "native", 64),)})
    asked = []

    def rates_by_way(kind: str, run: Any, seconds: float, rounds: int) -> dict[benchmark.Way, float]:
        asked.append(run.width)
        wins = run.width <= last
        return rates_of(10.0, 20.0 if wins else 9.0)

    monkeypatch.setattr(tables, "rates_by_way", rates_by_way)
    tables.write("native", widths, 1.0, 2)
    after = json.loads(table.read_text())
    assert after["native"]["rows"][-1]["width"] == last
    assert after["native"]["measured"].startswith(f"{said}cpu (")
    assert {kind: part for kind, part in after.items() if kind != "native"} == {
        kind: part for kind, part in before.items() if kind != "native"
    }
    assert asked == [width for width in widths if width <= last] + [width for width in widths if width > last][:1]


def test_native_sizes_are_whole_tiles_that_plans_may_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {width: dataclasses.replace(benchmark.RECIPE, width=width) for width in (1, 16, 32, 64)}
    sizes = {width: tables.fitting("native", run) for width, run in runs.items()}
    assert sizes[1] == sizes[16] == [16, 32, 64, 128]
    assert sizes[32] == [16, 32, 64] and sizes[64] == [16]  # plans make no longer ones
    for width in (1, 16, 32):
        monkeypatch.setattr(plan, "SATURATION", {"native": (plan.Saturation(1024, "native", max(sizes[width])),)})
        assert benchmark.usual(runs[width], "native") == (max(sizes[width]), "native")


def test_arithmetic_is_that_of_multiply_adds_in_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = library()
    if kernels is None:
        pytest.skip("no compiler, and no build for this CPU")
    assert kernels.multiply_adds(0) == 0
    assert kernels.multiply_adds(7) == 7 * kernels.multiply_adds(1) > 0
    calls = 0

    def rate(step: Callable[[], object], kind: str, barrier: Any, seconds: float, whole: int) -> float:
        nonlocal calls
        calls += 1
        step()
        return 3.0

    monkeypatch.setattr(benchmark, "steps_a_second", rate)
    assert benchmark.peaks(ALONE, "native", 1.0) == [3 * benchmark.ROUNDS * kernels.multiply_adds(1), 3 * 8.0 * 2**25]
    monkeypatch.setattr(benchmark, "library", lambda: None)
    assert benchmark.peaks(ALONE, "native", 1.0)[0] == 3 * 2.0 * 1536**3
    assert calls == 4
