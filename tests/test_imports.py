"""Which module may import what: planning and reports must run where neither torch nor a cluster is."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "ray": {"sweep/launch.py", "sweep/metrics.py", "sweep/cluster.py", "sweep/visit.py", "sweep/jobs.py"},
    "torch": {
        *("sweep/train.py", "sweep/model.py", "sweep/methods.py", "sweep/kernels.py", "sweep/optimizers.py"),
        *("sweep/checkpoint.py", "sweep/estimate.py", "sweep/launch.py"),
        *("sweep/winograd.py", "sweep/cluster.py", "sweep/visit.py"),
    },
    "torchvision": {"sweep/download.py"},
}
MODULES = sorted(path for package in ("sweep", "analysis") for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_only_the_modules_that_may_import_a_heavy_package_do(package: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in MODULES if package in imports(path)}
    assert users == MAY_IMPORT[package]


@pytest.mark.parametrize("module", ["analysis.report", "sweep.plan", "sweep.store", "sweep.commands", "sweep.cli"])
def test_reports_plans_and_the_store_load_neither_torch_nor_ray(module: str) -> None:
    import subprocess
    import sys

    program = f"import sys, {module}; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
