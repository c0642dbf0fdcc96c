"""Each arm by itself: accuracies against an axis, and learning curves."""

from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import arm_means
from analysis.figures import style
from analysis.record import Record
from analysis.wording import captions
from analysis.wording.phrases import capital, describe

MOST_CURVES = 16
Table: TypeAlias = dict[tuple[str, ...], pd.DataFrame]


def accuracies(verdict: Record, pairs: pd.DataFrame, axis: str | None, stem: Path) -> None:
    """Writes both arms' mean accuracies against `axis`, one panel per combination of the other settings."""
    cells, names = verdict["cells"], verdict["factors"]
    table = arm_means.by_arm(arm_means.accuracies(pairs, names, verdict["looks"]["confidence_each"]), names)
    if axis:
        lines, left_out = style.lines(cells, axis)
    else:
        chosen, left_out = style.spread_out(cells, style.MOST_POINTS, "cells")
        lines = [({}, chosen)]
    title, caption = captions.accuracies(verdict, axis, len(lines), left_out)
    with style.drawing(stem.name):
        wide = (3.4, 2.7) if axis else (6.4, 4.0)
        figure, above, panels = style.panels(len(lines), title=title, caption=caption, size=wide)
        style.legend(above, _handles())
        for (others, line), axes in zip(lines, panels, strict=True):
            for step, arm in zip((-1, 1), style.ARMS, strict=True):
                _accuracy(axes, line, table, names, axis, arm, step)
            style.tidy(axes, capital(describe(others)))
            _scale(axes, line, axis)
        style.label_outer(panels, style.AXIS_NAMES[axis] if axis else "", "test accuracy (%)")
        style.save(figure, stem)


def _accuracy(
    axes: Axes, line: list[Record], table: Table, names: list[str], axis: str | None, arm: str, step: int
) -> None:
    found = [table.get((*arm_means.key(cell, names), arm)) for cell in line]
    values = {key: [None if part is None else part[key].iloc[0] for part in found] for key in ("mean", "low", "high")}
    places = [style.place(axis, cell[axis]) if axis else float(n) for n, cell in enumerate(line)]
    reach = (max(places) - min(places)) or 1.0
    places = [at + 0.008 * step * reach for at in places]
    look = {key: value for key, value in style.ARMS[arm].items() if key in ("color", "marker")}
    dashes: Any = style.ARMS[arm]["linestyle"] if axis else "none"
    low, high = style.with_gaps(values["low"]), style.with_gaps(values["high"])
    axes.vlines(places, low, high, color=look["color"], linewidth=1)
    if axis:
        axes.fill_between(places, low, high, color=look["color"], alpha=0.12, linewidth=0)
    inside = look["color"] if arm == "bias" else "white"
    axes.plot(places, style.with_gaps(values["mean"]), linestyle=dashes, linewidth=1.3, markersize=4.5,
              markerfacecolor=inside, **look)  # fmt: skip


def _scale(axes: Axes, line: list[Record], axis: str | None) -> None:
    if axis:
        style.scale_axis(axes, axis, [cell[axis] for cell in line], apart=0.07)
    else:
        style.name_cells(axes, line)


def learning(verdict: Record, table: pd.DataFrame, stem: Path) -> None:
    """Writes the validation accuracy of both arms over the steps, a panel per cell; `table` as `arm_means.curves`."""
    names = verdict["factors"]
    parts = arm_means.by_arm(table, names)
    drawn = [cell for cell in verdict["cells"] if (*arm_means.key(cell, names), "bias") in parts]
    ordered = sorted(drawn, key=lambda cell: bool(cell.get("batch_norm")))
    cells, _ = style.spread_out(ordered, MOST_CURVES, "cells")
    left_out = captions.drawn(len(cells), len(verdict["cells"]), "cells")
    counts = [int(n) for n in table["n"]]
    title, caption = captions.learning(verdict, counts, left_out)
    with style.drawing(stem.name):
        figure, above, panels = style.panels(len(cells), title=title, caption=caption, columns=4, size=(2.6, 2.1))
        style.legend(above, _handles(marks=False))
        for cell, axes in zip(cells, panels, strict=True):
            for arm, look in style.ARMS.items():
                part = parts.get((*arm_means.key(cell, names), arm), table[:0])
                axes.fill_between(part["step"], part["low"], part["high"], color=look["color"], alpha=0.2, linewidth=0)
                axes.plot(part["step"], part["mean"], color=look["color"], linestyle=look["linestyle"], linewidth=1.3)
            style.tidy(axes, capital(style.name_of(cell)))
            axes.title.set_fontsize(8)
        style.label_outer(panels, "step", "validation accuracy (%)")
        style.save(figure, stem)


def _handles(marks: bool = True) -> list[Line2D]:
    inside = {"bias": style.COLOURS[0], "no_bias": "white"}
    hidden = {} if marks else {"marker": "none"}
    return [
        Line2D([], [], markersize=5, markerfacecolor=inside[arm], **(look | hidden)) for arm, look in style.ARMS.items()
    ]
