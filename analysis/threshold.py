"""From cells to brackets: up to which width or depth bias matters, and from which on it is equivalent.

Both ends are fixed sequences, tested from the end of the axis inwards and stopped at the first failure, so
that no correction is owed inside one axis (Maurer, Hothorn and Lehmacher 1995).
"""

from typing import Any, Final

from analysis.effects import Record, settings
from analysis.verdicts import FEWEST_PAIRS, check_levels
from analysis.wording import capital, describe, levels, percent

AXES: Final = ("width", "depth")
_ENDS: Final = {"width": ("narrowest", "widest", "narrower"), "depth": ("shallowest", "deepest", "shallower")}


def thresholds(cells: list[Record], margin: float, confidence: float) -> list[Record]:
    """One record per axis that varies and per combination of the other settings that do.

    Keys: those settings, `axis`, `levels` (tested, ascending), `matters_up_to`, `equivalent_from` (levels or
    null), `monotone`, both ends again as `*_familywise` (null), and `statement`, one sentence. The intervals
    are the cells' own: `margin` and `confidence` must be those that the cells were judged with.
    """
    check_levels(margin, confidence)
    records: list[Record] = []
    for axis in AXES:
        if len({cell[axis] for cell in cells if axis in cell}) < 2:
            continue
        for others, line in along(cells, axis):
            bracket = _bracket(axis, line, margin)
            sentence = _statement(others, axis, line, bracket, margin, confidence)
            records.append({**others, "axis": axis, **bracket, "statement": sentence})
    return records


def along(cells: list[Record], axis: str) -> list[tuple[Record, list[Record]]]:
    """The cells of every combination of the other settings, after those; each ordered along the axis."""
    lines: dict[tuple[Any, ...], list[Record]] = {}
    for cell in cells:
        others = {name: value for name, value in settings(cell).items() if name != axis}
        lines.setdefault(tuple(others.items()), []).append(cell)
    return [(dict(others), sorted(line, key=lambda cell: cell[axis])) for others, line in lines.items()]


def _bracket(axis: str, line: list[Record], margin: float) -> Record:
    matters = _leading([cell["verdict"] == "matters" for cell in line])
    equivalent = _leading([_inside(cell, margin) for cell in reversed(line)])
    tested = [cell[axis] for cell in line]
    return {
        "levels": tested,
        "matters_up_to": tested[matters - 1] if matters else None,
        "equivalent_from": tested[-equivalent] if equivalent else None,
        "monotone": all(cell["verdict"] != "matters" for cell in line[matters:]),
        "equivalent_from_familywise": None,
        "matters_up_to_familywise": None,
    }


def _leading(passed: list[bool]) -> int:
    return next((count for count, one in enumerate(passed) if not one), len(passed))


def _inside(cell: Record, margin: float) -> bool:
    """The wider, two-sided interval: it keeps both ends of the bracket together at 1 - alpha."""
    if cell["pairs"] < FEWEST_PAIRS or cell["low"] is None:
        return False
    return bool(-margin < cell["low"] and cell["high"] < margin)


def _statement(others: Record, axis: str, line: list[Record], bracket: Record, margin: float, confidence: float) -> str:
    where = f"{describe(others)}, " if others else ""
    said = _ends(axis, line, bracket)
    sentence = capital(f"{where}bias {said} (margin {margin:g} points, {percent(confidence)})")
    up_to, on_from = bracket["matters_up_to"], bracket["equivalent_from"]
    between = [
        cell for cell in line if (up_to is None or cell[axis] > up_to) and (on_from is None or cell[axis] < on_from)
    ]
    again = [cell[axis] for cell in between if cell["verdict"] == "matters"]
    unknown = [cell[axis] for cell in between if cell["verdict"] != "matters"]
    if unknown:
        sentence += f"; {levels(axis, unknown)} {'is' if len(unknown) == 1 else 'are'} undecided"
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
