"""`python -m sweep` is the console script."""

from sweep.cli import main

main()
