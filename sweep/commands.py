"""The commands that train nothing: plan, status, report and export."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from sweep import plan as plans
from sweep.errors import InputError
from sweep.files import replacing
from sweep.search_space import SearchSpace, load
from sweep.shape import training_flops
from sweep.store import COMPARED, Store

READ: Final = (
    *("run_id", *COMPARED, "device", "dataset_fingerprint", "trainer_version", "torch_version", "finished_at"),
)
"""The columns of the store that a report is made from, beside the settings."""
MOST_CURVES: Final = 20_000
"""Runs whose learning curves are read for a report."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a launch would train.

    `runs`, `cells` and `arrays` count the whole grid; `parameters` and `flops` are totals over the runs to train.
    """

    name: str
    runs: int
    cells: int
    arrays: int
    in_store: int
    to_train: int
    parameters: int
    flops: int
    estimated_seconds: float | None
    device: str


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a sweep has come, in runs; the failed are among the missing."""

    name: str
    runs: int
    done: int
    missing: int
    diverged: int
    failed: int


def plan(space: SearchSpace, store: Store) -> Plan:
    """Counts what a launch would train, and measures for a few seconds how long that takes here."""
    from sweep.estimate import seconds
    from sweep.train import device_name, local_device

    device = local_device()
    arrays = list(plans.arrays(space, device))
    todo = plans.missing(arrays, store.statuses())
    to_train = sum(map(len, todo))
    return Plan(
        name=space.name,
        runs=space.run_count(),
        cells=space.cell_count(),
        arrays=len(arrays),
        in_store=space.run_count() - to_train,
        to_train=to_train,
        parameters=sum(array.parameter_count() for array in todo),
        flops=sum(len(array) * training_flops(array.cell, array.shape) for array in todo),
        estimated_seconds=seconds(todo, device),
        device=device_name(device),
    )


def status(store: Store, name: str | None = None) -> list[Status]:
    """Every sweep of the store, or the one of this name."""
    files = store.sweeps() if name is None else {name: store.sweep(name)}
    statuses, failed = store.statuses(), _failed(store)
    return [_status(load(file), statuses, failed) for file in files.values()]


def progress(space: SearchSpace, store: Store) -> Status:
    """How far this sweep has come, be it known to the store or not."""
    return _status(space, store.statuses(), _failed(store))


def report(
    what: str, store: Store, out: Path | None, margin: float | None, confidence: float | None
) -> tuple[Path, dict[str, Any]]:
    """Analyses a sweep of the store by name, or a table by its path; returns the folder and `verdict.json`."""
    from analysis import report as reports

    file = Path(what)
    if what in store.sweeps():
        folder = out or store.report_folder(what)
        return folder, report_sweep(load(store.sweep(what)), store, folder, margin, confidence)
    if file.suffix not in (".parquet", ".csv"):
        store.sweep(what)  # says which there are
    folder = out or file.with_name(f"{file.stem}-report")
    rows = reports.load_table(file)
    return folder, reports.write(rows, folder, name=file.stem, margin=margin, confidence=confidence)


def report_sweep(
    space: SearchSpace, store: Store, folder: Path, margin: float | None = None, confidence: float | None = None
) -> dict[str, Any]:
    """Writes the report of a sweep's rows into `folder` and returns what `verdict.json` holds.

    Wherever the report goes, seeing rows that no earlier report of the sweep had is a look, and the store remembers it.
    """
    from analysis import report as reports

    run_ids = plans.run_ids(space)
    found = store.read(run_ids, READ)
    if not len(found.rows):
        raise InputError(f"sweep {space.name!r} has no row in {store.root} yet: sweep launch trains it")
    there = found.rows["run_id"].to_pylist()
    earlier = store.looks(space.name)
    new = set(there).difference(*(look["new_run_ids"] for look in earlier))
    number = len(earlier) + bool(new)
    # A run's settings are its identity: taking them from the plan spares reading them from every file.
    settings = plans.settings(space).iloc[found.places].reset_index(drop=True)

    def record(verdict: dict[str, Any]) -> None:
        if new:
            store.save_look(space.name, number, _look(verdict, [run_id for run_id in there if run_id in new]))

    return reports.write(
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
        looks_taken=number,
        looks_declared_before=min((look["looks"]["declared"] for look in earlier), default=None),
        store=str(store.root),
        record=record,
    )


def _curves(space: SearchSpace, store: Store, array_ids: dict[str, str]) -> pd.DataFrame | None:
    """The learning curves of the runs that have a row; where they are too many to draw, of every so manieth cell."""
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


def export(name: str, store: Store, to: Path) -> int:
    """Writes the rows of a sweep as one `.parquet` or `.csv` file; returns their number."""
    if to.suffix not in (".parquet", ".csv"):
        raise InputError(f"--to {to}: the name must end in .parquet or .csv")
    if to.is_dir() or not to.parent.is_dir():
        raise InputError(f"--to {to}: {'is a folder' if to.is_dir() else f'there is no folder {to.parent}'}")
    rows = store.rows(plans.run_ids(load(store.sweep(name))))
    with replacing(to) as temporary:
        if to.suffix == ".parquet":
            pq.write_table(rows, temporary)
        else:
            bits = [value.hex() for value in rows["test_correct"].to_pylist()]  # CSV has no bytes
            index = rows.schema.get_field_index("test_correct")
            csv.write_csv(rows.set_column(index, "test_correct", pa.array(bits, pa.string())), temporary)
    return len(rows)


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
