"""The one error that users are meant to read, and the exception that ends a launch."""

import signal


class InputError(ValueError):
    """The user's input is wrong: the message says what, where, and what is expected (exit status 2)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, handled like Ctrl-C: somebody needs the machine, or the terminal is gone."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.status = 128 + number
        """The exit status that a shell reports for a program ended by this signal."""
