"""A launch beside plain Ray Tune, one run a trial: the same network, steps and machine, one after the other.

    python tests/benchmarks/plain_tune.py [--width 4] [--runs 128] [--sample 16]

Plain Tune is written as its documentation teaches: one function a trial, `torch.nn`, the data set shared through the
object store, one core a trial. It trains a sample of trials; the time of its `fit` is scaled to all runs, its start (a
launch has one too) is counted once.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACE = """
name: benchmark
settings: {{width: {width}, steps: 1001, weight_init: truncated_normal, input_scaling: centered}}
axes: {{seed: {seeds}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--runs", type=int, default=128)
    parser.add_argument("--sample", type=int, default=16, help="trials of plain Tune")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plain:
        print(plain_tune(given.width, given.sample))
        return
    # Both are timed from the outside, as whole processes, imports and start of Ray included.
    plain, said = timed([__file__, "--plain", "--width", str(given.width), "--sample", str(given.sample)])
    fit = float(said.split()[-1])
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "benchmark.yaml"
        space.write_text(SPACE.format(width=given.width, seeds=given.runs // 2))
        ours, _ = timed(["-m", "sweep", "launch", str(space), "--store", f"{folder}/results"])
    scaled = plain - fit + fit * given.runs / given.sample
    print(f"width {given.width}, 1,001 steps of 16 pictures")
    print(f"plain Ray Tune: {given.sample} trials in {fit:.1f} s after {plain - fit:.1f} s of start;", end=" ")
    print(f"{given.runs} runs would take {scaled:.1f} s")
    print(f"sweep launch:   {given.runs} runs in {ours:.1f} s, report included")
    print(f"ratio: {scaled / ours:.1f}")


def timed(arguments: list[str]) -> tuple[float, str]:
    """Seconds that the program takes from start to end, and what it printed."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - started, done.stdout


def plain_tune(width: int, trials: int) -> float:
    """Trains that many runs, one a trial; returns the seconds of `fit`."""
    import ray
    from ray import tune

    from sweep.data import load

    ray.init(log_to_driver=False)
    data = load("mnist5k")
    started = time.monotonic()
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_one, data=data, width=width), {"cpu": 1}),
        param_space={"bias": tune.grid_search([True, False]), "seed": tune.grid_search(list(range(trials // 2)))},
    ).fit()
    assert len(results) == trials and not results.errors
    return time.monotonic() - started


def train_one(config, data, width):  # type: ignore[no-untyped-def]
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
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss_function = nn.CrossEntropyLoss()
    images = torch.tensor(data.train[0]).float() / 255 - 0.5
    labels = torch.tensor(data.train[1])
    for _ in range(1001):
        chosen = torch.randint(len(images), (16,))
        loss = loss_function(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        test = torch.tensor(data.test[0]).float() / 255 - 0.5
        accuracy = (model(test).argmax(1) == torch.tensor(data.test[1])).float().mean().item()
    tune.report({"accuracy": accuracy})


if __name__ == "__main__":
    main()
