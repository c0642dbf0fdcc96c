"""Seconds of training that the demonstration takes by native arrays and by grouped ones, side by side.

    python tests/benchmarks/demonstration.py [--space search_spaces/quickstart.yaml] [--rounds 3]

The arrays of both plans are trained to the end, evaluation included, as workers train them: one process a core with one
thread each. They are sorted by the shape of their networks, so that both plans' arrays of a shape follow each other.
Seconds are what rows have as `train_seconds`, added over all runs. Nothing is stored.
"""

import argparse
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import torch
from rates import print_row

from sweep import plan
from sweep.common.host import cores
from sweep.data import splits
from sweep.space.search_space import SearchSpace, load
from sweep.training.device import device_name
from sweep.training.trainer import train

DEMONSTRATION: Final = Path(__file__).parents[2] / "search_spaces/quickstart.yaml"


class Job(NamedTuple):
    """An array of one of the plans."""

    kind: plan.DeviceKind
    array: plan.Array

    @property
    def cell(self) -> tuple[int, bool]:
        """What a row of the table is of: width, and whether there is batch norm."""
        return self.array.cell.width, self.array.cell.batch_norm


class Trained(NamedTuple):
    """How long a job's runs have trained."""

    kind: plan.DeviceKind
    cell: tuple[int, bool]
    seconds: float


Seconds = dict[tuple[plan.DeviceKind, tuple[int, bool]], float]
"""Seconds of training by plan and cell."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=DEMONSTRATION, help="a search space on mnist5k")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(
        f"{device_name('cpu')}, {cores()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n", flush=True
    )
    todo = jobs(load(given.space))
    context = multiprocessing.get_context("spawn")
    with context.Pool(cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pool.map(trained, todo[: cores()], chunksize=1)  # imports, and reads the pictures
        rounds = [added(pool.imap_unordered(trained, todo, chunksize=1)) for _ in range(given.rounds)]
    print_row(["width", "batch norm", "native, s", "grouped, s", "native / grouped"])
    print_row(["---"] * 5)
    for width, norm in sorted({job.cell for job in todo}, key=lambda cell: cell[::-1]):
        print_row([width, "yes" if norm else "no", *summary([of_cell(each, (width, norm)) for each in rounds])])
    print_row(["all", "", *summary([of_cell(each, None) for each in rounds])])


def jobs(space: SearchSpace) -> list[Job]:
    """The arrays of both plans in the order in which they are trained."""
    kinds: tuple[plan.DeviceKind, ...] = ("native", "cpu")
    found = [Job(kind, array) for kind in kinds for array in plan.arrays(space, kind)]
    return sorted(found, key=lambda job: (job.cell, job.kind))


def trained(job: Job) -> Trained:
    """Trains an array."""
    array = job.array
    outcomes = train(array.runs(), splits.load(*array.pictures[:2]), method=array.method)
    return Trained(job.kind, job.cell, sum(outcome.train_seconds for outcome in outcomes))


def added(found: Iterator[Trained]) -> Seconds:
    """Seconds of one round, by plan and cell."""
    seconds: Seconds = defaultdict(float)
    for each in found:
        seconds[each.kind, each.cell] += each.seconds
    return seconds


def of_cell(seconds: Seconds, cell: tuple[int, bool] | None) -> tuple[float, float]:
    """Seconds of native and of grouped arrays in a cell, or in all of them."""
    native, grouped = (
        sum(value for (each, its), value in seconds.items() if each == kind and cell in (None, its))
        for kind in ("native", "cpu")
    )
    return native, grouped


def summary(rounds: list[tuple[float, float]]) -> list[str]:
    """Medians of both, and of the rounds' own ratios."""
    native, grouped = (f"{statistics.median(column):.2f}" for column in zip(*rounds, strict=True))
    return [native, grouped, f"{statistics.median(a / b for a, b in rounds):.3f}"]


if __name__ == "__main__":
    main()
