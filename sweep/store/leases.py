"""Which launch trains which array, so that launches on one store share the work. Losing a lease loses no data."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from sweep.common.host import is_alive, started_at, this_host
from sweep.store.storage import Place

HEARTBEAT: Final = 5.0
"""Seconds between two renewals of a lease."""

EXPIRY: Final = 30.0
"""Seconds after which a lease that is not renewed expires."""


@contextlib.contextmanager
def taken(place: Place, array_id: str) -> Iterator[bool]:
    """Holds the lease of an array while the block runs; yields False, and holds nothing, if another process has it.

    Two processes that ask at the same moment may both get it: they train the same rows, under the same name.
    """
    if held_elsewhere(place, array_id):
        yield False
        return
    stop = threading.Event()
    _write(place, array_id)
    heart = threading.Thread(target=_beat, args=(place, array_id, stop), daemon=True)
    heart.start()
    try:
        yield True
    finally:
        stop.set()
        heart.join()
        with contextlib.suppress(OSError):
            place.remove(_name(array_id), retry_seconds=HEARTBEAT)


def held_elsewhere(place: Place, array_id: str) -> bool:
    """Whether another running process has the lease of an array; one that died on this host loses it at once."""
    return _held_elsewhere(place, _name(array_id))


def tidy(place: Place) -> None:
    """Removes the leases whose owners died, or have not renewed them in time."""
    for name in place.files("leases", ".json"):
        if not _held_elsewhere(place, name, besides_me=False):
            place.remove(name)


def _held_elsewhere(place: Place, name: str, besides_me: bool = True) -> bool:
    try:
        lease: dict[str, Any] = json.loads(place.read(name))
        host, pid, expires = str(lease["host"]), int(lease["pid"]), float(lease["expires"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    if host != this_host():
        return expires > time.time()
    mine = besides_me and pid == os.getpid()
    alive = 0 < pid < 2**31 and is_alive(pid) and lease.get("started") == started_at(pid)
    return alive and not mine and expires > time.time()


def _beat(place: Place, array_id: str, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        _write(place, array_id)


def _write(place: Place, array_id: str) -> None:
    pid = os.getpid()
    lease = {"host": this_host(), "pid": pid, "started": started_at(pid), "expires": time.time() + EXPIRY}
    with contextlib.suppress(OSError):  # without a lease, work may be done twice, but it is done
        place.write(_name(array_id), json.dumps(lease).encode(), retry_seconds=HEARTBEAT)


def _name(array_id: str) -> str:
    return f"leases/{array_id}.json"
