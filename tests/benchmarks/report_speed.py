"""How long the report of a large store takes, and how much memory: made, read, analysed and written.

    python tests/benchmarks/report_speed.py [--cells 10000] [--seeds 50] [--analysis-only]

Makes a store of `cells` x `seeds` pairs in a temporary folder, one array a cell, with the bits of 1,000 test pictures a
run; then runs `sweep report` in a process of its own, or with --analysis-only what it does before anything is drawn.
Exit status 1 beyond 60 seconds or 4 GB.
"""

import argparse
import datetime
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sweep import plan
from sweep.space.runs import SETTINGS
from sweep.space.search_space import parse
from sweep.store.rows import Store
from sweep.store.tables import CURVES_SCHEMA, RUNS_SCHEMA

MOST_SECONDS, MOST_GIGABYTES = 60, 4
PICTURES = 1000
SPACE = """
name: large
axes:
  width: [{widths}]
  depth: [1, 2, 3, 4, 5]
  batch_norm: [false, true]
  dropout: [0.0, 0.1, 0.2, 0.3]
  learning_rate: [0.01, 0.02, 0.05, 0.1, 0.2]
  steps: [100, 1000]
  seed: {seeds}
"""
ANALYSIS = """
import sys
from pathlib import Path
import analysis.report
from analysis.study import analyse
from sweep.commands import report
from sweep.store.rows import Store
analysis.report.write = lambda rows, out, curves=None, **options: analyse(rows, **options)
store = Store(Path(sys.argv[1]))
report.report("large", store, Path("."), None, None)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000, help="rounded down to a multiple of 400")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--analysis-only", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "results"
        runs = make(store, given.cells, given.seeds)
        seconds, gigabytes = measured(store, given.analysis_only)
        sizes = {path.name: path.stat().st_size / 1e6 for path in sorted((store / "reports").glob("*/*"))}
    what = "read and analysed" if given.analysis_only else "read, analysed, drawn and written"
    print(f"{runs:,} runs {what} in {seconds:.1f} s and {gigabytes:.2f} GB")
    for name, megabytes in sizes.items():
        print(f"  {name}: {megabytes:.2f} MB")
    return seconds > MOST_SECONDS or gigabytes > MOST_GIGABYTES


def make(root: Path, cells: int, seeds: int) -> int:
    """Fills a store with as many runs; returns their number."""
    widths = ", ".join(map(str, range(1, cells // 400 + 1)))
    space = parse(SPACE.format(widths=widths, seeds=seeds).encode(), Path("large.yaml"))
    Store(root).save_sweep(space.name, space.resolved())
    for kind in ("runs", "curves"):
        (root / kind).mkdir()
    generator, start, run_ids = np.random.default_rng(0), 0, plan.run_ids(space)
    for number, (levels, members) in enumerate(space.grid()):
        own = run_ids[start : start + len(members)]
        start += len(members)
        tables = {"runs": _rows(levels, members, own, generator), "curves": _curves(own)}
        for kind, table in tables.items():
            pq.write_table(table, root / kind / f"{number:020x}.parquet", compression="zstd")
    return start


def measured(store: Path, analysis_only: bool) -> tuple[float, float]:
    """Seconds and peak gigabytes of the process that makes the report."""
    command = (
        ["-c", ANALYSIS, str(store)] if analysis_only else ["-m", "sweep", "report", "large", "--store", str(store)]
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9


def _rows(
    levels: dict[str, object], members: tuple[tuple[bool, int], ...], run_ids: list[str], generator: np.random.Generator
) -> pa.Table:
    """Accuracies around 90 %, bias helping narrow networks without batch norm."""
    count = len(members)
    helps = 0.0 if levels["batch_norm"] else 0.02 / float(str(levels["width"]))
    skill = 0.9 + np.array([helps * bias for bias, _ in members])
    right = generator.random((count, PICTURES)) < skill[:, None]
    accuracy = right.mean(axis=1)
    columns: dict[str, object] = {"run_id": run_ids}
    columns |= {name: [levels.get(name)] * count for name in SETTINGS}
    columns |= {"bias": [bias for bias, _ in members], "seed": [seed for _, seed in members]}
    columns |= dict.fromkeys(("test_accuracy", "test_loss", "train_loss", "validation_accuracy"), accuracy)
    columns["test_correct"] = [bits.tobytes() for bits in np.packbits(right, axis=1)]
    shared = {
        "status": "ok", "parameters": 10, "train_seconds": 0.1, "array_size": count, "device": "cpu",
        "dataset_fingerprint": "0" * 16, "trainer_version": 1, "torch_version": "2.6",
        "finished_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    }  # fmt: skip
    return pa.table(columns | {name: [value] * count for name, value in shared.items()}, schema=RUNS_SCHEMA)


def _curves(run_ids: list[str]) -> pa.Table:
    points = 10
    columns = {
        "run_id": np.repeat(run_ids, points), "step": np.tile(np.arange(1, points + 1) * 10, len(run_ids)),
        "train_loss": np.ones(points * len(run_ids)), "validation_accuracy": np.full(points * len(run_ids), 0.9),
    }  # fmt: skip
    return pa.table(columns, schema=CURVES_SCHEMA)


if __name__ == "__main__":
    sys.exit(main())
