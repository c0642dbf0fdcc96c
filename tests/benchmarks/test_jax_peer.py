"""The peer in JAX, without JAX: how its program is started and asked, and which way of computing is chosen."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
import jax_peer
from rounds import Found

JAX = jax_peer.Jax(sys.executable, "pictures.npz", 4, 8, "patches", shared=False)

PROGRAM = """
import json, os, sys
print(json.dumps({"compiled": 1.5}), flush=True)
for line in sys.stdin:
    if line.strip() == "7.0":
        sys.exit(3)
    print(0.75 if line.strip() == "accuracy" else len(os.sched_getaffinity(0)), flush=True)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Instead of the one that needs JAX: its rate is the number of its cores. It ends with the test."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    monkeypatch.setattr(jax_peer, "PROGRAM", file)
    started: list[subprocess.Popen[str]] = []
    start = jax_peer.Jax.program

    def kept(peer: jax_peer.Jax, rank: int) -> subprocess.Popen[str]:
        started.append(start(peer, rank))
        return started[-1]

    monkeypatch.setattr(jax_peer.Jax, "program", kept)
    yield
    for each in started:
        with each:
            pass


@pytest.mark.integration
@pytest.mark.usefixtures("program")
def test_a_process_has_one_core_or_there_is_one_process_with_all_of_them() -> None:
    all_cores = len(os.sched_getaffinity(0))
    assert JAX.start(0)(0.5) == 1.0
    shared = dataclasses.replace(JAX, shared=True)
    assert shared.start(0)(0.5) == all_cores and shared.start(1)(0.5) == 0.0
    assert JAX.learnt() == (1.5, 0.75)


@pytest.mark.integration
@pytest.mark.usefixtures("program")
def test_a_program_that_dies_ends_the_measurement() -> None:
    rate = JAX.start(0)
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        rate(7.0)


def test_the_fastest_way_of_computing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax_peer, "measure", lambda ways, rounds, seconds: Found(np.array([[1.0, 2.0, 4.0, 3.0]])))
    assert jax_peer.fastest(4, 8, sys.executable, "pictures.npz", 3.0) == JAX
    assert str(JAX) == "patches, one process per core"


def test_one_process_trains_the_networks_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    started = SimpleNamespace(Popen=lambda command, **_: commands.append(command), PIPE=-1)
    monkeypatch.setattr(jax_peer, "subprocess", started)
    monkeypatch.setattr(jax_peer, "cores", lambda: 2)
    JAX.program(0)
    dataclasses.replace(JAX, shared=True).program(0)
    runs = [command[command.index("--runs") + 1] for command in commands]
    assert runs == ["8", "16"] and [command[0] for command in commands] == ["taskset", sys.executable]
