"""The program `sweep`, which `python -m sweep` is too: what has to hold before anything of size is imported."""

import contextlib
import getpass
import os
import signal
import sys
import tempfile
from types import FrameType


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported is one line, too."""
    _open_streams()
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
        sys.exit(130)


def _open_streams() -> None:
    """Has streams that were closed before lead nowhere: the next file or socket would be taken for one of them."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
            setattr(sys, name, open(number, mode, closefd=False))


def _be_somebody() -> None:
    """Gives a user id that has no name and no home, as containers have them, one of each: packages ask for both."""
    name = f"user-{os.getuid()}"
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = name
    if os.path.expanduser("~") == "~":
        home = os.path.join(tempfile.gettempdir(), f"sweep-{name}")
        with contextlib.suppress(FileExistsError):
            os.mkdir(home, 0o700)
        mine = os.lstat(home).st_uid == os.getuid() and not os.path.islink(home)
        os.environ["HOME"] = home if mine else tempfile.mkdtemp(prefix="sweep-home-")


def _leave(number: int, frame: FrameType | None) -> None:
    # An exception would end up somewhere inside a half imported package: nothing is open yet that has to be closed.
    os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
