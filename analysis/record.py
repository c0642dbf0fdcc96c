"""What a verdict is made of: plain values by name, which whoever writes sentences needs no statistics to read."""

from typing import Any, Final, TypeAlias

from sweep.space.runs import CELL

Record: TypeAlias = dict[str, Any]
"""Plain values by name, ready for JSON: numbers, text, true, false, null; never NaN."""

VERDICTS: Final = ("matters", "equivalent", "undecided")

FEWEST_PAIRS: Final = 6
"""With fewer pairs no verdict is given."""


def settings(cell: Record) -> Record:
    """The settings among a record's values, in their order."""
    return {name: cell[name] for name in CELL if name in cell}
