"""Simulated studies with planted effects, as tables of runs."""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """All combinations of these levels."""
    return [dict(zip(axes, levels, strict=True)) for levels in product(*axes.values())]


def study(
    cells: list[dict[str, Any]],
    seeds: int,
    effect: Callable[[dict[str, Any]], float] = lambda cell: 0.0,
    *,
    noise: float = 0.3,
    seed: int = 0,
    **shared: Any,
) -> pd.DataFrame:
    """One row per run: both arms of `seeds` pairs in every cell; `effect` of a cell and `noise` are in points.

    Validation accuracy follows test accuracy with 0.2 points of noise of its own.
    """
    generator, parts = np.random.default_rng(seed), []
    for cell in cells:
        without = 0.7 + 0.005 * generator.standard_normal(seeds)
        with_bias = without + (effect(cell) + noise * generator.standard_normal(seeds)) / 100
        for bias, accuracy in ((True, with_bias), (False, without)):
            validation = accuracy + 0.002 * generator.standard_normal(seeds)
            part = {**shared, **cell, "seed": range(seeds), "bias": bias, "test_accuracy": accuracy}
            parts.append(pd.DataFrame(part | {"validation_accuracy": validation, "status": "ok"}))
    return pd.concat(parts, ignore_index=True)
