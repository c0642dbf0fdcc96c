"""A Ray of our own on this machine: it hears no signal that is meant for the launch, and ends with it."""

import sweep.cluster.ray_environment  # isort: skip  (Ray reads it while it is imported)

import contextlib
import logging
import os
import resource
import shutil
import signal
import site
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ray

import sweep
from sweep.cluster import ray_internals
from sweep.cluster.scratch import ROOM
from sweep.cluster.stop_signal import held_back
from sweep.common.errors import InputError
from sweep.common.host import descendants, is_alive, started_at


@contextlib.contextmanager
def running(cpus: int, gpus: int, folder: Path) -> Iterator[None]:
    """A Ray with these resources while the block runs, its files in `folder`. InputError where it cannot be started."""
    _check_address_space()
    before = descendants([os.getpid()])
    try:
        _start(cpus, gpus, folder)
    except BaseException as error:
        _end(descendants([os.getpid()]) - before)
        if isinstance(error, Exception):
            raise InputError(f"Ray cannot be started on this machine: {_reason(error, folder)}") from error
        raise
    ours = descendants([os.getpid()]) - before
    try:
        yield
    finally:
        _end(ours)


def _start(cpus: int, gpus: int, folder: Path) -> None:
    # Workers import what lies in the folder where Ray was started: not the user's, where a torch.py may lie.
    with held_back(), _importable(), contextlib.chdir(folder):
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **ray_internals.files_in(folder),
        )


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Has processes that the block starts find this project where it is not installed, but run from a checkout."""
    before, root = os.environ.get("PYTHONPATH"), str(Path(sweep.__file__).parents[1])
    if root not in [*site.getsitepackages(), site.getusersitepackages()]:
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *([before] if before else [])])
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH", None)
        if before is not None:
            os.environ["PYTHONPATH"] = before


LIMITS: Final = (
    (resource.RLIMIT_NPROC, "processes and threads of this user (ulimit -u; Ray needs a thousand)", 4096),
    (resource.RLIMIT_NOFILE, "open files (ulimit -n; Ray needs a thousand)", 1024),
)
"""Limits of a process that Ray fails at without naming them, each with the value from which it is none."""


STORE: Final = 0.3
"""Share of the memory that Ray maps for objects, whether or not they come."""

BESIDES: Final = 8 * 2**30
"""Bytes of address space that a process of ours has mapped besides."""


def _check_address_space() -> None:
    """Raises InputError where `ulimit -v` is too small: Ray would end this process, and say nothing of the cause."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    needed = int(STORE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) + BESIDES
    if 0 <= limit < needed:
        raise InputError(
            f"ulimit -v {limit // 1024}: Ray needs more address space on this machine, {needed / 2**30:.0f} GiB; "
            "ulimit -v unlimited lifts it"
        )


def _reason(error: Exception, folder: Path) -> str:
    """What Ray says, in a line, and which limit may be behind it."""
    words = " ".join(str(error).split())[:300] or type(error).__name__
    soft = [(resource.getrlimit(which)[0], what, enough) for which, what, enough in LIMITS]
    causes = [f"only {limit:,} {what}" for limit, what, enough in soft if 0 <= limit < enough]
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        causes.append(f"the disk of {folder.parent} is full, {free / 2**20:,.0f} MiB are free (TMPDIR names another)")
    return f"{words}; a likely cause: {', '.join(causes)}" if causes else words


def _end(ours: set[int]) -> None:
    """Ends Ray and all processes below these, at once: they do not hear of SIGTERM, and nothing of theirs is kept."""
    processes = {pid: started_at(pid) for pid in ours | descendants(ours)}
    ray_internals.shut_down_at_once()
    for pid, started in processes.items():
        if is_alive(pid) and started_at(pid) == started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
