"""What casts doubt on the experiment itself, one sentence each."""

from collections.abc import Mapping
from typing import Final

from analysis.record import Record, settings
from analysis.wording.phrases import describe

MOST_NAMED: Final = 3


def negative_control(cells: list[Record], known: bool) -> list[str]:
    """For the cells from `alarms.failed_control`; `known` says whether they are known to belong to it."""
    if not cells:
        return []
    named = "; ".join(
        f"{describe(settings(cell)) or 'the only cell'}: {cell['effect']:+.2f} points" for cell in cells[:MOST_NAMED]
    )
    more = f" and {len(cells) - MOST_NAMED:,} more" if len(cells) > MOST_NAMED else ""
    condition = (
        "" if known else " (if these are biases of convolutions that start at zero, which the table does not say)"
    )
    return [
        "The negative control fails: batch norm cancels the bias of the convolution before it, yet bias matters there"
        f"{condition} ({named}{more}). Look for a fault in the experiment before trusting any verdict."
    ]


def disagreeing(runs: int | None) -> list[str]:
    """For runs that are in the store twice with different results."""
    if not runs:
        return []
    said = "1 run stands" if runs == 1 else f"{runs:,} runs stand"
    return [f"{said} in the store twice with different results; the earliest row counts."]


def mixed(pairs: Mapping[str, int]) -> list[str]:
    """For the pairs that `alarms.mixed` counts."""
    return [
        f"The runs of {count:,} pairs differ in {column}: bias is not all that sets them apart."
        for column, count in pairs.items()
    ]


def changed(levels: Mapping[str, tuple[float, float]]) -> list[str]:
    """For the levels from `alarms.changed`."""
    return [
        f"The {name} {now:g} was declared after a look at {then:g}: it is set before looking."
        for name, (now, then) in levels.items()
    ]
