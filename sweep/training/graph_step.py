"""A step of an array as one CUDA graph: captured when it is first taken, replayed from then on."""

from collections.abc import Iterable

import torch

from sweep.training.array_step import ArrayStep


class GraphStep:
    """Takes the steps of an `ArrayStep`, whose tensors must stay in place; `trained` are those that steps change."""

    def __init__(self, step: ArrayStep, trained: Iterable[torch.Tensor]) -> None:
        self.step, self.changing = step, (*trained, step.at)
        self.graph: torch.cuda.CUDAGraph | None = None

    def take(self) -> None:
        """Trains every network on its next batch; the device may still be busy when this returns."""
        if self.graph is None:
            self.graph = self._capture()
        self.graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """The whole step as a graph. Libraries initialize themselves in the first steps, which are then undone."""
        before = [tensor.detach().clone() for tensor in self.changing]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step.take()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step.take()
        with torch.no_grad():
            for tensor, value in zip(self.changing, before, strict=True):
                tensor.copy_(value)
        return graph
