"""Small files become large ones, whatever dies meanwhile and whoever else reads, writes or does the same."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.object_store import Faults, environment, proxy, serving
from support.outcomes import BY, outcome

from sweep.space.runs import Run, run_id
from sweep.store import compaction, merged_files, storage
from sweep.store.compaction import compact
from sweep.store.rows import Store
from sweep.store.storage import Place
from sweep.store.tables import CURVES_SCHEMA, RUNS_SCHEMA

ARRAYS = 6


def array(number: int) -> tuple[str, list[Run], list[str]]:
    """An array of one pair: its id, runs and run ids."""
    runs = [Run(seed=number, bias=bias) for bias in (True, False)]
    return f"{number:020x}", runs, [run_id(run, "test") for run in runs]


IDS = [each for number in range(ARRAYS) for each in array(number)[2]]


def write(store: Store, number: int, **changed: Any) -> None:
    array_id, runs, ids = array(number)
    store.write(array_id, runs, ids, [outcome(number, **changed)] * 2, BY)


def everything(store: Store, ids: list[str] = IDS) -> dict[str, Any]:
    """All that a reader can see of some runs."""
    found = store.read(ids)
    return {
        "rows": found.rows.to_pylist(),
        "arrays": found.array_ids,
        "repeated": (found.repeated, found.disagreeing),
        "curves": store.curves(ids).to_pylist(),
        "curves again": store.curves(ids[: len(found.rows)], found.array_ids).to_pylist(),
        "statuses": store.statuses(),
        "of arrays": store.statuses(array(number)[0] for number in range(3)),
        "has": [store.has_rows(array(number)[0]) for number in range(ARRAYS + 2)],
    }


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Six arrays in as many files."""
    store = Store(tmp_path / "results")
    for number in range(ARRAYS):
        write(store, number)
    return store


def names(store: Store) -> list[str]:
    return [name for kind in ("runs", "curves") for name in store.place.files(kind, ".parquet")]


def test_small_files_become_one_and_readers_see_the_same(store: Store) -> None:
    before = everything(store)
    assert len(before["rows"]) == 2 * ARRAYS and len(before["curves"]) == 4 * ARRAYS
    done = compact(store)
    assert (done.files_before, done.files_after, done.rows, done.busy) == (2 * ARRAYS, 2, 2 * ARRAYS, False)
    assert [name.split("-")[0] for name in names(store)] == ["runs/merged", "curves/merged"]
    assert everything(store) == everything(Store(store.root, once=True)) == before
    assert compact(store).files_after == 2 and everything(store) == before


def test_merged_files_have_the_columns_of_the_contract_and_nothing_else(store: Store) -> None:
    compact(store)
    rows, curves = (pq.read_schema(store.root / name) for name in names(store))
    assert rows.equals(RUNS_SCHEMA) and curves.equals(CURVES_SCHEMA)
    assert rows.metadata[b"schema_version"] == curves.metadata[b"schema_version"] == b"3"
    counted = [(array_id, rows, examples) for array_id, rows, _, examples in json.loads(curves.metadata[b"arrays"])]
    assert counted == [(array(number)[0], 4, 43) for number in range(ARRAYS)]


def test_what_comes_later_joins_what_was_merged(store: Store) -> None:
    compact(store)
    write(store, ARRAYS)
    write(store, ARRAYS + 1)
    ids = [*IDS, *array(ARRAYS)[2], *array(ARRAYS + 1)[2]]
    before = everything(store, ids)
    compact(store)
    assert len(names(store)) == 2 and everything(store, ids) == before
    examples = [each[3] for each in json.loads(pq.read_schema(store.root / names(store)[1]).metadata[b"arrays"])]
    assert examples == [43] * (ARRAYS + 2)


def test_an_array_trained_twice_stays_trained_twice_with_its_earliest_row_first(store: Store) -> None:
    compact(store)
    write(store, 2, test_accuracy=0.9)
    for _ in range(2):
        found = store.read(IDS)
        assert (found.repeated, found.disagreeing) == (2, 2)
        assert found.rows["test_accuracy"].to_pylist()[4:6] == [0.002, 0.002]
        assert len(store.curves(IDS)) == 4 * ARRAYS
        compact(store)
    assert len(names(store)) == 2


def test_large_files_are_left_alone_and_groups_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    size = max(store.place.sizes("runs", ".parquet").values())
    before = everything(store)
    monkeypatch.setattr(compaction, "TARGET", 2 * size)
    monkeypatch.setattr(compaction, "SMALL", size + 1)
    compact(store)
    runs = store.place.files("runs", ".parquet")
    assert 1 < len(runs) < ARRAYS and everything(store) == before
    monkeypatch.setattr(compaction, "SMALL", 1)
    compact(store)
    assert store.place.files("runs", ".parquet") == runs


def test_rows_of_an_earlier_version_and_arrays_without_curves_are_merged_too(store: Store) -> None:
    path = store.root / "runs" / f"{array(0)[0]}.parquet"
    older = pq.read_table(path).drop_columns(["image_size", "method"]).replace_schema_metadata({"schema_version": "1"})
    pq.write_table(older, path)
    (store.root / "curves" / f"{array(1)[0]}.parquet").unlink()
    before = everything(store)
    compact(store)
    assert everything(store) == before and len(before["curves"]) == 4 * (ARRAYS - 1)


@pytest.mark.parametrize(
    "arrays", [b"", b"{", b"3", b"[3]", b"[]", b'[["a", null]]', b'[["a", 3]]', b'[["a", 12]]', b"\xff"]
)
def test_a_merged_file_whose_arrays_are_not_known_is_named(
    arrays: bytes, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    compact(store)
    [name] = store.place.files("runs", ".parquet")
    table = pq.read_table(store.root / name)
    pq.write_table(
        table.replace_schema_metadata(table.schema.metadata | {merged_files.ARRAYS: arrays}), store.root / name
    )
    content = (store.root / name).read_bytes()
    assert len(Store(store.root).read(IDS).rows) == 0
    write(store, 0)
    write(store, 1)
    compact(Store(store.root))
    err = capsys.readouterr().err
    assert err.count(f"{name}: is not a table of this store (its list of arrays is damaged)") == 2 == err.count("\n")
    assert (store.root / name).read_bytes() == content
    assert len(store.place.files("runs", ".parquet")) == 2 and len(Store(store.root).read(IDS).rows) == 4
    assert name.replace("runs", "curves") in names(store), "they belong to it"


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _a_page(path: Path) -> None:
    """Damages a column that is not read until files are merged."""
    column = pq.ParquetFile(path).metadata.row_group(0).column(RUNS_SCHEMA.names.index("test_correct"))
    content, start = path.read_bytes(), column.dictionary_page_offset or column.data_page_offset
    path.write_bytes(
        content[:start] + bytes(column.total_compressed_size) + content[start + column.total_compressed_size :]
    )


@pytest.mark.parametrize(
    ("kind", "damage"), [("runs", _torn), ("curves", _torn), ("runs", _a_page)], ids=["rows", "curves", "a page"]
)
def test_damaged_files_stay_as_they_are_and_the_others_are_merged(
    kind: str, damage: Callable[[Path], None], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = everything(store)
    damaged, beside = (store.root / each / f"{array(3)[0]}.parquet" for each in (kind, "curves"))
    damage(damaged)
    kept = {path: path.read_bytes() for path in (damaged, beside)}
    before = Store(store.root).read(IDS).rows.to_pylist()
    assert len(before) == 2 * ARRAYS - 2 * (kind == "runs")
    capsys.readouterr()
    for _ in range(2):
        assert compact(Store(store.root)).files_after == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 2 == said.count(f"{kind}/{array(3)[0]}.parquet: is not a table of this store")
    assert {path: path.read_bytes() for path in kept} == kept
    assert Store(store.root).read(IDS).rows.to_pylist() == before
    assert len(Store(store.root).curves(IDS)) == 4 * (ARRAYS - 1)
    write(store, 3)
    compact(Store(store.root))
    assert {path: path.read_bytes() for path in kept} == kept
    again = Store(store.root).read(IDS).rows.to_pylist()
    assert [row["run_id"] for row in again] == [row["run_id"] for row in whole["rows"]]
    assert len(Store(store.root).curves(IDS)) == 4 * ARRAYS


def test_curves_stay_beside_rows_that_a_link_to_nothing_stands_for(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """As git-annex leaves a file that was not fetched: its curves belong to it."""
    link, curves = (store.root / kind / f"{array(3)[0]}.parquet" for kind in ("runs", "curves"))
    link.unlink()
    link.symlink_to("../annex/object")
    write(Store(store.root), 3)
    capsys.readouterr()
    kept = curves.read_bytes()
    compact(Store(store.root))
    assert link.is_symlink() and curves.read_bytes() == kept
    assert f"{link}: is a link to nothing. It is left out" in capsys.readouterr().err
    assert len(Store(store.root).read(IDS).rows) == 2 * ARRAYS


def test_a_small_file_stays_where_the_merged_one_that_holds_it_is_damaged(store: Store) -> None:
    kept = {path: path.read_bytes() for path in (store.root / "runs").iterdir()}
    compact(store)
    [merged] = store.place.files("runs", ".parquet")
    _a_page(store.root / merged)
    damaged = (store.root / merged).read_bytes()
    for path, content in kept.items():
        path.write_bytes(content)
    compact(Store(store.root))
    assert (store.root / merged).read_bytes() == damaged
    assert {path.name for path in kept} < {path.name for path in (store.root / "runs").iterdir()}
    assert len(Store(store.root).read(IDS).rows) == 2 * ARRAYS


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert compact(Store(tmp_path / "none")).files_before == 0
    assert not (tmp_path / "none").exists()


# Deaths


class _Killed(BaseException):
    """Nothing catches it by name, as nothing catches a SIGKILL."""


def _dying_at(step: int, monkeypatch: pytest.MonkeyPatch, after: bool) -> Callable[[], int]:
    """Raises before, or after, the `step`th change of the store; says how many there were."""
    count = 0

    def mortal(operation: Callable[..., None]) -> Callable[..., None]:
        def act(self: Place, name: str, *content: bytes, **options: Any) -> None:
            nonlocal count
            if not name.startswith("leases/"):
                count += 1
            if count > step or (count == step and not after):
                raise _Killed
            operation(self, name, *content, **options)
            if count == step and not name.startswith("leases/"):
                raise _Killed

        return act

    for each in ("write", "remove"):
        monkeypatch.setattr(Place, each, mortal(getattr(Place, each)))
    return lambda: count


@pytest.mark.parametrize("after", [False, True])
def test_death_at_any_step_loses_no_row_and_the_next_call_completes(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(compaction, "READERS", 1)
    # Something merged already, something left behind, something new.
    compact(store)
    for number in (0, ARRAYS, ARRAYS + 1):
        write(store, number)
    ids = [*IDS, *array(ARRAYS)[2], *array(ARRAYS + 1)[2]]
    before = everything(store, ids)
    contents = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    for step in range(1, 100):
        for path in [path for path in store.root.rglob("*") if path.is_file()]:
            path.unlink()
        for path, content in contents.items():
            path.write_bytes(content)
        with monkeypatch.context() as patch:
            steps = _dying_at(step, patch, after)
            try:
                compact(store)
            except _Killed:
                pass
            else:
                assert steps() == step - 1
                break
        assert everything(store, ids) == before, f"step {step}"
        compact(store)
        assert everything(store, ids) == before, f"step {step}"
        assert len(names(store)) == 2, f"step {step}"
    assert step > 10


def test_a_file_that_is_not_what_was_written_removes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole, before = Place.write, everything(store)

    def torn(self: Place, name: str, content: bytes, **options: Any) -> None:
        other = store.place.read(f"runs/{array(0)[0]}.parquet")
        write_whole(self, name, other if "runs/merged" in name else content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", torn)
        with pytest.raises(OSError, match="nothing was removed"):
            compact(store)
    assert set(store.place.files("runs", ".parquet")) >= {f"runs/{array(n)[0]}.parquet" for n in range(ARRAYS)}
    compact(store)
    assert everything(store)["rows"] == before["rows"]


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost(tmp_path: Path) -> None:
    store, rng = Store(tmp_path / "results"), random.Random(6)
    for number in range(300):
        write(store, number)
    ids = [each for number in range(300) for each in array(number)[2]]
    before, killed = store.read(ids).rows.to_pylist(), 0
    program = "import sys; from sweep.store.compaction import compact; from sweep.store.rows import Store; "
    program += "print(flush=True); "
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", f"{program} compact(Store(sys.argv[1]))", str(store.root)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.5))
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        killed += child.returncode == -signal.SIGKILL
        assert store.read(ids).rows.to_pylist() == before
        for number in rng.sample(range(300), 40):
            if not store.exists(f"runs/{array(number)[0]}.parquet"):
                write(store, number)  # as a second launch would
        assert store.read(ids).rows.to_pylist() == before
    compact(store)
    assert killed > 3 and len(names(store)) == 2
    assert store.read(ids).rows.to_pylist() == before


# Others at the same time


def test_a_reader_that_listed_files_before_they_were_merged_finds_every_row(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, list_files, done = everything(store), Place.files, []

    def then_merged(self: Place, folder: str, suffix: str) -> list[str]:
        found = list_files(self, folder, suffix)
        if not done and folder == "runs":
            done.append(folder)
            compact(Store(store.root))
        return found

    for read in (
        lambda reader: reader.read(IDS).rows.to_pylist() == before["rows"],
        lambda reader: reader.statuses() == before["statuses"],
        lambda reader: reader.curves(IDS).to_pylist() == before["curves"],
    ):
        for once in (False, True):
            reader = Store(store.root, once=once)
            with monkeypatch.context() as patch:
                patch.setattr(Place, "files", then_merged)
                assert read(reader)
            assert done and names(store)[0].startswith("runs/merged")
            done.clear()
            _apart(store)


def _apart(store: Store) -> None:
    """The store as it was before anything was merged."""
    tables = {name: pq.read_table(store.root / name) for name in names(store)}
    for name, table in tables.items():
        kind = name.split("/")[0]
        start = 0
        for array_id, rows, *_ in json.loads(table.schema.metadata[b"arrays"]):
            own = table.slice(start, rows).replace_schema_metadata({"schema_version": "3", "validation_examples": "43"})
            pq.write_table(own, store.root / kind / f"{array_id}.parquet")
            start += rows
        (store.root / name).unlink()
    (store.root / "merged.json").unlink()


def test_a_reader_in_the_middle_of_the_files_goes_on_where_they_went(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read_table, calls = everything(store), Store.table, []
    arrays = before["arrays"]
    kinds = ["runs"]

    def merging(self: Store, name: str, columns: list[str], expected: pa.Schema = RUNS_SCHEMA) -> pa.Table:
        calls.extend([name] if name.startswith(kinds[-1]) else [])
        if len(calls) == 3 and calls[-1] == name:
            compact(Store(store.root))
        return read_table(self, name, columns, expected)

    monkeypatch.setattr("sweep.store.rows.READERS", 1)
    for kind, read in (
        ("runs", lambda: store.read(IDS).rows.to_pylist() == before["rows"]),
        ("runs", lambda: store.curves(IDS).to_pylist() == before["curves"]),
        ("curves", lambda: store.curves(IDS, arrays).to_pylist() == before["curves"]),
    ):
        kinds.append(kind)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "table", merging)
            assert read()
        assert names(store)[0].startswith("runs/merged")
        calls.clear()
        _apart(store)


def test_rows_of_arrays_trained_and_merged_during_a_launch_are_found_by_array(store: Store) -> None:
    launch = Store(store.root, once=True)
    assert len(launch.statuses()) == 2 * ARRAYS
    for number in (ARRAYS, ARRAYS + 1):
        write(store, number)
    compact(store)
    wanted = [array(ARRAYS)[0], array(ARRAYS + 1)[0], "f" * 20]
    ids = [*array(ARRAYS)[2], *array(ARRAYS + 1)[2]]
    assert launch.statuses(wanted) == dict.fromkeys(ids, "ok")
    assert [Store(store.root).has_rows(array_id) for array_id in wanted] == [True, True, False]
    assert launch.read(ids).rows["run_id"].to_pylist() == ids


def test_an_array_that_failed_is_no_file_that_a_store_listed_once_looks_for(store: Store) -> None:
    launch = Store(store.root, once=True)
    launch.statuses()
    write(store, ARRAYS)
    launch.statuses([array(ARRAYS)[0], "f" * 20])
    assert len(launch.read([*IDS, *array(ARRAYS)[2]]).rows) == 2 * ARRAYS + 2


def test_two_at_once_share_a_lease_and_do_no_harm_without(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(store)
    lease = {"host": "elsewhere", "pid": 1, "started": None, "expires": time.time() + 60}
    store.place.write("leases/compact.json", json.dumps(lease).encode())
    assert compact(store).busy and len(names(store)) == 2 * ARRAYS
    store.place.remove("leases/compact.json")

    # The second starts where the first has written, and has not removed yet; the first goes on after it.
    remove, seen = Place.remove, []

    def overtaken(self: Place, name: str, **options: Any) -> None:
        if not seen and name.startswith("runs/"):
            seen.append(name)
            write(store, ARRAYS)
            compaction._settled(Store(store.root), lambda _: None)
        remove(self, name, **options)

    monkeypatch.setattr(Place, "remove", overtaken)
    compact(store)
    monkeypatch.undo()
    assert seen and store.read(IDS).rows.to_pylist() == before["rows"]
    compact(store)
    assert len(names(store)) == 2 and store.read(IDS).rows.to_pylist() == before["rows"]
    assert len(store.curves([*IDS, *array(ARRAYS)[2]])) == 4 * (ARRAYS + 1)


def _merge_often(root: str, stop: str) -> None:
    store = Store(Path(root))
    while not Path(stop).exists():
        compaction._settled(store, lambda _: None)  # without the lease, so that they meet


def _write_often(root: str, stop: str) -> None:
    store, number = Store(Path(root)), 0
    while not Path(stop).exists():
        write(store, number % 40 + ARRAYS)
        number += 1


@pytest.mark.slow
def test_readers_writers_and_several_who_merge_meet_and_no_row_is_ever_missing(store: Store, tmp_path: Path) -> None:
    before, stop, deadline = store.read(IDS).rows.to_pylist(), tmp_path / "stop", time.monotonic() + 30
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=each, args=(str(store.root), str(stop))) for each in (_merge_often, _merge_often)]
    others.append(context.Process(target=_write_often, args=(str(store.root), str(stop))))
    for each in others:
        each.start()
    reads = 0
    written: set[str] = set()
    while (reads < 40 or len(written) < 2 * (ARRAYS + 40)) and time.monotonic() < deadline:
        statuses = Store(store.root).statuses()
        assert written <= statuses.keys() and statuses.keys() >= set(IDS)
        written = set(statuses)
        assert Store(store.root).read(IDS).rows.to_pylist() == before
        assert len(Store(store.root).curves(IDS)) == 4 * ARRAYS
        reads += len(written) > 2 * ARRAYS  # those that met somebody
    stop.touch()
    for each in others:
        each.join()
        assert each.exitcode == 0
    assert reads > 10 and len(written) == 2 * (ARRAYS + 40)
    compact(store)
    assert len(Store(store.root).curves(IDS)) == 4 * ARRAYS
    assert len(store.place.files("runs", ".parquet")) == 1 and Store(store.root).read(IDS).rows.to_pylist() == before


# Object stores


def _merged_through(port: int, name: str, faults: Faults) -> None:
    with environment(f"http://127.0.0.1:{port}"):
        store = Store(f"s3://bucket/{name}")
        for number in range(ARRAYS):
            write(store, number)
        before = everything(store)
        with proxy(port, faults) as (endpoint, _), environment(endpoint):
            assert compact(Store(store.address)).files_after == 2
        assert everything(store) == before
        assert [name.split("-")[0] for name in names(store)] == ["runs/merged", "curves/merged"]


def test_files_of_an_object_store_are_merged(port: int) -> None:
    _merged_through(port, "plain", Faults(seed=2))


@pytest.mark.slow
def test_files_of_an_object_store_are_merged_through_faults(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES", (0.05,))
    faults = Faults(seed=3, errors=0.15, late=0.15)
    _merged_through(port, "faulty", faults)
    assert faults.seen["error"] and faults.seen["late"]


def test_a_store_that_was_never_compacted_is_asked_once_more_for_an_array_that_is_not_there(port: int) -> None:
    with proxy(port, Faults(seed=4)) as (endpoint, requests), environment(endpoint):
        store = Store("s3://bucket/never")
        write(store, 0)
        requests.clear()
        assert store.has_rows(array(0)[0]) and not store.has_rows("f" * 20)
        store.statuses([array(0)[0], "f" * 20])
        assert not [request for request in requests if "list-type" in request]


# The command


@pytest.mark.integration
def test_the_command_says_what_it_did(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "compact", "--store", str(store.root), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said.pop("seconds") >= 0
    assert said == {"files_before": 12, "files_after": 2, "rows": 12, "busy": False}
    again = subprocess.run(
        [sys.executable, "-m", "sweep", "compact", "--store", str(store.root)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == "2 files became 2; 12 rows, all there as before.\n"
