"""A launch: what is missing of search spaces is trained, then each is reported on and shown to its trackers."""

import contextlib
import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console

from sweep.cluster import driver
from sweep.cluster.address import Where, authenticate
from sweep.cluster.driver import Launched
from sweep.commands import changes, current, trackers
from sweep.commands.plan import located
from sweep.commands.status import progress
from sweep.common.errors import exit_status
from sweep.common.fault_options import FaultOptions
from sweep.common.progress import say
from sweep.data.library import Library
from sweep.space.search_space import SearchSpace
from sweep.store.rows import Store


class Made(NamedTuple):
    """Where a report is, and what its `verdict.json` holds."""

    folder: str
    verdict: dict[str, Any]


class Interrupted(Exception):
    """A signal ended a launch, when `done` of `runs` were kept; `status` is what the program exits with."""

    def __init__(self, done: int, runs: int, status: int) -> None:
        super().__init__(f"{done:,} of {runs:,} runs are kept")
        self.done, self.runs, self.status = done, runs, status


def prepared(spaces: Sequence[SearchSpace], library: Library) -> list[SearchSpace]:
    """The search spaces with the facts of their data sets; InputError where one of their trackers cannot be used."""
    found = [located(space, library) for space in spaces]
    for space in found:
        trackers.check(space)
    return found


def train(
    spaces: Sequence[SearchSpace],
    store: Store,
    library: Library,
    where: Where,
    faults: FaultOptions,
    console: Console,
    reported: bool = True,
) -> Launched:
    """Trains what is missing of search spaces that are `prepared`. Raises Interrupted where a signal ends it.

    Where it is to be `reported` on, what that takes is loaded meanwhile.
    """
    for space in spaces:
        if changed := changes.since_launch(space, store):
            say(console, changed)
    authenticate(where)
    try:
        return driver.launch(spaces, store, library, console, faults, where, _load_reports if reported else None)
    except KeyboardInterrupt as interruption:
        # What workers wrote meanwhile is not in what `store` listed when the launch began.
        again = Store(store.address)
        again.damaged.update(store.damaged)
        kept = progress(spaces, again)
        raise Interrupted(*kept, exit_status(interruption)) from None


def _load_reports() -> None:
    """Loads what a report is made with, before it is; whatever that fails of, the report will say."""
    with contextlib.suppress(Exception):
        for module in ("sweep.commands.report", "analysis.report", "analysis.figures", "analysis.page"):
            importlib.import_module(module)


def report(space: SearchSpace, store: Store, console: Console) -> tuple[Made | None, bool]:
    """A sweep's report, and whether all of it was made; whatever went wrong is said, and costs no row."""
    if len(space.levels["bias"]) < 2:
        say(console, f"No report of {space.name}: it has runs of one arm alone, and nothing to compare them with.")
        return None, True
    if verdict := current.verdict(space, store):
        say(console, f"The report of {space.name} is as new as its rows.")
        return Made(store.place.path(store.report_folder(space.name)), verdict), True
    try:
        from sweep.commands.report import report_sweep

        made = report_sweep(space, store)
    except Exception as error:  # whatever a report fails of, training is over
        say(console, f"No report of {space.name}: {error}. All rows are kept; sweep report {space.name} tries again.")
        return None, False
    for line in [*made.problems, *made.notes]:
        say(console, line)
    return Made(made.folder, made.verdict), not made.problems


def track(spaces: Sequence[SearchSpace], store: Store, console: Console) -> bool:
    """Shows sweeps to the trackers that they name; says what went wrong, which costs no result. Whether all did."""
    problems = [problem for space in spaces for problem in trackers.track(space, store)]
    for problem in problems:
        say(console, problem)
    return not problems
