"""What casts doubt on the experiment itself, and is said before anything else."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.hypotheses import CONV_BIASES, negative_control
from analysis.record import Record, settings

PAIRED: Final = ("dataset_fingerprint", "trainer_version", "image_size")
"""What the runs of a pair must share besides their settings."""


def failed_control(cells: list[Record], shared: Record) -> tuple[list[Record], bool]:
    """The cells of the negative control where bias matters, and whether they are known to belong to it.

    `shared` holds the settings that all rows share. Where a table lacks `bias_layers` or `bias_init`, every cell with
    batch norm may belong to it.
    """
    frame = pd.DataFrame([settings(cell) for cell in cells], index=range(len(cells)))
    control = negative_control(frame, shared)
    known = control is not None
    if control is None:
        norm = frame["batch_norm"] if "batch_norm" in frame else shared.get("batch_norm", False)
        layers = _possible(frame, shared, "bias_layers", CONV_BIASES)
        control = np.asarray(norm, dtype=bool) & layers & _possible(frame, shared, "bias_init", {"zeros"})
    matters = np.array([cell["verdict"] == "matters" for cell in cells])
    return [cells[place] for place in np.flatnonzero(matters & control)], known


def changed(declared: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The levels that were declared differently at the first look: the value now, and the value then."""
    return {
        name: (declared[name], before[name])
        for name in ("margin", "confidence")
        if declared.get(name) is not None and before.get(name) is not None and declared[name] != before[name]
    }


def mixed(rows: pd.DataFrame, names: list[str]) -> dict[str, int]:
    """How many pairs of checked `rows` differ in more than the bias, by column."""
    found = {}
    for column in PAIRED:
        if column in rows and rows[column].nunique(dropna=False) > 1:
            count = int((rows.groupby([*names, "seed"], dropna=False)[column].nunique(dropna=False) > 1).sum())
            if count:
                found[column] = count
    return found


def _possible(frame: pd.DataFrame, shared: Record, name: str, levels: Collection[str]) -> NDArray[np.bool_] | bool:
    """Where a setting is at one of these levels, or its level is unknown."""
    if name in frame:
        return np.asarray(frame[name].isin(list(levels)), dtype=bool)
    return name not in shared or shared[name] in levels
