"""How fast arrays train, by width, size and method, beside the same networks trained otherwise, and beside what the
device could do at most. All of it in one go, as tables.

    python tests/benchmarks/trainer.py [--kind native] [--widths 1 4 16 64] [--seconds 3] [--variants] [--write]

Numbers are model-steps a second: steps of one network on 16 pictures, of all networks together. On a CPU every column
but "alone" uses all cores, by one process a core with one thread each; on a GPU one process trains the array, and 16
share it. "Alone" and "processes" train the network as a user would write it: `torch.nn`, `torch.optim`, one network a
process.

A CPU with the native kernels shows them beside the grouped convolutions of PyTorch, with and without batch norm, in
rounds in which all take turns. There "fused" is the one of both that plans choose. `--kind cpu` measures the grouped
ones as on a machine without the kernels.

`--variants` measures batch norm, dropout and AdamW beside the plain recipe; `--write` measures every size and method
and rewrites this device's part of sweep/saturation.json by the rules that `chosen` and `long_enough` state, for the
widths that are named alone if any are: an array's size rounds, so that rows of other widths come out as they did.
On a GPU it looks at each size and method briefly, and twice at those that come near the best. The native part ends
with the last width at which native arrays are faster than grouped ones.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from rates import (
    BRIEF,
    RECIPE,
    SHARED,
    STEPS,
    Way,
    brief_rates,
    device_of,
    fused_rate,
    fused_rates,
    graph_rate,
    needs,
    peaks,
    plain_rate,
    print_row,
    together,
    usual,
)
from rounds import Arithmetic, Contestant, Found, Fused, Plain, measure

from sweep import plan
from sweep.common.host import cores
from sweep.networks.conv.backends import has_triton
from sweep.networks.conv.native import costs
from sweep.networks.conv.native.library import is_here
from sweep.networks.conv.shape import Shape
from sweep.space.runs import Run
from sweep.training.device import device_name, local_device

SIZES: dict[str, tuple[int, ...]] = {
    "cpu": (2, 4, 8, 16, 32, 64, 128),
    "native": (16, 32, 64, 128),
    "cuda": (2, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096),
}
WRITTEN = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Widths that the table of array sizes is made of."""
ENOUGH = 2.0
"""Seconds of training beside which what an array costs a launch, some hundredths, is little."""
SHOWN: dict[str, list[int]] = {
    "cpu": [1, 4, 16, 64, 256],
    "native": [1, 2, 4, 8, 16, 32, 64],
    "cuda": [1, 4, 16, 64, 256],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch norm": {"batch_norm": True},
    "dropout": {"dropout": 0.5},
    "AdamW": {"optimizer": "adamw", "learning_rate": 0.001},
    "momentum": {"momentum": 0.9},
    "all": {"batch_norm": True, "dropout": 0.5, "optimizer": "adamw", "learning_rate": 0.001},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=plan.SATURATION, help="what arrays are planned for; default: the best here")
    parser.add_argument("--widths", type=int, nargs="+", help="powers of two with --write")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="of ways that take turns")
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    kind: plan.DeviceKind = given.kind or best_kind()
    device = device_name(device_of(kind))
    print(f"{device}, {cores()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n", flush=True)
    if given.write:
        write(kind, given.widths or list(WRITTEN), given.seconds, given.rounds)
    elif kind == "native":
        show_native = print_native_variants if given.variants else print_native_tables
        show_native(given.widths or SHOWN[kind], given.seconds, given.rounds)
    else:
        show = print_variants if given.variants else print_table
        show(kind, given.widths or SHOWN[kind], given.seconds)


def best_kind() -> plan.DeviceKind:
    """What this machine's arrays are planned for."""
    return "native" if local_device() == "cpu" and is_here() else local_device()


def print_table(kind: plan.DeviceKind, widths: list[int], seconds: float) -> None:
    processes = cores() if kind == "cpu" else 1
    arithmetic, memory = together(peaks, processes, kind, seconds)
    graph = ["alone, CUDA graph"] if kind == "cuda" else []
    titles = ["width", "method", "runs", "fused", "alone", *graph, f"{SHARED[kind]} processes"]
    titles += ["fused / alone", "fused / processes", "arithmetic allows", "main memory allows"]
    print_row(titles)
    print_row(["---"] * len(titles))
    for width in widths:
        run = dataclasses.replace(RECIPE, width=width)
        size, method = usual(run, kind)
        # Twice, one after the other, since machines speed up and slow down.
        rounds = []
        for _ in range(2):
            [fused] = together(fused_rate, processes, kind, run, size, method, seconds)
            [alone] = together(plain_rate, 1, kind, run, seconds)
            graphs = together(graph_rate, 1, run, seconds) if graph else []
            [shared] = together(plain_rate, SHARED[kind], kind, run, seconds)
            rounds.append([fused, alone, *graphs, shared])
        best = [max(rates) for rates in zip(*rounds, strict=True)]
        fused, alone, shared = best[0], best[1], best[-1]
        flops, traffic = needs(run)
        ratios = [f"{fused / alone:.1f}", f"{fused / shared:.2f}"]
        ceilings = [f"{arithmetic / flops:,.0f}", f"{memory / traffic:,.0f}"]
        rates = [f"{rate:,.0f}" for rate in best]
        print_row([width, method, size, *rates, *ratios, *ceilings])


def print_variants(kind: plan.DeviceKind, widths: list[int], seconds: float) -> None:
    processes = cores() if kind == "cpu" else 1
    print_row(["width", "runs", *VARIANTS])
    print_row(["---"] * (2 + len(VARIANTS)))
    for width in widths:
        rates = []
        size, method = usual(dataclasses.replace(RECIPE, width=width), kind)
        for settings in VARIANTS.values():
            run = dataclasses.replace(RECIPE, width=width, **settings)
            rates += together(fused_rate, processes, kind, run, size, method, seconds)
        print_row([width, size, *(f"{rate:,.0f} ({rate / rates[0]:.2f})" for rate in rates)])


def print_native_tables(widths: list[int], seconds: float, rounds: int) -> None:
    """Native and grouped arrays in turns: plain ones beside plain processes and ceilings, and those with batch norm."""
    _, memory = together(peaks, cores(), "native", seconds)
    titles = ["width", "native runs", "native", "grouped runs", "grouped", "native / grouped"]
    more = ["fused", f"{cores()} processes", "fused / processes", "arithmetic allows", "main memory allows"]
    print_row([*titles, *more])
    print_row(["---"] * len([*titles, *more]))
    for width in widths:
        run = dataclasses.replace(RECIPE, width=width)
        cells, found = compared(run, seconds, rounds, Plain(run), Arithmetic())
        method = usual(run, "native")[1]
        flops, traffic = needs(run)
        fused = 0 if method == "native" else 1
        cells += [method, f"{found.rate(2):,.0f}", f"{found.ratio(fused, 2):.1f}"]
        print_row([*cells, f"{found.rate(3) / flops:,.0f}", f"{memory / traffic:,.0f}"])
    print("\nWith batch norm:\n")
    print_row(titles)
    print_row(["---"] * len(titles))
    for width in widths:
        print_row(compared(dataclasses.replace(RECIPE, width=width, batch_norm=True), seconds, rounds)[0])


def compared(run: Run, seconds: float, rounds: int, *others: Contestant) -> tuple[list[Any], Found]:
    """A row of native arrays (contestant 0) and grouped ones (1) of `run`, and all rates, also those of `others`."""
    size, (grouped_size, grouped) = native_size(run), usual(run, "cpu")
    ways = [Fused(run, size, "native"), Fused(run, grouped_size, grouped)]
    found = measure([*ways, *others], rounds, seconds)
    rates = [f"{found.rate(0):,.0f}", grouped_size, f"{found.rate(1):,.0f}"]
    return [run.width, size, *rates, f"{found.ratio(0, 1):.2f}"], found


def native_size(run: Run) -> int:
    """The size of native arrays, also at widths at which plans choose grouped ones."""
    size, method = usual(run, "native")
    return size if method == "native" else min(SIZES["native"])


def print_native_variants(widths: list[int], seconds: float, rounds: int) -> None:
    """Rates of native arrays; in brackets their share of the plain rate, and their ratio to grouped ones'."""
    print_row(["width", "runs", *VARIANTS])
    print_row(["---"] * (2 + len(VARIANTS)))
    for width in widths:
        run, count = dataclasses.replace(RECIPE, width=width), len(VARIANTS)
        variants = [dataclasses.replace(run, **settings) for settings in VARIANTS.values()]
        size, (grouped_size, grouped) = native_size(run), usual(run, "cpu")
        ways = [Fused(variant, size, "native") for variant in variants]
        ways += [Fused(variant, grouped_size, grouped) for variant in variants]
        found = measure(ways, rounds, seconds)
        shares = [f"{found.ratio(n, 0):.2f}; {found.ratio(n, n + count):.1f}" for n in range(count)]
        print_row([width, size, *(f"{found.rate(n):,.0f} ({share})" for n, share in enumerate(shares))])


def write(kind: plan.DeviceKind, widths: list[int], seconds: float, rounds: int) -> None:
    """Measures every size and method at these widths, and rewrites them in the table of this kind of device."""
    table = json.loads(plan.TABLE.read_text())
    found = {width: next((row for row in plan.SATURATION[kind] if width <= row.width), None) for width in WRITTEN}
    for width in sorted(widths):
        by_way = rates_by_way(kind, dataclasses.replace(RECIPE, width=width), seconds, rounds)
        print(f"width {width}:", ", ".join(f"{m} {n}: {rate:,.0f}" for (n, m), rate in by_way.items()), flush=True)
        found[width] = best_row(kind, width, by_way)
        if found[width] is None:
            break
    measured = f"{device_name(device_of(kind))}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    if set(widths) != set(WRITTEN):
        measured = f"{table[kind]['measured']}; width {', '.join(map(str, widths))}: {measured}"
    table[kind] = {"measured": measured, "rows": merged(found)}
    plan.TABLE.write_text(format_table(table))
    print(f"written: {plan.TABLE}")


def rates_by_way(kind: plan.DeviceKind, run: Run, seconds: float, rounds: int) -> dict[Way, float]:
    """The rates of every size and method that plans may choose; for native arrays, that of the grouped one, too."""
    if kind == "native":
        ways: list[Way] = [*((size, "native") for size in fitting(kind, run)), usual(run, "cpu")]
        found = measure([Fused(run, *way) for way in ways], rounds, seconds)
        return {way: found.rate(place) for place, way in enumerate(ways)}
    methods: list[plan.MethodName] = ["grouped"]
    if kind == "cuda":
        methods += ["triton", "im2col"] if has_triton() else ["im2col"]
    ways = [(size, method) for method in methods for size in fitting(kind, run)]
    if kind == "cpu":
        rates = together(fused_rates, cores(), kind, run, ways, seconds)
    else:
        rates = together(brief_rates, 1, kind, run, ways, BRIEF * seconds)
    return {way: rate for way, rate in zip(ways, rates, strict=True) if rate}


def fitting(kind: plan.DeviceKind, run: Run) -> list[int]:
    """Sizes within memory, and on a CPU within what is worth a try; the smallest always."""
    shape, smallest = Shape.of(run, (1, 28, 28), 10), min(SIZES[kind])
    if kind == "native":  # as plans limit them
        long = dataclasses.replace(run, steps=STEPS)
        most = min(costs.most_runs(run, shape, plan.MEMORY[kind]), plan.LONGEST[kind] // costs.work(long, shape))
        return [size for size in SIZES[kind] if size <= max(smallest, most)]
    most = plan.MEMORY[kind] // plan.array_bytes(run, shape)
    if kind == "cpu":  # larger ones were never faster there, and take long to try
        most = min(most, 256 // run.width)
    return [size for size in SIZES[kind] if size <= max(smallest, most)]


def best_row(kind: plan.DeviceKind, width: int, rates: dict[Way, float]) -> plan.Saturation | None:
    """The row of the way that is chosen; None where a native one is asked for and grouped arrays are faster."""
    if kind == "native":
        native = {way: rate for way, rate in rates.items() if way[1] == "native"}
        if max(native.values()) < max(rates.values()):
            return None
        return plan.Saturation(width, "native", long_enough(native))
    size, method = chosen(rates)
    return plan.Saturation(width, method, size)


def long_enough(rates: dict[Way, float]) -> int:
    """The smallest array that trains for `ENOUGH` seconds on a core, else the largest: native ones are all as fast."""
    enough = [size for (size, _), rate in rates.items() if size * STEPS * cores() >= ENOUGH * rate]
    return min(enough, default=max(size for size, _ in rates))


def merged(found: Mapping[int, plan.Saturation | None]) -> list[dict[str, Any]]:
    """One row for neighbouring widths that are computed alike, of which it names the last.

    The rows end before the first width that has none; where all have one, the last row has no end.
    """
    rows: list[dict[str, Any]] = []
    for width, row in sorted(found.items()):
        if row is None:
            return rows
        if rows and (rows[-1]["method"], rows[-1]["runs"]) == (row.method, row.runs):
            rows[-1]["width"] = width
        else:
            rows.append({"width": width, "method": row.method, "runs": row.runs})
    rows[-1]["width"] = 1024
    return rows


def chosen(rates: dict[Way, float]) -> Way:
    """The smallest array within 5 % of the best: larger ones are only longer."""
    best = max(rates.values())
    return min(key for key, rate in rates.items() if rate >= 0.95 * best)


def format_table(table: dict[str, Any]) -> str:
    """JSON with one row a line."""
    parts = []
    for kind, part in table.items():
        rows = ",\n".join(f"      {json.dumps(row)}" for row in part["rows"])
        parts.append(
            f'  "{kind}": {{\n    "measured": {json.dumps(part["measured"])},\n    "rows": [\n{rows}\n    ]\n  }}'
        )
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
