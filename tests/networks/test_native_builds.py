"""Builds of the native kernels: the same bits by all, functions as exact as they say, and no step outside memory."""

import ctypes
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from training.test_trainer import COLOUR, GREY, SMALL, vary

import sweep.training.trainer
from sweep.networks.conv.native import build
from sweep.networks.conv.native.library import Library
from sweep.networks.conv.native.location import FLAGS, cpu_flags
from sweep.store.outcomes import Outcome
from sweep.training.trainer import train

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

HERE: Final = [name for name in build.variants() if FLAGS[name] <= cpu_flags()]
"""Builds that this machine can run."""

RECIPES: Final[list[dict[str, Any]]] = [
    {"width": 4, "kernel_size": 5, "hidden": 64},
    {"width": 3, "batch_norm": True, "dropout": 0.3, "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine"},
    {"activation": "leaky_relu", "pooling": "max", "optimizer": "adamw", "weight_decay": 0.1, "depth": 3},
    {"width": 8, "kernel_size": 3, "pooling": "average", "hidden": 0, "activation": "identity"},
    {"kernel_size": 7, "pooling": "none", "depth": 1},
    {"kernel_size": 11, "width": 5, "batch_size": 3},
    {"kernel_size": 1, "protocol": "shared_weights", "bias_layers": "all", "batch_norm": True},
]

if not HERE:
    pytest.skip("there is no build for this CPU", allow_module_level=True)


@pytest.fixture(scope="module", params=HERE)
def library(request: pytest.FixtureRequest) -> Path:
    [path] = build.build(build.HERE, [request.param])
    return path


def trained(kernels: Library, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """Outcomes of every recipe, on grey and coloured pictures."""
    monkeypatch.setattr(sweep.training.trainer, "library", lambda: kernels)
    found = []
    for recipe in RECIPES:
        runs = vary(
            dataclasses.replace(SMALL, **recipe), bias=[True, False] * 9, seed=[seed // 2 for seed in range(18)]
        )
        for data in (GREY, COLOUR):
            found += [dataclasses.replace(each, train_seconds=0.0) for each in train(runs, data, method="native")]
    return found


@pytest.mark.skipif(len(HERE) < 2, reason="this CPU can run one build alone")
def test_every_build_trains_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = (Library(path) for path in build.build(build.HERE, HERE))
    wanted = trained(first, monkeypatch)
    for other in others:
        assert other.lanes != first.lanes, "builds that differ in nothing prove nothing"
        assert trained(other, monkeypatch) == wanted


def computed(library: Path, name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A function of the library, of as many numbers as fill vectors."""
    kernels = ctypes.CDLL(str(library))
    memory = [np.empty(x.nbytes + 64, np.uint8) for _ in range(2)]  # vectors are aligned
    source, target = (part[-part.ctypes.data % 64 :][: x.nbytes].view(np.float32) for part in memory)
    source[:] = x
    addresses = [ctypes.c_void_p(part.ctypes.data) for part in (source, target)]
    getattr(kernels, name)(*addresses, ctypes.c_int64(len(x) // int(kernels.sweep_lanes())))
    return target.copy()


def units_off(found: NDArray[np.float32], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors in units of the last place of the exact values as float32."""
    return np.abs(found.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


# Every exponent, and a fine grid where most losses are. Below -87.3, exp is that of -87.3, about 1e-38.
DOWN: Final = np.concatenate([-np.geomspace(1e-30, 87.3, 2**19), -np.linspace(0, 87.3, 2**19)]).astype(np.float32)
UP: Final = np.concatenate([np.geomspace(1, 1e30, 2**19), np.linspace(1, 20, 2**19)]).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "x", "exact"),
    [("sweep_exponential", DOWN, np.exp), ("sweep_logarithm", UP, np.log)],
    ids=["exp", "log"],
)
def test_exp_and_log_are_exact_to_a_unit_of_the_last_place(
    library: Path, name: str, x: NDArray[np.float32], exact: Callable[..., Any]
) -> None:
    found, wanted = computed(library, name, x), exact(x.astype(np.float64))
    off = units_off(found[wanted != 0], wanted[wanted != 0])
    assert off.max() <= 1
    assert np.all(found[wanted == 0] == 0)


def test_exp_and_log_of_what_diverges(library: Path) -> None:
    x = np.full(64, np.nan, np.float32)
    assert np.isnan(computed(library, "sweep_exponential", x)).all()
    assert np.isnan(computed(library, "sweep_logarithm", x)).all()
    assert np.isinf(computed(library, "sweep_logarithm", np.full(64, np.inf, np.float32))).all()
    assert (computed(library, "sweep_exponential", np.full(64, -np.inf, np.float32)) < 2e-38).all()


SANITIZED: Final = """
import sys
from pathlib import Path

import pytest
import torch
from networks import test_native_builds as builds

from sweep.networks.conv.native.library import Library
from sweep.training.native_array import NativeArray

torch.set_num_threads(1)
if sys.argv[2:]:  # pictures are read past their end
    evaluate = NativeArray.evaluate
    NativeArray.evaluate = lambda self, turn, x, labels: evaluate(self, turn, x, torch.cat([labels, labels[:1]]))
builds.trained(Library(Path(sys.argv[1])), pytest.MonkeyPatch())
print("trained to the end")
"""


def sanitized(path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Trains every recipe with a sanitized library."""
    tests = Path(__file__).parents[1]
    runtime = subprocess.run(
        [build.compiler()[0], "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")]),
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONMALLOC": "malloc",
    }
    return subprocess.run(
        [sys.executable, "-c", SANITIZED, str(path), *arguments], env=environment, capture_output=True, text=True
    )


SANITIZERS: Final = (
    *("-O1", "-w", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "-fno-sanitize=null,pointer-overflow,object-size",  # long to compile; the address sanitizer finds the same
)


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kernels.so"
    options = [option for option in (*build.COMMON, *build.variants()[HERE[-1]]) if not option.startswith("-static")]
    command = [*build.compiler(), *options, *SANITIZERS, "-o", str(path), str(build.HERE / "network.cpp")]
    subprocess.run(command, check=True)
    done = sanitized(path)
    assert (done.returncode, done.stdout) == (0, "trained to the end\n"), done.stderr
    caught = sanitized(path, "one picture too few")
    assert caught.returncode and "heap-buffer-overflow" in caught.stderr, "the sanitizers would find nothing"
