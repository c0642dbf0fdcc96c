"""Section `compile`: all kernels, one process a width, which also fills Triton's cache for the sections that follow."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from gpu_kit import TESTS
from gpu_kit.recorder import Recorder
from gpu_kit.scale import Scale
from gpu_kit.supervise import Unfinished, finished

UNITS = {"registers": "registers per thread", "shared": "bytes per program", "spills": "bytes per thread"}


def measure(recorder: Recorder, scale: Scale) -> None:
    """Registers, shared memory, spills and seconds of every kernel at every width."""
    with ThreadPoolExecutor(len(scale.build_widths)) as pool:
        list(pool.map(lambda width: _width(recorder, width), scale.build_widths))


def _width(recorder: Recorder, width: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(TESTS / "gpu" / "kernel_builds.py"), "--widths", str(width), "--json"]
    with recorder.guard("compiling", "s", width=width):
        done = finished(command, recorder.left, environment)
        if not done.stdout.strip():  # it ends with 1, too, where a kernel does not compile, and lists it
            raise Unfinished(done.why)
        for build in json.loads(done.stdout):
            labels = {name: build[name] for name in ("kernel", "width", "settings")}
            error = build.get("error")
            recorder.add("compiling", None if error else build["seconds"], "s", error, **labels)
            for name, unit in UNITS.items():
                if build[name] is not None:
                    recorder.add(name, build[name], unit, **labels)
