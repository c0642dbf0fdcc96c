"""Which of the looks that a store remembers under a sweep's name were looks at what the sweep is now."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sweep.commands import changes
from sweep.space import catalogue
from sweep.space.runs import CELL, SETTINGS
from sweep.space.search_space import SearchSpace
from sweep.store.earliest import COMPARED
from sweep.store.rows import Store

_READ: Final = ("run_id", *COMPARED, "finished_at", "dataset_fingerprint", *SETTINGS)

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Looks:
    """What was seen under a sweep's name.

    `taken` counts the looks at cells of this sweep, `last` is the number of the last record, `seen` are the runs that
    any look saw. `declared` and `levels` are what was declared at the looks that count: the fewest looks, and the first
    one's margin and confidence. `elsewhere`: how many looks saw no cell of this sweep, and what differs there.
    """

    taken: int
    last: int
    seen: frozenset[str]
    declared: int | None
    levels: Mapping[str, Any]
    elsewhere: dict[str, Any] | None


def looks(space: SearchSpace, run_ids: Iterable[str], store: Store) -> Looks:
    """The looks at a sweep of these runs.

    A look belongs to what it saw: where no cell of this sweep was among it, another search space was looked at under
    the same name, and this one's error rate is untouched. A record that is damaged, or not there any more, may have
    been a look at anything, and counts.
    """
    records = store.looks(space.name)
    last = store.last_look(space.name)
    rows = _rows_apart(records, set(run_ids), store)
    cells = {_cell(levels, space.data.get(levels["dataset"])) for levels, _ in space.grid()} if rows else set()
    elsewhere = {
        number: found
        for number, found in rows.items()
        if found and len(found) == len(records[number]["new_run_ids"]) and cells.isdisjoint(map(_cell, found))
    }
    mine = [look for number, look in sorted(records.items()) if number not in elsewhere]
    return Looks(
        taken=last - len(elsewhere),
        last=last,
        seen=frozenset().union(*(look["new_run_ids"] for look in records.values())),
        declared=min((look["looks"]["declared"] for look in mine), default=None),
        levels=mine[0].get("declared", {}) if mine else {},
        elsewhere=_differing(space, list(elsewhere.values())),
    )


def _rows_apart(records: Mapping[int, Row], run_ids: set[str], store: Store) -> dict[int, list[Row]]:
    """The rows of each look that saw no run of these, as far as they are there."""
    apart = {number: look["new_run_ids"] for number, look in records.items() if run_ids.isdisjoint(look["new_run_ids"])}
    if not apart:
        return {}
    columns = store.read(dict.fromkeys(run_id for seen in apart.values() for run_id in seen), _READ).rows
    columns = columns.select(["run_id", "dataset_fingerprint", *SETTINGS])
    rows = {row["run_id"]: row for row in columns.to_pylist()}
    return {number: [rows[run_id] for run_id in seen if run_id in rows] for number, seen in apart.items()}


def _cell(levels: Row, pinned: Any = None) -> tuple[Any, ...]:
    """What the runs of a cell share; pictures that are read from files are known by what they are."""
    dataset = levels["dataset"]
    if not catalogue.has_constant(dataset):
        dataset = (catalogue.kind(dataset), pinned.fingerprint if pinned else levels.get("dataset_fingerprint"))
    return (dataset, *(levels[name] for name in CELL if name != "dataset"))


def _differing(space: SearchSpace, looked_at: list[list[Row]]) -> dict[str, Any] | None:
    """How many looks were at other search spaces, and the settings in which these differ, before and now."""
    if not looked_at:
        return None
    rows = [row for found in looked_at for row in found]
    before = {name: [row[name] for row in rows] for name in SETTINGS if name not in ("evaluate_every", "image_size")}
    changed = changes.differences(before, changes.levels(space))
    return {
        "looks": len(looked_at),
        "changed": {name: {"before": was, "now": now} for name, (was, now) in changed.items()},
    }
