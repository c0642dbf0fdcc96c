"""Compiles the kernels: a shared library for each kind of CPU, named after the sources that it was made from.

It imports nothing else of ours: what builds the wheel loads this file alone.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SOURCES: Final = (
    "network.cpp",
    *(f"{name}.hpp" for name in ("training", "passes", "network", "convolution", "layers", "tile")),
)

COMMON: Final = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti", "-Wall", "-Wno-psabi"),
    # A product and a sum are rounded together where the sources say so, and nowhere else.
    *("-ffp-contract=off", "-static-libstdc++", "-static-libgcc"),
)

VARIANTS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "x86_64": {
        "avx512": ("-march=x86-64-v4", "-DLANES=16"),
        "avx2": ("-march=x86-64-v3", "-DLANES=8"),
    },
    "aarch64": {"neon": ("-DLANES=8",)},
}
"""Compiler options by machine and kind of CPU, the fastest first."""

TIMEOUT: Final = 600.0
"""Seconds that a compiler, or another process that compiles the same, is waited for."""


class NotBuilt(Exception):
    """No compiler, or it failed; the message says which."""


def variants() -> dict[str, tuple[str, ...]]:
    """The kinds of CPU that this machine may be of."""
    return VARIANTS.get(platform.machine(), {}) if sys.platform == "linux" else {}


def file_name(variant: str) -> str:
    """The library's file for a kind of CPU, of the sources as they are now."""
    digest = hashlib.sha256(repr((COMMON, VARIANTS)).encode())
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    return f"kernels-{variant}-{digest.hexdigest()[:12]}.so"


def compiler() -> list[str]:
    """The command of the C++ compiler: what CXX names, or the first that is found. Raises NotBuilt."""
    named = os.environ.get("CXX", "").split()
    if named and shutil.which(named[0]) is None:
        raise NotBuilt(f"CXX names {named[0]}, which is not there")
    found = named or list(filter(None, map(shutil.which, ("g++", "clang++", "c++"))))[:1]
    if not found:
        raise NotBuilt("no C++ compiler was found; CXX names one")
    return found


def is_whole(library: Path) -> bool:
    """Whether a library is there as it was written: its own SHA-256 stands at its end."""
    try:
        content = library.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def build(folder: Path, names: Iterable[str]) -> list[Path]:
    """Compiles for these kinds of CPU, at the same time, what `folder` does not have whole, and returns all of it.

    Where another process compiles there already, its libraries are waited for. What other sources were compiled into
    is removed beside them. Raises NotBuilt, or OSError if the folder cannot be written.
    """
    command = compiler()
    folder.mkdir(parents=True, exist_ok=True)
    targets = {name: folder / file_name(name) for name in names}
    with _alone(folder):
        missing = {name: target for name, target in targets.items() if not is_whole(target)}
        if missing:
            _compile(command, missing, folder)
            if folder == HERE:
                _remove_old()
    return list(targets.values())


def _compile(command: list[str], targets: dict[str, Path], folder: Path) -> None:
    for left in folder.glob(".native-*"):  # by a process that was killed: nobody else is here
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".native-", dir=folder) as name, contextlib.ExitStack() as running:
        scratch, processes = Path(name), {}
        for variant, target in targets.items():
            options = [*COMMON, *variants()[variant], "-o", str(scratch / target.name), str(HERE / "network.cpp")]
            processes[variant] = _started([*command, *options], scratch / f"{variant}.log")
            running.callback(_end, processes[variant])
        for variant, process in processes.items():
            _succeeded(process, command[0], scratch / f"{variant}.log")
        for target in targets.values():
            made = scratch / target.name
            content = made.read_bytes()
            made.write_bytes(content + hashlib.sha256(content).digest())
            made.replace(target)


def _started(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with open(log, "wb") as file:
        try:
            # A group of its own: the program that compiles is a child of the one that is called a compiler.
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0)
        except OSError as error:
            raise NotBuilt(f"{command[0]}: {error.strerror}") from error


def _succeeded(process: "subprocess.Popen[bytes]", program: str, log: Path) -> None:
    try:
        status = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        raise NotBuilt(f"{program} took longer than {TIMEOUT:g} seconds") from None
    if status:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if "error" in line] or lines
        raise NotBuilt(f"{program} failed: {errors[0] if errors else f'exit status {status}'}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process compiles into a folder meanwhile, where its file system has locks and none is stuck."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        last = time.monotonic() + TIMEOUT
        while time.monotonic() < last:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(lock)


def _remove_old() -> None:
    kept = {file_name(name) for of_machine in VARIANTS.values() for name in of_machine}
    for library in HERE.glob("kernels-*.so"):
        if library.name not in kept:
            library.unlink(missing_ok=True)
