"""How fast arrays train, by width, size and method, beside the same network alone, beside processes that share the
device, and beside what the device could do at most. All of it in one go, as one table.

    python tests/benchmarks/trainer.py [--widths 1 4 16 64 256] [--seconds 3] [--variants] [--write]

Numbers are model-steps a second: steps of one network on 16 pictures, of all networks together. "Alone" and "processes"
train the network as a user would write it: `torch.nn`, `torch.optim`, one network a process. On the CPU every column
but "alone" uses all cores, by one process a core with one thread each; on a GPU one process trains the array, and 16
share it.

`--variants` measures batch norm, dropout and AdamW beside the plain recipe; `--write` measures every size and method
and rewrites this device's part of sweep/saturation.json by the rule that `chosen` states, for the widths that are named
alone if any are: an array's size rounds, so that rows of other widths come out as they did. On a GPU it looks at each
size and method briefly, and twice at those that come near the best.
"""

import argparse
import dataclasses
import json
import time
from typing import Any

import torch
from rates import (
    BRIEF,
    RECIPE,
    SHARED,
    Way,
    brief_rates,
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

from sweep import plan
from sweep.common.host import cores
from sweep.networks.conv.backends import has_triton
from sweep.networks.conv.shape import Shape
from sweep.training.device import device_name, local_device

SIZES: dict[str, tuple[int, ...]] = {
    "cpu": (2, 4, 8, 16, 32, 64, 128),
    "cuda": (2, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096),
}
WRITTEN = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Widths that the table of array sizes is made of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", help="powers of two with --write")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    kind = local_device()
    print(f"{device_name(kind)}, {cores()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n", flush=True)
    if given.write:
        write(kind, given.widths or list(WRITTEN), given.seconds)
    else:
        show = print_variants if given.variants else print_table
        show(kind, given.widths or [1, 4, 16, 64, 256], given.seconds)


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
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "batch norm": {"batch_norm": True},
        "dropout": {"dropout": 0.5},
        "AdamW": {"optimizer": "adamw", "learning_rate": 0.001},
        "momentum": {"momentum": 0.9},
        "all": {"batch_norm": True, "dropout": 0.5, "optimizer": "adamw", "learning_rate": 0.001},
    }
    print_row(["width", "runs", *variants])
    print_row(["---"] * (2 + len(variants)))
    for width in widths:
        rates = []
        size, method = usual(dataclasses.replace(RECIPE, width=width), kind)
        for settings in variants.values():
            run = dataclasses.replace(RECIPE, width=width, **settings)
            rates += together(fused_rate, processes, kind, run, size, method, seconds)
        print_row([width, size, *(f"{rate:,.0f} ({rate / rates[0]:.2f})" for rate in rates)])


def write(kind: plan.DeviceKind, widths: list[int], seconds: float) -> None:
    """Measures every size and method at these widths, and rewrites them in the table of this kind of device."""
    methods: list[plan.MethodName] = ["grouped"]
    if kind == "cuda":
        methods += ["triton", "im2col"] if has_triton() else ["im2col"]
    table = json.loads(plan.TABLE.read_text())
    found = {width: next(row for row in plan.SATURATION[kind] if width <= row.width) for width in WRITTEN}
    for width in widths:
        run = dataclasses.replace(RECIPE, width=width)
        shape = Shape.of(run, (1, 28, 28), 10)
        fitting = [n for n in SIZES[kind] if n == 2 or n * plan.array_bytes(run, shape) <= plan.MEMORY[kind]]
        if kind == "cpu":  # larger ones were never faster there, and take long to try
            fitting = [n for n in fitting if n == 2 or n * width <= 256]
        ways = [(size, method) for method in methods for size in fitting]
        if kind == "cpu":
            rates = together(fused_rates, cores(), kind, run, ways, seconds)
        else:
            rates = together(brief_rates, 1, kind, run, ways, BRIEF * seconds)
        by_way = {way: rate for way, rate in zip(ways, rates, strict=True) if rate}
        print(f"width {width}:", ", ".join(f"{m} {n}: {rate:,.0f}" for (n, m), rate in by_way.items()), flush=True)
        size, method = chosen(by_way)
        found[width] = plan.Saturation(width, method, size)
    measured = f"{device_name(kind)}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    if set(widths) != set(WRITTEN):
        measured = f"{table[kind]['measured']}; width {', '.join(map(str, widths))}: {measured}"
    table[kind] = {"measured": measured, "rows": merged(found)}
    plan.TABLE.write_text(format_table(table))
    print(f"written: {plan.TABLE}")


def merged(found: dict[int, plan.Saturation]) -> list[dict[str, Any]]:
    """One row for neighbouring widths that are computed alike, of which it names the last; the last row has no end."""
    rows: list[dict[str, Any]] = []
    for width, row in sorted(found.items()):
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
