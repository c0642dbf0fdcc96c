"""Whether the report that a store has of a sweep is as new as the rows: then it need not be made again."""

import contextlib
import hashlib
import importlib.metadata
import json
from typing import Any, Final

from sweep.common.errors import InputError
from sweep.space.search_space import SearchSpace
from sweep.store.rows import Store

MADE_FROM: Final = "made_from.json"
"""The file, beside a report, that stands for what it was made from; written last, and removed first."""

PARTS: Final = ("verdict.json", "report.md", "report.html")
"""What has to be there of a report for it to be one."""


def keep(space: SearchSpace, store: Store, files: list[str]) -> None:
    """Remembers that the report of a sweep was made from these files of rows, and all looks so far."""
    with contextlib.suppress(OSError):  # then it is made again
        store.place.write(_file(space, store), json.dumps({"made_from": _source(space, store, files)}).encode())


def forget(space: SearchSpace, store: Store) -> None:
    """The report of a sweep is about to be another one."""
    with contextlib.suppress(OSError):  # nor can another report be written
        store.place.remove(_file(space, store))


def verdict(space: SearchSpace, store: Store) -> dict[str, Any] | None:
    """What `verdict.json` holds, where the report of a sweep is whole and as new as the rows; None elsewhere."""
    folder = store.report_folder(space.name)
    try:
        kept = json.loads(store.place.read(_file(space, store)))["made_from"]
        if kept != _source(space, store, store.row_files()):
            return None
        if not all(store.exists(f"{folder}/{part}") for part in PARTS):
            return None
        found: dict[str, Any] = json.loads(store.place.read(f"{folder}/verdict.json"))
    except (OSError, InputError, ValueError, KeyError, TypeError):
        return None
    return found


def _source(space: SearchSpace, store: Store, files: list[str]) -> str:
    """Stands for what a report is made from: this program, the search space, the files of rows, and the looks.

    A file of rows is written once, and whole: its name stands for what it holds.
    """
    program = None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # run from a checkout
        program = importlib.metadata.version("sweep")
    damaged = sorted(name for name in store.damaged if name in files)
    parts = [program, space.resolved(), files, damaged, store.last_look(space.name)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _file(space: SearchSpace, store: Store) -> str:
    return f"{store.report_folder(space.name)}/{MADE_FROM}"
