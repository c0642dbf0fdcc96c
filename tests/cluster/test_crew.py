"""Which kernels arrays are planned for: native ones where every node of the crew has them, and what is said else."""

import dataclasses
import io
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweep.cluster import crew, driver, node_probe, nodes
from sweep.cluster.address import Where
from sweep.cluster.trial import may_pass
from sweep.commands import plan as planning
from sweep.data.library import Library
from sweep.space.search_space import parse
from sweep.store.rows import Store

LOOK = {"trainer": nodes.TRAINER_VERSION, "file": True, "cuda": None, "native": None}
"""What is found on a node that can train for us."""


def node(name: str, **resources: float) -> dict[str, Any]:
    about = {"NodeID": name, "NodeManagerHostname": name, "NodeManagerAddress": "10.0.0.1", "Alive": True}
    return about | {"Resources": resources}


def seen(output: io.StringIO) -> list[str]:
    return [line for line in output.getvalue().splitlines() if "kernels" in line]


@pytest.mark.parametrize("gpus", [None, 0.0])
@pytest.mark.parametrize("why", [None, "no C++ compiler was found"])
def test_a_launch_here_says_why_it_does_without_native_kernels(
    gpus: float | None, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "why_not", lambda: why)
    monkeypatch.setattr(crew, "_gpus_here", lambda: 0 if gpus is None else 2)
    output = io.StringIO()
    with crew.mustered(Where(gpus_per_array=gpus), Store("s3://bucket/store"), Console(file=output)) as found:
        assert (found.device, found.kind) == ("cpu", "cpu" if why else "native")
    assert seen(output) == ([f"native kernels are not used: {why}"] if why else [])


def test_where_a_machine_has_gpus_nobody_asks_for_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "why_not", lambda: pytest.fail("asked"))
    monkeypatch.setattr(crew, "_gpus_here", lambda: 1)
    output = io.StringIO()
    with crew.mustered(Where(), Store("s3://bucket/store"), Console(file=output)) as found:
        assert (found.device, found.kind, found.gpus) == ("cuda", "cuda", 1)
    assert output.getvalue() == ""


@pytest.mark.parametrize(
    ("there", "asked", "here", "kind", "said"),
    [
        ({"n1": None, "n2": None}, None, None, "native", None),
        ({"n1": None, "n2": None}, None, "no compiler", "native", None),
        ({"n1": None, "n2": "no compiler", "n3": "too old"}, None, None, "cpu", "n2 (10.0.0.1), n3 (10.0.0.1): n2 "),
        ({f"n{i}": "too old" for i in range(1, 6)}, None, None, "cpu", "n3 (10.0.0.1) and 2 more: n1 (10.0.0.1): too"),
        ({}, None, None, "native", None),
        ({}, None, "no compiler", "cpu", f"{socket.gethostname()}: no compiler"),
        ({"n1": None, "gpu": None}, None, None, "cuda", None),
        ({"n1": None, "gpu": "too old"}, None, None, "cuda", None),
        ({"n1": None, "gpu": None}, 0, None, "native", None),
        ({"n1": None, "gpu": "too old"}, 0, None, "cpu", "none on gpu (10.0.0.1): gpu (10.0.0.1): too old"),
    ],
)
def test_arrays_are_planned_for_native_kernels_where_every_node_has_them_and_it_is_said_where_one_has_not(
    there: dict[str, str | None],
    asked: float | None,
    here: str | None,
    kind: str,
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes, "why_not", lambda: here)
    alive = [node("head"), *(node(name, CPU=4, **({"GPU": 1} if name == "gpu" else {})) for name in there)]
    looks = {name: LOOK | {"native": why} for name, why in there.items()}
    monkeypatch.setattr(nodes, "_alive", lambda: alive)
    monkeypatch.setattr(
        nodes.node_probe, "visit", lambda able, *_: {each["NodeID"]: looks[each["NodeID"]] for each in able}
    )
    output = io.StringIO()
    found = nodes._crew_there(Where("auto", gpus_per_array=asked), Store("s3://bucket/store"), Console(file=output))
    assert (found.kind, found.native) == (kind, kind == "native")
    words = seen(output)
    assert len(words) == (said is not None)
    assert said is None or (words[0].startswith("native kernels are not used: there are none on ") and said in words[0])


def test_what_a_node_has_is_found_there_and_an_older_project_has_no_native_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for why in (None, "no C++ compiler was found"):
        monkeypatch.setattr("sweep.networks.conv.native.library.why_not", lambda why=why: why)
        assert node_probe.look([], None, False).items() >= (LOOK | {"native": why}).items()
    monkeypatch.setitem(sys.modules, "sweep.networks.conv.native.library", None)
    assert "sweep.networks.conv.native.library" in node_probe.look([], None, False)["native"]


def test_a_worker_without_the_kernels_that_arrays_are_planned_for_says_so_and_leaves_them_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "AWAY", 0.0)
    monkeypatch.setattr(crew, "why_not", lambda: "no C++ compiler was found")
    worker = crew.Crew(Where("auto"), "cpu", 1, 0, native=True)
    with pytest.raises(OSError, match=r"lacks the native kernels.*: no C\+\+ compiler was found") as refused:
        worker.check_here()
    assert may_pass(refused.value), "Tune tries again, on another node"
    dataclasses.replace(worker, native=False).check_here()
    monkeypatch.setattr(crew, "why_not", lambda: None)
    worker.check_here()


@pytest.mark.parametrize("why", [None, "no C++ compiler was found"])
def test_a_plan_counts_the_arrays_that_a_launch_trains(
    why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.training.device.why_not", lambda: why)
    monkeypatch.setattr(crew, "why_not", lambda: why)
    monkeypatch.setattr(planning, "_seconds", lambda todo, library, device: float(len(todo)))
    space = parse(b"axes: {width: [1, 4, 32, 64], seed: 40}", tmp_path / "few.yaml")
    store = Store(tmp_path / "store")
    with crew.mustered(Where(gpus_per_array=0.0), store, Console(file=io.StringIO())) as found:
        launched = driver._missing([space], (), found)
    planned = planning.plan([space], store, Library(tmp_path))
    assert planned.arrays == planned.estimated_seconds == len(launched)
    assert {array.method for array in launched} == ({"grouped"} if why else {"native", "grouped"})
