"""Tells arrays in training to stop soon: their launch is stopping, or their node is about to be removed."""

import contextlib
import os
import secrets
import signal
import stat
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from sweep.cluster import ray_internals
from sweep.cluster.ray_internals import table
from sweep.common.errors import ENDS, Terminated

if TYPE_CHECKING:
    from sweep.cluster.crew import Crew

NOTICES: Final = (signal.SIGUSR1, signal.SIGUSR2)
"""The signals that batch systems send before they end a job."""

STOPPING: Final = 20.0
"""Seconds that arrays in training have to save a checkpoint when a launch is interrupted."""

LOOK_EVERY: Final = 1.0
"""Seconds between two checks, by an array in training, whether it should stop."""

NOTICE_EVERY: Final = 2.0
"""Seconds between two checks, by an array in training, whether its node is about to be removed."""


class StopSignal:
    """Tells the arrays of a launch to stop, and learns that they did, through the table of Ray's head.

    Hosts may share no disk, and signals do not reach a Tune function.
    """

    def __init__(self) -> None:
        self.launch = secrets.token_hex(8).encode()
        self._asked, self._last = False, 0.0
        self._looking = False

    def wait_until_obeyed(self, array_ids: Collection[str], seconds: float) -> None:
        """Makes the arrays save a checkpoint and stop; waits until they have, for at most `seconds`.

        Done in another thread: a signal handler that waits for a lost head could not be interrupted.
        """
        obeyed = threading.Event()
        threading.Thread(target=self._ask, args=(array_ids, seconds, obeyed), daemon=True).start()
        obeyed.wait(seconds)

    def _ask(self, array_ids: Collection[str], seconds: float, obeyed: threading.Event) -> None:
        wanted = {self.launch + b"/stopped/" + array_id.encode() for array_id in array_ids}
        last = time.monotonic() + seconds
        with contextlib.suppress(Exception):  # the head is gone, and the arrays with it
            table().put(self.launch + b"/stop")
            while time.monotonic() < last and not wanted <= set(table().keys(self.launch + b"/stopped/")):
                time.sleep(0.1)
        obeyed.set()

    def asked(self) -> bool:
        """Whether an array should stop, as far as is known; the table is queried now and then.

        Done in another thread: on busy cores an answer takes milliseconds, and training would wait for it.
        """
        if not (self._asked or self._looking) and time.monotonic() - self._last >= LOOK_EVERY:
            self._last, self._looking = time.monotonic(), True
            threading.Thread(target=self._look, daemon=True).start()
        return self._asked

    def _look(self) -> None:
        with contextlib.suppress(Exception):  # a head that cannot be asked has not asked for a stop
            self._asked = bool(table().exists(self.launch + b"/stop"))
        self._looking = False

    def obeyed(self, array_id: str) -> None:
        """Records that an array has stopped and saved what it could."""
        with contextlib.suppress(Exception):
            table().put(self.launch + b"/stopped/" + array_id.encode())

    def clear(self) -> None:
        """Removes all our keys from the table."""
        with contextlib.suppress(Exception):
            table().clear(self.launch)


class Notice:
    """Tells a worker that an autoscaler or `ray drain-node` is about to remove its node."""

    def __init__(self, crew: "Crew") -> None:
        import ray

        self._given, self._last = False, -NOTICE_EVERY
        self.node = ray.get_runtime_context().get_node_id() if crew.where.kind != "here" else None

    def given(self) -> bool:
        """Whether notice was given; Ray is queried now and then. Notice is never withdrawn."""
        if self.node and not self._given and time.monotonic() - self._last >= NOTICE_EVERY:
            self._last = time.monotonic()
            with contextlib.suppress(Exception):  # no head to ask
                self._given = self.node in ray_internals.draining_nodes()
        return self._given


@contextlib.contextmanager
def stopping(running: Collection[str], sign: StopSignal) -> Iterator[None]:
    """On Ctrl-C, makes the `running` arrays save a checkpoint, then raises KeyboardInterrupt; on a second, at once.

    The other signals that end a program do the same, as Terminated; but for Ctrl-C and SIGTERM, one that was ignored,
    as nohup has SIGHUP, stays so. SIGUSR1 and SIGUSR2, by which batch systems give notice, end nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _let_go_of_lost_terminals()
        if running and len(received) == 1:
            sign.wait_until_obeyed(set(running), STOPPING)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (*ENDS, *NOTICES)}
    for number, handler in before.items():
        if number in (signal.SIGINT, signal.SIGTERM) or (number in ENDS and handler != signal.SIG_IGN):
            signal.signal(number, stop)
        elif number in NOTICES and handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)
    try:
        yield
    except KeyboardInterrupt:  # Ray raises this whatever the handler raised
        if received and received[0] != signal.SIGINT:
            raise Terminated(received[0]) from None
        raise
    finally:
        _restore(before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Has signals that end a launch wait while the block puts things in order; the first of them comes at its end.

    A mask would not do: another thread of this process takes the signal, and its handler runs in this one.
    """
    received: list[int] = []
    try:
        with handlers_kept():
            if threading.current_thread() is threading.main_thread():
                for number in ENDS:
                    if signal.getsignal(number) not in (signal.SIG_IGN, None):
                        signal.signal(number, lambda number, frame: received.append(number))
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Undoes the signal handlers that the block sets."""
    before = {number: signal.getsignal(number) for number in (*ENDS, *NOTICES)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            _restore(before)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Blocks signals other than Ctrl-C while the block runs, and for good in processes that it starts.

    Whoever ends a launch may signal all its processes, but workers must first save checkpoints.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDS, *NOTICES} - {signal.SIGINT})
    try:
        with handlers_kept():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # it was not set from Python
            signal.signal(number, handler)


def _let_go_of_lost_terminals() -> None:
    """Discards output to a terminal that is gone: it would be an error in the middle of stopping."""
    for stream in range(3):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, stream)
                os.close(nowhere)
