"""The native kernels' library is compiled once, found again, and done without where it cannot be had."""

import hashlib
import io
import os
import pwd
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console
from support import small_kernels
from support.processes import alive, wait_for

from sweep.cluster import crew, packaging
from sweep.networks.conv.native import build, library, location

needs_compiler = pytest.mark.skipif(
    not build.variants() or not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no compiler"
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's own folder, with small sources; the cache is `cache` beside it."""
    small_kernels.write(tmp_path / "package")
    monkeypatch.setattr(build, "HERE", tmp_path / "package")
    monkeypatch.setattr(location, "CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "package"


def libraries(folder: Path) -> set[str]:
    """All that is in a folder but the sources."""
    return {path.name for path in folder.glob("*")} - set(build.SOURCES)


def without_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.integration
@needs_compiler
def test_every_kind_of_cpu_gets_a_library_and_those_of_other_sources_go(package: Path) -> None:
    before = build.build(package, build.variants())
    assert all(map(build.is_whole, before)) and libraries(package) == {path.name for path in before}
    small_kernels.write(package, "changed")
    assert location.found() is None and location.to_be_compiled()
    after = build.build(package, build.variants())
    assert libraries(package) == {path.name for path in after}
    assert not set(before) & set(after)


@pytest.mark.integration
@needs_compiler
def test_what_is_there_is_found_and_not_compiled_again(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = location.located()
    assert made.parent == package and library.Library(made).lanes in (8, 16)
    without_compiler(package, monkeypatch)
    assert location.located() == made == location.found()
    assert location.described() == location.variant()
    made.touch()  # as an installation may
    assert location.found() == made


@pytest.mark.integration
@needs_compiler
def test_many_at_once_compile_once_and_all_get_the_library(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow-compiler"
    slow.write_text(f'#!/bin/sh\necho once >> {tmp_path}/calls\nsleep 0.3\nexec {build.compiler()[0]} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: location.located(), range(4)))
    assert len(set(made)) == 1
    assert (tmp_path / "calls").read_text() == "once\n"


@pytest.mark.integration
@needs_compiler
def test_a_package_that_cannot_be_written_is_compiled_into_the_cache(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_into = build.build

    def refusing(folder: Path, *arguments: object) -> list[Path]:
        if folder == package:
            raise PermissionError(13, "Permission denied", str(folder))
        return compile_into(folder, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "build", refusing)
    assert location.located().parent == tmp_path / "cache"
    monkeypatch.setattr(location, "CACHE", str(package / "network.cpp" / "no-folder"))
    assert library.library.__wrapped__() is None  # type: ignore[attr-defined]


@pytest.mark.integration
@needs_compiler
@pytest.mark.parametrize("fault", ["cut", "changed", "unloadable"])
def test_a_library_that_cannot_be_loaded_is_replaced_from_the_cache(
    fault: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [made] = build.build(package, [location.variant()])
    content = made.read_bytes()
    if fault == "unloadable":  # as by another libc, or a file system that runs nothing: whole, and still no use
        made.write_bytes(hashlib.sha256(b"").digest())
    else:
        made.write_bytes(content[:-40] if fault == "cut" else content[:99] + b"?" + content[100:])
    with monkeypatch.context() as here:
        without_compiler(package, here)
        assert library.library.__wrapped__() is None  # type: ignore[attr-defined]
        said = location.described()
        assert said.startswith("none (") and str(made) in said and "no C++ compiler was found" in said
    assert location.located().parent == tmp_path / "cache"
    assert libraries(package) == {made.name}


def failing(folder: Path) -> str:
    """A compiler that finds an error."""
    script = folder / "failing-compiler"
    script.write_text("#!/bin/sh\necho network.cpp:1: error: it is what it is >&2\nexit 1\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.integration
@pytest.mark.skipif(not build.variants(), reason="no kernels for this machine")
def test_a_compiler_that_fails_costs_the_kernels_and_leaves_nothing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", failing(tmp_path))
    with pytest.raises(build.NotBuilt, match=r"failing-compiler failed: .*error: it is what it is"):
        location.located()
    monkeypatch.setenv("CXX", "true")  # says that it has, and has not
    assert library.library.__wrapped__() is None  # type: ignore[attr-defined]
    assert libraries(package) == set()
    console = Console(file=io.StringIO(), width=200)
    assert crew._native_here(console) is False
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "native kernels are not used: " in said


WAITS = "import sys; sys.path.insert(0, sys.argv[1]); import build; build.build(build.HERE, build.variants())"


@pytest.mark.integration
@pytest.mark.skipif(not build.variants(), reason="no kernels for this machine")
def test_an_interruption_ends_the_compilers_and_what_they_have_started(package: Path, tmp_path: Path) -> None:
    shutil.copy(build.__file__, package)
    slow = tmp_path / "slow-compiler"
    slow.write_text(f"#!/bin/sh\nsleep 60 &\necho $! >> {tmp_path}/children\nwait\n")
    slow.chmod(0o755)
    compiling = subprocess.Popen(
        [sys.executable, "-c", WAITS, package], env=os.environ | {"CXX": str(slow)}, stderr=subprocess.DEVNULL
    )
    children = tmp_path / "children"
    wait_for(lambda: children.exists() and len(children.read_text().split()) == len(build.variants()))
    compiling.send_signal(signal.SIGINT)
    compiling.wait(20)
    wait_for(lambda: not any(alive(int(pid)) for pid in children.read_text().split()))
    assert libraries(package) - {"__pycache__"} == {"build.py"}


@pytest.mark.integration
@needs_compiler
def test_a_launch_says_that_it_compiles_once(package: Path) -> None:
    said = [io.StringIO(), io.StringIO()]
    assert all(crew._native_here(Console(file=file, width=200)) for file in said)
    assert "compiling the native kernels for this CPU, once" in said[0].getvalue() and said[1].getvalue() == ""


@pytest.mark.integration
@needs_compiler
def test_kernels_for_every_kind_of_cpu_are_sent_along(package: Path) -> None:
    said = [io.StringIO(), io.StringIO()]
    for file in said:
        packaging.runtime_env([], Console(file=file, width=200))
    assert libraries(package) == {build.file_name(name) for name in build.variants()}
    assert "compiling the native kernels, which are sent along" in said[0].getvalue() and said[1].getvalue() == ""


@pytest.mark.skipif(not build.variants(), reason="no kernels for this machine")
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("", "none (no C++ compiler was found; CXX names one)"),
        ("/nowhere/g++ -m64", "none (CXX names /nowhere/g++, which is not there)"),
    ],
)
def test_without_a_compiler_there_are_no_kernels_and_the_reason_is_said(
    named: str, said: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(package, monkeypatch)
    monkeypatch.setenv("CXX", named)
    assert location.described() == said and not location.to_be_compiled()
    assert library.library.__wrapped__() is None  # type: ignore[attr-defined]
    console = Console(file=io.StringIO(), width=200)
    assert crew._native_here(console) is False
    assert packaging.runtime_env([], console)["py_modules"]
    assert libraries(package) == set()
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert written == f"native kernels are not used: {said.removeprefix('none (').removesuffix(')')}\n"


@pytest.mark.skipif(not build.variants(), reason="no kernels for this machine")
def test_nobody_s_home_is_no_cache(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.setattr(location, "CACHE", "~/.cache/sweep/native")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    without_compiler(package, monkeypatch)
    assert os.path.expanduser("~") == "~" and location.found() is None
    assert location.described().startswith("none (no C++ compiler")


def test_the_cpu_decides_and_one_that_lacks_anything_gets_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "variants", lambda: build.VARIANTS["x86_64"])
    full = location.FLAGS["avx512"] | {"sse2"}
    for flags, kind in ((full, "avx512"), (full - {"avx512vl"}, "avx2"), (location.FLAGS["avx2"], "avx2")):
        monkeypatch.setattr(location, "cpu_flags", lambda flags=flags: flags)
        assert location.variant() == kind
    monkeypatch.setattr(location, "cpu_flags", lambda: full - {"fma"})
    assert location.described() == "none (there is no build for this CPU)"


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "ppc64le")])
def test_other_systems_and_machines_have_none(system: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert build.variants() == {}
    assert location.described() == "none (there is no build for this CPU)"
