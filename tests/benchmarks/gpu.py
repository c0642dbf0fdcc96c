"""Proves and measures the GPU path, all of it in one go: under 8 minutes on one H100 with 16 cores.

    python tests/benchmarks/gpu.py [--out DIR] [--only SECTION ...] [--device cpu]
    python tests/benchmarks/gpu.py --show DIR/results.json      # its tables again
    python tests/benchmarks/gpu.py --write DIR/results.json     # the GPU's part of sweep/saturation.json, made of it

Each section is a process of its own with a time limit: one that hangs or dies costs itself only. What it finds stands
in DIR/results.json after every number, what it prints in DIR/SECTION.log; the tables come at the end. With
`--device cpu` the same runs on a CPU, smaller, which tests this program and says nothing of a GPU.

Exits with 1 where a section has failed. A bound that is missed is shown, and fails nothing.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from gpu_kit import BENCHMARKS, CHECKOUT, STARTED, results, saturation, supervise, tables
from gpu_kit.scale import SCALES

MODULES = {
    "compile": "compiling",
    "tests": "testing",
    "kernels": "profiling",
    "agreement": "agreement",
    "sizes": "sizing",
    "trainer": "training",
    "launch": "launching",
}
"""The module of `gpu_kit` that has each section's `measure`."""


def main(arguments: list[str] | None = None) -> int:
    """The exit status of the command line."""
    given = parsed(arguments)
    if given.section:
        return measure(given.section, given.device)
    if given.show:
        print(tables.of(json.loads(given.show.read_text())))
        return 0
    try:
        return write(given.write) if given.write else run(given.device, given.only or list(MODULES), given.out)
    except (saturation.Unusable, Refused) as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2


class Refused(Exception):
    """What was asked for cannot be begun."""


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: $OUT, or else a new folder below gpu-results")
    parser.add_argument("--only", nargs="+", choices=MODULES, metavar="SECTION", help=", ".join(MODULES))
    parser.add_argument("--device", choices=SCALES, default="cuda")
    parser.add_argument("--show", type=Path, metavar="RESULTS")
    parser.add_argument("--write", type=Path, metavar="RESULTS")
    parser.add_argument("--section", choices=MODULES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run(kind: str, wanted: list[str], out: Path | None) -> int:
    """Runs the sections and prints the tables, also when it is interrupted."""
    folder = out or Path(os.environ.get("OUT") or Path("gpu-results") / time.strftime("%Y-%m-%dT%H-%M-%S"))
    if (folder / results.NAME).exists():
        raise Refused(f"{folder} has results already; --out names another folder")
    if kind == "cuda" and not has_gpu():
        raise Refused("PyTorch finds no GPU here; --device cpu tests this program on a CPU")
    found = results.Results(folder, results.about(kind, CHECKOUT))
    limits = SCALES[kind].limits
    sections = [supervise.Section(name, command(name, kind), limits[name]) for name in limits if name in wanted]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        supervise.run(sections, found, environment(kind), lambda text: print(text, flush=True), STARTED)
    finally:
        print(f"\n{tables.of(json.loads(found.path.read_text()))}\nresults: {found.path}", flush=True)
    return 0 if found.ok else 1


def has_gpu() -> bool:
    """Whether PyTorch finds a GPU."""
    import torch

    return torch.cuda.is_available()


def command(section: str, kind: str) -> tuple[str, ...]:
    """What runs one section."""
    return sys.executable, str(BENCHMARKS / "gpu.py"), "--device", kind, "--section", section


def environment(kind: str) -> dict[str, str]:
    """That of the sections and of all that they start: this checkout, and on a CPU no GPU."""
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if kind == "cpu" else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **hidden}


def measure(section: str, kind: str) -> int:
    """Runs one section in this process."""
    import torch
    from gpu_kit import device
    from gpu_kit.recorder import Recorder

    torch.set_num_threads(1)  # the host's part is small, and networks this small train faster on one thread
    recorder = Recorder()
    recorder.facts(**device.facts(kind))
    importlib.import_module(f"gpu_kit.{MODULES[section]}").measure(recorder, SCALES[kind])
    return 0


def write(path: Path) -> int:
    """Makes the GPU's part of the table of array sizes anew."""
    saturation.write(path)
    print(f"written: {saturation.plan.TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
