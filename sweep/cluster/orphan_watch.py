"""A worker whose node is no more: Ray ends it at most times, but one that waits for its launch would wait for ever."""

import functools
import os
import threading
import time
from typing import Final

LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether the parent is there."""

GRACE: Final = 8.0
"""Seconds that an orphan has to save a checkpoint."""


@functools.cache
def orphaned() -> threading.Event:
    """Set when the process that started this one ends; some seconds later this one ends too.

    The first call begins to watch.
    """
    event, parent = threading.Event(), os.getppid()
    threading.Thread(target=_watch, args=(event, parent), daemon=True).start()
    return event


def _watch(event: threading.Event, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    event.set()
    time.sleep(GRACE)
    # It may hold a lease, and nobody would ever hear of what it does.
    os._exit(1)
