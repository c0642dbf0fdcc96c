"""Analyses a sweep or a table, and keeps what was looked at."""

import contextlib
import datetime
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from sweep import plan as plans
from sweep.commands import current, tables
from sweep.commands.looks import looks
from sweep.commands.status import launched
from sweep.common import addresses
from sweep.common.errors import InputError
from sweep.space.search_space import SearchSpace
from sweep.store.earliest import COMPARED, Found
from sweep.store.rows import Store

READ: Final = (
    *("run_id", *COMPARED, "device", "dataset_fingerprint", "trainer_version", "torch_version", "method"),
    "finished_at",
)
"""The columns of the store that a report is made from, beside the settings."""

MOST_CURVES: Final = 20_000
"""Runs whose learning curves are read for a report."""


class Reported(NamedTuple):
    """Where a report is, what its `verdict.json` holds, what of it failed, and what else is to be said of it."""

    folder: str
    verdict: dict[str, Any]
    problems: list[str]
    notes: list[str]


def report(
    what: str,
    store: Store,
    out: Path | str | None,
    margin: float | None,
    confidence: float | None,
    ignore: Sequence[str] = (),
) -> Reported:
    """Analyses a sweep of the store by name, or a table by its path, whose columns `ignore` are left out of account."""
    from analysis.wording import sentences

    out = None if out is None else addresses.local(out, "--out")
    if out is not None:
        tables.refuse_store(out, f"--out {out}")
    if what in store.sweeps():
        if ignore:
            raise InputError(f"--ignore: belongs to a table; the rows of the sweep {what} have no columns of others")
        return report_sweep(launched(store, what), store, out, margin, confidence)
    if not tables.is_table(what):
        store.sweep(what)  # says which there are
    rows, folder = tables.load(what), out or tables.report_folder(what)
    levels = {"margin": margin, "confidence": confidence}
    try:
        verdict, problems = _written(rows, folder, name=tables.stem(what), ignore=ignore, **levels)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    return Reported(str(folder), verdict, problems, sentences.ignored(verdict))


def report_sweep(
    space: SearchSpace,
    store: Store,
    out: Path | None = None,
    margin: float | None = None,
    confidence: float | None = None,
) -> Reported:
    """Writes the report of a sweep's rows into `out` or the store.

    Wherever the report goes, seeing rows that no earlier report of the sweep had is a look, and the store remembers it
    with the report: one that nobody can see, because nothing of it could be written, is none.
    """
    from analysis.wording import sentences

    run_ids = plans.run_ids(space)
    files = store.row_files()  # listed first: rows that come meanwhile make the report out of date
    found = store.read(run_ids, READ)
    there = found.rows["run_id"].to_pylist()
    if not there:
        raise InputError(f"sweep {space.name!r} has no rows in {store.address} yet; sweep launch trains it")
    earlier = looks(space, run_ids, store)
    new = set(there) - earlier.seen
    curves, problems = _curves(space, store, dict(zip(there, found.array_ids, strict=True)))
    if out is None:
        current.forget(space, store)
    with _report_folder(space.name, store, out) as (folder, address):
        verdict, failed = _written(
            _rows(space, found),
            folder,
            curves=curves,
            name=space.name,
            margin=margin,
            confidence=confidence,
            declared=space.analysis.declared,
            missing_runs=len(run_ids) - len(there),
            repeated_runs=found.repeated,
            disagreeing_runs=found.disagreeing,
            looks_taken=earlier.taken + bool(new),
            looks_declared_before=earlier.declared,
            declared_before=earlier.levels,
            other_looks=earlier.elsewhere,
            store=cited(store),
        )
        problems += failed
        if out is None and store.place.local is None:
            problems += _published(folder, store, space.name)
    notes = sentences.ignored(verdict)
    if new:
        seen = _look(verdict, [run_id for run_id in there if run_id in new])
        levels = {name: getattr(space.analysis, name) for name in ("margin", "confidence")}
        try:
            store.save_look(space.name, earlier.last + 1, seen | {"declared": levels})
        except OSError as error:
            said = f"{store.address} does not remember that these results were looked at: {error}"
            # With --out it may well be that the store may only be read.
            (problems if out is None else notes).append(said)
    if out is None and margin is None and confidence is None and not problems:
        current.keep(space, store, files)
    return Reported(address, verdict, problems, notes)


def cited(store: Store) -> str:
    """What a report calls the store: as short as from here, so that it says nothing of the machine."""
    local = store.place.local
    if local is not None and local.is_relative_to(Path.cwd()):
        return str(local.relative_to(Path.cwd()))
    return store.address


def _rows(space: SearchSpace, found: Found) -> pd.DataFrame:
    """The rows that were found, with their settings: these are in the plan, which spares reading them from files."""
    own = settings(space).iloc[found.places].reset_index(drop=True)
    rows: pd.DataFrame = pd.concat([found.rows.to_pandas(), own], axis=1)
    return rows


def settings(space: SearchSpace) -> pd.DataFrame:
    """The settings of every run, in the order of `plan.run_ids`: its identity, whichever sweep trained it.

    The exception is `evaluate_every`, which is not part of an identity: it is what the search space says today.
    """
    grid = list(space.grid())
    counts = [len(members) for _, members in grid]
    table = pd.DataFrame([levels for levels, _ in grid]).loc[np.repeat(np.arange(len(grid)), counts)]
    table["bias"] = [bias for _, members in grid for bias, _ in members]
    table["seed"] = [seed for _, members in grid for _, seed in members]
    return table.reset_index(drop=True)


def _written(rows: pd.DataFrame, folder: Path, *, name: str, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Writes a report as far as it can be; returns its verdict, and what failed. OSError where all of it did."""
    from analysis import report as reports

    try:
        return reports.write(rows, folder, name=name, **options), []
    except reports.PartlyWritten as partly:
        if not partly.written:
            reasons = "; ".join(dict.fromkeys(partly.failed.values()))
            raise OSError(f"nothing could be written to {folder} ({reasons}); --out names another") from partly
        return partly.verdict, [f"The report of {name} in {folder} lacks what could not be made ({partly})"]


@contextlib.contextmanager
def _report_folder(name: str, store: Store, out: Path | None) -> Iterator[tuple[Path, str]]:
    """A local folder to write a report into, and the address that it will have."""
    inside = store.report_folder(name)
    if out is None and store.place.local is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch), store.place.path(inside)
        return
    folder = out or store.root / inside
    yield folder, str(folder)


def _published(folder: Path, store: Store, name: str) -> list[str]:
    """Puts a report into a store that is no folder; returns what failed. OSError where all of it did."""
    there, inside = len(list(folder.iterdir())), store.report_folder(name)
    failed = store.place.upload(folder, inside)
    if not failed:
        return []
    where, reason = store.place.path(inside), next(iter(failed.values()))
    if len(failed) == there:
        raise OSError(f"nothing could be written to {where} ({reason})")
    return [f"The report of {name} in {where} lacks what could not be written ({', '.join(failed)}: {reason})"]


def _curves(space: SearchSpace, store: Store, array_ids: dict[str, str]) -> tuple[pd.DataFrame | None, list[str]]:
    """The learning curves of the runs that have a row, and what is wrong with them.

    Where they are too many to draw, those of every nth cell.
    """
    stride = -(-space.run_count() // MOST_CURVES)
    wanted = [run_id for run_id in plans.run_ids(space, every=stride) if run_id in array_ids]
    try:
        curves = store.curves(wanted, [array_ids[run_id] for run_id in wanted]).to_pandas()
    except (InputError, OSError) as error:  # verdicts need none
        return None, [f"The report of {space.name} has no learning curves: {error}"]
    return (None if curves.empty else curves), []


def _look(verdict: dict[str, Any], new_run_ids: list[str]) -> dict[str, Any]:
    """What is kept of a look: when, at what levels, the pairs and the verdict of every cell, the rows that were new."""
    kept = (*verdict["factors"], "pairs", "verdict")
    return {
        "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{key: verdict[key] for key in ("margin", "confidence", "looks", "runs", "pairs")},
        "cells": [{name: cell[name] for name in kept} for cell in verdict["cells"]],
        "new_run_ids": new_run_ids,
    }
