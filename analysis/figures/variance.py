"""What moves the effect: its variance over cells by factor."""

from pathlib import Path

from analysis.figures import style
from analysis.record import Record
from analysis.wording import captions


def draw(verdict: Record, stem: Path) -> None:
    """Writes each factor's share of the variance of the cells' effects as a bar with its number."""
    shares = verdict["variance"]
    title, caption = captions.variance(verdict)
    with style.drawing(stem.name):
        figure = style.blank(6.8, 0.9 + 0.42 * len(shares), title, caption)
        axes = figure.add_subplot()
        values = [100 * one["share"] for one in shares]
        axes.barh(range(len(shares)), values, height=0.6, color=style.COLOURS[0])
        axes.axvline(0, color="0.35", linewidth=0.8)
        for row, value in enumerate(values):
            axes.text(max(value, 0), row, f" {value:.0f} %", va="center", fontsize=8)
        axes.set_yticks(range(len(shares)), [one["factor"].replace("_", " ") for one in shares], fontsize=9)
        axes.set_xlim(min(0, *values), max(100, *values) * 1.08)
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_xlabel("share of the variance between cells (%)", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0, labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        style.save(figure, stem)
