"""The commands that train nothing: plan, status, report and export."""

import contextlib
import dataclasses
import datetime
import difflib
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from sweep import catalogue
from sweep import plan as plans
from sweep.catalogue import Facts
from sweep.errors import InputError
from sweep.files import replacing
from sweep.library import Library, Listing
from sweep.plan import Array, DeviceKind
from sweep.search_space import SearchSpace, parse
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
    Where pictures are not at hand, what is in the store is not known, and all runs are to train; where not even their
    shape is known, arrays, parameters and flops are not known either, nor what several search spaces share.
    """

    name: str
    runs: int | None
    cells: int | None
    arrays: int | None
    in_store: int | None
    to_train: int | None
    parameters: int | None
    flops: int | None
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


def located(space: SearchSpace, library: Library) -> SearchSpace:
    """The search space with the facts of all its data sets; files are read where no constant stands for them.

    Raises NotHere where they cannot be had, InputError where they are not the pictures that the search space names.
    """
    size = space.fixed["image_size"]
    found = {dataset: library.facts(dataset, size) for dataset in space.datasets if not catalogue.has_constant(dataset)}
    names: dict[tuple[str, str], str] = {}
    for dataset, facts in found.items():
        wanted = space.data.get(dataset)
        if wanted and wanted.fingerprint != facts.identity:
            raise InputError(
                f"data set {dataset!r}: its pictures have fingerprint {facts.identity}, "
                f"but {space.name} names {wanted.fingerprint} under data"
            )
        other = names.setdefault((catalogue.kind(dataset), facts.identity), dataset)
        if other != dataset:
            raise InputError(f"data sets {other!r} and {dataset!r} hold the same pictures; name one of them")
    return space.pinned(found)


def plan(spaces: Sequence[SearchSpace], store: Store, library: Library) -> Plan:
    """Counts what a launch of all `spaces` would train, and measures for a few seconds how long that takes here.

    Runs, cells and arrays that search spaces share count once. Downloads nothing; what cannot be known without
    pictures that are not here is None.
    """
    from sweep.train import device_name, local_device

    device = local_device()
    here = all(library.here(dataset) for space in spaces for dataset in space.datasets)
    spaces = [located(space, library) if here else _imagined(space) for space in spaces]
    runs: int | None = None
    cells = arrays = todo = None
    if all(space.facts(dataset) for space in spaces for dataset in space.datasets):
        arrays = plans.arrays_of_all(spaces, device)
        todo = plans.missing(arrays, store.statuses() if here else ())
        runs, cells = sum(map(len, arrays)), plans.cell_count(spaces)
    elif len(spaces) == 1:
        runs, cells = spaces[0].run_count(), spaces[0].cell_count()
    to_train = runs if todo is None else sum(map(len, todo))
    return Plan(
        name=", ".join(space.name for space in spaces),
        runs=runs,
        cells=cells,
        arrays=None if arrays is None else len(arrays),
        in_store=runs - to_train if here and runs is not None and to_train is not None else None,
        to_train=to_train,
        parameters=None if todo is None else sum(array.parameter_count() for array in todo),
        flops=None if todo is None else sum(len(array) * training_flops(array.cell, array.shape) for array in todo),
        estimated_seconds=_seconds(todo, library, device) if here and todo is not None else None,
        device=device_name(device),
    )


def pictured(space: SearchSpace, library: Library) -> SearchSpace:
    """The search space with the facts of its data sets, as far as they are known without a download."""
    return located(space, library) if all(map(library.here, space.datasets)) else _imagined(space)


def _imagined(space: SearchSpace) -> SearchSpace:
    """The search space with facts of such data sets as are not here and have a known shape, under no identity."""
    entries = {name: catalogue.CATALOGUE[name] for name in space.datasets if name in catalogue.CATALOGUE}
    unknown = {name: entry for name, entry in entries.items() if space.facts(name) is None}
    return space.pinned(
        {
            name: Facts("0" * 16, entry.picture, entry.classes, entry.train or sys.maxsize)
            for name, entry in unknown.items()
        }
    )


def _seconds(todo: list[Array], library: Library, device: DeviceKind) -> float | None:
    from sweep.estimate import seconds

    return seconds(todo, library, device)


@dataclasses.dataclass(frozen=True)
class Look:
    """What `sweep datasets --show` found: pictures of every class by part, what is odd, and the contact sheet."""

    name: str
    fingerprint: str
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    file: str


def datasets(library: Library) -> list[Listing]:
    """Every named data set, and whether it is on this machine."""
    return library.listing()


def download(library: Library, name: str) -> Listing:
    """Gets a data set, checks and caches it; InputError for a name that there is not."""
    _check_name(name)
    if catalogue.path_of(name):
        raise InputError(f"--download {name}: only named data sets can be downloaded: {', '.join(catalogue.CATALOGUE)}")
    library.load(name)
    return next(each for each in library.listing() if each.name == name)


def show(library: Library, name: str, image_size: int | None, to: Path | None) -> Look:
    """Writes a contact sheet of a data set's training pictures and counts its classes, at split 0."""
    from sweep import contact_sheet

    _check_name(name)
    path = to or Path(f"{Path(catalogue.path_of(name) or name).stem}-pictures.png")
    if image_size is not None and catalogue.kind(name) != "folder":
        raise InputError(
            f"--image-size {image_size}: resizes the pictures of folder:PATH; those of {name} stay as they are"
        )
    if path.suffix.lower() != ".png":
        raise InputError(f"--out {path}: the name must end in .png")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: {'is a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    data = library.load(name, 0, image_size)
    contact_sheet.write(data, path)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = {
        class_name: {part: int((labels == label).sum()) for part, (_, labels) in parts.items()}
        for label, class_name in enumerate(data.pool.class_names)
    }
    return Look(name, data.fingerprint, counts, data.notes, str(path))


def _check_name(name: str) -> None:
    if not re.fullmatch(catalogue.PATTERN, name):
        near = difflib.get_close_matches(name[:64], catalogue.CHOICES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(catalogue.CHOICES)}"
        raise InputError(f"no data set {name!r}; {hint}")


def status(store: Store, name: str | None = None) -> list[Status]:
    """Every sweep of the store, or the one of this name."""
    names = store.sweeps() if name is None else [name]
    spaces = [launched(store, each) for each in names]
    statuses, failed = store.statuses(), _failed(store)
    return [_status(space, statuses, failed) for space in spaces]


def progress(spaces: Sequence[SearchSpace], store: Store) -> tuple[int, int]:
    """How many runs of these sweeps are kept, of how many, be they known to the store or not."""
    run_ids, statuses = plans.run_ids_of_all(spaces), store.statuses()
    return sum(run_id in statuses for run_id in run_ids), len(run_ids)


def report(
    what: str, store: Store, out: Path | None, margin: float | None, confidence: float | None
) -> tuple[str, dict[str, Any]]:
    """Analyses a sweep of the store by name, or a table by its path; returns the folder and `verdict.json`."""
    from analysis import report as reports

    file = Path(what)
    if what in store.sweeps():
        return report_sweep(launched(store, what), store, out, margin, confidence)
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
        raise InputError(f"sweep {space.name!r} has no row in {store.address} yet: sweep launch trains it")
    there = found.rows["run_id"].to_pylist()
    earlier = store.looks(space.name)
    new = set(there).difference(*(look["new_run_ids"] for look in earlier.values()))
    number = max(earlier, default=0) + bool(new)
    # A run's settings are its identity: taking them from the plan spares reading them from every file.
    settings = plans.settings(space).iloc[found.places].reset_index(drop=True)

    def record(verdict: dict[str, Any]) -> None:
        if new:
            seen = _look(verdict, [run_id for run_id in there if run_id in new])
            levels = {name: getattr(space.analysis, name) for name in ("margin", "confidence")}
            store.save_look(space.name, number, seen | {"declared": levels})

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
            looks_taken=number,
            looks_declared_before=min((look["looks"]["declared"] for look in earlier.values()), default=None),
            declared_before=earlier[min(earlier)].get("declared", {}) if earlier else {},
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


def launched(store: Store, name: str) -> SearchSpace:
    """The search space of a sweep, as it was launched."""
    return parse(store.sweep(name), Path(store.place.path(f"sweeps/{name}.yaml")), launched=True)


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
    space = launched(store, name)
    rows = _rows(space, store, plans.run_ids(space))
    with replacing(to) as temporary:
        if to.suffix == ".parquet":
            pq.write_table(rows, temporary)
        else:
            bits = [value.hex() for value in rows["test_correct"].to_pylist()]  # CSV has no bytes
            index = rows.schema.get_field_index("test_correct")
            csv.write_csv(rows.set_column(index, "test_correct", pa.array(bits, pa.string())), temporary)
    return len(rows)


def _rows(space: SearchSpace, store: Store, run_ids: list[str]) -> pa.Table:
    """The rows of a sweep, data sets under the paths that it knows: other sweeps may have trained the same pixels."""
    rows = store.rows(run_ids)
    paths = {(catalogue.kind(name), pinned.fingerprint): name for name, pinned in space.data.items()}
    named = zip(rows["dataset"].to_pylist(), rows["dataset_fingerprint"].to_pylist(), strict=True)
    names = [paths.get((catalogue.kind(name), fingerprint), name) for name, fingerprint in named]
    for column, values in {"dataset": names, "image_size": [space.fixed["image_size"]] * len(rows)}.items():
        index = rows.schema.get_field_index(column)
        rows = rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.field(index).type))
    return rows


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
