"""What the rows of one study say, as one record ready for JSON: the contents of `verdict.json`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pandas as pd

from analysis import effects, threshold
from analysis.effects import Record
from analysis.tables import checked, ignored

DEFAULTS: Final = {"margin": 0.5, "confidence": 0.95}


def analyse(
    rows: pd.DataFrame,
    *,
    name: str,
    margin: float | None = None,
    confidence: float | None = None,
    declared: Mapping[str, float] = MappingProxyType({}),
    missing_runs: int = 0,
) -> Record:
    """What `verdict.json` holds: counts, one record a cell, one a threshold, and what the reader must know.

    `margin` is in percentage points, `confidence` is 1 - alpha; what is None is taken from `declared` (what was fixed
    before looking), else from `DEFAULTS`. `missing_runs` are runs of the sweep that have no row. Raises InputError
    where the rows cannot be analysed.
    """
    rows = checked(rows)
    given = {"margin": margin, "confidence": confidence}
    chosen = {
        level: given[level] if given[level] is not None else declared.get(level, DEFAULTS[level]) for level in given
    }
    levels = {level: float(value) for level, value in chosen.items() if value is not None}
    cells = effects.cells(rows, **levels)
    pairs = sum(cell["pairs"] for cell in cells)
    return {
        "name": name,
        **levels,
        **{f"{level}_declared": declared.get(level) for level in given},
        **{f"{level}_given": value is not None for level, value in given.items()},
        "unplanned_look": None,
        "runs": len(rows),
        "missing_runs": missing_runs,
        "pairs": pairs,
        "missing_pairs": len(rows) - 2 * pairs,  # every run without a partner is a pair that misses one
        "diverged_bias": sum(cell["diverged_bias"] for cell in cells),
        "diverged_no_bias": sum(cell["diverged_no_bias"] for cell in cells),
        "factors": effects.factors(rows),
        "ignored_columns": ignored(rows),
        "cells": cells,
        "thresholds": threshold.thresholds(cells, **levels),
        "tuned_cells": None,
        "alarms": [],
    }
