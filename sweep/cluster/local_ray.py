"""A Ray of our own on this machine, in a process of its own: it starts while the launch loads Ray and Tune.

It hears no signal that is meant for the launch, and ends with it, however that ends.
"""

import contextlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sweep.cluster import ray_internals
from sweep.cluster.packaging import checkout
from sweep.cluster.scratch import ROOM
from sweep.cluster.stop_signal import handlers_kept, held_back, undisturbed
from sweep.common.errors import InputError
from sweep.common.host import descendants, kill_all

ERRORS: Final = "ray-process.err"
"""The file, in the folder of our Ray, of what its process says on standard error."""


class LocalRay:
    """A Ray that is starting, its files in `folder`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        self._ours = {process.pid}

    def connect(self) -> None:
        """Joins it, once it is there. InputError where it cannot be started."""
        import ray

        assert self._process.stdout
        try:
            answer = json.loads(self._process.stdout.readline() or "{}")
            if "address" not in answer:
                raise RuntimeError(answer.get("error") or _last_line(self._folder / ERRORS))
            self._ours |= descendants(self._ours)
            # Workers import what lies in the folder where the driver joined: not the user's, where a torch.py may lie.
            with handlers_kept(), contextlib.chdir(self._folder):
                ray.init(answer["address"], log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            raise InputError(f"Ray cannot be started on this machine: {_reason(error, self._folder)}") from error

    def end(self) -> None:
        """Ends it, and all its processes, at once: they do not hear of SIGTERM, and nothing of theirs is kept."""
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
            ray_internals.hear_again()
        with self._process:  # its streams are closed, and its end is waited for
            kill_all(self._ours)


@contextlib.contextmanager
def starting(cpus: int, gpus: int, folder: Path) -> Iterator[LocalRay]:
    """Starts a Ray with these resources, which is there when `connect` returns, and gone when the block ends."""
    import sweep.cluster.ray_environment  # noqa: F401  (here, since `authenticate` comes before)

    _check_address_space()
    # Imported rather than run with -m, so that whoever times imports finds the module under its own name.
    program = "from sweep.cluster import ray_process; ray_process.main()"
    command = [sys.executable, "-c", program, str(folder), str(cpus), str(gpus)]
    with held_back(), open(folder / ERRORS, "w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env=_environment(),
            start_new_session=True,
        )
    started = LocalRay(process, folder)
    try:
        yield started
    finally:
        with undisturbed():
            started.end()


DEBUGGING: Final = (
    *("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONVERBOSE"),
    *("PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG", "PYTHONMALLOC"),
)
"""What somebody sets to look into a Python of theirs: Ray's processes would end of a warning, or start too late."""


def _environment() -> dict[str, str]:
    """That of this process, in which this project is found where it is run from a checkout, and nothing is debugged."""
    kept = {name: value for name, value in os.environ.items() if name not in DEBUGGING}
    paths = [path for path in (checkout(), kept.get("PYTHONPATH")) if path]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)}


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its process ended"


LIMITS: Final = (
    (resource.RLIMIT_NPROC, "processes and threads of this user (ulimit -u; Ray needs a thousand)", 4096),
    (resource.RLIMIT_NOFILE, "open files (ulimit -n; Ray needs a thousand)", 1024),
    (resource.RLIMIT_FSIZE, "bytes per file (ulimit -f; Ray keeps objects in one large file)", 2**40),
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
