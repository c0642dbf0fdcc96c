"""How far sweeps have come."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sweep import plan as plans
from sweep.space.search_space import SearchSpace, parse
from sweep.store.damage import Damaged
from sweep.store.rows import Store


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a sweep has come, in runs; the failed are among the missing."""

    name: str
    runs: int
    done: int
    missing: int
    diverged: int
    failed: int


def status(store: Store, name: str | None = None) -> list[Status]:
    """Every sweep of the store whose search space can be read, or the one of this name."""
    found = []
    statuses, failed = store.statuses(), _failed(store)
    for each in store.sweeps() if name is None else [name]:
        # What is asked for by name is not left out in silence.
        with store.left_out(f"sweeps/{each}.yaml") if name is None else contextlib.nullcontext():
            found.append(_status(launched(store, each), statuses, failed))
    return found


def lost(store: Store, name: str) -> tuple[int, int]:
    """Runs of a sweep whose rows stand in files that were left out, and nowhere else: missing, and done to a launch."""
    missing, done = store.lost()
    if not (missing or done) or name not in store.sweeps():
        return 0, 0
    run_ids = set(plans.run_ids(launched(store, name)))
    return len(missing & run_ids), len(done & run_ids)


def progress(spaces: Sequence[SearchSpace], store: Store) -> tuple[int, int]:
    """How many runs of these sweeps are kept, of how many, be they known to the store or not."""
    run_ids, statuses = plans.run_ids_of_all(spaces), store.statuses()
    return sum(run_id in statuses for run_id in run_ids), len(run_ids)


def launched(store: Store, name: str) -> SearchSpace:
    """The search space of a sweep, as it was launched; Damaged where it is another sweep's, a copy of its file."""
    space = parse(store.sweep(name), Path(store.place.path(f"sweeps/{name}.yaml")), launched=True)
    if space.name.casefold() != name.casefold():  # some file systems take two spellings for one name
        raise Damaged(f"holds the sweep {space.name!r}, and not {name!r}")
    return space


def _failed(store: Store) -> set[str]:
    return {run_id for failure in store.failures().values() for run_id in failure["run_ids"]}


def _status(space: SearchSpace, statuses: dict[str, str], failed: set[str]) -> Status:
    run_ids = plans.run_ids(space)
    missing = [run_id for run_id in run_ids if run_id not in statuses]
    return Status(
        name=space.name,
        runs=len(run_ids),
        done=len(run_ids) - len(missing),
        missing=len(missing),
        diverged=sum(statuses.get(run_id) == "diverged" for run_id in run_ids),
        failed=sum(run_id in failed for run_id in missing),
    )
