"""A launch's temporary folders: removed when it ends; the next launch removes those of killed ones."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sweep.cluster.stop_signal import undisturbed
from sweep.common.errors import InputError

PREFIX: Final = "sweep-"

LOCK: Final = "owner.lock"
"""The file in a folder that its owner locks: the system releases the lock however the owner ends."""

LONGEST: Final = 107 - len("/session_2026-11-27_14-42-04_098553_4194304/sockets/plasma_store")
"""Longest path of a folder, in bytes, in which Ray can create its sockets: the system allows 107 bytes."""

ROOM: Final = 32 * 2**20
"""Bytes that must be free: Ray writes its logs there, and does not report a full disk."""

FILES: Final = 1000
"""Files that have to be free, where a disk has room for so many and no more."""

GOING: Final = 3.0
"""Seconds for which ending processes may still write to a folder that is being removed."""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new folder for the duration of the block, which no other launch removes as abandoned.

    InputError if there is no place for one.
    """
    base = _base()
    remove_abandoned(base)
    # Nobody looks at a hidden one: the lock is there before the name that others go by.
    mine = base / f"{PREFIX}{secrets.token_hex(4)}"
    hidden = base / f".{mine.name}"
    try:
        hidden.mkdir(mode=0o700)
        with open(hidden / LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            hidden.rename(mine)
            yield mine
    finally:
        with undisturbed():
            _remove(hidden)
            _remove(mine)


def remove_abandoned(base: Path) -> None:
    """Removes this user's folders whose owners have ended."""
    for each in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), open(each / LOCK, "r+") as lock:
            if each.lstat().st_uid == os.geteuid() and not each.is_symlink():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_once(each)


def _remove(mine: Path) -> None:
    last = time.monotonic() + GOING
    while mine.exists() and time.monotonic() < last:
        _remove_once(mine)
        time.sleep(0.05 if mine.exists() else 0)


def _remove_once(folder: Path) -> None:
    """Removes what is there; the lock goes last, by which the next launch finds what a killed one has left of it."""
    with contextlib.suppress(OSError):
        for each in folder.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            elif each.name != LOCK:
                each.unlink(missing_ok=True)
        if [each.name for each in folder.iterdir()] in ([LOCK], []):
            shutil.rmtree(folder, ignore_errors=True)


def _base() -> Path:
    """The user's temporary folder, or the system's if Ray cannot use that one."""
    refused: dict[Path, str] = {}
    for name in (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp"):
        if name and Path(name) not in refused:
            path = Path(name)
            if (why := _unfit(path)) is None:
                return path
            refused[path] = why
    reasons = ", ".join(f"{path} ({why})" for path, why in refused.items())
    raise InputError(f"no place for temporary files: {reasons}; set TMPDIR to another folder")


def _unfit(path: Path) -> str | None:
    """Why Ray cannot keep its files in a new folder below this one; None if it can."""
    bare = os.fsencode(path)
    if not path.is_absolute() or len(bare) + len(f"/{PREFIX}abcdefgh") > LONGEST or not bare.isascii():
        return "its path is too long for Ray, not absolute, or has non-ASCII characters"
    try:
        if shutil.disk_usage(path).free < ROOM:
            return f"its disk is full: {shutil.disk_usage(path).free / 2**20:,.0f} MiB are free"
        disk = os.statvfs(path)
        if disk.f_files and disk.f_favail < FILES:
            return f"its disk has no room for files: {disk.f_favail:,} more are allowed"
        if not os.access(path, os.W_OK | os.X_OK):
            return os.strerror(errno.EACCES)
    except OSError as error:
        return error.strerror or str(error)
    return None
