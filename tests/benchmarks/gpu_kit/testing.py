"""Section `tests`: the tests of the kernels and of the GPU path."""

import contextlib
import importlib.util
from typing import Any

import pytest

from gpu_kit import CHECKOUT, TESTS
from gpu_kit.recorder import Recorder
from gpu_kit.scale import Scale

FILES = ("networks/test_kernels.py", "gpu/test_cuda.py")

FILLS_MEMORY = "too_large_for_the_device"
"""Names the test that fills the device's memory: beside it, others would fail."""

LAST_LINES = 8
"""Lines that are kept of a test that failed."""


class Told:
    """A plugin of pytest that records the outcome of every test when it is there."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One phase of one test, also of one that another process ran."""
        if report.failed or report.skipped or report.when == "call":
            self._record(report)

    def pytest_collectreport(self, report: Any) -> None:
        """A file, whose tests are told one by one unless it cannot be read."""
        if report.failed:
            self._record(report)

    def _record(self, report: Any) -> None:
        labels = {"test": report.nodeid, "outcome": report.outcome}
        if report.failed:
            labels["lines"] = report.longreprtext.strip().splitlines()[-LAST_LINES:]
        self.recorder.add("test", getattr(report, "duration", 0.0), "s", **labels)


def measure(recorder: Recorder, scale: Scale) -> None:
    """Outcome and seconds of every test; of one that failed, the last lines that it said, too."""
    told = Told(recorder)
    apart = f"not {FILLS_MEMORY}" + (f" and ({scale.tests})" if scale.tests else "")
    status = _pytest(told, apart, scale.test_processes)
    if scale.kind == "cuda":
        status = _pytest(told, FILLS_MEMORY, 1) or status
    if status:
        raise SystemExit(f"pytest ended with status {int(status)}")


def _pytest(told: Told, chosen: str, processes: int) -> int:
    parallel = processes > 1 and importlib.util.find_spec("xdist") is not None
    options = ["-n", str(processes)] if parallel else []
    with contextlib.chdir(CHECKOUT):
        files = [str(TESTS / name) for name in FILES]
        return pytest.main(
            [*files, "-k", chosen, *options, "-p", "no:cacheprovider", "-p", "no:benchmark"], plugins=[told]
        )
