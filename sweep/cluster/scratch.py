"""A launch's own temporary folders: gone when it ends; the next one removes those that killed launches have left."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sweep.common.errors import InputError

PREFIX: Final = "sweep-"

LOCK: Final = "owner.lock"
"""The file that whoever uses a folder holds a lock on: the system lets go of it, however its owner ends."""

LONGEST: Final = 107 - len("/session_2026-11-27_14-42-04_098553_4194304/sockets/plasma_store")
"""Bytes of a folder's path in which Ray can have its sockets: the system allows these 107."""

ROOM: Final = 32 * 2**20
"""Bytes that have to be free: Ray writes its logs there, and says nothing of a full disk."""

GOING: Final = 3.0
"""Seconds that processes which are about to end may still write to a folder that is being removed."""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new folder while the block runs, which no other launch takes for left behind.

    InputError where there is no room for one.
    """
    base = _base()
    remove_abandoned(base)
    # Nobody looks at a hidden one: the lock is there before the name that others go by.
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))
    with open(made / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mine = made.rename(base / made.name.removeprefix("."))
        try:
            yield mine
        finally:
            _remove(mine)


def remove_abandoned(base: Path) -> None:
    """Removes the folders whose owners have ended, as far as they are this user's."""
    for each in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), open(each / LOCK, "r+") as lock:
            if each.lstat().st_uid == os.geteuid() and not each.is_symlink():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(each, ignore_errors=True)


def _remove(mine: Path) -> None:
    last = time.monotonic() + GOING
    while mine.exists() and time.monotonic() < last:
        shutil.rmtree(mine, ignore_errors=True)
        time.sleep(0.05 if mine.exists() else 0)


def _base() -> Path:
    """The user's temporary folder, or the system's where Ray could not work there."""
    refused: dict[Path, str] = {}
    for name in (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp"):
        if name and Path(name) not in refused:
            path = Path(name)
            if (why := _unfit(path)) is None:
                return path
            refused[path] = why
    reasons = ", ".join(f"{path} ({why})" for path, why in refused.items())
    raise InputError(f"no place for temporary files: {reasons}; TMPDIR names another folder")


def _unfit(path: Path) -> str | None:
    """Why Ray cannot have its files in a new folder below; None where it can."""
    bare = os.fsencode(path)
    if not path.is_absolute() or len(bare) + len(f"/{PREFIX}abcdefgh") > LONGEST or not bare.isascii():
        return "its path is too long for Ray, not absolute, or has letters beyond ASCII"
    try:
        if shutil.disk_usage(path).free < ROOM:
            return f"its disk is full: {shutil.disk_usage(path).free / 2**20:,.0f} MiB are free"
        if not os.access(path, os.W_OK | os.X_OK):
            return os.strerror(errno.EACCES)
    except OSError as error:
        return error.strerror or str(error)
    return None
