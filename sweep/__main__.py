"""The program `sweep`, which `python -m sweep` is too: what has to hold before anything of size is imported."""

import atexit
import contextlib
import getpass
import os
import signal
import sys
import tempfile
from types import FrameType

_BY_SIGNAL = (129, 130, 143)
"""Exit statuses of a program that SIGHUP, Ctrl-C or SIGTERM ended."""


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported is one line, too."""
    ended: list[int] = []
    atexit.register(_leave_as, ended)  # the first to be registered is the last to be called
    _open_streams()
    _be_somewhere()
    _be_somebody()
    handler = signal.getsignal(signal.SIGINT)
    if handler != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)
    from sweep.cli import main as run

    signal.signal(signal.SIGINT, handler)
    try:
        run()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        ended.append(130)
    except SystemExit as leaving:
        if leaving.code not in _BY_SIGNAL:
            raise
        ended.append(int(leaving.code))
    if ended:
        sys.exit(ended[0])


def _leave_as(ended: list[int]) -> None:
    # Python ends itself by SIGINT where an interrupt passed through an `exec`, such as a named tuple's, handled or not.
    if ended:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
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
