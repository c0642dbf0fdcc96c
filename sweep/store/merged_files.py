"""Files that hold several arrays' rows or curves, as `compaction` makes them: names, parts, and their index.

Columns are those of an array's own file. Which rows are of which array stands in the file's metadata, under `arrays`: a
list of `[array id, rows, when it was written]` in the order of the rows.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sweep.store.damage import Damaged, parsed
from sweep.store.storage import Place

PREFIX: Final = "merged-"
"""How names of merged files start; array ids are hexadecimal."""

INDEX: Final = "merged.json"
"""The array ids by merged file: spares a listing to who looks for one array."""

ARRAYS: Final = b"arrays"

Parts = list[tuple[str, int]]
"""Array ids, each with the number of its rows, in the order of the rows."""


class Part(NamedTuple):
    """One writing of an array: files with the same part hold the same rows."""

    array_id: str
    written: int
    """Microseconds since 1970."""


class Entry(NamedTuple):
    """What a merged file says of one of its arrays, in the order of its metadata.

    `examples`: how many validation pictures the points of its curves are of, None for rows and where it is not known.
    """

    array_id: str
    rows: int
    written: int
    examples: int | None


def written(rows: pa.Table) -> int:
    """When an array was written; one moment for all its rows."""
    return int(pc.max(rows["finished_at"]).cast(pa.int64()).as_py() or 0)


def name_of(parts: Iterable[Part]) -> str:
    """The name of the file that holds these writings: one and the same, whoever makes it."""
    digest = hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:20]
    return f"{PREFIX}{digest}.parquet"


def is_merged(name: str) -> bool:
    """Whether this is the name of a merged file."""
    return PurePosixPath(name).name.startswith(PREFIX)


def parts(name: str, table: pa.Table) -> Parts:
    """Which arrays the rows of a file are of; a file without a word of it is named after its array.

    Raises Damaged where the file's list of them is.
    """
    if ARRAYS not in (table.schema.metadata or {}) and not is_merged(name):
        return [(PurePosixPath(name).stem, len(table))]
    return [(each.array_id, each.rows) for each in entries(table)]


def entries(table: pa.Table) -> list[Entry]:
    """What the metadata of a merged file say of its arrays, in the order of the rows; Damaged where they say nothing of
    use."""
    found = []
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        for array_id, rows, written, examples in json.loads((table.schema.metadata or {})[ARRAYS]):
            found.append(Entry(str(array_id), int(rows), int(written), None if examples is None else int(examples)))
    if sum(each.rows for each in found) != len(table) or any(each.rows < 0 for each in found):
        raise Damaged("is no table of this store (which arrays it holds is damaged)")
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
        found = parsed(place.read(INDEX))
    except FileNotFoundError:
        return None
    except (Damaged, IsADirectoryError, PermissionError):
        return {}  # it spares listings; without it, they are made
    given = found.items() if isinstance(found, dict) else ()
    return {name: list(map(str, arrays)) for name, arrays in given if isinstance(arrays, list)}
