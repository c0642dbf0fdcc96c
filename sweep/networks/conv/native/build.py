"""Compiles the kernels: a shared library for each kind of CPU, named after the sources that it was made from."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SOURCES: Final = ("network.cpp", "convolution.hpp", "layers.hpp", "tile.hpp")

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


class NotBuilt(Exception):
    """No compiler, or it failed; the message says which."""


def variants() -> dict[str, tuple[str, ...]]:
    """The kinds of CPU that this machine may be of."""
    machine = platform.machine().lower()
    return VARIANTS.get({"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine), {})


def file_name(variant: str) -> str:
    """The library's file for a kind of CPU, of the sources as they are now."""
    digest = hashlib.sha256(repr((COMMON, VARIANTS)).encode())
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    return f"kernels-{variant}-{digest.hexdigest()[:12]}.so"


def compiler() -> str | None:
    """The C++ compiler that CXX names, or the first that is found."""
    named = os.environ.get("CXX")
    return named or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)


def build(folder: Path, variant: str) -> Path:
    """Compiles the library for a kind of CPU into `folder`, whole or not at all. Raises NotBuilt."""
    found = compiler()
    if found is None:
        raise NotBuilt("no C++ compiler was found (CXX names one)")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file_name(variant)
    with tempfile.TemporaryDirectory(prefix=".native-", dir=folder) as scratch:
        made = Path(scratch) / target.name
        command = [*found.split(), *COMMON, *variants()[variant], "-o", str(made), str(HERE / "network.cpp")]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise NotBuilt(f"{found}: {error.strerror}") from error
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise NotBuilt(f"{found} failed: {errors[0] if errors else done.returncode}")
        made.replace(target)
    return target
