"""A worker stays within the memory that it is planned with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep.networks.conv.native.library import library

PROGRAM = """
import dataclasses, json, resource, sys
from pathlib import Path
import torch
from sweep.data import splits
from sweep import plan
from sweep.networks.conv.shape import Shape
from sweep.plan import Array
from sweep.space.runs import Run
from sweep.store.storage import Place
from sweep.training.checkpoint import Checkpoint
from sweep.training.trainer import train

torch.set_num_threads(1)
run, kind, folder = Run(**json.loads(sys.argv[1])), sys.argv[2], Path(sys.argv[3])
shape = Shape.of(run, (1, 28, 28), 10)
size, way = plan.array_size(run, shape, kind), plan.method(run, kind)
runs = [dataclasses.replace(run, seed=n // 2, bias=n % 2 == 0) for n in range(size)]
array = Array("a", ((run, tuple((r.bias, r.seed) for r in runs)),), tuple(map(str, range(size))), shape, way)
train(runs, splits.load("mnist5k"), method=way, checkpoint=Checkpoint(Place(folder), "a", every=0))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"method": way, "peak": peak, "planned": array.bytes / 2**30}))
"""
KINDS = [
    "cpu",
    pytest.param(
        "native", marks=pytest.mark.skipif(library() is None, reason="no compiler, and no build for this CPU")
    ),
]
RICH = {"batch_norm": True, "dropout": 0.5, "optimizer": "adamw"}


def measured(settings: dict[str, Any], kind: str, folder: Path) -> dict[str, Any]:
    """How a process trains an array of the planned size, its peak and what was planned for it, in gigabytes."""
    run = json.dumps({"steps": 3, **settings})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, run, kind, str(folder)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 4, 16, 64, 256])
@pytest.mark.parametrize("settings", [{}, RICH], ids=["plain", "rich"])
def test_a_worker_needs_less_than_two_gigabytes_at_every_default_size(
    width: int, settings: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    found = measured({"width": width, **settings}, kind, tmp_path)
    assert 0.1 < found["peak"] < 2
    assert found["method"] == ("native" if kind == "native" and width <= 16 else "grouped")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize(
    "settings",
    [
        {"width": 2, "depth": 16, "pooling": "none", "batch_size": 150, "hidden": 128},
        {"width": 1, "depth": 8, "pooling": "none", "batch_size": 64, "hidden": 512},
    ],
    ids=["many activations", "many parameters"],
)
def test_native_arrays_as_large_as_may_be_need_less_than_two_gigabytes(
    settings: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    found = measured({**RICH, **settings}, kind, tmp_path)
    assert found["method"] == "native"
    assert 0.9 < found["planned"] <= 1 and 0.1 < found["peak"] < 2
