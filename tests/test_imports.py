"""Imports run one way, from room to room, and only some rooms know Ray or PyTorch: the others run where neither is."""

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = [
    *("cli", "options", "kubernetes", "commands", "cluster", "training"),
    *("plan", "networks", "store", "data", "space", "common"),
]
"""The rooms of `sweep`, each of which imports those behind it alone."""

OF_ANALYSIS = {"sweep.common", "sweep.space", "sweep.store.tables"}
"""What `analysis`, which reads rows as a table, takes of `sweep`: the store's schema is one of it."""

USES_ANALYSIS = {"cli", "commands"}

HEAVY = {
    "ray": {"sweep/cluster"},
    "torch": {"sweep/cluster", "sweep/training", "sweep/networks"},
    "torchvision": {"sweep/data/download.py"},
}
"""Where packages that take seconds to import, or miss on a laptop, may be imported."""

MODULES = sorted(path for package in ("sweep", "analysis") for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The modules that one imports, wherever it does; of `from a import b`, `a.b`, which may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The room of a dotted name below `sweep`; the package itself holds its version alone."""
    return module.removeprefix("sweep").removeprefix(".").partition(".")[0] or "common"


def of(path: Path) -> str:
    """A file by its path below the root."""
    return str(path.relative_to(ROOT))


def dotted(path: Path) -> str:
    """A file by the name that imports it."""
    return of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize("path", MODULES, ids=of)
def test_imports_run_one_way(path: Path) -> None:
    module = dotted(path)
    used = [name for name in imports(path) if name.partition(".")[0] in ("sweep", "analysis")]
    if module.startswith("analysis"):
        foreign = [name for name in used if name.startswith("sweep.")]
        wrong = [name for name in foreign if not any(map(name.startswith, OF_ANALYSIS))]
    elif module in ("sweep", "sweep.__main__"):
        wrong = [name for name in used if not name.startswith(("sweep.cli", "sweep.common.errors"))]
    else:
        here = ROOMS.index(room(module))
        upward = [name for name in used if name.startswith("sweep") and ROOMS.index(room(name)) < here]
        wrong = upward + [n for n in used if n.startswith("analysis") and room(module) not in USES_ANALYSIS]
    assert wrong == []


@pytest.mark.parametrize("package", HEAVY)
def test_only_some_rooms_import_a_heavy_package(package: str) -> None:
    users = {of(path) for path in MODULES if package in {name.partition(".")[0] for name in imports(path)}}
    assert users and all(any(user.startswith(place) for place in HEAVY[package]) for user in users)


def of_analysis(*rooms: str) -> list[Path]:
    """The modules of `analysis` but those in these rooms, or of these names."""
    inside = [path for path in MODULES if of(path).startswith("analysis/")]
    return [path for path in inside if of(path).split("/")[1] not in rooms]


def test_statistics_make_no_sentences() -> None:
    statistics = of_analysis("wording", "figures", "page", "study.py", "report.py")
    assert ROOT / "analysis/threshold.py" in statistics
    for path in statistics:
        assert not any(name.startswith("analysis.wording") for name in imports(path)), path


UNDRAWN = [dotted(path) for path in of_analysis("figures", "page")]

ON_A_LAPTOP = [
    *("analysis.report", "sweep.plan", "sweep.store.rows", "sweep.networks.conv.shape", "sweep.cli"),
    *("sweep.commands.plan", "sweep.commands.report", "sweep.commands.status", "sweep.kubernetes.manifests"),
]

LOADS = """
import importlib, json, sys
loaded = {}
for name in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(name)
    loaded[name] = sorted({"torch", "ray", "matplotlib", "plotly"} & set(sys.modules) - before)
print(json.dumps(loaded))
"""


@functools.cache
def loads() -> dict[str, list[str]]:
    """The heavy packages that each module loads, in one process, in which those before it are loaded already."""
    names = dict.fromkeys([*UNDRAWN, *ON_A_LAPTOP])
    done = subprocess.run([sys.executable, "-c", LOADS, *names], capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.integration
@pytest.mark.parametrize("module", ON_A_LAPTOP)
def test_reports_plans_and_the_store_load_neither_torch_nor_ray(module: str) -> None:
    assert not {"torch", "ray"} & set(loads()[module])


@pytest.mark.integration
def test_what_the_runs_say_is_known_without_drawing_it() -> None:
    assert "analysis.effects" in UNDRAWN
    assert [name for name in UNDRAWN if {"matplotlib", "plotly"} & set(loads()[name])] == []
