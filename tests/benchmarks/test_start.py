"""What the benchmark of a launch's start and end times, and when it says that a bound is not kept."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import start

TIMELINE = Path(start.__file__).with_name("timeline")


@pytest.mark.parametrize("call", start.CALLS)
def test_what_is_timed_exists(call: str) -> None:
    module, _, name = call.partition(":")
    assert callable(functools.reduce(getattr, name.split("."), importlib.import_module(module)))


@pytest.mark.integration
def test_spans_of_calls_and_imports_are_noted_in_every_process(tmp_path: Path) -> None:
    file = tmp_path / "spans.tsv"
    program = (
        "import colorsys, subprocess, sys; colorsys.rgb_to_yiq(0, 0, 0)\n"
        "if len(sys.argv) < 2: subprocess.run([sys.executable, __file__, 'child'], check=True)"
    )
    (tmp_path / "program.py").write_text(program)
    noting = {"TIMELINE": str(file), "TIMELINE_CALLS": "colorsys:rgb_to_yiq", "TIMELINE_IMPORTS": "colorsys"}
    environment = os.environ | noting | {"PYTHONPATH": str(TIMELINE)}
    subprocess.run([sys.executable, tmp_path / "program.py"], env=environment, check=True)
    spans = start.read(file.read_text(), 0.0)
    assert [span.name for span in spans] == ["import colorsys", "colorsys:rgb_to_yiq"] * 2
    assert len({span.process for span in spans}) == 2
    assert all(0 < span.begin <= span.end for span in spans)


def test_a_launch_its_ray_and_its_workers_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    spans = [
        start.Span(1, "import sweep.cli", 0.0, 0.1),
        start.Span(2, "import ray", 0.2, 0.4),
        start.Span(3, "import sweep.cluster.trial", 0.3, 0.31),
        start.Span(3, start.TRAINING, 1.0, 3.5),
    ]
    assert start.roles(spans) == {1: "launch", 2: "Ray", 3: "worker"}
    start.show("a launch", spans)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == "| worker | 1.00 | 3.50 | 2.50 | training |"
    assert len(shown) == 8, "what took no time is left out"


@pytest.mark.parametrize(("mine", "kept"), [([1.0, 1.1, 9.0], True), ([1.4, 1.5, 0.1], False)])
def test_a_ratio_is_the_median_of_the_rounds(mine: list[float], kept: bool, capsys: pytest.CaptureFixture[str]) -> None:
    taken = {"sweep status": mine, "import pandas": [1.0, 1.0, 1.0]}
    assert start.ratios(taken) is kept
    assert f"| {sorted(mine)[1]:.2f} | 1.30 |" in capsys.readouterr().out
