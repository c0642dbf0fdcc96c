"""Ends a worker whose node is gone: Ray usually does, but one that waits for its launch would wait forever."""

import functools
import os
import threading
import time
from typing import Final

LOOK_EVERY: Final = 1.0
"""Seconds between two checks that the parent is still running."""

GRACE: Final = 8.0
"""Seconds that an orphan has to save a checkpoint."""


@functools.cache
def orphaned() -> threading.Event:
    """Set when the parent process ends; this process ends `GRACE` seconds later.

    The first call starts watching.
    """
    event, parent = threading.Event(), os.getppid()
    threading.Thread(target=_watch, args=(event, parent), daemon=True).start()
    return event


def _watch(event: threading.Event, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY)
    event.set()
    time.sleep(GRACE)
    # It may hold a lease, and its results would reach nobody.
    os._exit(1)
