"""Section `launch`: a launch beside plain Ray Tune, one run a trial, the same networks, steps and device."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

import plain_tune

from gpu_kit.recorder import Recorder
from gpu_kit.scale import Scale
from gpu_kit.supervise import Unfinished, output_of
from sweep.store.rows import Store

BOUND: Final = 150
"""How many times as fast as plain Ray Tune a launch has to be on a GPU."""


PLAIN_SHARE: Final = 0.4
"""Of the section's time, at most, that plain Ray Tune may take."""


class Plain(NamedTuple):
    """Seconds of plain Ray Tune: of its `fit` of a sample, and of all the rest."""

    fit: float
    start: float


def measure(recorder: Recorder, scale: Scale) -> None:
    """Plain Ray Tune on a sample, a launch of all runs, and the ratio of their times for the same runs."""
    plain = None
    with recorder.guard("plain Tune, fit", "s", runs=scale.plain_sample):
        plain = _plain(recorder, scale)
    with recorder.guard("launch", "s", runs=scale.launch_runs):
        runs, seconds = _launch(recorder, scale)
        if plain:
            ratio = plain_tune.scaled(plain.start, plain.fit, runs, scale.plain_sample) / seconds
            bound = BOUND if scale.kind == "cuda" else None
            met = None if bound is None else ratio >= bound
            recorder.add("plain Tune / launch", ratio, "times", runs=runs, bound=bound, met=met)


def _plain(recorder: Recorder, scale: Scale) -> Plain:
    command = [sys.executable, str(Path(plain_tune.__file__)), "--plain", "--sample", str(scale.plain_sample)]
    command += ["--width", str(scale.launch_width), "--steps", str(scale.launch_steps)]
    if scale.kind == "cuda":
        command += ["--gpus-per-trial", str(1 / scale.trials_per_device)]
    started = time.monotonic()
    fit = float(output_of(command, PLAIN_SHARE * recorder.left).split()[-1])
    found = Plain(fit, time.monotonic() - started - fit)
    recorder.add("plain Tune, fit", found.fit, "s", runs=scale.plain_sample)
    recorder.add("plain Tune, start", found.start, "s", runs=scale.plain_sample)
    recorder.add("plain Tune, per run", found.fit / scale.plain_sample, "s", runs=scale.plain_sample)
    return found


def _launch(recorder: Recorder, scale: Scale) -> tuple[int, float]:
    """Runs that a launch has trained, and its seconds: those so far, where its time is over before it is done."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        space, store = Path(folder) / "benchmark.yaml", f"{folder}/results"
        seeds = scale.launch_runs // 2
        space.write_text(plain_tune.SPACE.format(width=scale.launch_width, steps=scale.launch_steps, seeds=seeds))
        command = [sys.executable, "-m", "sweep", "launch", str(space), "--store", store, "--json"]
        started, whole = time.monotonic(), True
        try:
            runs = int(json.loads(output_of(command, recorder.left - 2.0))["trained"])
            seconds = time.monotonic() - started
        except Unfinished as error:
            seconds, whole = time.monotonic() - started, False
            runs = len(Store(store).statuses())
            print(f"the launch was not finished: {error}", flush=True)
            if not runs:
                raise
    recorder.add("launch", seconds, "s", runs=runs, whole=whole)
    recorder.add("launch, per run", 1000 * seconds / runs, "ms", runs=runs, whole=whole)
    return runs, seconds
