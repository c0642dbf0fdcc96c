"""The device that is measured, and how a step on it is timed."""

import contextlib
import dataclasses
import functools
import gc
import importlib.metadata
import itertools
import statistics
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final
from unittest import mock

import torch

from sweep.common import random_streams
from sweep.common.host import cores
from sweep.data import splits
from sweep.networks.conv.shape import MethodName
from sweep.plan import DeviceKind
from sweep.space.runs import Run
from sweep.training.device import device_name
from sweep.training.trainer import ORDER_BLOCK, Trainer

WARM_UP: Final = 3
"""Steps before the first that is timed: the first of them captures the graph."""


def facts(kind: DeviceKind) -> dict[str, Any]:
    """What the results say of the device and the versions; what cannot be found out is None."""
    return {
        "device": device_name(kind),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if kind == "cuda" else None,
        "driver": driver() if kind == "cuda" else None,
        "cores": cores(),
        "versions": {
            "torch": torch.__version__,
            "triton": version("triton"),
            "cuda": torch.version.cuda,
            "ray": version("ray"),
        },
    }


def version(distribution: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def driver() -> str | None:
    """Version of the GPU's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.split() or [None])[0] if done.returncode == 0 else None


def array(kind: DeviceKind, run: Run, size: int, method: MethodName) -> Trainer:
    """An array of pairs of `run` that is to train for one block of batches: none is drawn ahead while it is timed."""
    runs = [dataclasses.replace(run, seed=n // 2, bias=n % 2 == 0, steps=ORDER_BLOCK) for n in range(size)]
    return Trainer(runs, splits.load(run.dataset), device=kind, method=method)


def finish(kind: DeviceKind) -> None:
    """Waits until the device has done what it was given."""
    if kind == "cuda":
        torch.cuda.synchronize()


def step_seconds(trainer: Trainer, steps: int) -> float:
    """Median of the seconds of a step, after a warm-up; on a GPU as its own clock has them, of replays alone."""
    for _ in range(WARM_UP):
        trainer.step()
    if trainer.device == "cpu":
        return statistics.median(_timed(trainer) for _ in range(steps))
    finish("cuda")
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    marks[0].record()
    for mark in marks[1:]:
        trainer.graph_step.take()
        mark.record()
    finish("cuda")
    return statistics.median(a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks))


def _timed(trainer: Trainer) -> float:
    started = time.perf_counter()
    trainer.step()
    return time.perf_counter() - started


@contextlib.contextmanager
def alike_weights() -> Iterator[None]:
    """In here all seeds start from the same weights: a step's time does not depend on them, but drawing takes long."""
    draw = random_streams.truncated_normal
    once = functools.cache(lambda purpose, count: draw(0, purpose, count))
    with mock.patch.object(random_streams, "truncated_normal", lambda seed, purpose, count: once(purpose, count)):
        yield


@contextlib.contextmanager
def released(kind: DeviceKind) -> Iterator[None]:
    """What the block has taken of the device's memory is given back at its end."""
    try:
        yield
    finally:
        gc.collect()
        if kind == "cuda":
            torch.cuda.empty_cache()
