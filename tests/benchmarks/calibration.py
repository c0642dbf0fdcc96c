"""How often the analysis is wrong where the truth is known: the table of the slow tests, printed.

    python tests/benchmarks/calibration.py [--part axes families ...]

Every line is a rate over simulated axes, cells or families, judged by what the report calls; `bound` is what the rate
may be at most (or, where marked, at least); lines without one are measured only. Exit status 1 where a bound is broken.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support import calibrated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=list(calibrated.PARTS), default=list(calibrated.PARTS))
    given = parser.parse_args()
    start, broken = time.perf_counter(), 0
    print("| scenario | what | rate | of | bound | holds |\n| --- | --- | --- | --- | --- | --- |")
    for part in given.part:
        for rate in calibrated.PARTS[part]():
            bound = "" if rate.bound is None else f"{'at least ' if rate.least else ''}{100 * rate.bound:g} %"
            holds = "" if rate.bound is None else "yes" if rate.holds else "NO"
            share = f"{100 * rate.times / rate.of:.1f} %"
            print(f"| {rate.scenario} | {rate.what} | {share} | {rate.of:,} | {bound} | {holds} |", flush=True)
            broken += not rate.holds
    print(f"\n{time.perf_counter() - start:.0f} s; {broken} broken", file=sys.stderr)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
