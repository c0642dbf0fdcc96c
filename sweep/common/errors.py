"""The one error that users are meant to read, and the exception that ends a launch."""

import signal
from typing import Final

ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGALRM)
"""The signals that end a program: by hand, by whoever wants the machine, and at the end of some time."""


class InputError(ValueError):
    """The user's input is wrong: the message says what, where, and what is expected (exit status 2)."""


class Terminated(KeyboardInterrupt):
    """Another signal that ends a program: as Ctrl-C, from somebody who wants the machine, or of a lost terminal."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.status = 128 + number
        """What a program that a signal has ended exits with, as a shell says it."""


def exit_status(interruption: KeyboardInterrupt) -> int:
    """What a program that was interrupted exits with."""
    return interruption.status if isinstance(interruption, Terminated) else 128 + signal.SIGINT
