"""Files that hold several arrays' rows or curves, as `compaction` makes them: names, parts, and their index.

Columns are those of an array's own file. The file's metadata says under `arrays` which rows belong to which array: a
list of `[array id, rows, when it was written, validation pictures]` in the order of the rows.
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
"""The prefix of merged files; array ids are hexadecimal."""

INDEX: Final = "merged.json"
"""Maps merged files to array ids, so that finding one array needs no listing."""

ARRAYS: Final = b"arrays"

Parts = list[tuple[str, int]]
"""Array ids with their numbers of rows, in the order of the rows."""


class Part(NamedTuple):
    """One write of an array: files with the same part hold the same rows."""

    array_id: str
    written: int
    """Microseconds since 1970."""


class Entry(NamedTuple):
    """What a merged file says about one of its arrays, in the order of its metadata.

    `examples`: how many validation pictures its curves are measured on, None for rows and if unknown.
    """

    array_id: str
    rows: int
    written: int
    examples: int | None


def written(rows: pa.Table) -> int:
    """When an array was written, in microseconds since 1970; the same for all its rows."""
    return int(pc.max(rows["finished_at"]).cast(pa.int64()).as_py() or 0)


def name_of(parts: Iterable[Part]) -> str:
    """The name of the file that holds these parts, whichever process writes it."""
    digest = hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:20]
    return f"{PREFIX}{digest}.parquet"


def is_merged(name: str) -> bool:
    """Whether this is the name of a merged file."""
    return PurePosixPath(name).name.startswith(PREFIX)


def parts(name: str, table: pa.Table) -> Parts:
    """Which arrays the rows of a file belong to; a file that does not say is named after its array.

    Raises Damaged if the file's list of arrays is damaged.
    """
    if ARRAYS not in (table.schema.metadata or {}) and not is_merged(name):
        return [(PurePosixPath(name).stem, len(table))]
    return [(each.array_id, each.rows) for each in entries(table)]


def entries(table: pa.Table) -> list[Entry]:
    """What the metadata of a merged file says about its arrays, in the order of the rows; Damaged if it is unusable."""
    found = []
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        for array_id, rows, written, examples in json.loads((table.schema.metadata or {})[ARRAYS]):
            found.append(Entry(str(array_id), int(rows), int(written), None if examples is None else int(examples)))
    if sum(each.rows for each in found) != len(table) or any(each.rows < 0 for each in found):
        raise Damaged("is not a table of this store (its list of arrays is damaged)")
    return found


def split(of: Parts, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each array."""
    start = 0
    for array_id, rows in of:
        yield array_id, table.slice(start, rows)
        start += rows


def index(place: Place) -> dict[str, list[str]] | None:
    """Array ids by merged file, as far as the index says; None if no file of this store was ever merged."""
    try:
        found = parsed(place.read(INDEX))
    except FileNotFoundError:
        return None
    except (Damaged, IsADirectoryError, PermissionError):
        return {}  # the index only saves listings
    given = found.items() if isinstance(found, dict) else ()
    return {name: list(map(str, arrays)) for name, arrays in given if isinstance(arrays, list)}
