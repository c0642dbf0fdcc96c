"""The program `sweep`, which `python -m sweep` is too."""

import sys


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported is one line, too."""
    try:
        from sweep.cli import main as run

        run()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
