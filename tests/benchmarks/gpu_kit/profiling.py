"""Section `kernels`: what one whole training step is made of."""

import contextlib
import ctypes
import dataclasses
import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from rates import RECIPE, usual
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_kit import device
from gpu_kit.recorder import Recorder
from gpu_kit.scale import Scale
from sweep.training.device import exact_arithmetic
from sweep.training.trainer import Trainer

LONGEST_MEASUREMENT = 4.0
"""Seconds that one width takes on a GPU, about: what is asked for before it is begun."""


class Spent(NamedTuple):
    """What one kernel, or one operation of a CPU, costs a step."""

    launches: float
    microseconds: float


def measure(recorder: Recorder, scale: Scale) -> None:
    """Time of a step, its nodes, and the time of each kernel, at the table's method and array size."""
    os.environ.setdefault("TEARDOWN_CUPTI", "0")  # graphs and a profiler that is set up anew do not go together
    for width in scale.kernel_widths:
        size, method = usual(dataclasses.replace(RECIPE, width=width), scale.kind)
        labels = {"width": width, "method": method, "runs": size}
        with device.released(scale.kind), recorder.guard("step", "µs", **labels), exact_arithmetic():
            recorder.need(LONGEST_MEASUREMENT if scale.kind == "cuda" else 0.0)
            _width(recorder, scale, labels)


def _width(recorder: Recorder, scale: Scale, labels: dict[str, Any]) -> None:
    run = dataclasses.replace(RECIPE, width=labels["width"])
    with device.alike_weights(), kept_graphs(scale.kind):
        array = device.array(scale.kind, run, labels["runs"], labels["method"])
        seconds = device.step_seconds(array, scale.profiled_steps)
    recorder.add("step", 1e6 * seconds, "µs", **labels)
    _parts(recorder, scale, array, labels)


def _parts(recorder: Recorder, scale: Scale, array: Trainer, labels: dict[str, Any]) -> None:
    spent: dict[str, Spent] = {}
    with recorder.guard("kernel", "µs per step", **labels):
        spent = profiled(array, scale.profiled_steps)
        for name, each in sorted(spent.items(), key=lambda item: -item[1].microseconds):
            recorder.add("kernel", each.microseconds, "µs per step", kernel=name, launches=each.launches, **labels)
    with recorder.guard("nodes", "per step", **labels):
        count, source = nodes(array, spent)
        recorder.add("nodes", count, "per step", source=source, **labels)


def profiled(array: Trainer, steps: int) -> dict[str, Spent]:
    """What a step spends by kernel, copies included; on a CPU by operation, without those that it calls in turn.

    Where the profiler does not see into a graph, the same step is taken kernel by kernel.
    """
    found = _profiled(array, array.step, steps)
    if not found and array.device != "cpu":
        found = _profiled(array, array.array_step.take, steps)
    if not found:
        raise RuntimeError("the profiler saw nothing of the device")
    return found


def _profiled(array: Trainer, step: Callable[[], None], steps: int) -> dict[str, Spent]:
    on_gpu = array.device != "cpu"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as found:
        for _ in range(steps):
            step()
        device.finish("cuda" if on_gpu else "cpu")
    counts: dict[str, int] = defaultdict(int)
    times: dict[str, float] = defaultdict(float)
    for event in found.events() or []:
        if (event.device_type == DeviceType.CPU) == on_gpu or getattr(event, "is_user_annotation", False):
            continue
        counts[event.name] += 1
        times[event.name] += event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
    return {name: Spent(counts[name] / steps, times[name] / steps) for name in counts}


def nodes(array: Trainer, spent: dict[str, Spent]) -> tuple[float, str]:
    """Nodes of a step's graph, from the graph itself or else from what the profiler saw; and which of the two."""
    if array.graph_step and array.graph_step.graph:
        try:
            return nodes_of(array.graph_step.graph), "graph"
        except (OSError, AttributeError, RuntimeError, TypeError) as error:
            if not spent:
                raise
            print(f"the nodes are counted by the profiler: {error}", flush=True)
    if not spent:
        raise RuntimeError("neither the graph nor the profiler tells")
    return sum(each.launches for each in spent.values()), "profiler"


def nodes_of(graph: torch.cuda.CUDAGraph) -> int:
    """Nodes of a graph that was captured within `kept_graphs`."""
    driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_size_t()
    status = driver.cuGraphGetNodes(ctypes.c_void_p(graph.raw_cuda_graph()), None, ctypes.byref(count))
    if status:
        raise RuntimeError(f"cuGraphGetNodes answers with error {status}")
    return count.value


@contextlib.contextmanager
def kept_graphs(kind: str) -> Iterator[None]:
    """Graphs that are captured in here stay beside what is made of them, so that their nodes can be counted."""
    if kind == "cpu":
        yield
        return
    keeping = functools.partial(torch.cuda.CUDAGraph, keep_graph=True)
    with mock.patch.object(torch.cuda, "CUDAGraph", keeping):
        yield
