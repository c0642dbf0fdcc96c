"""A launch beside plain Ray Tune, one run a trial: the same network, steps and machine, in rounds that take turns.

    python tests/benchmarks/plain_tune.py [--width 4] [--runs 128] [--rounds 3] [--sample 16] [--gpus-per-trial 0.0625]

Without a width or a number of runs, it compares 128 runs of width 4, and then 2,048 of width 1.

Plain Tune is written as its documentation teaches: one function a trial, `torch.nn`, the data set shared through the
object store, one core a trial. It trains a sample of trials; the time of its `fit` is scaled to all runs, its start (a
launch has one too) is counted once. With `--gpus-per-trial` each trial has that part of a GPU, and the launch trains on
GPUs, too; without, both train on CPUs.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

CASES: Final = ((4, 128), (1, 2048))
"""Widths and numbers of runs."""

SPACE = """
name: benchmark
settings: {{width: {width}, steps: {steps}, weight_init: truncated_normal, input_scaling: centered}}
axes: {{seed: {seeds}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=16, help="trials of plain Tune")
    parser.add_argument("--steps", type=int, default=1001)
    parser.add_argument("--gpus-per-trial", type=float, default=0.0, metavar="NUMBER", help="0: both train on CPUs")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    cases = [(given.width or 4, given.runs or 128)] if given.width or given.runs else list(CASES)
    if given.plain:
        print(plain_tune(cases[0][0], given.sample, given.steps, given.gpus_per_trial))
        return
    for width, runs in cases:
        show([compared(width, runs, given) for _ in range(given.rounds)], width, runs, given)


class Round(NamedTuple):
    """Seconds of plain Tune's start, of its `fit` of a sample, what all runs would take it, and of the launch."""

    start: float
    fit: float
    plain: float
    launch: float


def compared(width: int, runs: int, given: argparse.Namespace) -> Round:
    """Both are timed from the outside, as whole processes, imports and start of Ray included."""
    trials = ["--plain", "--width", width, "--sample", given.sample, "--steps", given.steps]
    plain, said = timed([__file__, *map(str, trials), "--gpus-per-trial", str(given.gpus_per_trial)])
    fit = float(said.split()[-1])
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "benchmark.yaml"
        space.write_text(SPACE.format(width=width, steps=given.steps, seeds=runs // 2))
        devices = [] if given.gpus_per_trial else ["--gpus-per-array", "0"]
        ours, _ = timed(["-m", "sweep", "launch", str(space), "--store", f"{folder}/results", *devices])
    return Round(plain - fit, fit, scaled(plain - fit, fit, runs, given.sample), ours)


def show(rounds: list[Round], width: int, runs: int, given: argparse.Namespace) -> None:
    """Medians of the rounds, and of their own ratios."""
    median = Round(*(statistics.median(column) for column in zip(*rounds, strict=True)))
    print(f"width {width}, {given.steps:,} steps of 16 pictures, medians of {len(rounds)} rounds")
    print(f"plain Ray Tune: {given.sample} trials in {median.fit:.1f} s after {median.start:.1f} s of start;", end=" ")
    print(f"{runs:,} runs would take {median.plain:,.1f} s")
    print(f"sweep launch:   {runs:,} runs in {median.launch:.1f} s, report included")
    print(f"ratio: {statistics.median(each.plain / each.launch for each in rounds):.1f}\n", flush=True)


def scaled(start: float, fit: float, runs: int, sample: int) -> float:
    """Seconds that plain Tune would take for all runs, of its start and of its `fit` of a sample."""
    return start + fit * runs / sample


def timed(arguments: list[str]) -> tuple[float, str]:
    """Seconds that the program takes from start to end, and what it printed."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - started, done.stdout


def plain_tune(width: int, trials: int, steps: int = 1001, gpus: float = 0.0) -> float:
    """Trains that many runs, one a trial, each with a core and `gpus` of a GPU; returns the seconds of `fit`."""
    import ray
    from ray import tune

    from sweep.data.splits import load

    ray.init(log_to_driver=False)
    data = load("mnist5k")
    started = time.monotonic()
    fixed = {"data": data, "width": width, "steps": steps, "device": "cuda" if gpus else "cpu"}
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_one, **fixed), {"cpu": 1, "gpu": gpus}),
        param_space={"bias": tune.grid_search([True, False]), "seed": tune.grid_search(list(range(trials // 2)))},
    ).fit()
    assert len(results) == trials and not results.errors
    return time.monotonic() - started


def train_one(config, data, width, steps, device):  # type: ignore[no-untyped-def]
    import torch
    from ray import tune
    from torch import nn

    torch.manual_seed(config["seed"])
    model = nn.Sequential(
        nn.Conv2d(1, width, 5, stride=2, padding=2, bias=config["bias"]),
        nn.ReLU(),
        nn.Conv2d(width, width, 5, stride=2, padding=2, bias=config["bias"]),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(49 * width, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    ).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss_function = nn.CrossEntropyLoss()
    images = torch.tensor(data.train[0], device=device).float() / 255 - 0.5
    labels = torch.tensor(data.train[1], device=device)
    for _ in range(steps):
        chosen = torch.randint(len(images), (16,), device=device)
        loss = loss_function(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        test = torch.tensor(data.test[0], device=device).float() / 255 - 0.5
        labels = torch.tensor(data.test[1], device=device)
        accuracy = (model(test).argmax(1) == labels).float().mean().item()
    tune.report({"accuracy": accuracy})


if __name__ == "__main__":
    main()
