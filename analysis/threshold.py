"""From cells to brackets: up to which width or depth bias matters, and from which on it is equivalent.

Each end is a fixed sequence of tests, from that end of the axis inwards, stopped at the first failure, so
that no correction is needed within one axis (Maurer, Hothorn and Lehmacher 1995).
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.judging import Counts, Floats, check_levels, decide, rescaled
from analysis.record import FEWEST_PAIRS, Record, settings

AXES: Final = ("width", "depth")
LADDER: Final = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Margins, in points, at which every bracket is repeated, besides the margin itself."""


class _Line(NamedTuple):
    """The cells of one combination of the other settings, by index, ordered along the axis."""

    axis: str
    others: Record
    places: list[int]


class _Intervals(NamedTuple):
    """The two-sided interval of every cell; NaN where no verdict may be given."""

    low: Floats
    high: Floats

    def matters(self, margin: float | Floats) -> NDArray[np.bool_]:
        return (self.low > margin) | (self.high < -margin)

    def equivalent(self, margin: float | Floats) -> NDArray[np.bool_]:
        """By the wider, two-sided interval: it keeps both ends of the bracket together at 1 - alpha."""
        return (self.low > -margin) & (self.high < margin)


def thresholds(cells: list[Record], margin: float, confidence: float) -> list[Record]:
    """One record per axis that varies and combination of the other settings that vary.

    Keys: those settings, `axis`, `levels` (tested, ascending), `matters_up_to`, `equivalent_from` (levels or null),
    `monotone`, both ends again as `*_familywise` (alpha divided by the number of records), and `margins` (both ends
    again for each margin of `LADDER` and for `margin`, ascending). The intervals are the cells' own: `margin` and
    `confidence` must be those that the cells were judged with.
    """
    check_levels(margin, confidence)
    lines = _lines(cells)
    ladder = sorted({*LADDER, margin})
    plain, together = _intervals(cells), _intervals_together(cells, confidence, len(lines))
    by_margin = np.array(ladder)[:, None]
    passed, together_passed = (
        (one.matters(by_margin), one.equivalent(by_margin)) for one in (plain, together)
    )  # [margins, cells] each
    here = ladder.index(margin)
    records: list[Record] = []
    for line in lines:
        tested = [cells[place][line.axis] for place in line.places]
        ends = _brackets(tested, passed[0][:, line.places], passed[1][:, line.places])
        (familywise,) = _brackets(
            tested, together_passed[0][here : here + 1, line.places], together_passed[1][here : here + 1, line.places]
        )
        up_to, on_from = ends[here]
        matter = passed[0][here, line.places]
        bracket = {
            "levels": tested,
            "matters_up_to": up_to,
            "equivalent_from": on_from,
            "monotone": not matter[_leading(matter[None])[0] :].any(),
            "equivalent_from_familywise": familywise[1],
            "matters_up_to_familywise": familywise[0],
            "margins": [
                {"margin": float(one), "matters_up_to": end[0], "equivalent_from": end[1]}
                for one, end in zip(ladder, ends, strict=True)
            ],
        }
        records.append({**line.others, "axis": line.axis, **bracket})
    return records


def lines(cells: list[Record]) -> list[list[Record]]:
    """The cells behind each record of `thresholds`, in the same order; each list is ordered along its axis."""
    return [[cells[place] for place in line.places] for line in _lines(cells)]


def familywise(cells: list[Record], margin: float, confidence: float) -> list[Record]:
    """The cells with their `verdict_familywise`: claims that hold for all cells at once with this confidence.

    A cell `matters` up to the `matters_up_to_familywise` of any of its axes, and is `equivalent` from the
    `equivalent_from_familywise` of any of them on; all others are undecided. Where neither width nor depth varies,
    every cell is judged at alpha divided by the number of cells.
    """
    lines = _lines(cells)
    verdicts = np.full(len(cells), "undecided", dtype=object)
    together = _intervals_together(cells, confidence, len(lines) or len(cells))
    if not lines:
        count, low, high = _numbers(cells)
        to = 1 - (1 - confidence) / len(cells)
        inner = rescaled(count, low, high, confidence=confidence, to=to, one_sided=True)
        verdicts, _ = decide(count, together, inner, margin)
    matters, equivalent = together.matters(margin), together.equivalent(margin)
    for line in lines:
        places = np.array(line.places)
        verdicts[places[: _leading(matters[None, places])[0]]] = "matters"
        verdicts[places[::-1][: _leading(equivalent[None, places[::-1]])[0]]] = "equivalent"
    return [{**cell, "verdict_familywise": verdict} for cell, verdict in zip(cells, verdicts, strict=True)]


def along(cells: list[Record], axis: str) -> list[tuple[Record, list[Record]]]:
    """Every combination of the other settings, with its cells ordered along the axis."""
    return [(line.others, [cells[place] for place in line.places]) for line in _along(cells, axis)]


def _lines(cells: list[Record]) -> list[_Line]:
    vary = [axis for axis in AXES if len({cell[axis] for cell in cells if axis in cell}) > 1]
    return [line for axis in vary for line in _along(cells, axis)]


def _along(cells: list[Record], axis: str) -> list[_Line]:
    names = [name for name in settings(cells[0]) if name != axis] if cells else []
    lines: dict[tuple[Any, ...], list[int]] = {}
    for place, cell in enumerate(cells):
        lines.setdefault(tuple(cell[name] for name in names), []).append(place)
    return [
        _Line(axis, dict(zip(names, others, strict=True)), sorted(places, key=lambda place: cells[place][axis]))
        for others, places in lines.items()
    ]


def _numbers(cells: list[Record]) -> tuple[Counts, Floats, Floats]:
    """Pairs and interval; NaN where too few pairs, or accuracies that cannot differ, allow no verdict."""
    count = np.array([cell["pairs"] for cell in cells], dtype=np.int64)
    low, high = (np.array([cell[end] for cell in cells], dtype=np.float64) for end in ("low", "high"))
    none = (count < FEWEST_PAIRS) | np.array([cell.get("limit") is not None for cell in cells], dtype=bool)
    return count, np.where(none, np.nan, low), np.where(none, np.nan, high)


def _intervals(cells: list[Record]) -> _Intervals:
    return _Intervals(*_numbers(cells)[1:])


def _intervals_together(cells: list[Record], confidence: float, claims: int) -> _Intervals:
    """The intervals at alpha divided by the number of claims."""
    count, low, high = _numbers(cells)
    return _Intervals(*rescaled(count, low, high, confidence=confidence, to=1 - (1 - confidence) / max(claims, 1)))


def _brackets(tested: list[Any], matters: NDArray[np.bool_], equivalent: NDArray[np.bool_]) -> list[tuple[Any, Any]]:
    """Both ends of the bracket for each row of `[margins, levels]`."""
    narrow, wide = _leading(matters), _leading(equivalent[:, ::-1])
    return [
        (tested[up - 1] if up else None, tested[-down] if down else None) for up, down in zip(narrow, wide, strict=True)
    ]


def _leading(passed: NDArray[np.bool_]) -> list[int]:
    """How many levels pass before the first failure, for each row of `[margins, levels]`."""
    counts: list[int] = np.logical_and.accumulate(passed, axis=1).sum(axis=1).tolist()
    return counts
