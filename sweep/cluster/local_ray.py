"""A Ray of our own on this machine: it hears no signal that is meant for the launch, and ends with it."""

import sweep.cluster.ray_environment  # isort: skip  (Ray reads it while it is imported)

import contextlib
import logging
import os
import signal
import site
from collections.abc import Iterator
from pathlib import Path

import ray

import sweep
from sweep.cluster import ray_internals
from sweep.cluster.stop_signal import held_back
from sweep.common.host import descendants, is_alive, started_at


@contextlib.contextmanager
def running(cpus: int, gpus: int, folder: Path) -> Iterator[None]:
    """A Ray with these resources while the block runs, its files in `folder`."""
    before = descendants([os.getpid()])
    try:
        _start(cpus, gpus, folder)
    except BaseException:
        _end(descendants([os.getpid()]) - before)
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


def _end(ours: set[int]) -> None:
    """Ends Ray and all processes below these, at once: they do not hear of SIGTERM, and nothing of theirs is kept."""
    processes = {pid: started_at(pid) for pid in ours | descendants(ours)}
    ray_internals.shut_down_at_once()
    for pid, started in processes.items():
        if is_alive(pid) and started_at(pid) == started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
