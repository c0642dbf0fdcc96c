"""The one row of a run that counts: the earliest, if several launches trained it."""

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sweep.store.merged_files import Parts

COMPARED: Final = ("status", "test_accuracy", "validation_accuracy", "test_correct")


class Found(NamedTuple):
    """Rows of the store, one per run, with its place among the runs asked for and the array that it came from; how many
    runs have several rows, and how many of these disagree (not counting losses, which differ by rounding between arrays
    of different sizes)."""

    rows: pa.Table
    places: NDArray[np.int64]
    array_ids: list[str]
    repeated: int
    disagreeing: int


def statuses_of(found: list[tuple[Parts, pa.Table]]) -> dict[str, str]:
    """Status by run id, from the earliest row of each run (ties by array id)."""
    if not found:
        return {}
    ranks = ranks_of([part for parts, _ in found for part in parts])
    table = pa.concat_tables([table for _, table in found])
    finished = table["finished_at"].cast(pa.int64()).to_pylist()  # `to_numpy` loads pandas, which takes long
    # Later entries overwrite earlier ones, so in reverse the earliest row, of the first array, remains.
    order = np.lexsort((ranks, np.array(finished, dtype=np.int64)))[::-1].tolist()
    run_ids, statuses = table["run_id"].to_pylist(), table["status"].to_pylist()
    return {run_ids[row]: statuses[row] for row in order}


def ranks_of(parts: Parts) -> NDArray[np.int32]:
    """The array of every row, as its rank among the sorted array ids."""
    order = {array_id: rank for rank, array_id in enumerate(sorted({array_id for array_id, _ in parts}))}
    ranks = np.array([order[array_id] for array_id, _ in parts], dtype=np.int32)
    return np.repeat(ranks, [rows for _, rows in parts])


def first_rows(
    table: pa.Table, places: NDArray[np.int64], ranks: NDArray[np.int32], names: NDArray[np.object_]
) -> Found:
    """The earliest row for every place, by place; `ranks` says which of the arrays `names` each row belongs to."""
    finished = table["finished_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((ranks, finished, places))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(places[order]) != 0
    # For a while, the same row may be both in a merged file and in the files that it was made of.
    copy = np.zeros(len(order), dtype=bool)
    copy[1:] = ~first[1:] & (np.diff(finished[order]) == 0) & (np.diff(ranks[order]) == 0)
    chosen, other = order[first], ~first & ~copy
    again, winner = order[other], chosen[np.cumsum(first) - 1][other]
    differ = np.zeros(len(again), dtype=bool)
    for column in COMPARED if len(again) else ():
        values = table[column]
        differ |= np.asarray(pc.not_equal(values.take(pa.array(again)), values.take(pa.array(winner))))
    # Usually they are in order already, which saves a copy.
    rows = table if np.array_equal(chosen, np.arange(len(table))) else table.take(pa.array(chosen))
    repeated = len(np.unique(places[again]))
    return Found(rows, places[chosen], names[ranks[chosen]].tolist(), repeated, len(np.unique(places[again][differ])))
