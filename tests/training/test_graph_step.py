"""Capturing a step as a graph leaves no trace: here on a CPU, with a graph that takes the captured step again."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support import oracle

from sweep.space.runs import Run
from sweep.training.array_step import ArrayStep
from sweep.training.graph_step import GraphStep
from sweep.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Run(width=3, hidden=5, kernel_size=3, batch_size=5, steps=6)
PROGRAMS: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9, "batch_norm": True},
    "AdamW": {"optimizer": "adamw", "dropout": 0.3, "schedule": "cosine"},
    "shared weights": {"protocol": "shared_weights", "optimizer": "adamw"},
}


class Graph:
    """Holds what is called while it is captured, and calls it when it is replayed."""

    replay: Callable[[], None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts `Graph` in place of CUDA's; says of every call of a step whether it was taken or captured."""
    seen: list[str] = []
    capturing: list[Graph] = []
    take = ArrayStep.take

    def watched(step: ArrayStep) -> None:
        seen.append("captured" if capturing else "taken")
        if capturing:
            capturing[0].replay = lambda: take(step)
        else:
            take(step)

    @contextlib.contextmanager
    def captured(graph: Graph) -> Iterator[None]:
        capturing.append(graph)
        yield
        capturing.clear()

    class Stream:
        def wait_stream(self, other: object) -> None: ...

    monkeypatch.setattr(ArrayStep, "take", watched)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", captured)
    return seen


@pytest.mark.parametrize("program", PROGRAMS)
def test_steps_of_a_graph_are_those_of_the_array_from_the_first_on(program: str, calls: list[str]) -> None:
    common = dataclasses.replace(SMALL, **PROGRAMS[program])
    runs = [dataclasses.replace(common, bias=bias, seed=seed) for seed in (0, 1) for bias in (True, False)]
    eager, replayed = (Trainer(runs, oracle.synthetic()) for _ in range(2))
    replayed.graph_step = GraphStep(replayed.array_step, replayed.array_state.tensors.values())
    for _ in range(SMALL.steps):
        replayed.step()
    assert calls == ["taken"] * 3 + ["captured"], "a graph is captured once, after three steps that are undone"
    for _ in range(SMALL.steps):
        eager.step()
    assert replayed.array_step.at.tolist() == [SMALL.steps]
    for name, tensor in eager.array_state.tensors.items():
        assert torch.equal(tensor, replayed.array_state.tensors[name]), name
