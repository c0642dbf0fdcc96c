"""What makes the experiment itself doubtful, said before anything else."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.effects import Record, settings
from analysis.hypotheses import CONV_BIASES, negative_control
from analysis.wording.phrases import describe

MOST_NAMED: Final = 3

PAIRED: Final = ("dataset_fingerprint", "trainer_version", "image_size")
"""What the runs of a pair have to share beside their settings."""


def alarms(cells: list[Record], shared: Record, disagreeing: int | None) -> list[str]:
    """One sentence each: cells of the negative control where bias matters; runs that stand twice and differ.

    `shared` holds the settings that all rows share. Where a table does not say how its biases stand and start, a cell
    with batch norm is doubted on that condition.
    """
    found = []
    frame = pd.DataFrame([settings(cell) for cell in cells], index=range(len(cells)))
    matters = np.array([cell["verdict"] == "matters" for cell in cells])
    control = negative_control(frame, shared)
    if control is not None:
        caught, condition = matters & control, ""
    else:
        norm = frame["batch_norm"] if "batch_norm" in frame else shared.get("batch_norm", False)
        layers = _possible(frame, shared, "bias_layers", CONV_BIASES)
        caught = matters & np.asarray(norm, dtype=bool) & layers & _possible(frame, shared, "bias_init", {"zeros"})
        condition = " (if these are biases of convolutions that start at zero, which the table does not say)"
    if caught.any():
        found.append(_control(cells, np.flatnonzero(caught).tolist(), condition))
    if disagreeing:
        runs = "1 run stands" if disagreeing == 1 else f"{disagreeing:,} runs stand"
        found.append(f"{runs} in the store twice with different results; the earliest row counts.")
    return found


def changed(declared: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """One sentence for every level that was declared otherwise when the results were first looked at."""
    return [
        f"The {name} {declared[name]:g} was declared after a look at {before[name]:g}: it is set before looking."
        for name in ("margin", "confidence")
        if declared.get(name) is not None and before.get(name) is not None and declared[name] != before[name]
    ]


def mixed(rows: pd.DataFrame, names: list[str]) -> list[str]:
    """One sentence for everything but the bias that sets the two runs of a pair apart; `rows` are checked."""
    found = []
    for column in PAIRED:
        if column in rows and rows[column].nunique(dropna=False) > 1:
            count = int((rows.groupby([*names, "seed"], dropna=False)[column].nunique(dropna=False) > 1).sum())
            if count:
                found.append(f"The runs of {count:,} pairs differ in {column}: bias is not all that sets them apart.")
    return found


def _possible(frame: pd.DataFrame, shared: Record, name: str, levels: Collection[str]) -> NDArray[np.bool_] | bool:
    """Where a setting is at one of these levels, or nobody says where it is."""
    if name in frame:
        return np.asarray(frame[name].isin(list(levels)), dtype=bool)
    return name not in shared or shared[name] in levels


def _control(cells: list[Record], caught: list[int], condition: str) -> str:
    named = "; ".join(
        f"{describe(settings(cells[place])) or 'the only cell'}: {cells[place]['effect']:+.2f} points"
        for place in caught[:MOST_NAMED]
    )
    more = f" and {len(caught) - MOST_NAMED:,} more" if len(caught) > MOST_NAMED else ""
    return (
        "The negative control fails: batch norm cancels the bias of the convolution before it, yet bias matters there"
        f"{condition} ({named}{more}). Look for a fault in the experiment before trusting any verdict."
    )
