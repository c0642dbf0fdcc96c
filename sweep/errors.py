"""The one error that users are meant to read."""


class InputError(ValueError):
    """Something that the user gave is wrong: the message says what, where, and what is allowed (exit status 2)."""
