"""The figure: the effect of bias against width, with intervals, the margin, the verdicts and the bracket.

Built on `Figure` alone (no pyplot, no display, no global state). Verdicts are told by the shape of the marker
and lines by their dashes, so that the figure reads in black and white.
"""

import math
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.effects import Record, settings
from analysis.wording import capital, describe, percent
from sweep.files import replacing

MOST_PANELS: Final = 6
MOST_LINES: Final = 6
MOST_POINTS: Final = 24
"""Cells drawn side by side where neither width nor depth varies."""

# Okabe and Ito's palette, told apart by all common forms of colour blindness; its yellow is too light for
# lines.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES: Final = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
_MARKERS: Final = {"matters": "o", "equivalent": "o", "undecided": "X"}
_TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


class _Line(NamedTuple):
    label: str
    style: int
    cells: list[Record]
    bracket: Record | None


class _Panel(NamedTuple):
    title: str
    lines: list[_Line]


def effect_by_width(
    cells: list[Record],
    thresholds: list[Record],
    *,
    margin: float,
    confidence: float,
    name: str,
    out_stem: Path,
) -> Path:
    """Writes `<out_stem>.png` and `.svg` and returns the first.

    Against width, else against depth, else (where neither varies) the cells side by side: one line per batch
    norm and depth, one panel per combination of the other settings. What is not drawn is said below.
    """
    axis = next((one for one in ("width", "depth") if len({cell.get(one) for cell in cells}) > 1), None)
    panels, left_out = _panels(cells, thresholds, axis) if axis else _points(cells)
    caption = _caption(cells, axis, margin, confidence, left_out)
    figure = _figure(panels, axis, margin, name, caption)
    # The solver of the layout rounds in an order of its own, and names in the SVG are hashes of what it found.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(float(side), 6) for side in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
    with matplotlib.rc_context({"svg.hashsalt": "effect_by_width"}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {})):
            with replacing(Path(f"{out_stem}.{kind}")) as path:
                figure.savefig(path, format=kind, dpi=150, metadata=metadata)
    return Path(f"{out_stem}.png")


def _panels(cells: list[Record], thresholds: list[Record], axis: str) -> tuple[list[_Panel], str]:
    names = [name for name in settings(cells[0]) if name != axis]
    by_line: list[str] = [name for name in ("batch_norm", "depth") if name in names]
    if len({_values(cell, by_line) for cell in cells}) > MOST_LINES:
        by_line = [name for name in by_line if name == "batch_norm"]
    by_panel = [name for name in names if name not in by_line]
    styles = {values: n for n, values in enumerate(sorted({_values(cell, by_line) for cell in cells}))}
    brackets = {_values(one, names): one for one in thresholds if one["axis"] == axis}
    panels: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Record]]] = {}
    for cell in sorted(cells, key=lambda cell: (_values(cell, by_line), cell[axis])):
        line = panels.setdefault(_values(cell, by_panel), {})
        line.setdefault(_values(cell, by_line), []).append(cell)
    result = []
    for shared, lines in panels.items():
        drawn = [
            _Line(_said(by_line, own), styles[own], line, brackets.get(_values(line[0], names)))
            for own, line in lines.items()
        ]
        result.append(_Panel(_said(by_panel, shared), drawn))
    said = f"drawn are the first {MOST_PANELS} of {len(result)} panels"
    return result[:MOST_PANELS], said if len(result) > MOST_PANELS else ""


def _points(cells: list[Record]) -> tuple[list[_Panel], str]:
    said = f"drawn are the first {MOST_POINTS} of {len(cells)} cells"
    panel = _Panel("", [_Line("", 0, cells[:MOST_POINTS], None)])
    return [panel], said if len(cells) > MOST_POINTS else ""


def _figure(panels: list[_Panel], axis: str | None, margin: float, name: str, caption: str) -> Figure:
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    labels = {line.style: line.label for panel in panels for line in panel.lines}
    legend = 0.25 + 0.2 * math.ceil(sum(map(bool, labels.values())) / 2)
    heights = [legend, *[3.4, 0.35 + 0.2 * len(labels)] * rows] if axis else [legend, 3.4]
    figure = Figure(figsize=(max(6.8, 4.2 * columns + 0.8), sum(heights) + 0.5 * rows + 0.8), layout="constrained")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    title = f"{name}: effect of convolution bias" + (f" against {axis}" if axis else "")
    # A name may hold dollar signs, and be long.
    figure.suptitle(textwrap.fill(title, 10 * int(figure.get_figwidth())), fontsize=12, parse_math=False)
    _legend(figure.add_subplot(grid[0, :]), labels, margin)
    first: Axes | None = None
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        top = figure.add_subplot(grid[1 + 2 * row, column], sharey=first)
        first = first or top
        _draw(top, panel, axis, margin, len(labels))
        if column == 0:
            top.set_ylabel("accuracy with bias minus without\n(percentage points)")
        if axis:
            strip = figure.add_subplot(grid[2 + 2 * row, column])
            _draw_strip(strip, panel, axis, top, sorted(labels))
            strip.set_yticks(range(len(labels)), [labels[style] or axis for style in sorted(labels)], fontsize=7)
            strip.tick_params(axis="y", length=0, labelleft=column == 0)
            if number + columns >= len(panels):
                strip.set_xlabel("width (channels of each convolution)" if axis == "width" else "depth (convolutions)")
    assert first is not None
    _scale_effects(first, panels, margin)
    figure.supxlabel(caption, fontsize=8, x=0.01, ha="left")
    return figure


def _draw(axes: Axes, panel: _Panel, axis: str | None, margin: float, styles: int) -> None:
    if margin > 0:
        axes.axhspan(-margin, margin, color="0.9", zorder=0)
    axes.axhline(0, color="0.35", linewidth=0.8, zorder=1)
    _scale_places(axes, panel, axis)
    for line in panel.lines:
        colour = _COLOURS[line.style]
        # A small step aside, so that equal effects do not hide one another.
        aside = (line.style - (styles - 1) / 2) * 0.012 * (axes.get_xlim()[1] - axes.get_xlim()[0])
        places = [_place(cell, axis, index) + aside for index, cell in enumerate(line.cells)]
        # A missing mean or interval is a gap in the line or band.
        means, lows, highs = (
            [math.nan if cell[key] is None else cell[key] for cell in line.cells] for key in ("effect", "low", "high")
        )
        if axis:
            axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0, zorder=2)
            axes.plot(places, means, color=colour, linestyle=_DASHES[line.style], linewidth=1.4, zorder=4)
        axes.vlines(places, lows, highs, color=colour, linewidth=1, zorder=3)
        for verdict in _MARKERS:
            shown = [n for n, cell in enumerate(line.cells) if cell["verdict"] == verdict]
            axes.plot([places[n] for n in shown], [means[n] for n in shown], zorder=5, **_marker(verdict, colour))
    axes.set_title(panel.title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _marker(verdict: str, colour: str) -> dict[str, Any]:
    inside = "white" if verdict == "equivalent" else colour
    edge = "white" if verdict == "undecided" else colour
    size = 8 if verdict == "undecided" else 6
    width = 0.6 if verdict == "undecided" else 1.4
    return {
        "marker": _MARKERS[verdict],
        "markersize": size,
        "markerfacecolor": inside,
        "markeredgecolor": edge,
        "markeredgewidth": width,
        "linestyle": "none",
    }


def _draw_strip(axes: Axes, panel: _Panel, axis: str, above: Axes, styles: list[int]) -> None:
    """One row a line: a filled bar where bias matters, a hollow one where it is equivalent, dots between."""
    left, right = above.get_xlim()
    for line in panel.lines:
        row, colour = styles.index(line.style), _COLOURS[line.style]
        places = [_place(cell, axis, 0) for cell in line.cells]
        free = 0.01 * (right - left)
        edges = [left + free, *((a + b) / 2 for a, b in pairwise(places)), right - free]
        bracket = line.bracket or {"matters_up_to": None, "equivalent_from": None}
        up_to, on_from = bracket["matters_up_to"], bracket["equivalent_from"]
        start = sum(1 for cell in line.cells if up_to is not None and cell[axis] <= up_to)
        stop = len(places) - sum(1 for cell in line.cells if on_from is not None and cell[axis] >= on_from)
        if start > 0:
            axes.barh(row, edges[start] - edges[0], left=edges[0], height=0.55, color=colour, linewidth=0)
        if start < stop:
            axes.hlines(row, edges[start], edges[stop], color=colour, linestyle=(0, (1, 2)), linewidth=1.4)
        if stop < len(places):
            axes.barh(row, edges[-1] - edges[stop], left=edges[stop], height=0.55, facecolor="white",
                      edgecolor=colour, linewidth=1.2)  # fmt: skip
    axes.set_xlim(left, right)
    above.tick_params(labelbottom=False)
    axes.xaxis.set_major_locator(above.xaxis.get_major_locator())
    axes.xaxis.set_major_formatter(above.xaxis.get_major_formatter())
    axes.set_ylim(len(styles) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _place(cell: Record, axis: str | None, index: int) -> float:
    if axis is None:
        return float(index)
    return math.log2(cell[axis]) if axis == "width" else float(cell[axis])


def _scale_places(axes: Axes, panel: _Panel, axis: str | None) -> None:
    cells = [(index, cell) for line in panel.lines for index, cell in enumerate(line.cells)]
    upright = len(cells) > 6
    labels = {_place(cell, axis, index): _name(cell, axis, upright) for index, cell in cells}
    places = sorted(labels)
    free = max(0.5, 0.06 * (places[-1] - places[0]))
    axes.set_xlim(places[0] - free, places[-1] + free)
    if axis:
        places = _apart(places, 0.045 * (places[-1] - places[0]))
    elif upright:
        axes.tick_params(axis="x", labelrotation=90)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: labels.get(place, "")))
    axes.tick_params(axis="x", labelsize=9 if axis else 8)


def _name(cell: Record, axis: str | None, upright: bool) -> str:
    if axis:
        return str(cell[axis])
    said = describe(settings(cell)) or "all pairs"
    return said if upright else "\n".join(textwrap.fill(part, 14) for part in said.split(", "))


def _apart(places: list[float], least: float) -> list[float]:
    """Those of the ascending places that stand at least `least` from the one before."""
    kept = places[:1]
    for place in places[1:]:
        if place - kept[-1] >= least:
            kept.append(place)
    return kept


def _scale_effects(axes: Axes, panels: list[_Panel], margin: float) -> None:
    """Linear while effects are of the margin's size, else logarithmic from twice the margin on."""
    cells = [cell for panel in panels for line in panel.lines for cell in line.cells]
    keys = ("low", "effect", "high")
    ends = [cell[key] for cell in cells for key in keys if cell[key] is not None]
    low, high = min(*ends, -1.3 * margin), max(*ends, 1.3 * margin)
    inner = 2 * margin or 1.0
    if max(high, -low) > 6 * inner:
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


def _legend(axes: Axes, labels: dict[int, str], margin: float) -> None:
    """Lines in a row of their own above the verdicts, so that either reads across."""
    axes.set_axis_off()
    lines = [
        Line2D([], [], color=_COLOURS[style], linestyle=_DASHES[style], label=label)
        for style, label in sorted(labels.items())
        if label
    ]
    names = {"matters": "bias matters", "equivalent": "equivalent", "undecided": "undecided"}
    marks = [Line2D([], [], label=text, **_marker(one, "0.25")) for one, text in names.items()]
    if margin > 0:
        marks.append(Line2D([], [], color="0.85", linewidth=8, label=f"margin ±{margin:g} points"))
    options: dict[str, Any] = {"fontsize": 8, "frameon": False, "borderaxespad": 0}
    if lines:
        columns = 2 if len(lines) in (2, 4) else min(len(lines), 3)
        axes.add_artist(axes.legend(handles=lines, loc="upper center", ncols=columns, handlelength=4, **options))
    axes.legend(handles=marks, loc="lower center", ncols=4, **options)


def _caption(cells: list[Record], axis: str | None, margin: float, confidence: float, left_out: str) -> str:
    counts = [cell["pairs"] for cell in cells]
    n = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    parts = [
        f"Means over n = {n} pairs a cell (same seed, initial weights and batches), "
        f"with {percent(confidence)} intervals (Student's t)."
    ]
    if axis:
        parts.append(
            f"Bars: filled, bias matters by more than {margin:g} points; hollow, its effect is smaller; "
            "dotted, undecided."
        )
    unknown = sum(cell["effect"] is None for cell in cells)
    notes = [note for note in (left_out, f"without a pair: {unknown} cells" if unknown else "") if note]
    return "\n".join([*parts, *([capital("; ".join(notes)) + "."] if notes else [])])


def _values(record: Record, names: list[str]) -> tuple[Any, ...]:
    return tuple(record[name] for name in names)


def _said(names: list[str], values: tuple[Any, ...]) -> str:
    return describe(dict(zip(names, values, strict=True)))
