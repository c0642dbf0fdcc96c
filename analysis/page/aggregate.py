"""Reduces a sweep of more cells than a person can read to groups of cells that share the first factors."""

from typing import Any, Final

from analysis.arm_means import ARMS
from analysis.record import VERDICTS, Record
from analysis.wording import page_notes

MOST_CELLS: Final = 2_000
_FIRST: Final = ("width", "depth", "batch_norm")


def aggregate(cells: list[Record], factors: list[str], most: int = MOST_CELLS) -> tuple[list[Record], list[str], str]:
    """The cells, or at most `most` groups of them; the factors in which these differ; what was done, or "".

    A group's record has the keys `cells` (how many), `pairs` (in all), `effect` and both accuracies (means of its
    cells), `low` and `high` (lowest and highest effect of its cells, no interval) and `verdict`: that of all its cells,
    or `mixed`.
    """
    if len(cells) <= most:
        return cells, factors, ""
    kept = [name for name in _FIRST if name in factors] + [name for name in factors if name not in _FIRST]
    while len(kept) > 1 and len(_groups(cells, kept)) > most:
        kept.pop()
    joined, binned, size = cells, None, 1
    if len(_groups(cells, kept)) > most:  # one axis with very many levels
        binned = kept[0]
        joined, size = _binned(cells, binned, most)
    groups = _groups(joined, kept)
    left = [name for name in factors if name not in kept]
    text = page_notes.grouped(len(cells), len(groups), left, binned, size)
    return [_group(dict(zip(kept, key, strict=True)), part) for key, part in groups.items()], kept, text


def _groups(cells: list[Record], names: list[str]) -> dict[tuple[Any, ...], list[Record]]:
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in names), []).append(cell)
    return groups


def _binned(cells: list[Record], name: str, most: int) -> tuple[list[Record], int]:
    levels = list(dict.fromkeys(cell[name] for cell in cells))
    size = -(-len(levels) // most)
    first = {level: levels[n - n % size] for n, level in enumerate(levels)}
    return [cell | {name: first[cell[name]]} for cell in cells], size


def _group(settings: Record, cells: list[Record]) -> Record:
    effects = _known(cells, "effect")
    verdicts = {cell["verdict"] for cell in cells}
    directions = {cell["direction"] for cell in cells}
    return {
        **settings,
        "cells": len(cells),
        "pairs": sum(cell["pairs"] for cell in cells),
        "effect": _mean(effects),
        "low": min(effects, default=None),
        "high": max(effects, default=None),
        "verdict": verdicts.pop() if len(verdicts) == 1 else "mixed",
        "direction": directions.pop() if len(directions) == 1 else None,
        **{f"accuracy_{arm}": _mean(_known(cells, f"accuracy_{arm}")) for arm in ARMS},
        **{f"cells_{one}": sum(cell["verdict"] == one for cell in cells) for one in VERDICTS},
    }


def _known(cells: list[Record], key: str) -> list[float]:
    return [cell[key] for cell in cells if cell[key] is not None]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
