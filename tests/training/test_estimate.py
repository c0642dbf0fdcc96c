"""A measurement times the steps of a shape, not how it is set up, and keeps to its budget on a GPU, too."""

from pathlib import Path
from typing import Any

import pytest

from sweep.data.library import Library
from sweep.networks.conv.shape import Shape
from sweep.plan import Array
from sweep.space.runs import Run
from sweep.training import estimate

pytestmark = pytest.mark.usefixtures("one_thread")

SET_UP, STEP, RUNS, PICTURES = 100.0, 0.5, 4, 1500
RUN = Run(steps=10_000)
ARRAY = Array(
    "a", ((RUN, tuple((True, seed) for seed in range(RUNS))),), tuple("abcd"), Shape.of(RUN, (1, 28, 28), 10), "grouped"
)


class Device:
    """A clock, and a trainer whose steps take their time when they are waited for: at once on a CPU."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous, self.now, self.ordered, self.done = asynchronous, 0.0, 0.0, 0

    def step(self, at_most: int = 1) -> None:
        self.ordered += STEP if self.done else SET_UP
        self.done += 1
        if not self.asynchronous:
            self.synchronize()

    def synchronize(self, device: Any = None) -> None:
        self.now, self.ordered = self.now + self.ordered, 0.0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_steps_alone_are_timed_and_as_many_as_the_budget_has_time_for(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Device(asynchronous=device == "cuda")
    monkeypatch.setattr(estimate, "Trainer", lambda runs, data, **how: machine)
    monkeypatch.setattr("torch.cuda.synchronize", machine.synchronize)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(estimate, "cores", lambda: 1)
    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"time.{clock}", lambda: machine.now)
    monkeypatch.setattr(estimate, "_evaluated", lambda *dataset: PICTURES)
    budget = 4 * STEP * estimate.SHAPES
    found = estimate.seconds([ARRAY], Library(tmp_path), device, budget)
    assert (machine.done, machine.now) == (1 + 4, SET_UP + 4 * STEP)
    assert found == pytest.approx(STEP * (RUN.steps + PICTURES / (3 * RUN.batch_size)))


def test_a_run_of_one_step_is_measured_by_it(tmp_path: Path) -> None:
    run = Run(width=1, steps=1)
    array = Array("a", ((run, ((True, 0),)),), ("a",), Shape.of(run, (1, 28, 28), 10), "grouped")
    found = estimate.seconds([array], Library(tmp_path), "cpu", budget=0.0)
    assert found is not None and found > 0


def test_shapes_are_interpolated_among_those_of_their_own_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {("native", 1): 1.0, ("native", 8): 2.0, ("grouped", 4): 50.0, ("grouped", 16): 70.0}
    made = [(Run(width=width, steps=1000), method) for method, width in [*seconds, ("native", 4)]]
    arrays = [Array("a", ((run, ((True, 0),)),), ("a",), Shape.of(run, (1, 28, 28), 10), way) for run, way in made]

    def measured(array: Array, *_: Any) -> float:
        return seconds[array.method, array.cell.width]

    monkeypatch.setattr(estimate, "SHAPES", 2)
    monkeypatch.setattr(estimate, "_step_seconds", measured)
    monkeypatch.setattr(estimate, "_evaluated", lambda *dataset: 0)
    monkeypatch.setattr(estimate, "cores", lambda: 1)
    found = estimate.seconds(arrays, Library(tmp_path), "cpu")
    assert found is not None and 1000 * (123 + 1) < found < 1000 * (123 + 2)


@pytest.mark.parametrize("method", ["native", "grouped"])
def test_an_array_is_timed_as_it_is_trained(method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    run = Run(width=1, steps=1)
    array = Array("a", ((run, ((True, 0),)),), ("a",), Shape.of(run, (1, 28, 28), 10), method)

    def trainer(runs: Any, data: Any, **how: Any) -> Device:
        asked.append(how["method"])
        return Device(asynchronous=False)

    monkeypatch.setattr(estimate, "Trainer", trainer)
    estimate.seconds([array], Library(tmp_path), "cpu", budget=0.0)
    assert asked == ["native" if method == "native" else None]
