"""Every kernel compiles for an H100, with or without one. How it fares there is printed; that it compiles is tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILDS = Path(__file__).with_name("kernel_builds.py")


def built(*widths: int) -> list[dict[str, object]]:
    """What compiling in a process of its own gives, since the tests' own interprets Triton."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(BUILDS), "--json", "--widths", *map(str, widths)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.stderr.startswith("kernels cannot be compiled here"):
        pytest.skip(done.stderr.strip())
    assert done.stdout, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def check(found: list[dict[str, object]]) -> None:
    for build in found:
        print("{kernel} at width {width}, {settings}: {registers} registers, ".format(**build), end="")
        print("{shared} bytes shared, {spills} bytes spilled".format(**build))
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


def test_every_kernel_of_width_16_compiles_for_an_h100() -> None:
    check(built(16))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 4, 64, 256])
def test_every_kernel_compiles_for_an_h100(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = built(width)
    with capsys.disabled():
        print()
        check(found)
