"""Reports of an array in training to its launch, sent without waiting for it.

A Tune report returns only once the launch has received it, and a launch that has been asked to stop receives none: it
waits for checkpoints, which an array that waits for the launch would never write.
"""

import queue
import threading
from collections.abc import Callable

from sweep.cluster.messages import Message


class Reports:
    """Sends messages one after the other from its own thread."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self.send = send
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def add(self, message: Message) -> None:
        """Queues a message."""
        self._waiting.put(message)

    def behind(self) -> bool:
        """Whether messages are still waiting."""
        return not self._waiting.empty()

    def end(self) -> None:
        """Accepts no more messages; does not wait for those in the queue."""
        self._waiting.put(None)

    def finish(self, message: Message) -> None:
        """Waits until all are sent, then sends this one from the calling thread."""
        self.end()
        self._thread.join()
        self.send(message)

    def _go_on(self) -> None:
        while (message := self._waiting.get()) is not None:
            self.send(message)
