"""Where the kernels for this CPU lie: found as installed, or compiled once, or why there are none."""

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sweep.networks.conv.native import build

_V3: Final = {"avx", "avx2", "fma", "bmi1", "bmi2", "f16c", "abm", "movbe"}

FLAGS: Final = {
    "avx512": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "avx2": _V3,
    "neon": {"asimd"},
}
"""What a CPU has to have for each build, in the words of /proc/cpuinfo."""

CACHE: Final = "~/.cache/sweep/native"
"""Where it is compiled to if the package's own folder may not be written, or no library there can be loaded."""


def found() -> Path | None:
    """The library for this CPU, which can be loaded; None where it has yet to be compiled.

    Raises NotBuilt where there is none for this CPU.
    """
    return next((path for path in _candidates() if _fault(path) is None), None)


def to_be_compiled() -> bool:
    """Whether there is no library for this CPU yet that can be loaded, but a compiler."""
    try:
        return found() is None and bool(build.compiler())
    except build.NotBuilt:
        return False


def located() -> Path:
    """The library for this CPU, which can be loaded; compiled if need be. Raises NotBuilt."""
    return found() or _compiled()


def described() -> str:
    """Which kernels this machine uses, or that it has none and why, in a few words. Compiles nothing."""
    faults: list[str] = []
    try:
        if found():
            return variant()
        faults = [f"{_fault(path)}; " for path in _candidates() if path.exists()]
        return f"{variant()}, which {Path(build.compiler()[0]).name} compiles at the first launch"
    except build.NotBuilt as error:
        return f"none ({''.join(faults)}{error})"


def variant() -> str:
    """The kind of build that this CPU is fastest with. Raises NotBuilt."""
    flags = cpu_flags()
    kind = next((name for name in build.variants() if FLAGS[name] <= flags), None)
    if kind is None:
        raise build.NotBuilt("there is no build for this CPU")
    return kind


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What the system says that the CPU can do."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(words.split())
    return frozenset()


def _compiled() -> Path:
    name, why = variant(), build.NotBuilt("no folder for it can be written")
    candidates = list(_candidates())
    # One that is there and cannot be loaded is left alone: other machines may share the folder.
    for path in [each for each in candidates if not each.exists()] or candidates[-1:]:
        try:
            [made] = build.build(path.parent, [name])
        except OSError as error:
            why = build.NotBuilt(f"{error}")
            continue
        fault = _fault(made)
        if fault is None:
            return made
        why = build.NotBuilt(fault)
    raise why


def _candidates() -> Iterator[Path]:
    name = build.file_name(variant())
    yield build.HERE / name
    with contextlib.suppress(RuntimeError):  # nobody's home
        yield Path(CACHE).expanduser() / name


def _fault(path: Path) -> str | None:
    """Why a library cannot be used; None if it can."""
    if not build.is_whole(path):
        return f"{path} is damaged" if path.exists() else f"{path} is not there"
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return str(error)
    return None
