"""The threshold as the margin moves."""

from pathlib import Path
from typing import Any, Final

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures import style
from analysis.record import Record, settings
from analysis.wording import captions
from analysis.wording.phrases import capital, describe

_COLOUR: Final = style.COLOURS[0]
_DASH: Final = (0, (5, 2))


def draw(verdict: Record, stem: Path) -> None:
    """Writes both ends of every threshold against the margin at which they are judged."""
    records = [one for one in verdict["thresholds"] if one["margins"]]
    found, left_out = style.spread_out(records, style.MOST_PANELS, "thresholds")
    title, caption = captions.margins(verdict, left_out)
    with style.drawing(stem.name):
        figure, above, panels = style.panels(len(found), title=title, caption=caption, size=(3.4, 2.5))
        style.legend(above, _handles())
        axis_said = len({one["axis"] for one in records}) > 1
        for record, axes in zip(found, panels, strict=True):
            _margin(axes, record, verdict["margin"])
            where = describe(settings(record))
            style.tidy(axes, capital(", ".join(filter(None, [where, f"along {record['axis']}" if axis_said else ""]))))
            axes.set_ylabel(record["axis"], fontsize=9)
        style.label_outer(panels, "margin (percentage points)", None)
        style.save(figure, stem)


def _margin(axes: Axes, record: Record, margin: float) -> None:
    levels, ladder = record["levels"], record["margins"]
    # Rows: below the first level (bias is not shown to matter anywhere), the levels, above the last.
    matters = [levels.index(one["matters_up_to"]) if one["matters_up_to"] is not None else -1 for one in ladder]
    equal = [
        levels.index(one["equivalent_from"]) if one["equivalent_from"] is not None else len(levels) for one in ladder
    ]
    at = [one["margin"] for one in ladder]
    axes.fill_between(at, -1.5, [n + 0.5 for n in matters], step="mid", color=_COLOUR, alpha=0.85, linewidth=0)
    axes.fill_between(at, [n + 0.5 for n in matters], [n - 0.5 for n in equal], step="mid", facecolor="white",
                      edgecolor="0.6", hatch="....", linewidth=0)  # fmt: skip
    axes.fill_between(at, [n - 0.5 for n in equal], len(levels) + 0.5, step="mid", color="0.85", linewidth=0)
    halo = [patheffects.withStroke(linewidth=3.5, foreground="white")]
    axes.axvline(margin, color="black", linewidth=1.3, linestyle=_DASH, path_effects=halo)
    axes.set_ylim(-0.5, len(levels) - 0.5)
    axes.set_yticks(range(len(levels)), [str(level) for level in levels])
    if min(at) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_spaced(at)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(min(at), max(at))


def _spaced(at: list[float]) -> list[float]:
    """Margins whose labels do not touch on a logarithmic axis."""
    kept: list[float] = []
    for value in at:
        if not kept or value / kept[-1] >= (max(at) / min(at)) ** 0.12:
            kept.append(value)
    return kept


def _handles() -> list[Any]:
    return [
        Patch(color=_COLOUR, alpha=0.85, label="bias matters"),
        Patch(facecolor="white", edgecolor="0.6", hatch="....", linewidth=0, label="undecided"),
        Patch(color="0.85", label="equivalent"),
        Line2D([], [], color="black", linestyle=_DASH, label="margin of this report"),
    ]
