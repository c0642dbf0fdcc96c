"""The table of array sizes, `sweep/saturation.json`, from what the section `sizes` has found on a GPU."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from trainer import WRITTEN, chosen, format_table, merged

from sweep import plan

Rates = dict[tuple[int, plan.MethodName], float]
"""Model-steps a second by array size and method."""


class Unusable(Exception):
    """Results that no table can be made of."""


def rates(found: dict[str, Any]) -> dict[int, Rates]:
    """The rates of each width; what did not come out is left out."""
    by_width: dict[int, Rates] = defaultdict(dict)
    for record in found.get("sections", {}).get("sizes", {}).get("results", []):
        if record["value"] is not None:
            by_width[record["width"]][record["runs"], record["method"]] = record["value"]
    return dict(by_width)


def measured_sizes(found: dict[str, Any]) -> dict[int, tuple[int, plan.MethodName]]:
    """The array size and method that the table's rule chooses at each width that was measured."""
    return {width: chosen(by_way) for width, by_way in rates(found).items()}


def remade(table: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The table with its part for GPUs made anew; widths that were not measured stay as they are.

    Raises `Unusable` where nothing was measured on a GPU.
    """
    if found.get("kind") != "cuda":
        raise Unusable("these results were measured on a CPU: they say nothing of a GPU's array sizes")
    sizes = measured_sizes(found)
    if not sizes:
        raise Unusable("these results have no rates of array sizes: the section `sizes` found none")
    known = [plan.Saturation(**row) for row in table["cuda"]["rows"]]
    rows = {width: next(row for row in known if width <= row.width) for width in WRITTEN}
    rows |= {width: plan.Saturation(width, method, size) for width, (size, method) in sizes.items()}
    versions = found["versions"]
    measured = f"{found['device']}, torch {versions['torch']}, Triton {versions['triton']}, {found['date']}"
    if not sizes.keys() >= set(WRITTEN):
        measured = f"{table['cuda']['measured']}; width {', '.join(map(str, sorted(sizes)))}: {measured}"
    return {**table, "cuda": {"measured": measured, "rows": merged(rows)}}


def write(results: Path) -> None:
    """Rewrites `sweep/saturation.json`. Raises `Unusable`, also where `results` is no file of the kit."""
    try:
        found = json.loads(results.read_text())
    except (OSError, ValueError) as error:
        raise Unusable(f"{results}: {error}") from error
    table = remade(json.loads(plan.TABLE.read_text()), found)
    plan.TABLE.write_text(format_table(table))
