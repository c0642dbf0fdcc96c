"""What makes the experiment itself doubtful, said before anything else."""

from typing import Final

import numpy as np
import pandas as pd

from analysis.effects import Record, settings
from analysis.hypotheses import negative_control
from analysis.wording import describe

MOST_NAMED: Final = 3


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
        known = {name for name in ("bias_layers", "bias_init") if name in frame or name in shared}
        caught = matters & np.asarray(norm, dtype=bool) & (not known)
        condition = " (if these are biases of convolutions that start at zero, which the table does not say)"
    if caught.any():
        found.append(_control(cells, np.flatnonzero(caught).tolist(), condition))
    if disagreeing:
        runs = "1 run stands" if disagreeing == 1 else f"{disagreeing:,} runs stand"
        found.append(f"{runs} in the store twice with different results; the earliest row counts.")
    return found


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
