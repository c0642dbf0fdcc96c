import dataclasses
import datetime
import errno
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outcomes import BY

import sweep.store.rows
from sweep.common.errors import InputError
from sweep.space.runs import SETTINGS, Run, run_id
from sweep.store.outcomes import Outcome, Point
from sweep.store.rows import CURVES_SCHEMA, RUNS_SCHEMA, Store

RUNS = [Run(seed=seed, bias=bias) for seed in (0, 1) for bias in (True, False)]
IDS = [run_id(run, "test") for run in RUNS]


def outcome(accuracy: float = 0.5, diverged: bool = False) -> Outcome:
    loss = None if diverged else 1.25
    return Outcome(
        status="diverged" if diverged else "ok",
        test_accuracy=accuracy,
        test_loss=loss,
        train_loss=loss,
        validation_accuracy=0.25,
        test_correct=b"\x0f",
        parameters=10,
        train_seconds=0.5,
        array_size=4,
        curve=(Point(5, loss, 0.125), Point(10, loss, 0.25)),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_rows_come_back_as_written_with_every_column_of_the_contract(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome(0.1 * i) for i in range(4)], BY)
    rows = store.rows(IDS).to_pandas()
    results = ["status", "test_accuracy", "test_loss", "train_loss", "validation_accuracy", "test_correct"]
    results += ["parameters", "train_seconds", "array_size", "device", "dataset_fingerprint", "trainer_version"]
    assert list(rows.columns) == ["run_id", *SETTINGS, *results, "torch_version", "finished_at"]
    assert list(rows["run_id"]) == IDS
    assert list(rows["seed"]) == [0, 0, 1, 1]
    assert list(rows["bias"]) == [True, False, True, False]
    assert list(rows["test_accuracy"]) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert set(rows["array_size"]) == {4}
    assert rows["finished_at"].dt.tz is not None


def test_a_file_from_before_a_setting_was_there_is_read_with_its_default(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    path = store.root / "runs" / f"{'a' * 20}.parquet"
    older = pq.read_table(path).drop_columns("image_size").replace_schema_metadata({"schema_version": "1"})
    pq.write_table(older, path)
    rows = store.rows(IDS)
    assert rows.column_names == RUNS_SCHEMA.names
    assert rows["image_size"].to_pylist() == [None] * 4
    assert len(store.statuses()) == 4


def test_files_carry_the_schema_version_and_how_many_pictures_a_curve_point_used(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    rows = pq.read_schema(store.root / "runs" / f"{'a' * 20}.parquet")
    curves = pq.read_schema(store.root / "curves" / f"{'a' * 20}.parquet")
    assert rows.metadata[b"schema_version"] == curves.metadata[b"schema_version"] == b"2"
    assert curves.metadata[b"validation_examples"] == b"43"
    assert rows.names == RUNS_SCHEMA.names
    assert curves.names == CURVES_SCHEMA.names == ["run_id", "step", "train_loss", "validation_accuracy"]


def test_a_missing_loss_is_null_and_never_a_number(store: Store) -> None:
    store.write("a" * 20, RUNS[:2], IDS[:2], [outcome(0.1, diverged=True), outcome()], BY)
    table = pq.read_table(store.root / "runs" / f"{'a' * 20}.parquet")
    assert table["test_loss"].to_pylist() == [None, 1.25]
    assert table["status"].to_pylist() == ["diverged", "ok"]
    assert store.statuses() == {IDS[0]: "diverged", IDS[1]: "ok"}


def test_a_run_that_stands_twice_counts_once_with_its_earliest_row(store: Store) -> None:
    store.write("b" * 20, RUNS[:2], IDS[:2], [outcome(0.5)] * 2, BY)
    store.write("a" * 20, RUNS, IDS, [outcome(0.9)] * 4, BY)
    assert store.rows(IDS)["test_accuracy"].to_pylist() == [0.5, 0.5, 0.9, 0.9]
    assert store.statuses() == dict.fromkeys(IDS, "ok")


def test_of_rows_finished_at_the_same_time_that_of_the_first_array_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Stopped":
            return cls(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr("sweep.store.rows.datetime.datetime", Stopped)
    store.write("b" * 20, RUNS[:2], IDS[:2], [outcome(0.9, diverged=True)] * 2, BY)
    store.write("a" * 20, RUNS[:2], IDS[:2], [outcome(0.5)] * 2, BY)
    found = store.read(IDS)
    assert found.rows["test_accuracy"].to_pylist() == [0.5, 0.5]
    assert found.array_ids == ["a" * 20] * 2
    assert store.statuses() == dict.fromkeys(IDS[:2], "ok")


def test_runs_that_stand_twice_are_counted_and_those_that_disagree(store: Store) -> None:
    store.write("b" * 20, RUNS, IDS, [outcome(0.5)] * 4, BY)
    store.write("a" * 20, RUNS[:3], IDS[:3], [outcome(0.5), outcome(0.75), outcome(0.5)], BY)
    store.write("c" * 20, RUNS[1:2], IDS[1:2], [outcome(0.8)], BY)
    found = store.read(IDS)
    assert (found.repeated, found.disagreeing) == (3, 1)
    assert found.rows["run_id"].to_pylist() == IDS
    assert found.array_ids == ["b" * 20] * 4
    alone = store.read([IDS[3]])
    assert (alone.repeated, alone.disagreeing, len(alone.rows)) == (0, 0, 1)


def test_rows_come_in_the_order_asked_for_from_whatever_arrays(store: Store) -> None:
    store.write("b" * 20, RUNS[:2], IDS[:2], [outcome(0.1), outcome(0.2)], BY)
    store.write("a" * 20, RUNS[2:], IDS[2:], [outcome(0.3), outcome(0.4)], BY)
    assert store.rows(IDS[::-1])["test_accuracy"].to_pylist() == [0.4, 0.3, 0.2, 0.1]
    assert store.rows([]).num_rows == 0
    assert store.rows(IDS).schema.names == RUNS_SCHEMA.names


def test_a_curve_is_that_of_the_row_that_counts(store: Store) -> None:
    store.write("b" * 20, RUNS[:2], IDS[:2], [outcome(0.5)] * 2, BY)
    other = dataclasses.replace(outcome(0.9), curve=(Point(7, 0.5, 0.75),))
    store.write("a" * 20, RUNS, IDS, [other] * 4, BY)
    curves = store.curves([IDS[1], IDS[2], "unknown"])
    assert curves.schema.names == CURVES_SCHEMA.names
    assert curves.to_pylist() == [
        {"run_id": IDS[1], "step": 5, "train_loss": 1.25, "validation_accuracy": 0.125},
        {"run_id": IDS[1], "step": 10, "train_loss": 1.25, "validation_accuracy": 0.25},
        {"run_id": IDS[2], "step": 7, "train_loss": 0.5, "validation_accuracy": 0.75},
    ]
    found = store.read(IDS[:1])
    assert len(store.curves(IDS[:1], found.array_ids)) == 2


def test_runs_without_a_curve_are_left_out(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    (store.root / "curves" / f"{'a' * 20}.parquet").unlink()
    assert store.curves(IDS).num_rows == 0


def test_damaged_curves_are_named(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    path = store.root / "curves" / f"{'a' * 20}.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=rf"{path}: is no table of this store"):
        store.curves(IDS)


def test_looks_come_back_in_their_order_and_by_sweep(store: Store) -> None:
    assert store.looks("width") == {}
    for number in (2, 1, 11):
        store.save_look("width", number, {"number": number, "new_run_ids": [], "looks": {"declared": 1}})
    store.save_look("other", 1, {"number": 1, "new_run_ids": [], "looks": {"declared": 1}})
    assert [(number, look["number"]) for number, look in store.looks("width").items()] == [(1, 1), (2, 2), (11, 11)]
    for damaged in ('{"num', "[1]", '{"new_run_ids": []}'):
        (store.root / "looks" / "width" / "0002.json").write_text(damaged)
        with pytest.raises(InputError, match=r"0002\.json: is no record of a look"):
            store.looks("width")


def test_an_unfinished_temporary_file_is_never_read(store: Store) -> None:
    store.write("a" * 20, RUNS[:2], IDS[:2], [outcome()] * 2, BY)
    for name in ("runs/.bbbb.1234.parquet", "sweeps/.small.1234.yaml", "failures/.bbbb.1234.json"):
        (store.root / name).parent.mkdir(exist_ok=True)
        (store.root / name).write_bytes(b"half a fi")
    assert store.statuses().keys() == set(IDS[:2])
    assert store.sweeps() == []
    assert store.failures() == {}


def test_checkpoints_of_what_is_done_and_files_that_are_none_are_cleared(store: Store) -> None:
    def write(name: str, run_ids: list[str]) -> None:
        header = json.dumps({"__metadata__": {"sweep": json.dumps({"run_ids": run_ids})}}).encode()
        store.place.write(store.checkpoint(name), len(header).to_bytes(8, "little") + header)

    write("done", ["a", "b"])
    write("half", ["a", "c"])
    for name, content in {"empty": b"", "garbage": b"\xff" * 100, "other": b"\x02" + bytes(7) + b"{}"}.items():
        store.place.write(store.checkpoint(name), content)
    store.tidy({"a", "b"})
    assert [path.stem for path in (store.root / "checkpoints").iterdir()] == ["half"]


def test_a_checkpoint_that_is_replaced_while_it_is_looked_at_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content(seconds: str) -> bytes:
        header = json.dumps({"__metadata__": {"sweep": json.dumps({"run_ids": ["a"], "seconds": seconds})}}).encode()
        return len(header).to_bytes(8, "little") + header + b"tensors"

    name, read, looks = store.checkpoint("array"), store.place.read, []

    def late(name: str, size: int | None = None) -> bytes:
        found = read(name, size)
        if not looks:
            store.place.write(name, content("1" * 100))
        looks.append(size)
        return found

    store.place.write(name, content("1"))
    monkeypatch.setattr(store.place, "read", late)
    assert store.tidy(set()) == {name: frozenset("a")}
    assert (store.root / name).exists() and len(looks) > 2


def test_rows_that_are_stale_for_a_moment_are_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    table, tries = sweep.store.rows.read_table, []

    def stale(*arguments: Any) -> pa.Table:
        tries.append(arguments)
        if len(tries) == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return table(*arguments)

    monkeypatch.setattr(sweep.store.rows, "read_table", stale)
    assert len(store.statuses()) == 4 and len(tries) == 2


def test_a_write_that_fails_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr("sweep.store.storage.PATIENCE", 0.1)
    with pytest.raises(OSError, match="No space left"):
        store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    monkeypatch.undo()
    assert store.statuses() == {}
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_a_damaged_file_is_named_in_one_message(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    path = store.root / "runs" / f"{'a' * 20}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=path.name):
        store.statuses()


def test_a_foreign_table_is_refused_by_the_first_column_that_it_lacks(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    path = store.root / "runs" / "foreign.parquet"
    for table, said in (
        (pa.table({"run_id": ["x"]}), "no column bias"),
        (pa.table({"x": [1]}), "no column run_id"),
        (pa.table({"run_id": [1]}), "column run_id is int64, not string"),
    ):
        pq.write_table(table, path)
        for read in (store.statuses, lambda: store.rows(IDS)):
            with pytest.raises(InputError, match=f"foreign.parquet.*{said}"):
                read()


def test_a_table_of_a_newer_version_is_refused_with_the_way_out(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    path = store.root / "runs" / f"{'a' * 20}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"schema_version": "3"}), path)
    with pytest.raises(InputError, match=r"newer sweep \(schema version 3.*upgrade"):
        store.rows(IDS)


def test_an_empty_or_missing_store_has_no_rows_but_all_columns(store: Store) -> None:
    assert store.statuses() == {}
    assert store.sweeps() == []
    rows = store.rows(IDS)
    assert len(rows) == 0
    assert rows.schema == RUNS_SCHEMA


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        Store(tmp_path / "file")


def test_sweeps_are_found_by_name_and_unknown_ones_name_the_known(store: Store) -> None:
    store.save_sweep("width", "name: width\n")
    assert store.sweep("width") == b"name: width\n"
    with pytest.raises(InputError, match=r"no sweep 'depth'.*there are: width"):
        store.sweep("depth")


def test_failures_are_kept_until_all_runs_of_the_array_are_done(store: Store) -> None:
    store.save_failure("a" * 20, {"error": "ValueError: no", "run_ids": IDS})
    assert store.failures() == {"a" * 20: {"error": "ValueError: no", "run_ids": IDS}}
    store.clear_failures(IDS[:3])
    assert store.failures().keys() == {"a" * 20}
    store.clear_failures(IDS)
    assert store.failures() == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"run_ids": 3}', b"\xff\xfe"])
def test_a_damaged_note_of_a_failure_hides_no_other(content: bytes, store: Store) -> None:
    store.save_failure("a" * 20, {"error": "ValueError: no", "run_ids": IDS})
    store.place.write(f"failures/{'b' * 20}.json", content)
    assert store.failures().keys() == {"a" * 20}
    store.clear_failures(IDS)
    store.save_failure("b" * 20, {"error": "ValueError: no", "run_ids": IDS})
    assert store.failures().keys() == {"b" * 20}


def test_rows_of_other_columns_and_times_keep_their_types() -> None:
    assert RUNS_SCHEMA.field("width").type == pa.int64()
    assert RUNS_SCHEMA.field("bias").type == pa.bool_()
    assert RUNS_SCHEMA.field("learning_rate").type == pa.float64()
    assert RUNS_SCHEMA.field("train_examples").type == pa.int64()
    assert RUNS_SCHEMA.field("activation").type == pa.string()


def _write_many(root: str, start: int) -> None:
    for round_ in range(start, start + 20):
        Store(Path(root)).write("a" * 20, RUNS, IDS, [outcome(round_ / 100)] * 4, BY)


def test_two_writers_of_one_array_and_a_reader_never_meet_half_a_file(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(str(store.root), start)) for start in (0, 50)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen |= {len(store.statuses())}
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen <= {0, 4}
    assert len(store.rows(IDS)) == 4
    assert len(list((store.root / "runs").iterdir())) == 1
    assert max(store.rows(IDS)["finished_at"].to_pylist()) <= datetime.datetime.now(datetime.UTC)
