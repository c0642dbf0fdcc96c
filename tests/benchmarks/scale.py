"""How a plan, a store and a launch grow with the number of runs and arrays; exit status 1 where a bound is missed.

    python tests/benchmarks/scale.py [--parts plan store tune] [--most 6] [--arrays 100 1000 3000]

Each figure comes from a process of its own, so that its peak memory is its own. `plan` is `sweep plan --json` as a user
calls it, its few seconds of measuring included. `store` decides what is missing in a store with all but one run. `tune`
is a whole launch, through the same code as any other, of arrays of two of the smallest networks, trained for one step.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

PLAN_SECONDS: Final = 20.0
PLAN_BYTES: Final = 2e9
STORE_SECONDS: Final = 10.0
ARRAY_SECONDS: Final = 0.040
DRIVER_BYTES: Final = 20e3
"""What the driver may grow by for each array, after the first hundred: 20 MB a thousand."""

FILES: Final = 1000


def space(runs: int) -> str:
    """A search space of 10³, 10⁴, … runs, in cells of 2, 4, 8 … seeds."""
    seeds = {10**3: 5, 10**4: 10, 10**5: 20, 10**6: 50}[runs]
    cells = runs // (2 * seeds)
    rates = max(rate for rate in (1, 10, 100) if rate <= cells)
    axes = {
        "learning_rate": [round(0.001 * (1 + index), 6) for index in range(rates)],
        "weight_decay": [round(0.0001 * index, 6) for index in range(cells // rates)],
        "seed": seeds,
    }
    return json.dumps({"name": f"scale-{runs}", "settings": {"width": 4}, "axes": axes})


def trivial(arrays: int) -> str:
    """A search space of so many programs of one pair each, one step on a few pictures."""
    settings = {"dataset": "digits", "width": 1, "depth": 1, "kernel_size": 1, "pooling": "max", "steps": 1}
    axes = {"batch_size": list(range(1, 51)), "hidden": list(range(1, -(-arrays // 50) + 1))}
    return json.dumps({"name": f"trivial-{arrays}", "settings": settings, "axes": axes})


def child(*arguments: object, folder: Path) -> dict[str, Any]:
    """What this file prints as a child, or `sweep` where the first argument says so; with seconds and peak bytes."""
    program = ["-m", "sweep"] if arguments[0] == "sweep" else [__file__, "--child", str(arguments[0])]
    started = time.perf_counter()
    with open(folder / "out", "w+b") as out, open(folder / "err", "w+b") as err:
        running = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments[1:])], stdout=out, stderr=err, cwd=folder
        )
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        out.seek(0)
        said = out.read()
    if running.returncode:
        print((folder / "err").read_text(), file=sys.stderr)
        raise SystemExit(f"{arguments}: exit status {running.returncode}")
    return {"seconds": seconds, "bytes": usage.ru_maxrss * 1024} | json.loads(said.decode().splitlines()[-1])


def fill(path: Path, store: Path) -> None:
    """All rows of a search space but the last, in a thousand files, as launches would have written them."""
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    from sweep import plan
    from sweep.space.runs import DEFAULTS
    from sweep.space.search_space import load
    from sweep.store.tables import RUNS_SCHEMA

    run_ids = plan.run_ids(load(path))[:-1]
    (store / "runs").mkdir(parents=True)
    now, size = datetime.datetime.now(datetime.UTC), -(-len(run_ids) // FILES)
    chosen: dict[str, Any] = DEFAULTS | {"status": "ok", "test_accuracy": 0.5, "validation_accuracy": 0.5}
    chosen |= {"parameters": 1, "train_seconds": 0.1, "array_size": 64, "bias": True}
    chosen |= {"device": "cpu", "dataset_fingerprint": "f" * 16, "trainer_version": 1, "torch_version": "2"}
    chosen |= {"finished_at": now, "seed": 0}
    for number, start in enumerate(range(0, len(run_ids), size)):
        own = run_ids[start : start + size]
        varied = {"run_id": own, "test_correct": [os.urandom(125) for _ in own]}
        columns = [
            pa.array(varied.get(field.name) or [chosen.get(field.name)] * len(own), field.type) for field in RUNS_SCHEMA
        ]
        pq.write_table(pa.table(columns, schema=RUNS_SCHEMA), store / "runs" / f"{number:020x}.parquet")
    print(json.dumps({"rows": len(run_ids)}))


def decide(path: Path, store: Path) -> None:
    """Plans, then decides what is missing; the second is timed by itself."""
    from sweep import plan
    from sweep.space.search_space import load
    from sweep.store.rows import Store

    planned = list(plan.arrays(load(path), "cpu"))
    started = time.perf_counter()
    statuses = Store(store).statuses()
    read = time.perf_counter() - started
    missing = plan.missing(planned, statuses)
    decided = time.perf_counter() - started
    assert sum(map(len, missing)) == 1
    print(json.dumps({"read": read, "decided": decided}))


def launch(path: Path, store: Path) -> None:
    """A launch in this process, whose memory is looked at while it goes on."""
    from rich.console import Console

    from sweep.cluster import driver as launching
    from sweep.data.library import Library
    from sweep.space.search_space import load
    from sweep.store.rows import Store

    seen: list[tuple[int, float, int]] = []
    over = threading.Event()
    started = time.perf_counter()

    def look() -> None:
        page = os.sysconf("SC_PAGESIZE")
        while not over.wait(0.25):
            rows = store / "runs"
            done = sum(1 for _ in os.scandir(rows)) if rows.is_dir() else 0
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            seen.append((done, time.perf_counter() - started, resident))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        with open(os.devnull, "w") as nowhere:
            summary = launching.launch(
                [load(path)], Store(store, once=True), Library(store), Console(file=nowhere)
            ).total
    finally:
        over.set()
        watch.join()
    assert not summary.failed and summary.trained == summary.runs, summary
    import pyarrow.parquet as pq

    table = pq.read_table(store / "runs", columns=["train_seconds"])
    training = sum(table["train_seconds"].to_pylist())
    print(json.dumps({"launch": summary.seconds, "runs": summary.runs, "training": training, "seen": seen}))


def planning(folder: Path, powers: list[int]) -> list[str]:
    """`sweep plan` of 10³ … runs."""
    print("plan: sweep plan --json\n\n| runs | arrays | seconds | peak MB |\n| --- | --- | --- | --- |")
    missed = []
    for runs in (10**power for power in powers):
        (folder / "space.yaml").write_text(space(runs))
        got = child("sweep", "plan", "space.yaml", "--json", "--store", "empty", folder=folder)
        assert got["runs"] == got["to_train"] == runs
        print(f"| {runs:,} | {got['arrays']:,} | {got['seconds']:.1f} | {got['bytes'] / 1e6:.0f} |", flush=True)
        if got["seconds"] > PLAN_SECONDS or got["bytes"] > PLAN_BYTES:
            missed.append(f"a plan of {runs:,} runs: {got['seconds']:.1f} s, {got['bytes'] / 1e6:.0f} MB")
    return missed


def deciding(folder: Path, powers: list[int]) -> list[str]:
    """What is missing in stores of 10³ … rows in 1,000 files, and after they were merged."""
    print(f"\nstore: what is missing, of rows in {FILES:,} files\n")
    print("| rows | reading, s | decided, s | peak MB | sweep compact, s | decided then, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    missed = []
    for runs in (10**power for power in powers):
        (folder / "space.yaml").write_text(space(runs))
        store = folder / f"store-{runs}"
        child("fill", folder / "space.yaml", store, folder=folder)
        got = child("decide", folder / "space.yaml", store, folder=folder)
        merged = child("sweep", "compact", "--json", "--store", store, folder=folder)
        after = child("decide", folder / "space.yaml", store, folder=folder)
        figures = f"{got['read']:.2f} | {got['decided']:.2f} | {got['bytes'] / 1e6:.0f}"
        print(f"| {runs:,} | {figures} | {merged['seconds']:.1f} | {after['decided']:.2f} |", flush=True)
        if got["decided"] > STORE_SECONDS:
            missed.append(f"deciding what is missing of {runs:,} rows: {got['decided']:.1f} s")
    return missed


def tuning(folder: Path, sizes: list[int]) -> list[str]:
    """Launches of more and more arrays of trivial work."""
    print("\ntune: launches of arrays of trivial work\n")
    print("| arrays | seconds | of these training | ms an array | ms, less the start | driver's MB at 10, 50, 100 % |")
    print("| --- | --- | --- | --- | --- | --- |")
    missed = []
    for arrays in sizes:
        (folder / "space.yaml").write_text(trivial(arrays))
        got = child("launch", folder / "space.yaml", folder / f"launched-{arrays}", folder=folder)
        assert got["runs"] == 2 * arrays
        points = {share: next(each for each in got["seen"] if each[0] >= share * arrays) for share in (0.1, 0.5, 0.99)}
        first = next(each for each in got["seen"] if each[0] >= min(100, arrays // 2))
        last = points[0.99]
        apiece = (last[1] - first[1]) / max(1, last[0] - first[0])
        grown = (last[2] - first[2]) / max(1, last[0] - first[0])
        memory = ", ".join(f"{point[2] / 1e6:.0f}" for point in points.values())
        print(
            f"| {arrays:,} | {got['launch']:.1f} | {got['training']:.1f} | {1000 * got['launch'] / arrays:.1f} "
            f"| {1000 * apiece:.1f} | {memory} |",
            flush=True,
        )
        if arrays >= 1000 and apiece > ARRAY_SECONDS:
            missed.append(f"{arrays:,} arrays: {1000 * apiece:.1f} ms each")
        if arrays >= 1000 and grown > DRIVER_BYTES:
            missed.append(f"{arrays:,} arrays: the driver grew by {grown / 1e3:.0f} kB each")
    return missed


def main() -> None:
    """Runs the parts, or, as a child, one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["plan", "store", "tune"], default=["plan", "store", "tune"])
    parser.add_argument("--most", type=int, choices=range(3, 7), default=6, help="powers of ten, of runs and rows")
    parser.add_argument("--arrays", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, path, store = options.child
        {"fill": fill, "decide": decide, "launch": launch}[what](Path(path), Path(store))
        return
    powers = list(range(3, options.most + 1))
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        parts = {
            "plan": lambda: planning(Path(scratch), powers),
            "store": lambda: deciding(Path(scratch), powers),
            "tune": lambda: tuning(Path(scratch), options.arrays),
        }
        missed = list(itertools.chain.from_iterable(parts[part]() for part in options.parts))
    print("\nbounds: " + (f"MISSED: {'; '.join(missed)}" if missed else "all kept"))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
