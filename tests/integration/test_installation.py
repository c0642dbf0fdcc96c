"""The project is installed in every way that pip knows, with the native kernels where there is a C++ compiler.

The kernels' sources are exchanged for small ones, so that the installation compiles them in a moment.
"""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from support import small_kernels
from support.real_cluster import ROOT, environment

from sweep.networks.conv.native import build, location

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling builds the wheel"),
    pytest.mark.skipif(not build.variants(), reason="no kernels for this machine"),
]
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no compiler")

NATIVE = Path("sweep/networks/conv/native")
OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
TAG = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

USES = "from sweep.networks.conv.native.library import library; print(library().lanes if library() else None)"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the wheel is built from, with small kernels, none of them compiled."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "search_spaces", "k8s", "analysis", "sweep"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("*.so", "__pycache__", "results", ".native-*")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    small_kernels.write(folder / NATIVE)
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment that has what we need, but not us."""
    venv.create(tmp_path / "environment", with_pip=False)
    [packages] = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return tmp_path / "environment" / "bin" / "python"


def variables(python: Path, compiles: bool) -> dict[str, str]:
    """The environment of a process; one without a compiler, if need be."""
    own = {"PYTHONPATH": "", "CXX": "", "HOME": str(python.parents[2])}
    return environment(**own) if compiles else environment(**own, PATH=str(python.parent))


def pip(python: Path, *arguments: object, compiles: bool) -> str:
    """What pip says; it is that of the outer environment, and works on this one."""
    command = [sys.executable, "-m", "pip", "--python", str(python), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=python.parents[2], env=variables(python, compiles)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def said(python: Path, *arguments: str) -> str:
    """What Python prints in this environment, which has no compiler."""
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, cwd=python.parents[2], env=variables(python, False)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lanes() -> str:
    """The networks of a tile in the build for this CPU."""
    return build.variants()[location.variant()][-1].removeprefix("-DLANES=")


def libraries(names: list[str]) -> list[str]:
    """The kernels that these files have, by kind of CPU."""
    return sorted(Path(name).name.split("-")[1] for name in names if name.endswith(".so"))


@needs_compiler
@pytest.mark.skipif(importlib.util.find_spec("editables") is None, reason="hatchling asks for editables here")
def test_an_editable_installation_compiles_beside_the_sources_and_removes_what_is_old(
    checkout: Path, python: Path
) -> None:
    (checkout / NATIVE / f"kernels-{location.variant()}-0123456789ab.so").write_text("of other sources")
    pip(python, "install", *OFFLINE, "--editable", checkout, compiles=True)
    there = [path.name for path in (checkout / NATIVE).glob("*.so")]
    assert libraries(there) == sorted(build.variants()) and not any("0123456789ab" in name for name in there)
    assert said(python, "-m", "sweep", "--version").endswith(f", native kernels: {location.variant()}")
    assert said(python, "-c", USES) == lanes()
    small_kernels.write(checkout / NATIVE, "changed")
    assert said(python, "-m", "sweep", "--version").endswith("none (no C++ compiler was found; CXX names one)")


@needs_compiler
def test_a_wheel_that_is_built_with_a_compiler_brings_kernels_where_there_is_none(checkout: Path, python: Path) -> None:
    dist = checkout / "dist"
    made = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(dist)]
    subprocess.run(made, check=True, capture_output=True, cwd=checkout, env=variables(python, False))
    [sdist] = dist.glob("*.tar.gz")
    pip(python, "wheel", *OFFLINE, "--wheel-dir", dist, sdist, compiles=True)
    [wheel] = dist.glob("*.whl")
    assert wheel.name.endswith(f"-{TAG}.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert libraries(names) == sorted(build.variants())
    assert {str(NATIVE / name) for name in (*build.SOURCES, "build.py")} <= set(names)
    assert str(NATIVE / "hatch_build.py") not in names
    pip(python, "install", *OFFLINE, wheel, compiles=False)
    assert said(python, "-m", "sweep", "--version").endswith(f", native kernels: {location.variant()}")
    assert said(python, "-c", USES) == lanes()


def test_without_a_compiler_the_installation_is_pure_python_and_says_so_once(checkout: Path, python: Path) -> None:
    log = pip(python, "install", *OFFLINE, "--verbose", checkout, compiles=False)
    assert log.count("without native kernels") == 1 and "no C++ compiler was found" in log
    assert "-py3-none-any.whl" in log
    assert said(python, "-m", "sweep", "--version").endswith(
        "native kernels: none (no C++ compiler was found; CXX names one)"
    )
    assert said(python, "-c", USES) == "None"
    assert not list(python.parents[1].rglob("kernels-*.so"))
