"""The rows of a sweep as one file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from sweep import plan as plans
from sweep.commands.status import launched
from sweep.commands.tables import refuse_store
from sweep.common.atomic_files import replacing
from sweep.common.errors import InputError
from sweep.space import catalogue
from sweep.space.search_space import SearchSpace
from sweep.store.rows import Store


def export(name: str, store: Store, to: Path) -> int:
    """Writes the rows of a sweep as one `.parquet` or `.csv` file; returns their number."""
    kind = to.suffix.lower()
    if kind not in (".parquet", ".csv"):
        raise InputError(f"--to {to}: the name must end in .parquet or .csv")
    if to.is_dir() or not to.parent.is_dir():
        raise InputError(f"--to {to}: {'is a folder' if to.is_dir() else f'there is no folder {to.parent}'}")
    refuse_store(to, f"--to {to}")
    space = launched(store, name)
    rows = _rows(space, store, plans.run_ids(space))
    if not len(rows):
        raise InputError(f"sweep {name!r} has no row in {store.address} yet: sweep launch trains it")
    with replacing(to) as temporary:
        if kind == ".parquet":
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
