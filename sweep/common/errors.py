"""The one error that users are meant to read, and what ends a launch."""

import signal


class InputError(ValueError):
    """Something that the user gave is wrong: the message says what, where, and what is allowed (exit status 2)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: as Ctrl-C, from somebody who wants the machine, or where the terminal is gone."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.status = 128 + number
        """What a program that a signal has ended exits with, as a shell says it."""
