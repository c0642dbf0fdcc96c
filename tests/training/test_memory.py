"""A worker stays within the memory that it is planned with."""

import subprocess
import sys

import pytest

PROGRAM = """
import dataclasses, json, resource, sys
import torch
from sweep.data import splits
from sweep import plan
from sweep.networks.conv.shape import Shape
from sweep.space.runs import Run
from sweep.training.trainer import train

torch.set_num_threads(1)
run = Run(**json.loads(sys.argv[1]))
size = plan.array_size(run, Shape.of(run, (1, 28, 28), 10), "cpu")
runs = [dataclasses.replace(run, seed=n // 2, bias=n % 2 == 0) for n in range(size)]
train(runs, splits.load("mnist5k"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 4, 16, 64, 256])
@pytest.mark.parametrize("settings", ["", ', "batch_norm": true, "dropout": 0.5, "optimizer": "adamw"'])
def test_a_worker_needs_less_than_two_gigabytes_at_every_default_size(width: int, settings: str) -> None:
    run = f'{{"width": {width}, "steps": 3{settings}}}'
    done = subprocess.run([sys.executable, "-c", PROGRAM, run], capture_output=True, text=True, check=True)
    assert 0.1 < float(done.stdout) < 2
