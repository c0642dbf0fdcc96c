"""The one error that users are meant to read."""


class InputError(ValueError):
    """Something that the user gave is wrong: the message says what, where, and what is allowed (exit status 2)."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, from somebody who wants the machine."""
