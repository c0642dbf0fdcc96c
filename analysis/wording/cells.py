"""Sentences about a cell, and about the bracket that the cells of an axis form."""

from typing import Any, Final

from analysis.record import FEWEST_PAIRS, Record, settings
from analysis.wording.phrases import capital, describe, levels, percent, signed

_ENDS: Final = {"width": ("narrowest", "widest", "narrower"), "depth": ("shallowest", "deepest", "shallower")}


def sentence(cell: Record) -> str:
    """Where a cell is, its verdict, and what was measured."""
    where = describe(settings(cell))
    said = {
        "matters": f"bias {cell['direction']} by more than the margin",
        "equivalent": "bias changes accuracy by less than the margin",
        "undecided": "whether bias matters is undecided",
    }[cell["verdict"]]
    measured = "no pair" if cell["effect"] is None else f"{signed(cell['effect'])} points"
    if cell["low"] is not None:
        measured += f", {signed(cell['low'])} to {signed(cell['high'])}"
    why = f"; {cell['reason']}" if cell["reason"] else ""
    return capital(f"{where + ': ' if where else ''}{said} ({measured}, {cell['pairs']} pairs{why}).")


def said_verdict(cell: Record) -> str:
    """The verdict, with its direction where it has one."""
    return f"{cell['verdict']} ({cell['direction']})" if cell["direction"] else str(cell["verdict"])


def with_reasons(cells: list[Record]) -> list[Record]:
    """The cells with their `reason`."""
    return [{**cell, "reason": reason(cell)} for cell in cells]


def reason(cell: Record) -> str | None:
    """Why no verdict can be given, where there is a reason other than chance."""
    if cell["pairs"] < FEWEST_PAIRS:
        return f"fewer than {FEWEST_PAIRS} pairs ({cell['pairs']})"
    if cell.get("limit"):
        where = {"ceiling": "at the ceiling", "chance": "as by chance, where no network has learned anything"}
        return f"all accuracies are {percent(cell['accuracy_bias'])}, {where[cell['limit']]}: none could differ"
    if cell["verdict"] == "undecided" and cell["pairs_needed"] is None:
        return "the estimate lies at the margin, where no number of pairs would settle it"
    return None


def statement(bracket: Record, line: list[Record], margin: float, confidence: float) -> str:
    """One sentence: both ends of a bracket, what is undecided between them, and where bias matters again.

    `line` holds the cells behind the bracket, ordered along its axis.
    """
    axis, others = bracket["axis"], settings(bracket)
    where = f"{describe(others)}, " if others else ""
    said = _ends(axis, line, bracket)
    unit = "point" if margin == 1 else "points"
    sentence = capital(f"{where}bias {said} (margin {margin:g} {unit}, {percent(confidence)})")
    up_to, on_from = bracket["matters_up_to"], bracket["equivalent_from"]
    between = [
        cell for cell in line if (up_to is None or cell[axis] > up_to) and (on_from is None or cell[axis] < on_from)
    ]
    again = [cell[axis] for cell in between if cell["verdict"] == "matters"]
    unknown = [cell[axis] for cell in between if cell["verdict"] != "matters"]
    if unknown:
        sentence += f"; {levels(axis, unknown)} {'is' if len(unknown) == 1 else 'are'} undecided"
    for limit, why in {"ceiling": "the ceiling", "chance": "chance"}.items():
        same = [cell[axis] for cell in line if cell.get("limit") == limit]
        if same:
            sentence += f"; at {levels(axis, same)} every run is at {why}, where nothing can differ"
    if again:
        sentence += f"; the effect is not monotone: bias matters at {levels(axis, again)}"
    return sentence + "."


def _ends(axis: str, line: list[Record], bracket: Record) -> str:
    first, last = line[0][axis], line[-1][axis]
    narrowest, widest, narrower = _ENDS[axis]
    up_to, on_from = bracket["matters_up_to"], bracket["equivalent_from"]
    matters = f"matters ({_directions(axis, line, up_to)})"
    if on_from == first:
        return f"is already equivalent at the {narrowest} level tested, {axis} {first}"
    if up_to == last:
        also = f", and at every {narrower} one" if len(line) > 1 else ""
        return f"still {matters} at the {widest} level tested, {axis} {last}{also}"
    if up_to is not None and on_from is not None:
        return f"{matters} up to {axis} {up_to} and is equivalent from {axis} {on_from} on"
    if up_to is not None:
        return f"{matters} up to {axis} {up_to} and is not shown equivalent at the {widest} level tested"
    if on_from is not None:
        return f"is equivalent from {axis} {on_from} on and not shown to matter at the {narrowest} level tested"
    return f"is shown neither to matter at the {narrowest} level tested nor to be equivalent at the {widest}"


def _directions(axis: str, line: list[Record], up_to: Any) -> str:
    shown = [cell["direction"] for cell in line if up_to is not None and cell[axis] <= up_to]
    return " and ".join(dict.fromkeys(shown))
