"""A launch beside plain Ray Tune, one run a trial: the same network, steps and machine, one after the other.

    python tests/benchmarks/plain_tune.py [--width 4] [--runs 128] [--sample 16] [--gpus-per-trial 0.0625]

Plain Tune is written as its documentation teaches: one function a trial, `torch.nn`, the data set shared through the
object store, one core a trial. It trains a sample of trials; the time of its `fit` is scaled to all runs, its start (a
launch has one too) is counted once. With `--gpus-per-trial` each trial has that part of a GPU, and the launch trains on
GPUs, too; without, both train on CPUs.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACE = """
name: benchmark
settings: {{width: {width}, steps: {steps}, weight_init: truncated_normal, input_scaling: centered}}
axes: {{seed: {seeds}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--runs", type=int, default=128)
    parser.add_argument("--sample", type=int, default=16, help="trials of plain Tune")
    parser.add_argument("--steps", type=int, default=1001)
    parser.add_argument("--gpus-per-trial", type=float, default=0.0, metavar="NUMBER", help="0: both train on CPUs")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain:
        print(plain_tune(given.width, given.sample, given.steps, given.gpus_per_trial))
        return
    # Both are timed from the outside, as whole processes, imports and start of Ray included.
    plain, said = timed([__file__, *sys.argv[1:], "--plain"])
    fit = float(said.split()[-1])
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "benchmark.yaml"
        space.write_text(SPACE.format(width=given.width, steps=given.steps, seeds=given.runs // 2))
        devices = [] if given.gpus_per_trial else ["--gpus-per-array", "0"]
        ours, _ = timed(["-m", "sweep", "launch", str(space), "--store", f"{folder}/results", *devices])
    expected = scaled(plain - fit, fit, given.runs, given.sample)
    print(f"width {given.width}, {given.steps:,} steps of 16 pictures")
    print(f"plain Ray Tune: {given.sample} trials in {fit:.1f} s after {plain - fit:.1f} s of start;", end=" ")
    print(f"{given.runs} runs would take {expected:.1f} s")
    print(f"sweep launch:   {given.runs} runs in {ours:.1f} s, report included")
    print(f"ratio: {expected / ours:.1f}")


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
