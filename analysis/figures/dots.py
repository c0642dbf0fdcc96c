"""Every pair as a dot, so that runs that collapsed are seen where a mean would hide them."""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis import arm_means
from analysis.figures import style
from analysis.record import Record
from analysis.wording import captions
from analysis.wording.phrases import capital, describe

MOST_VECTORS: Final = 5_000
"""With more dots than this, the SVG holds them as a picture; it would grow to many megabytes otherwise."""
_COLOUR: Final = style.COLOURS[0]


def draw(verdict: Record, pairs: pd.DataFrame, axis: str | None, stem: Path) -> None:
    """Writes the effect of every pair at its level of `axis`, with the mean and its interval beside the dots."""
    cells, margin, names = verdict["cells"], verdict["margin"], verdict["factors"]
    if axis:
        lines, left_out = style.lines(cells, axis)
    else:
        chosen, left_out = style.spread_out(cells, style.MOST_POINTS, "cells")
        lines = [({}, chosen)]
    dots = _by_cell(pairs, names)
    shown = [cell for _, line in lines for cell in line if cell["effect"] is not None]
    ends = [float(end) for cell in shown for end in _ends(cell, dots[arm_means.key(cell, names)])]
    diverged = sum(int(dots[arm_means.key(cell, names)]["diverged"].sum()) for cell in shown)
    inner = style.logarithmic_from(ends, margin)
    title, caption = captions.pairs(verdict, axis, diverged, inner, left_out)
    with style.drawing(stem.name):
        size = (3.4, 2.9) if axis else (6.4, 4.0)
        figure, above, panels = style.panels(len(lines), title=title, caption=caption, size=size)
        style.legend(above, _handles(bool(diverged)))
        for (others, line), axes in zip(lines, panels, strict=True):
            style.margin_zone(axes, margin)
            for place, cell in enumerate(line):
                _cell(axes, place, cell, dots.get(arm_means.key(cell, names)), len(pairs) > MOST_VECTORS)
            style.tidy(axes, capital(describe(others)))
            if axis:
                axes.set_xlim(-0.6, len(line) - 0.4)
                kept = range(0, len(line), 1 + len(line) // 14)
                style.label(axes, {float(n): str(line[n][axis]) for n in kept}, [float(n) for n in kept])
            else:
                style.name_cells(axes, line)
            style.scale_effects(axes, ends, margin)
        style.label_outer(panels, style.AXIS_NAMES[axis] if axis else "", style.EFFECT)
        style.save(figure, stem)


def _by_cell(pairs: pd.DataFrame, names: list[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    bad = (pairs["status_bias"] == "diverged") | (pairs["status_no_bias"] == "diverged")
    return arm_means.by_cell(pairs.assign(diverged=bad), names)


def _ends(cell: Record, frame: pd.DataFrame) -> list[float]:
    known = [cell[key] for key in ("low", "high") if cell[key] is not None]
    return [*known, frame["effect"].min(), frame["effect"].max()]


def _cell(axes: Axes, place: int, cell: Record, frame: pd.DataFrame | None, picture: bool) -> None:
    if frame is None:
        return
    effects, bad = frame["effect"].to_numpy(), frame["diverged"].to_numpy()
    # Steps of the golden ratio spread dots evenly, and the same each time.
    at = place - 0.08 + 0.5 * ((np.arange(len(effects)) * 0.6180339887) % 1 - 0.5)
    axes.plot(at[~bad], effects[~bad], "o", color=_COLOUR, alpha=0.55, markersize=2.6, markeredgewidth=0,
              rasterized=picture, zorder=3)  # fmt: skip
    axes.plot(at[bad], effects[bad], "x", color=style.COLOURS[1], markersize=4.5, rasterized=picture, zorder=4)
    if cell["low"] is not None:
        axes.vlines(place + 0.3, cell["low"], cell["high"], color="black", linewidth=1.6, zorder=5)
    axes.plot([place + 0.3], [cell["effect"]], "D", color="black", markersize=3.2, zorder=6)


def _handles(diverged: bool) -> list[Line2D]:
    marks = [
        Line2D([], [], label="one pair", marker="o", linestyle="none", color=_COLOUR, markersize=4),
        Line2D([], [], label="mean and interval", marker="D", color="black", linewidth=1.6, markersize=4),
    ]
    if diverged:
        marks.append(Line2D([], [], label="a run diverged", marker="x", linestyle="none", color=style.COLOURS[1]))
    return marks
