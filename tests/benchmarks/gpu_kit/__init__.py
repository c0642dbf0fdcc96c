"""What `tests/benchmarks/gpu.py` is made of: sections that measure, each in a process of its own, and what they found.

Importing it puts the checkout, the tests' own modules and the other benchmarks where Python finds them.
"""

import sys
import time
from pathlib import Path
from typing import Final

STARTED: Final = time.monotonic()
"""When this program began: all that is imported after this counts."""

BENCHMARKS: Final = Path(__file__).resolve().parents[1]
TESTS: Final = BENCHMARKS.parent
CHECKOUT: Final = TESTS.parent

sys.path.insert(0, str(CHECKOUT))  # what is measured is this checkout, whatever is installed
sys.path += [str(TESTS), str(BENCHMARKS)]
