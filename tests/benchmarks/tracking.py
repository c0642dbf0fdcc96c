"""Whether trackers slow training: the same launch with and without them, by turns.

    python tests/benchmarks/tracking.py [--pairs 3] [--steps 200]

Prints the seconds of training, as `sweep launch --json` tells them, and those of the whole command, which tells an
MLflow folder and TensorBoard when training is over. Exit status 1 where training takes more than 2 % longer (the median
of the pairs).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOST = 1.02
TRACKING = "tracking: {mlflow: mlruns, tensorboard: logs}\n"


def launch(folder: Path, number: int, steps: int, tracked: bool) -> tuple[float, float]:
    """Seconds of training, and of the whole command."""
    name = f"{'tracked' if tracked else 'plain'}-{number}"
    grid = f"settings: {{steps: {steps}}}\naxes: {{width: [1, 2, 4], batch_norm: [false, true], seed: 32}}\n"
    (folder / f"{name}.yaml").write_text(f"name: {name}\n{grid}" + (TRACKING if tracked else ""))
    command = ["-m", "sweep", "launch", f"{name}.yaml", "--store", name, "--json"]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=True)
    assert "could not be sent" not in done.stderr, done.stderr
    return json.loads(done.stdout)["seconds"], time.perf_counter() - started


def main() -> None:
    """Pairs of launches, the order alternating."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    ratios = []
    print("| training, s | with trackers | ratio | whole command, s | with trackers |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.pairs):
            order = (False, True) if number % 2 else (True, False)
            took = {tracked: launch(Path(scratch), number, options.steps, tracked) for tracked in order}
            ratios.append(took[True][0] / took[False][0])
            print(
                f"| {took[False][0]:.1f} | {took[True][0]:.1f} | {ratios[-1]:.3f} "
                f"| {took[False][1]:.1f} | {took[True][1]:.1f} |",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.3f}, bound {MOST}")
    sys.exit(statistics.median(ratios) > MOST)


if __name__ == "__main__":
    main()
