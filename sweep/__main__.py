"""The program `sweep`, which `python -m sweep` is too: what has to hold before anything of size is imported."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported is one line, too."""
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


def _leave(number: int, frame: FrameType | None) -> None:
    # An exception would end up somewhere inside a half imported package: nothing is open yet that has to be closed.
    os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
