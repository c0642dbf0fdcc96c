"""The effect of bias against width or depth, with intervals, the margin, the verdicts and the bracket."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.record import Record, settings
from analysis.wording import captions
from analysis.wording.phrases import capital, describe

MOST_LINES: Final = 6


class _Line(NamedTuple):
    label: str
    style: int
    cells: list[Record]
    bracket: Record | None


class _Panel(NamedTuple):
    title: str
    lines: list[_Line]


def draw(verdict: Record, axis: str | None, stem: Path) -> None:
    """Writes the effect against `axis` or, where that is None, of cells side by side.

    One line per level of batch norm and of the other ordered axis, one panel per combination of the other settings.
    The caption says what is left out.
    """
    cells, margin = verdict["cells"], verdict["margin"]
    found, left_out = _panels(cells, verdict["thresholds"], axis) if axis else _points(cells)
    inner = style.logarithmic_from(_ends(found), margin)
    title, caption = captions.effect(verdict, axis, inner, left_out)
    with style.drawing(stem.name):
        style.save(_figure(found, axis, margin, title, caption), stem)


def _panels(cells: list[Record], thresholds: list[Record], axis: str) -> tuple[list[_Panel], str]:
    names = [name for name in settings(cells[0]) if name != axis]
    by_line: list[str] = [name for name in ("batch_norm", "depth", "width") if name in names]
    if len({_values(cell, by_line) for cell in cells}) > MOST_LINES:
        by_line = [name for name in by_line if name == "batch_norm"]
    by_panel = [name for name in names if name not in by_line]
    styles = {values: n for n, values in enumerate(sorted({_values(cell, by_line) for cell in cells}))}
    brackets = {_values(one, names): one for one in thresholds if one["axis"] == axis}
    grouped: dict[tuple[Any, ...], dict[tuple[Any, ...], list[Record]]] = {}
    for cell in sorted(cells, key=lambda cell: (_values(cell, by_line), cell[axis])):
        line = grouped.setdefault(_values(cell, by_panel), {})
        line.setdefault(_values(cell, by_line), []).append(cell)
    result = []
    for shared, lines in grouped.items():
        drawn = [
            _Line(_said(by_line, own), styles[own], line, brackets.get(_values(line[0], names)))
            for own, line in lines.items()
        ]
        result.append(_Panel(_said(by_panel, shared), drawn))
    return style.spread_out(result, style.MOST_PANELS, "panels")


def _points(cells: list[Record]) -> tuple[list[_Panel], str]:
    shown, left_out = style.spread_out(cells, style.MOST_POINTS, "cells")
    return [_Panel("", [_Line("", 0, shown, None)])], left_out


def _figure(panels: list[_Panel], axis: str | None, margin: float, title: str, caption: list[str]) -> Figure:
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    labels = {line.style: line.label for panel in panels for line in panel.lines}
    legend = 0.25 + 0.2 * math.ceil(sum(map(bool, labels.values())) / 2)
    heights = [legend, *[3.4, 0.35 + 0.2 * len(labels)] * rows] if axis else [legend, 3.4]
    height = sum(heights) + 0.5 * rows + (0.5 if axis else 1.2)
    figure = style.blank(max(6.8, 4.2 * columns + 0.8), height, title, caption)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    _legend(figure.add_subplot(grid[0, :]), labels, margin)
    first: Axes | None = None
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        top = figure.add_subplot(grid[1 + 2 * row, column], sharey=first)
        first = first or top
        _draw(top, panel, axis, margin, len(labels))
        if column == 0:
            top.set_ylabel(style.EFFECT, fontsize=9)
        if axis:
            strip = figure.add_subplot(grid[2 + 2 * row, column])
            _draw_strip(strip, panel, axis, top, sorted(labels))
            strip.set_yticks(range(len(labels)), [labels[one] or axis for one in sorted(labels)], fontsize=7)
            strip.tick_params(axis="y", length=0, labelleft=column == 0)
            if number + columns >= len(panels):
                strip.set_xlabel(style.AXIS_NAMES[axis], fontsize=9)
    assert first is not None
    style.scale_effects(first, _ends(panels), margin)
    return figure


def _ends(panels: list[_Panel]) -> list[float]:
    cells = [cell for panel in panels for line in panel.lines for cell in line.cells]
    return [cell[key] for cell in cells for key in ("low", "effect", "high") if cell[key] is not None]


def _draw(axes: Axes, panel: _Panel, axis: str | None, margin: float, styles: int) -> None:
    style.margin_zone(axes, margin)
    _scale_places(axes, panel, axis)
    for line in panel.lines:
        colour = style.COLOURS[line.style]
        # A small step aside, so that equal effects do not hide one another.
        offset = (line.style - (styles - 1) / 2) * 0.012 * (axes.get_xlim()[1] - axes.get_xlim()[0])
        places = [_place(cell, axis, index) + offset for index, cell in enumerate(line.cells)]
        means, lows, highs = (style.with_gaps([cell[key] for cell in line.cells]) for key in ("effect", "low", "high"))
        if axis:
            axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0, zorder=2)
            axes.plot(places, means, color=colour, linestyle=style.DASHES[line.style], linewidth=1.4, zorder=4)
        axes.vlines(places, lows, highs, color=colour, linewidth=1, zorder=3)
        for verdict in style.MARKERS:
            shown = [n for n, cell in enumerate(line.cells) if cell["verdict"] == verdict]
            axes.plot([places[n] for n in shown], [means[n] for n in shown], zorder=5, **style.mark(verdict, colour))
    style.tidy(axes, capital(panel.title))


def _draw_strip(axes: Axes, panel: _Panel, axis: str, above: Axes, styles: list[int]) -> None:
    """One row per line: a filled bar where bias matters, a hollow one where it is equivalent, dots between."""
    left, right = above.get_xlim()
    for line in panel.lines:
        row, colour = styles.index(line.style), style.COLOURS[line.style]
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
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(len(styles) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _place(cell: Record, axis: str | None, index: int) -> float:
    return float(index) if axis is None else style.place(axis, cell[axis])


def _scale_places(axes: Axes, panel: _Panel, axis: str | None) -> None:
    if axis:
        style.scale_axis(axes, axis, [cell[axis] for line in panel.lines for cell in line.cells])
        return
    style.name_cells(axes, panel.lines[0].cells)


def _legend(axes: Axes, labels: dict[int, str], margin: float) -> None:
    """The lines in a row above the verdicts, so that each reads across."""
    axes.set_axis_off()
    lines = [
        Line2D([], [], color=style.COLOURS[one], linestyle=style.DASHES[one], label=label)
        for one, label in sorted(labels.items())
        if label
    ]
    names = {"matters": "bias matters", "equivalent": "equivalent", "undecided": "undecided"}
    marks = [Line2D([], [], label=text, **style.mark(one, "0.25")) for one, text in names.items()]
    if margin > 0:
        marks.append(Line2D([], [], color="0.85", linewidth=8, label=f"margin ±{margin:g} points"))
    options: dict[str, Any] = {"fontsize": 8, "frameon": False, "borderaxespad": 0}
    if lines:
        columns = 2 if len(lines) in (2, 4) else min(len(lines), 3)
        axes.add_artist(axes.legend(handles=lines, loc="upper center", ncols=columns, handlelength=4, **options))
    axes.legend(handles=marks, loc="lower center", ncols=4, **options)


def _values(record: Record, names: list[str]) -> tuple[Any, ...]:
    return tuple(record[name] for name in names)


def _said(names: list[str], values: tuple[Any, ...]) -> str:
    return describe(dict(zip(names, values, strict=True)))
