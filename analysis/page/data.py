"""The data of the page's charts and table: columns of short numbers, never more than a person reads."""

from typing import Any, Final

import pandas as pd

from analysis import arm_means
from analysis.page.aggregate import aggregate
from analysis.record import Record, settings
from analysis.wording import page_notes
from analysis.wording.phrases import capital, describe

MOST_PAIRS: Final = 6_000
MOST_CURVES: Final = 100
MOST_LADDERS: Final = 100
MOST_TUNED: Final = 2_000
_DIGITS: Final = {
    "effect": 3, "low": 3, "high": 3, "bootstrap_low": 3, "bootstrap_high": 3, "rho": 3, "gain": 2, "only_bias": 1,
    "only_no_bias": 1, "seed_spread": 3, "picture_spread": 3,
}  # fmt: skip
_CELL: Final = (
    "pairs effect low high verdict direction verdict_familywise sensitive pairs_needed reason accuracy_bias "
    "accuracy_no_bias rho gain bootstrap_low bootstrap_high only_bias only_no_bias seed_spread picture_spread "
    "diverged_bias diverged_no_bias rate_bias rate_no_bias"
).split()
_GROUP: Final = (
    "cells pairs effect low high verdict direction cells_matters cells_equivalent cells_undecided "
    "accuracy_bias accuracy_no_bias"
).split()


def page_data(verdict: Record, pairs: pd.DataFrame, curves: pd.DataFrame | None) -> tuple[Record, str]:
    """Values for JSON that `page.js` reads, and what was aggregated, if anything was."""
    cells, factors, said = aggregate(verdict["cells"], verdict["factors"])
    columns, tuned = (_GROUP if said else _CELL), verdict["tuned_cells"] or []
    data = {
        "margin": verdict["margin"],
        "confidence": round(100 * verdict["looks"]["confidence_each"], 4),
        "aggregated": bool(said),
        "cells": _table(cells, factors, columns),
        "tuned": _table(tuned[:MOST_TUNED], [name for name in factors if tuned and name in tuned[0]], _CELL),
        "pairs": None if said else _dots(verdict, pairs),
        "curves": _curves(verdict, curves),
        "margins": _margins(verdict),
        "variance": [[one["factor"].replace("_", " "), round(100 * one["share"], 1)] for one in verdict["variance"]],
        "hypotheses": [_hypothesis(one) for one in verdict["hypotheses"]],
    }  # fmt: skip
    return data, " ".join(filter(None, [said, *_left_out(verdict, pairs, data, bool(said))]))


def _left_out(verdict: Record, pairs: pd.DataFrame, data: Record, grouped: bool) -> list[str]:
    """What else the page leaves out as too much to read, and where to find it."""
    ladders = sum(bool(one["margins"]) for one in verdict["thresholds"])
    tuned = len(verdict["tuned_cells"] or [])
    lines = []
    if not grouped and data["pairs"] is None:
        lines.append(page_notes.no_dots(len(pairs)))
    if len(data["curves"]) == MOST_CURVES < len(verdict["cells"]):
        lines.append(page_notes.first_curves(MOST_CURVES))
    if ladders > MOST_LADDERS:
        lines.append(page_notes.first_thresholds(MOST_LADDERS, ladders))
    if tuned > MOST_TUNED:
        lines.append(page_notes.first_tuned(MOST_TUNED, tuned))
    return lines


def _table(cells: list[Record], factors: list[str], columns: list[str]) -> Record:
    """`factors`: names; `levels`: by factor, as they come; `columns`; `rows`: an index per factor, then values."""
    columns = [name for name in columns if cells and any(cell.get(name) is not None for cell in cells)]
    levels = {name: list(dict.fromkeys(cell[name] for cell in cells)) for name in factors}
    places = {name: {level: n for n, level in enumerate(own)} for name, own in levels.items()}
    rows = [
        [*(places[name][cell[name]] for name in factors), *(_rounded(name, cell.get(name)) for name in columns)]
        for cell in cells
    ]
    return {"factors": factors, "levels": list(levels.values()), "columns": columns, "rows": rows}


def _rounded(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return round(100 * value, 3) if name.startswith("accuracy") else round(value, _DIGITS.get(name, 6))
    return value


def _dots(verdict: Record, pairs: pd.DataFrame) -> list[list[Any]] | None:
    """One entry per cell, in order: seeds, accuracies with and without bias in percent, whether a run diverged."""
    if len(pairs) > MOST_PAIRS:
        return None
    names = verdict["factors"]
    found = arm_means.by_cell(pairs, names)
    return [_seeds(found.get(arm_means.key(cell, names))) for cell in verdict["cells"]]


def _seeds(part: pd.DataFrame | None) -> list[Any]:
    if part is None:
        return [[], [], [], []]
    bad = (part["status_bias"] == "diverged") | (part["status_no_bias"] == "diverged")
    shares = [(100 * part[f"accuracy_{arm}"]).round(3).tolist() for arm in ("bias", "no_bias")]
    return [part["seed"].tolist(), *shares, bad.astype(int).tolist()]


def _curves(verdict: Record, curves: pd.DataFrame | None) -> list[Record]:
    if curves is None:
        return []
    names, found = verdict["factors"], []
    known = arm_means.by_arm(curves, names)
    for cell in verdict["cells"]:
        parts = [known[at] for arm in arm_means.ARMS if (at := (*arm_means.key(cell, names), arm)) in known]
        if len(parts) == len(arm_means.ARMS):
            name = capital(describe(settings(cell))) or "All runs"
            found.append({"cell": name, "arms": [_points(one) for one in parts]})
        if len(found) == MOST_CURVES:
            break
    return found


def _points(part: pd.DataFrame) -> list[list[Any]]:
    """Steps, runs, means, lows, highs; null where a single run has no interval."""
    keys = ("mean", "low", "high")
    numbers = [[None if one != one else round(one, 2) for one in part[key].tolist()] for key in keys]
    return [part["step"].tolist(), part["n"].tolist(), *numbers]


def _margins(verdict: Record) -> list[Record]:
    records = [one for one in verdict["thresholds"] if one["margins"]][:MOST_LADDERS]
    return [
        {
            "name": capital(", ".join(filter(None, [describe(settings(one)), f"along {one['axis']}"]))),
            "axis": one["axis"],
            "levels": one["levels"],
            "ladder": [[step["margin"], step["matters_up_to"], step["equivalent_from"]] for step in one["margins"]],
        }
        for one in records
    ]


def _hypothesis(one: Record) -> list[Any]:
    numbers = [None if one[key] is None else round(one[key], 4) for key in ("estimate", "low", "high")]
    return [one["claim"], one["contrast"], one["unit"], *numbers, one["seeds"], one["verdict"], one["reason"]]
