"""Files that hold several arrays' rows or curves, as `compaction` makes them: names, parts, and their index.

Columns are those of an array's own file. Which rows are of which array stands in the file's metadata, under `arrays`: a
list of `[array id, rows, when it was written]` in the order of the rows.
"""

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa

from sweep.common.errors import InputError
from sweep.store.storage import Place

PREFIX: Final = "merged-"
"""How names of merged files start; array ids are hexadecimal."""

INDEX: Final = "merged.json"
"""The array ids by merged file: spares a listing to who looks for one array."""

ARRAYS: Final = b"arrays"

Parts = list[tuple[str, int]]
"""Array ids, each with the number of its rows, in the order of the rows."""


def is_merged(name: str) -> bool:
    """Whether this is the name of a merged file."""
    return PurePosixPath(name).name.startswith(PREFIX)


def parts(name: str, table: pa.Table) -> Parts:
    """Which arrays the rows of a file are of; a file without a word of it is named after its array.

    Raises InputError where the file's list of them is damaged.
    """
    if ARRAYS not in (table.schema.metadata or {}):
        return [(PurePosixPath(name).stem, len(table))]
    try:
        found = [(str(array_id), int(rows)) for array_id, rows, *_ in json.loads(table.schema.metadata[ARRAYS])]
    except (ValueError, TypeError):
        found = []
    if sum(rows for _, rows in found) != len(table):
        raise InputError(f"{name}: is no table of this store (which arrays it holds is damaged); move it away to go on")
    return found


def split(of: Parts, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each array."""
    start = 0
    for array_id, rows in of:
        yield array_id, table.slice(start, rows)
        start += rows


def index(place: Place) -> dict[str, list[str]] | None:
    """Array ids by merged file, as far as told; None where no file of this store was ever merged."""
    try:
        found: Any = json.loads(place.read(INDEX))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
