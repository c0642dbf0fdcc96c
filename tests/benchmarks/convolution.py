"""How long the second convolution of the default network takes by minimal filtering, beside PyTorch's own.

    python tests/benchmarks/convolution.py [--widths 32 64 128 256] [--rounds 15]

Forward and backward on 16 pictures of 14 x 14 pixels, on every core at once, as a sweep computes it; milliseconds
of one network, medians of rounds that take turns. `sweep.networks.conv.winograd.CHANNELS` is where this pays.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rates import print_row, together

from sweep.common.host import cores
from sweep.networks.conv import winograd
from sweep.networks.conv.backends import Grouped
from sweep.training.device import device_name

PICTURES, SIDE = 16, 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print(
        f"{device_name('cpu')}, {cores()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n", flush=True
    )
    print_row(["width", "runs", "PyTorch, ms", "minimal filtering, ms", "ratio", "taken"])
    print_row(["---"] * 6)
    for width in given.widths:
        for runs in (1, 2):
            own, ours = (total / cores() for total in together(times, cores(), runs, width, given.rounds))
            taken = winograd.takes(width, width, winograd.SIDE, 2, (SIDE, SIDE))
            print_row([width, runs, f"{own:.2f}", f"{ours:.2f}", f"{ours / own:.2f}", "yes" if taken else "no"])


def times(barrier: Any, runs: int, width: int, rounds: int) -> list[float]:
    """Milliseconds of one network: PyTorch's convolution, and ours."""
    plain = Grouped()
    plain.transforms = False
    x = torch.randn(PICTURES, runs * width, SIDE, SIDE).to(memory_format=torch.channels_last).requires_grad_()
    drawn, bias = torch.randn(runs, width, width, 5, 5) / width, torch.randn(runs, width).requires_grad_()
    filters = plain.arrange(drawn, 2, (SIDE, SIDE)).requires_grad_()
    weight = drawn.permute(0, 3, 4, 2, 1).contiguous().requires_grad_()
    gradient = torch.randn(PICTURES, runs * width, SIDE // 2, SIDE // 2).to(memory_format=torch.channels_last)

    def own() -> None:
        torch.autograd.grad(plain.convolution(x, filters, bias, 2, False), (x, filters, bias), gradient)

    def ours() -> None:
        torch.autograd.grad(winograd.convolution(x, weight, bias), (x, weight, bias), gradient)

    barrier.wait()
    found = [[duration(way) / runs for way in (own, ours)] for _ in range(rounds + 1)]
    return [statistics.median(column) for column in zip(*found[1:], strict=True)]


def duration(work: Callable[[], None], repeats: int = 8) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return 1000 * (time.perf_counter() - start) / repeats


if __name__ == "__main__":
    main()
