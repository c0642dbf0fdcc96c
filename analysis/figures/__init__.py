"""The figures of a report, drawn by matplotlib as SVG and PNG, each in a module of its own.

A figure is drawn only if the sweep's axes vary what it shows.
"""

from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from analysis.arm_means import band_table
from analysis.figures.environment import load_matplotlib
from analysis.record import Record
from analysis.wording.captions import CAPTIONS

load_matplotlib()  # before a module of figures imports it with whatever settings it would find

from analysis.figures import arms, dots, effect, heat_map, margins, variance  # noqa: E402

__all__ = ["CAPTIONS", "axis_of", "band_table", "draw"]


def draw(
    verdict: Record,
    pairs: pd.DataFrame,
    curves: pd.DataFrame | None,
    out: Path,
    names: Collection[str] = tuple(CAPTIONS),
) -> list[str]:
    """Writes `<out>/<name>.svg` and `.png` for those figures of `names` that the sweep has; returns their names.

    `verdict` is what `analyse` returns, `pairs` the table of `effects.pairs`, `curves` that of `arm_means.curves` or
    None. Figures of an earlier report that this sweep does not have are removed.
    """
    made = _figures(verdict, pairs, curves)
    for name in names:
        if name in made:
            made[name](out / name)
        elif (out / "verdict.json").exists():  # else the folder holds no report of ours
            for kind in ("svg", "png"):
                (out / f"{name}.{kind}").unlink(missing_ok=True)
    return [name for name in names if name in made]


def axis_of(verdict: Record) -> str | None:
    """The axis that figures stand against: width where it varies, else depth, else none."""
    return next((axis for axis in ("width", "depth") if axis in verdict["factors"]), None)


def _figures(verdict: Record, pairs: pd.DataFrame, curves: pd.DataFrame | None) -> dict[str, Callable[[Path], None]]:
    axis, factors = axis_of(verdict), verdict["factors"]
    found: dict[str, Callable[[Path], None]] = {}
    for one in ("width", "depth"):
        if one in factors:
            found[f"effect_by_{one}"] = lambda stem, one=one: effect.draw(verdict, one, stem)  # type: ignore[misc]
    if axis is None:
        found["effects"] = lambda stem: effect.draw(verdict, None, stem)
    if {"width", "depth"} <= set(factors):
        found["heat_map"] = lambda stem: heat_map.draw(verdict, stem)
    found["accuracies"] = lambda stem: arms.accuracies(verdict, pairs, axis, stem)
    found["pairs"] = lambda stem: dots.draw(verdict, pairs, axis, stem)
    if curves is not None:
        found["curves"] = lambda stem: arms.learning(verdict, curves, stem)
    if verdict["variance"]:
        found["variance"] = lambda stem: variance.draw(verdict, stem)
    if any(one["margins"] for one in verdict["thresholds"]):
        found["margins"] = lambda stem: margins.draw(verdict, stem)
    return found
