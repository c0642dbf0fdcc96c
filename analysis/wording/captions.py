"""The title above every figure, and the paragraphs below it that say what is drawn and what is not.

Each function returns both. `inner` is where the scale of effects becomes logarithmic, None where it is linear;
`left_out` is the text of `drawn`. Empty paragraphs are skipped.
"""

from collections.abc import Sequence
from typing import Final

from analysis.record import Record
from analysis.wording.phrases import percent

CAPTIONS: Final = {
    "effect_by_width": "effect of bias against width",
    "effect_by_depth": "effect of bias against depth",
    "effects": "effect of bias, cell by cell",
    "heat_map": "effect of bias on the grid of width and depth",
    "accuracies": "accuracies of the two arms",
    "pairs": "every pair as a dot",
    "curves": "learning curves of both arms",
    "variance": "share of variance by factor",
    "margins": "threshold against margin",
}
"""What every figure shows, in few words, in the order of a report."""

_PAIRED: Final = "Arms of a pair move together: bands that overlap do not mean equal arms, effects are judged on pairs."


def effect(verdict: Record, axis: str | None, inner: float | None, left_out: str) -> tuple[str, list[str]]:
    """For the effects against an axis, or cell by cell."""
    cells = verdict["cells"]
    unknown = sum(cell["effect"] is None for cell in cells)
    bars = (
        f"Bars: filled, bias matters by more than {verdict['margin']:g} points; hollow, its effect is smaller; "
        "dotted, undecided."
    )
    return f"{verdict['name']}: effect of convolution bias{_against(axis)}", [
        f"Means over {_counted(cells)} (same seed, initial weights and batches), with {_intervals(verdict)}.",
        bars if axis else "",
        f"Without a pair: {unknown} cells." if unknown else "",
        _scale(inner),
        left_out,
    ]


def heat_map(verdict: Record, inner: float | None, left_out: str) -> tuple[str, list[str]]:
    """For the effects on the grid of width and depth."""
    return f"{verdict['name']}: effect of convolution bias, width by depth", [
        f"Colour and number: mean effect in percentage points over {_counted(verdict['cells'])}. Marks: the verdict at "
        f"margin ±{verdict['margin']:g} points, from {_intervals(verdict)} or, for equivalence, two one-sided tests. "
        "Intervals stand in the table of cells.",
        _scale(inner),
        left_out,
    ]


def accuracies(verdict: Record, axis: str | None, panels: int, left_out: str) -> tuple[str, list[str]]:
    """For both arms' accuracies."""
    return f"{verdict['name']}: accuracy with and without bias{_against(axis)}", [
        f"Mean test accuracy over {_counted(verdict['cells'])}, with {_intervals(verdict)} "
        f"of each arm's mean over seeds. {_PAIRED}",
        "Scales differ between panels." if panels > 1 else "",
        left_out,
    ]


def learning(verdict: Record, runs: Sequence[int], left_out: str) -> tuple[str, list[str]]:
    """For both arms' learning curves; `runs` are the numbers of runs that points are means of."""
    return f"{verdict['name']}: learning curves", [
        f"Mean validation accuracy over n = {_span(runs)} runs an arm; bands are {_intervals(verdict)} of that mean "
        f"over seeds. {_PAIRED} Scales differ between panels.",
        left_out,
    ]


def pairs(
    verdict: Record, axis: str | None, diverged: int, inner: float | None, left_out: str
) -> tuple[str, list[str]]:
    """For every pair as a dot; in `diverged` of them a run diverged."""
    return f"{verdict['name']}: every pair{_against(axis)}", [
        f"Each dot is one pair; {_counted(verdict['cells'])}. Bars: mean and {_intervals(verdict)}. Grey: the margin, "
        f"±{verdict['margin']:g} points. Sideways places of dots mean nothing.",
        _scale(inner),
        f"Crosses: pairs with a diverged run ({diverged}), at the accuracy measured." if diverged else "",
        left_out,
    ]


def variance(verdict: Record) -> tuple[str, list[str]]:
    """For each factor's share of the variance."""
    cells = verdict["cells"]
    return f"{verdict['name']}: what moves the effect of convolution bias", [
        f"Shares of the variance of the mean effects of {len(cells)} cells, {_counted(cells)}, "
        "after their sampling variance was subtracted: estimates, without an interval.",
    ]


def margins(verdict: Record, left_out: str) -> tuple[str, list[str]]:
    """For the thresholds against the margin."""
    declared = verdict["margin_declared"] is not None and not verdict["margin_given"]
    return f"{verdict['name']}: the threshold against the margin", [
        f"Both ends of the threshold, were the margin another; {_counted(verdict['cells'])}, {_intervals(verdict)}. "
        f"Vertical line: the margin of this report, {verdict['margin']:g} points.",
        "Only that one was declared before looking." if declared else "",
        left_out,
    ]


def drawn(shown: int, of: int, what: str) -> str:
    """What is left out, if anything."""
    return f"Drawn are {shown} of {of} {what}." if shown < of else ""


def _against(axis: str | None) -> str:
    return f" against {axis}" if axis else ""


def _scale(inner: float | None) -> str:
    return f"Beyond ±{inner:g} points the scale is logarithmic." if inner else ""


def _counted(cells: Sequence[Record]) -> str:
    """The pairs of the cells in words: `n = 32 pairs a cell`."""
    return f"n = {_span([cell['pairs'] for cell in cells])} pairs a cell"


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _intervals(verdict: Record) -> str:
    return f"{percent(verdict['looks']['confidence_each'])} intervals (Student's t)"
