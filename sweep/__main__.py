"""The program `sweep`, which `python -m sweep` is too: what has to hold before anything of size is imported."""

import atexit
import contextlib
import getpass
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from types import FrameType

from sweep.common.errors import ENDS, Terminated, exit_status

_BY_SIGNAL = tuple(128 + number for number in ENDS)
"""Exit statuses of a program that one of them ended."""


def main() -> None:
    """Runs the command line; a signal that ends it is one line, also while it is still being imported."""
    ended: list[int] = []
    atexit.register(_leave_as, ended)  # the first to be registered is the last to be called
    _open_streams()
    _be_somewhere()
    _be_somebody()
    heard = [number for number in ENDS if signal.getsignal(number) != signal.SIG_IGN]
    _hear(heard, _leave)
    from sweep.cli import main as run

    _hear(heard, _Once())
    try:
        run()
    except KeyboardInterrupt as interruption:
        print("Interrupted.", file=sys.stderr)
        ended.append(exit_status(interruption))
    except SystemExit as leaving:
        if not isinstance(leaving.code, int | None):
            raise
        ended.append(leaving.code or 0)
    finally:
        _hear(heard, lambda number, frame: os._exit(ended[0] if ended else 128 + number))
    if ended:
        sys.exit(ended[0])


def _hear(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> None:
    for number in numbers:
        signal.signal(number, handler)


class _Once:
    """Ends a command in order; where that has begun already, at once."""

    def __init__(self) -> None:
        self.heard = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.heard:
            _leave(number, frame)
        self.heard = True
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def _leave_as(ended: list[int]) -> None:
    # Python ends itself by SIGINT where an interrupt passed through an `exec`, such as a named tuple's, handled or not;
    # and to take apart what a launch has loaded takes it most of a second.
    if ended:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                if ended[0] not in _BY_SIGNAL:
                    return  # Python says that output was lost
        os._exit(ended[0])


def _open_streams() -> None:
    """Has streams that were closed before lead nowhere: the next file or socket would be taken for one of them."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
            setattr(sys, name, open(number, mode, closefd=False))


def _be_somewhere() -> None:
    """Ends the program where the current folder was deleted: PyTorch would end it, without a word of that."""
    try:
        os.getcwd()
    except FileNotFoundError:
        print("error: the current folder no longer exists; change to another one", file=sys.stderr)
        sys.exit(2)


def _be_somebody() -> None:
    """Gives a user id that has no name and no home, as containers have them, one of each: packages ask for both."""
    name = f"user-{os.getuid()}"
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = name
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = _home(name)


def _home(name: str) -> str:
    """A folder of this user's alone; the root, where nothing can be written anywhere."""
    try:
        home = os.path.join(tempfile.gettempdir(), f"sweep-{name}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(home, 0o700)
        mine = os.lstat(home).st_uid == os.getuid() and not os.path.islink(home)
        return home if mine else tempfile.mkdtemp(prefix="sweep-home-")
    except OSError:
        return os.sep


def _leave(number: int, frame: FrameType | None) -> None:
    # An exception would end up somewhere inside a half imported package: nothing is open yet that has to be closed.
    os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
