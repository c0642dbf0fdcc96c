"""Unit tests start no process, and so neither Ray nor a browser: one that does fails, and is told which mark it lacks.

Python raises an audit event before it starts a process. `multiprocessing` goes below those: here it raises one, too.
"""

import contextlib
import multiprocessing.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "multiprocessing.spawn")

ASKED = ("git", "fc-list", "uname")
"""Programs that say something about this machine, which libraries ask once, in whichever test is first."""

WORKS = not torch.cuda.is_available()
"""Triton starts compilers where there is a GPU."""

_guarded = False


@contextlib.contextmanager
def unit_test() -> Iterator[None]:
    """While it lasts, whatever starts a process fails, before the process is there."""
    global _guarded
    _guarded = WORKS
    try:
        yield
    finally:
        _guarded = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guarded or event not in STARTS:
        return
    program = str(arguments[0]) if arguments else "a copy of itself"
    if Path(program).name not in ASKED:
        pytest.fail(f"a unit test starts a process ({event}: {program}): mark it integration")


def _spawn(path: Any, *arguments: Any) -> int:
    sys.audit("multiprocessing.spawn", path)
    return _spawned(path, *arguments)


_spawned = multiprocessing.util.spawnv_passfds  # type: ignore[attr-defined]
multiprocessing.util.spawnv_passfds = _spawn  # type: ignore[attr-defined]
sys.addaudithook(_hear)
