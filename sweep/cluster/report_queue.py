"""What an array in training reports to its launch, without waiting for it.

A report of Tune's returns when the launch has taken it, and a launch that has been asked to stop takes none: it waits
for checkpoints, which somebody who waits for it would never write.
"""

import queue
import threading
from collections.abc import Callable

from sweep.cluster.messages import Message


class Reports:
    """Sends what it is given, one after the other, from a thread of its own."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self.send = send
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def add(self, message: Message) -> None:
        """Sends this when its turn comes."""
        self._waiting.put(message)

    def behind(self) -> bool:
        """Whether some are waiting still."""
        return not self._waiting.empty()

    def end(self) -> None:
        """Sends no more than what was given so far; does not wait for it."""
        self._waiting.put(None)

    def finish(self, message: Message) -> None:
        """Waits until all are sent, and sends this from the thread that calls."""
        self.end()
        self._thread.join()
        self.send(message)

    def _go_on(self) -> None:
        while (message := self._waiting.get()) is not None:
            self.send(message)
