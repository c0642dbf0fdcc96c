"""Every kernel compiles for an H100, with or without one. How it fares there is printed; that it compiles is tested."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sweep.common.host import cores

BUILDS = Path(__file__).with_name("kernel_builds.py")


def built(width: int) -> list[dict[str, object]]:
    """What compiling in a process of its own gives, since the tests' own interprets Triton."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BUILDS), "--json", "--widths", str(width)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.stderr.startswith("kernels cannot be compiled here"):
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def check(found: list[dict[str, object]]) -> None:
    for build in found:
        print("{kernel}, {settings}: {registers} registers, {shared} + {spills} bytes shared + spilled".format(**build))
    assert [build for build in found if build["error"]] == []
    kernels = {str(build["kernel"]) for build in found}
    assert {"_gather", "_convolution_forward", "_convolution_input", "_convolution_weight"} <= kernels
    assert {
        "_linear_forward",
        "_linear_input",
        "_linear_weight",
        "_norm_backward",
        "_drop",
        "_adamw",
        "_sgd",
    } <= kernels
    assert all(isinstance(build["registers"], int) for build in found)


@pytest.mark.integration
def test_every_kernel_of_width_16_compiles_for_an_h100() -> None:
    check(built(16))


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h100(capsys: pytest.CaptureFixture[str]) -> None:
    widths = [256, 64, 4, 1]
    with ThreadPoolExecutor(cores()) as pool:
        found = list(pool.map(built, widths))
    with capsys.disabled():
        for width, builds in zip(widths, found, strict=True):
            print(f"\nwidth {width}")
            check(builds)
