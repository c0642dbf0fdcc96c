"""What all figures share: colours, marks, panels, captions, and pictures that are the same for the same cells.

Built on `Figure` alone (no pyplot, no display, no global state). Markers tell verdicts apart, dashes tell lines and
arms apart, so that every figure reads in black and white.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.environment import default_style
from analysis.record import Record, settings
from analysis.threshold import along
from analysis.wording import captions
from analysis.wording.phrases import describe
from sweep.common.atomic_files import replacing

MOST_PANELS: Final = 12
MOST_POINTS: Final = 24
"""Cells drawn side by side where neither width nor depth varies."""

# Okabe and Ito's palette, distinct in all common forms of colour blindness; its yellow is too light for lines.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES: Final = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
ARMS: Final[dict[str, dict[str, Any]]] = {
    "bias": {"label": "with bias", "color": COLOURS[0], "linestyle": "-", "marker": "o"},
    "no_bias": {"label": "without bias", "color": COLOURS[1], "linestyle": (0, (5, 2)), "marker": "s"},
}
MARKERS: Final = {"matters": "o", "equivalent": "o", "undecided": "X"}
AXIS_NAMES: Final = {"width": "width (channels of each convolution)", "depth": "depth (convolutions)"}
EFFECT: Final = "accuracy with bias minus without\n(percentage points)"
_TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)

_Item = TypeVar("_Item")


@contextmanager
def drawing(stem: str) -> Iterator[None]:
    """matplotlib's settings for one figure: names may hold dollar signs, and ids in the SVG are the same each time."""
    with default_style({"text.parse_math": False, "svg.hashsalt": stem}):
        yield


def save(figure: Figure, stem: Path) -> None:
    """Writes `<stem>.svg` and `<stem>.png`, the same bytes for the same figure."""
    # The layout solver's rounding varies, and names in the SVG are hashes of its result.
    engine = figure.get_layout_engine()
    assert engine is not None, "a figure is laid out once"
    engine.execute(figure)
    figure.set_layout_engine(None)  # with "none", each format would be drawn twice
    for axes in figure.axes:
        left, bottom, width, height = (round(float(side), 6) for side in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        with replacing(Path(f"{stem}.{kind}")) as path:
            figure.savefig(path, format=kind, dpi=150, metadata=metadata)


def blank(width: float, height: float, title: str, caption: Sequence[str]) -> Figure:
    """An empty figure, in inches, with its title above and the caption's paragraphs wrapped below."""
    # More than the default 0.04 inches: otherwise the longest label touches the edge of the figure.
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06)
    lines = [line for part in caption if part for line in textwrap.wrap(part, int(16 * width))]
    titles = textwrap.wrap(title, int(10 * width))
    figure = Figure(figsize=(width, height + 0.16 * len(lines) + 0.2 * (len(titles) - 1)), layout=engine)
    figure.suptitle("\n".join(titles), fontsize=12)
    figure.supxlabel("\n".join(lines), fontsize=8, x=0.12 / width, ha="left")
    return figure


def panels(
    count: int, *, title: str, caption: Sequence[str], columns: int = 3, size: tuple[float, float] = (3.4, 2.7)
) -> tuple[Figure, Axes, list[Axes]]:
    """A figure with a strip for the legend above `count` panels of one size; the figure, that strip, the panels."""
    columns = 2 if count == 4 else min(count, columns)
    rows = math.ceil(count / columns)
    figure = blank(max(6.8, columns * size[0] + 0.6), rows * (size[1] + 0.3) + 1.0, title, caption)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[0.3, *[size[1]] * rows])
    legend = figure.add_subplot(grid[0, :])
    legend.set_axis_off()
    return figure, legend, [figure.add_subplot(grid[1 + n // columns, n % columns]) for n in range(count)]


def label_outer(panels: Sequence[Axes], below: str, beside: str | None) -> None:
    """Names the axes at the lower and left edge of the panels only."""
    places = [one.get_subplotspec() for one in panels]
    bottom: dict[int, Axes] = {}
    for axes, at in zip(panels, places, strict=True):
        assert at is not None
        bottom[at.colspan.start] = axes
        if beside is not None and at.colspan.start == 0:
            axes.set_ylabel(beside, fontsize=9)
    for axes in bottom.values() if below else ():
        axes.set_xlabel(below, fontsize=9)


def legend(axes: Axes, handles: list[Any]) -> None:
    """One row of marks in the strip above the panels."""
    axes.legend(handles=handles, loc="center", ncols=len(handles), fontsize=8, frameon=False, borderaxespad=0)


def mark(verdict: str, colour: str) -> dict[str, Any]:
    """How a verdict is marked: filled, hollow, crossed."""
    undecided = verdict == "undecided"
    return {
        "marker": MARKERS[verdict],
        "markersize": 8 if undecided else 6,
        "markerfacecolor": "white" if verdict == "equivalent" else colour,
        "markeredgecolor": "white" if undecided else colour,
        "markeredgewidth": 0.6 if undecided else 1.4,
        "linestyle": "none",
    }


def spread_out(items: Sequence[_Item], most: int, what: str) -> tuple[list[_Item], str]:
    """At most `most` of the items, evenly spaced with both ends, and what the caption says of the others."""
    if len(items) <= most:
        return list(items), ""
    chosen = [round(n * (len(items) - 1) / (most - 1)) for n in range(most)]
    return [items[n] for n in chosen], captions.drawn(most, len(items), what)


def place(axis: str, level: float) -> float:
    """Where a level stands: widths by their logarithm."""
    return math.log2(level) if axis == "width" else float(level)


def scale_axis(axes: Axes, axis: str, levels: Sequence[Any], *, apart: float = 0.045) -> None:
    """Ticks at the levels tested, except those too close to another; `apart` is a share of the axis."""
    names = {place(axis, level): str(level) for level in levels}
    places = sorted(names)
    reach = places[-1] - places[0]
    free = max(0.5, 0.06 * reach)
    axes.set_xlim(places[0] - free, places[-1] + free)
    label(axes, names, _apart(places, apart * reach))


def label(axes: Axes, names: dict[float, str], places: Sequence[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: names.get(at, "")))
    axes.xaxis.set_minor_locator(NullLocator())


def logarithmic_from(ends: Sequence[float], margin: float) -> float | None:
    """Where the scale of effects becomes logarithmic: at twice the margin if they go far beyond it, else None."""
    inner = 2 * margin or 1.0
    return inner if max(map(abs, ends), default=0) > 6 * inner else None


def scale_effects(axes: Axes, ends: Sequence[float], margin: float) -> None:
    """Linear while effects are of the margin's size, else logarithmic from twice the margin on."""
    low, high = min(*ends, -1.3 * margin, 0), max(*ends, 1.3 * margin, 0)
    inner = logarithmic_from(ends, margin)
    if inner:
        axes.set_yscale("symlog", linthresh=inner, linscale=1.0)
        transform = axes.transScale.transform
        (_, bottom), (_, top) = transform((0, low)), transform((0, high))
        free = 0.04 * (top - bottom)
        (_, low), (_, high) = axes.transScale.inverted().transform([(0, bottom - free), (0, top + free)])
        shown = [tick for tick in _TICKS if tick >= inner]
        axes.yaxis.set_major_locator(FixedLocator([*(-tick for tick in shown), -margin, 0, margin, *shown]))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        free = 0.05 * (high - low) or 0.1
        low, high = low - free, high + free
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda effect, _: f"{effect:+g}" if effect else "0"))


def margin_zone(axes: Axes, margin: float) -> None:
    """The margin as a grey zone around the line of no effect."""
    if margin > 0:
        axes.axhspan(-margin, margin, color="0.9", zorder=0)
    axes.axhline(0, color="0.35", linewidth=0.8, zorder=1)


def tidy(axes: Axes, title: str) -> None:
    axes.set_title("\n".join(textwrap.wrap(title, 44)), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def lines(cells: Sequence[Record], axis: str) -> tuple[list[tuple[Record, list[Record]]], str]:
    """The cells along the axis, one line per panel, those without batch norm first; and what is left out."""
    found = sorted(along(list(cells), axis), key=lambda line: bool(line[0].get("batch_norm")))
    return spread_out(found, MOST_PANELS, "panels")


def name_of(cell: Record) -> str:
    return describe(settings(cell)) or "all pairs"


def name_cells(axes: Axes, cells: Sequence[Record]) -> None:
    """Cells side by side with their settings below; if many, only levels, set upright, over the settings' names."""
    upright = len(cells) > 6
    names = {float(n): _levels(cell) if upright else _stacked(name_of(cell)) for n, cell in enumerate(cells)}
    axes.set_xlim(-0.5, len(cells) - 0.5)
    label(axes, names, sorted(names))
    if upright:
        axes.tick_params(axis="x", labelrotation=90)
        axes.set_xlabel(textwrap.fill(", ".join(settings(cells[0])).replace("_", " "), 90), fontsize=9)


def _levels(cell: Record) -> str:
    """The levels of its settings; those that are on or off are named, as true or false alone would not tell."""
    named = settings(cell).items()
    return ", ".join(describe({name: level}) if isinstance(level, bool) else str(level) for name, level in named)


def _stacked(said: str) -> str:
    return "\n".join(textwrap.fill(part, 14) for part in said.split(", "))


def with_gaps(values: Sequence[float | None]) -> list[float]:
    """The values, NaN where one is missing: a gap in a line or band."""
    return [math.nan if value is None else value for value in values]


def _apart(places: list[float], least: float) -> list[float]:
    """Those of the ascending places that are at least `least` beyond the last one kept."""
    kept = places[:1]
    for at in places[1:]:
        if at - kept[-1] >= least:
            kept.append(at)
    return kept
