"""What a launch takes besides training, and where each second of it goes, from the shell's `exec` to the last line.

    python tests/benchmarks/start.py [--rounds 5] [--only launches|commands]

The yardstick of a launch is a script that imports Ray, starts it, runs one Tune trial which imports PyTorch, and ends;
that of a short command, a package that it cannot do without. In each round every program runs once, one after the
other; a ratio is the median over the rounds. Of 128 runs of width 4 the time from the first worker's first step to
the last one's last is taken off.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

REFERENCE: Final = """
import ray
from ray import tune


def trial(config):
    import torch


ray.init()
tune.Tuner(trial).fit()
ray.shutdown()
"""

PAIR: Final = "{name: pair, settings: {width: 4, steps: 1}, axes: {seed: 1}}"
MANY: Final = "{name: many, settings: {width: 4, steps: 1001}, axes: {seed: 64}}"

CALLS: Final = {
    "sweep.space.search_space:load_all": "search space",
    "sweep.commands.launch:prepared": "facts of the data set, trackers",
    "sweep.store.rows:Store.statuses": "what the store has",
    "sweep.cluster.driver:_missing": "plan",
    "sweep.cluster.driver:_load": "pictures",
    "sweep.cluster.ray_process:_start": "start of Ray",
    "sweep.cluster.local_ray:LocalRay.connect": "wait for Ray",
    "sweep.cluster.experiment:Experiment._tune": "Tune's experiment",
    "sweep.cluster.trial:train_one": "array",
    "sweep.training.trainer:train": "training",
    "sweep.store.rows:Store.write": "rows written",
    "sweep.cluster.local_ray:LocalRay.end": "end of Ray",
    "sweep.commands.launch:report": "report",
    "analysis.report:analyse": "analysis",
    "analysis.figures:draw": "figure",
    "analysis.page:render": "page",
}
"""What is timed, and what it is called."""

TRAINING: Final = "sweep.training.trainer:train"

IMPORTS: Final = (
    *("sweep.cli", "sweep.cluster.driver", "sweep.cluster.experiment", "sweep.cluster.trial"),
    *("sweep.training.trainer", "analysis.report", "analysis.figures", "analysis.page"),
    *(
        "typer",
        "rich",
        "pydantic",
        "numpy",
        "pandas",
        "pyarrow",
        "scipy.stats",
        "ray",
        "ray.tune",
        "torch",
        "matplotlib",
    ),
)

SHORTEST: Final = 0.02
"""Seconds from which a span stands in the table."""

BOUNDS: Final = {
    "one pair, one step": 1.05,
    "128 runs of width 4, less their training": 1.05,
    "nothing to do": 3.0,
    "sweep --help": 4.0,
    "sweep status": 1.3,
}
"""The most that each may be of its yardstick."""


class Span(NamedTuple):
    """What a process did, in seconds since the program began."""

    process: int
    name: str
    begin: float
    end: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["launches", "commands"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "reference.py").write_text(REFERENCE)
        for name, text in {"pair": PAIR, "many": MANY}.items():
            (place / f"{name}.yaml").write_text(text)
        launch(place, "pair", place / "done")  # what `status` and a launch with nothing to do find, and Python caches
        taken: dict[str, list[float]] = {}
        if given.only != "launches":
            commands(place, given.rounds, taken)
        spans: dict[str, list[Span]] = {}
        if given.only != "commands":
            spans = launches(place, given.rounds, taken)
    for name, found in spans.items():
        show(name, found)
    if not ratios(taken):
        sys.exit(1)


def commands(place: Path, rounds: int, taken: dict[str, list[float]]) -> None:
    """Seconds of short commands and of their yardsticks."""
    sweep = [sys.executable, "-m", "sweep"]
    programs = {
        "import pandas": [sys.executable, "-c", "import pandas"],
        "import typer, rich": [sys.executable, "-c", "import typer, rich"],
        "nothing to do": [*sweep, "launch", str(place / "pair.yaml"), "--store", str(place / "done")],
        "sweep --help": [*sweep, "--help"],
        "sweep status": [*sweep, "status", "--store", str(place / "done")],
    }
    for _ in range(4 * rounds):  # they are short
        for name, program in programs.items():
            taken.setdefault(name, []).append(seconds(program))


def launches(place: Path, rounds: int, taken: dict[str, list[float]]) -> dict[str, list[Span]]:
    """Seconds of launches and of the script; returns the last round's spans."""
    spans: dict[str, list[Span]] = {}
    for number in range(rounds):
        taken.setdefault("the script", []).append(seconds([sys.executable, str(place / "reference.py")]))
        whole, spans["one pair, one step"] = launch(place, "pair", place / f"pair{number}")
        taken.setdefault("one pair, one step", []).append(whole)
        whole, found = launch(place, "many", place / f"many{number}")
        trained = [span for span in found if span.name == TRAINING]
        training = max(span.end for span in trained) - min(span.begin for span in trained)
        taken.setdefault("128 runs of width 4, less their training", []).append(whole - training)
        spans["128 runs of width 4"] = found
    return spans


def launch(place: Path, name: str, store: Path) -> tuple[float, list[Span]]:
    """Seconds of a launch into a new store, and what it did meanwhile."""
    file = place / f"{store.name}.tsv"
    noting = {
        "TIMELINE": str(file),
        "TIMELINE_CALLS": " ".join(CALLS),
        "TIMELINE_IMPORTS": " ".join(IMPORTS),
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).with_name("timeline")), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    began = time.time()
    command = [sys.executable, "-m", "sweep", "launch", str(place / f"{name}.yaml"), "--store", str(store)]
    whole = seconds(command, noting)
    return whole, read(file.read_text(), began)


def read(text: str, began: float) -> list[Span]:
    """The spans of a file of the timeline, in the order in which they begin."""
    rows = [line.split("\t") for line in text.splitlines()]
    spans = [Span(int(pid), name, float(begin) - began, float(end) - began) for pid, name, begin, end in rows]
    return sorted(spans, key=lambda span: span.begin)


def seconds(command: list[str], more: Mapping[str, str] | None = None) -> float:
    """Seconds that a program takes as a whole, with bytecode cached as users have it; it has to end well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment | (more or {}))
    taken = time.monotonic() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return taken


def roles(spans: Iterable[Span]) -> dict[int, str]:
    """What each process is: the launch, the one that starts Ray, a worker, or one of Ray's own."""
    did: dict[int, set[str]] = {}
    for span in spans:
        did.setdefault(span.process, set()).add(span.name)
    marks: dict[str, Callable[[set[str]], bool]] = {
        "launch": lambda names: "import sweep.cli" in names,
        "Ray's start": lambda names: "sweep.cluster.ray_process:_start" in names,
        "worker": lambda names: "import sweep.cluster.trial" in names,
    }
    return {pid: next((role for role, is_it in marks.items() if is_it(names)), "Ray") for pid, names in did.items()}


def show(name: str, spans: list[Span]) -> None:
    """A table of what took long enough; what was nested in another stands below it."""
    who = roles(spans)
    print(f"\n{name}\n\n| process | from | to | seconds | what |\n| --- | --- | --- | --- | --- |")
    for span in spans:
        if span.end - span.begin >= SHORTEST:
            what = CALLS.get(span.name, span.name)
            taken = span.end - span.begin
            print(f"| {who[span.process]} | {span.begin:.2f} | {span.end:.2f} | {taken:.2f} | {what} |")


YARDSTICKS: Final = {
    "one pair, one step": "the script",
    "128 runs of width 4, less their training": "the script",
    "nothing to do": "import pandas",
    "sweep --help": "import typer, rich",
    "sweep status": "import pandas",
}


def ratios(taken: Mapping[str, list[float]]) -> bool:
    """Prints each program beside its yardstick; returns whether all keep their bounds."""
    print("\n| what | seconds | yardstick | seconds | ratio | at most |\n| --- | --- | --- | --- | --- | --- |")
    kept = True
    for name, yardstick in YARDSTICKS.items():
        if name in taken:
            ratio = statistics.median(a / b for a, b in zip(taken[name], taken[yardstick], strict=True))
            kept &= ratio <= BOUNDS[name]
            mine, other = (statistics.median(taken[each]) for each in (name, yardstick))
            print(f"| {name} | {mine:.2f} | {yardstick} | {other:.2f} | {ratio:.2f} | {BOUNDS[name]:.2f} |")
    return kept


if __name__ == "__main__":
    main()
