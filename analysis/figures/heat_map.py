"""The effect on the grid of width and depth, with a mark for each verdict; one panel per batch norm."""

from pathlib import Path
from typing import Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from analysis.figures import style
from analysis.record import Record, settings
from analysis.wording import captions
from analysis.wording.phrases import capital, describe, signed

MOST_NUMBERS: Final = 12
"""With no more levels per axis than this, the effect is written into its square."""
# Orange and violet stay distinct in all common forms of colour blindness; in black and white, the number and the
# direction of the triangle tell which is which.
_MAP: Final = "PuOr_r"
_MARKS: Final = {"helps": "^", "hurts": "v", "equivalent": "o", "undecided": "x"}


def draw(verdict: Record, stem: Path) -> None:
    """Writes the heat map; the cells must vary in width and in depth."""
    cells, margin = verdict["cells"], verdict["margin"]
    found, left_out = style.spread_out(_panels(cells), style.MOST_PANELS, "panels")
    reach = max((abs(cell["effect"]) for _, part in found for cell in part if cell["effect"] is not None), default=0)
    norm = _norm(max(reach, margin) or 1.0, margin)
    title, caption = captions.heat_map(verdict, style.logarithmic_from([reach], margin), left_out)
    levels = [sorted({cell[axis] for cell in cells}) for axis in ("width", "depth")]
    size = (max(3.2, 0.46 * min(len(levels[0]), 14) + 0.6), max(1.9, 0.46 * min(len(levels[1]), 14) + 0.5))
    with style.drawing(stem.name):
        figure, above, panels = style.panels(len(found), title=title, caption=caption, size=size, columns=2)
        style.legend(above, _handles(cells, len(cells) < len(found) * len(levels[0]) * len(levels[1])))
        for (name, part), axes in zip(found, panels, strict=True):
            _draw(axes, part, *levels, norm=norm)
            axes.set_title(capital(name), fontsize=9)
        style.label_outer(panels, style.AXIS_NAMES["width"], style.AXIS_NAMES["depth"])
        rows = -(-len(found) // 2)
        bar = figure.colorbar(ScalarMappable(norm, _MAP), ax=panels, shrink=min(0.8, 1.6 / rows), aspect=25, pad=0.02)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda effect, _: f"{effect:+g}" if effect else "0"))
        bar.ax.tick_params(labelsize=8)
        bar.ax.minorticks_off()
        bar.set_label("effect (percentage points)", fontsize=8)
        style.save(figure, stem)


def _panels(cells: list[Record]) -> list[tuple[str, list[Record]]]:
    found: dict[str, list[Record]] = {}
    for cell in cells:
        others = {name: value for name, value in settings(cell).items() if name not in ("width", "depth")}
        found.setdefault(describe(others), []).append(cell)
    return list(found.items())


def _norm(reach: float, margin: float) -> Normalize:
    inner = style.logarithmic_from([reach], margin)
    if inner:
        return SymLogNorm(inner, vmin=-reach, vmax=reach)
    return Normalize(-reach, reach)


def _draw(axes: Axes, cells: list[Record], widths: list[int], depths: list[int], *, norm: Normalize) -> None:
    effects = np.full((len(depths), len(widths)), np.nan)
    for cell in cells:
        if cell["effect"] is not None:
            effects[depths.index(cell["depth"]), widths.index(cell["width"])] = cell["effect"]
    # Hatches where the grid has no cell: white would read as no effect.
    axes.axvspan(-0.5, len(widths) - 0.5, facecolor="0.93", edgecolor="0.7", hatch="////", linewidth=0, zorder=0)
    axes.imshow(effects, cmap=_MAP, norm=norm, aspect="auto", origin="lower", zorder=1)
    numbers = max(len(widths), len(depths)) <= MOST_NUMBERS
    for cell in cells:
        if cell["effect"] is None:
            continue
        x, y = widths.index(cell["width"]), depths.index(cell["depth"])
        colour = _ink(norm, cell["effect"])
        # Undecided is thin, matters is full: the eye finds what is shown before what is not.
        axes.plot([x], [y + (0.2 if numbers else 0)], _MARKS[cell["direction"] or cell["verdict"]], color=colour,
                  markersize=5 if numbers else 3.5, zorder=3,
                  markerfacecolor="none" if cell["verdict"] == "equivalent" else colour)  # fmt: skip
        if numbers:
            digits = 2 if abs(cell["effect"]) < 9.95 else 0
            said = signed(cell["effect"], digits)
            axes.text(x, y - 0.2, said, ha="center", va="center", fontsize=6.5, color=colour, zorder=3)
    for axis, levels in ((axes.xaxis, widths), (axes.yaxis, depths)):
        kept = range(0, len(levels), 1 + (len(levels) - 1) // 14)
        axis.set_ticks(list(kept), [str(levels[n]) for n in kept], fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _ink(norm: Normalize, effect: float) -> str:
    red, green, blue, _ = matplotlib.colormaps[_MAP](float(norm(effect)))
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"


def _handles(cells: list[Record], holes: bool) -> list[Line2D | Patch]:
    names = {"helps": "matters: bias helps", "hurts": "matters: bias hurts", "equivalent": "equivalent",
             "undecided": "undecided"}  # fmt: skip
    there = {cell["direction"] or cell["verdict"] for cell in cells}
    marks: list[Line2D | Patch] = [
        Line2D([], [], label=text, marker=_MARKS[one], linestyle="none", color="black", markersize=6,
               markerfacecolor="none" if one == "equivalent" else "black")
        for one, text in names.items() if one in there
    ]  # fmt: skip
    if holes:
        marks.append(Patch(facecolor="0.93", edgecolor="0.7", hatch="////", linewidth=0, label="not in the sweep"))
    return marks
