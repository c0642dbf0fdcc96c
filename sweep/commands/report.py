"""Analyses a sweep or a table, and keeps what was looked at."""

import contextlib
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from sweep import plan as plans
from sweep.commands.looks import looks
from sweep.commands.status import launched
from sweep.common import addresses
from sweep.common.errors import InputError
from sweep.space.search_space import SearchSpace
from sweep.store.rows import COMPARED, Store

READ: Final = (
    *("run_id", *COMPARED, "device", "dataset_fingerprint", "trainer_version", "torch_version", "finished_at"),
)
"""The columns of the store that a report is made from, beside the settings."""

MOST_CURVES: Final = 20_000
"""Runs whose learning curves are read for a report."""


def report(
    what: str, store: Store, out: Path | str | None, margin: float | None, confidence: float | None
) -> tuple[str, dict[str, Any]]:
    """Analyses a sweep of the store by name, or a table by its path; returns the folder and `verdict.json`."""
    from analysis import report as reports

    out = None if out is None else addresses.local(out, "--out")
    if what in store.sweeps():
        return report_sweep(launched(store, what), store, out, margin, confidence)
    file = addresses.local(what, "report")
    if file.suffix.lower() not in (".parquet", ".csv"):
        store.sweep(what)  # says which there are
    folder = out or file.with_name(f"{file.stem}-report")
    rows, name = reports.load_table(file), file.stem.encode("utf-8", "replace").decode()
    try:
        return str(folder), reports.write(rows, folder, name=name, margin=margin, confidence=confidence)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def report_sweep(
    space: SearchSpace,
    store: Store,
    out: Path | None = None,
    margin: float | None = None,
    confidence: float | None = None,
) -> tuple[str, dict[str, Any]]:
    """Writes the report of a sweep's rows into `out` or the store; returns where, and what `verdict.json` holds.

    Wherever the report goes, seeing rows that no earlier report of the sweep had is a look, and the store remembers it.
    """
    from analysis import report as reports

    run_ids = plans.run_ids(space)
    found = store.read(run_ids, READ)
    if not len(found.rows):
        raise InputError(f"sweep {space.name!r} has no rows in {store.address} yet; sweep launch trains it")
    there = found.rows["run_id"].to_pylist()
    earlier = looks(space, run_ids, store)
    new = set(there) - earlier.seen
    # A run's settings are its identity: taking them from the plan spares reading them from every file.
    settings = plans.settings(space).iloc[found.places].reset_index(drop=True)

    def record(verdict: dict[str, Any]) -> None:
        if new:
            seen = _look(verdict, [run_id for run_id in there if run_id in new])
            levels = {name: getattr(space.analysis, name) for name in ("margin", "confidence")}
            store.save_look(space.name, earlier.last + 1, seen | {"declared": levels})

    with _report_folder(space.name, store, out) as (folder, address):
        verdict = reports.write(
            pd.concat([found.rows.to_pandas(), settings], axis=1),
            folder,
            curves=_curves(space, store, dict(zip(there, found.array_ids, strict=True))),
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
            record=record,
        )
    return address, verdict


def cited(store: Store) -> str:
    """What a report calls the store: as short as from here, so that it says nothing of the machine."""
    local = store.place.local
    if local is not None and local.is_relative_to(Path.cwd()):
        return str(local.relative_to(Path.cwd()))
    return store.address


@contextlib.contextmanager
def _report_folder(name: str, store: Store, out: Path | None) -> Iterator[tuple[Path, str]]:
    """A local folder to write a report into, and the address that it will have."""
    inside = store.report_folder(name)
    if out is not None or store.place.local is not None:
        folder = out or store.root / inside
        yield folder, str(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch), store.place.path(inside)
        store.place.upload(Path(scratch), inside)


def _curves(space: SearchSpace, store: Store, array_ids: dict[str, str]) -> pd.DataFrame | None:
    """The learning curves of the runs that have a row; where they are too many to draw, of every nth cell."""
    stride = -(-space.run_count() // MOST_CURVES)
    wanted = [run_id for run_id in plans.run_ids(space, every=stride) if run_id in array_ids]
    curves = store.curves(wanted, [array_ids[run_id] for run_id in wanted]).to_pandas()
    return None if curves.empty else curves


def _look(verdict: dict[str, Any], new_run_ids: list[str]) -> dict[str, Any]:
    """What is kept of a look: when, at what levels, the pairs and the verdict of every cell, the rows that were new."""
    kept = (*verdict["factors"], "pairs", "verdict")
    return {
        "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{key: verdict[key] for key in ("margin", "confidence", "looks", "runs", "pairs")},
        "cells": [{name: cell[name] for name in kept} for cell in verdict["cells"]],
        "new_run_ids": new_run_ids,
    }
