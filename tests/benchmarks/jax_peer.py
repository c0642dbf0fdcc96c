"""Arrays beside the peer that an expert would pick: the same networks in JAX, by `jax.vmap` and `jax.lax.scan`.

    python tests/benchmarks/jax_peer.py [--widths 1 4 16] [--seconds 3] [--rounds 5] [--python PYTHON]

JAX is installed into a temporary environment, or `--python` names a Python that has it. Both train as many networks, in
float32, and take turns in rounds. JAX computes in the way that is fastest in a short trial: by XLA's own convolutions,
which `vmap` makes grouped ones, or by products of patches; in a process with one core for each of our arrays, or in one
with all cores and all networks. Its compilation is not counted and has a column of its own, as has what it learns.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from rates import RECIPE, print_row, usual
from rounds import Fused, Rate, measure

from sweep.common.host import cores
from sweep.data import splits
from sweep.training.device import device_name

JAX: Final = "jax==0.10.2"
PROGRAM: Final = Path(__file__).with_name("jax_program.py")
SCAN: Final = 64
"""Steps of a scan."""
BRIEF: Final = 8
"""Steps of a scan in a trial."""
LEARNING: Final = 5
"""Scans after which its accuracy is looked at: about as many steps as the demonstration has."""


@dataclasses.dataclass(frozen=True)
class Jax:
    """`runs` networks in JAX in each process with one core, or those of all of them in one process with all cores."""

    python: str
    pictures: str
    width: int
    runs: int
    convolution: Literal["grouped", "patches"]
    shared: bool
    scan: int = SCAN

    def __str__(self) -> str:
        return f"{self.convolution}, {'one process' if self.shared else 'one process per core'}"

    def start(self, rank: int) -> Rate:
        """Compiles, and trains for the first scan."""
        if self.shared and rank:
            return lambda seconds: 0.0
        program = self.program(rank)
        answer(program)  # it has compiled
        ask(program, "0")
        return lambda seconds: float(ask(program, str(seconds)))

    def program(self, rank: int) -> subprocess.Popen[str]:
        """The program, compiling; it ends with its input."""
        command = ["--width", self.width, "--runs", self.runs * (cores() if self.shared else 1), "--steps", self.scan]
        command = [self.python, PROGRAM, self.pictures, *command, "--convolution", self.convolution]
        if not self.shared:  # it makes a thread for each core that it may use
            core = sorted(os.sched_getaffinity(0))[rank]
            command = ["taskset", "--cpu-list", core, *command]
        return subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def learnt(self) -> tuple[float, float]:
        """Seconds of compilation, and mean accuracy on test pictures after `LEARNING` scans."""
        with self.program(0) as program:
            compiled = json.loads(answer(program))["compiled"]
            for _ in range(LEARNING):
                ask(program, "0")
            return compiled, float(ask(program, "accuracy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", help="one that has JAX; otherwise it is installed for the time of the measurement")
    given = parser.parse_args()
    print(f"{device_name('cpu')}, {cores()} cores, torch {torch.__version__}, {JAX}, {time.strftime('%Y-%m-%d')}\n")
    with tempfile.TemporaryDirectory(prefix="sweep-jax-") as folder:
        python = given.python or installed(Path(folder) / "venv")
        pictures, data = Path(folder) / "pictures.npz", splits.load(RECIPE.dataset)
        (x, y), (test_x, test_y) = data.train, data.test
        np.savez(pictures, train_x=x, train_y=y, test_x=test_x, test_y=test_y)
        print_row(["width", "method", "runs", "ours", "JAX", "ours / JAX", "JAX computes by", "compiles, s", "learns"])
        print_row(["---"] * 9)
        for width in given.widths:
            show(width, python, str(pictures), given.seconds, given.rounds)


def show(width: int, python: str, pictures: str, seconds: float, rounds: int) -> None:
    """A row of the table."""
    run = dataclasses.replace(RECIPE, width=width)
    size, method = usual(run, "native")
    peer = fastest(width, size, python, pictures, seconds)
    found = measure([Fused(run, size, method), peer], rounds, seconds)
    rates = [f"{found.rate(0):,.0f}", f"{found.rate(1):,.0f}", f"{found.ratio(0, 1):.1f}"]
    compiled, accuracy = peer.learnt()
    print_row([width, method, size, *rates, peer, f"{compiled:.1f}", f"{accuracy:.2f}"])


def fastest(width: int, runs: int, python: str, pictures: str, seconds: float) -> Jax:
    """The way of computing that has the highest rate in a trial."""
    ways = [
        Jax(python, pictures, width, runs, convolution, shared, BRIEF)
        for convolution in ("grouped", "patches")
        for shared in (False, True)
    ]
    found = measure(ways, 1, seconds / 3)
    best = max(range(len(ways)), key=found.rate)
    return dataclasses.replace(ways[best], scan=SCAN)


def installed(folder: Path) -> str:
    """The Python of a new environment with JAX in it."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "install", "--quiet", JAX], check=True)
    return str(folder / "bin/python")


def ask(program: subprocess.Popen[str], line: str) -> str:
    """What the program answers."""
    assert program.stdin
    print(line, file=program.stdin, flush=True)
    return answer(program)


def answer(program: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert program.stdout
    found = program.stdout.readline()
    if not found:
        raise RuntimeError(f"the program in JAX ended with exit code {program.wait()}")
    return found


if __name__ == "__main__":
    main()
