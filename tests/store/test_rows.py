import dataclasses
import datetime
import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outcomes import BY

import sweep.store.rows
from sweep.common.errors import InputError
from sweep.space.runs import SETTINGS, Run, run_id
from sweep.store.compaction import compact
from sweep.store.outcomes import Outcome, Point
from sweep.store.rows import Store
from sweep.store.tables import CURVES_SCHEMA, RUNS_SCHEMA

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
    assert list(rows.columns) == ["run_id", *SETTINGS, *results, "torch_version", "method", "finished_at"]
    assert list(rows["run_id"]) == IDS
    assert list(rows["seed"]) == [0, 0, 1, 1]
    assert list(rows["bias"]) == [True, False, True, False]
    assert list(rows["test_accuracy"]) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert set(rows["array_size"]) == {4}
    assert rows["finished_at"].dt.tz is not None


def test_a_file_from_before_a_setting_was_there_is_read_with_its_default(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    path = store.root / "runs" / f"{'a' * 20}.parquet"
    older = pq.read_table(path).drop_columns(["image_size", "method"]).replace_schema_metadata({"schema_version": "1"})
    pq.write_table(older, path)
    rows = store.rows(IDS)
    assert rows.column_names == RUNS_SCHEMA.names
    assert rows["image_size"].to_pylist() == rows["method"].to_pylist() == [None] * 4
    assert len(store.statuses()) == 4


def test_rows_from_before_methods_were_recorded_stand_beside_those_that_say_theirs(store: Store) -> None:
    store.write("a" * 20, RUNS[:2], IDS[:2], [outcome()] * 2, BY)
    path = store.root / "runs" / f"{'a' * 20}.parquet"
    pq.write_table(pq.read_table(path).drop_columns("method").replace_schema_metadata({"schema_version": "2"}), path)
    store.write("b" * 20, RUNS[2:], IDS[2:], [outcome()] * 2, dataclasses.replace(BY, method="native"))
    for _ in range(2):
        assert store.rows(IDS)["method"].to_pylist() == [None, None, "native", "native"]
        compact(store)
    assert len(store.row_files()) == 1


def test_files_carry_the_schema_version_and_how_many_pictures_a_curve_point_used(store: Store) -> None:
    store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    rows = pq.read_schema(store.root / "runs" / f"{'a' * 20}.parquet")
    curves = pq.read_schema(store.root / "curves" / f"{'a' * 20}.parquet")
    assert rows.metadata[b"schema_version"] == curves.metadata[b"schema_version"] == b"3"
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


def test_damaged_curves_are_named_and_the_others_are_there(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.write("a" * 20, RUNS[:2], IDS[:2], [outcome()] * 2, BY)
    store.write("b" * 20, RUNS[2:], IDS[2:], [outcome()] * 2, BY)
    path = store.root / "curves" / f"{'a' * 20}.parquet"
    path.write_bytes(path.read_bytes()[:50])
    for _ in range(2):
        assert set(store.curves(IDS)["run_id"].to_pylist()) == set(IDS[2:])
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: is not a table of this store") and said.count("\n") == 1
    assert len(store.rows(IDS)) == 4


def test_looks_come_back_in_their_order_and_by_sweep(store: Store) -> None:
    assert store.looks("width") == {}
    for number in (2, 1, 11):
        store.save_look("width", number, {"number": number, "new_run_ids": [], "looks": {"declared": 1}})
    store.save_look("other", 1, {"number": 1, "new_run_ids": [], "looks": {"declared": 1}})
    assert [(number, look["number"]) for number, look in store.looks("width").items()] == [(1, 1), (2, 2), (11, 11)]
    assert not store.damaged


@pytest.mark.parametrize(
    "content",
    [
        *('{"num', "", "[1]", "3", "[" * 5000, '{"new_run_ids": []}', '{"new_run_ids": [], "looks": {}}'),
        '{"new_run_ids": [[1]], "looks": {"declared": 1}}',
        '{"new_run_ids": [], "looks": {"declared": 1, "taken": "x"}}',
        '{"new_run_ids": [], "looks": []}',
    ],
)
def test_a_damaged_look_is_named_and_the_others_are_there(
    content: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        store.save_look("width", number, {"new_run_ids": [], "looks": {"declared": 1}})
    path = store.root / "looks" / "width" / "0002.json"
    path.write_text(content)
    for _ in range(2):
        assert list(store.looks("width")) == [1, 3] and "looks/width/0002.json" in store.damaged
        assert store.last_look("width") == 3
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: is not ") and said.count("\n") == 1
    assert path.read_text() == content


def test_an_unfinished_temporary_file_is_never_read(store: Store) -> None:
    store.write("a" * 20, RUNS[:2], IDS[:2], [outcome()] * 2, BY)
    for name in ("runs/.bbbb.1234.parquet", "sweeps/.small.1234.yaml", "failures/.bbbb.1234.json"):
        (store.root / name).parent.mkdir(exist_ok=True)
        (store.root / name).write_bytes(b"half a fi")
    assert store.statuses().keys() == set(IDS[:2])
    assert store.sweeps() == []
    assert store.failures() == {}


def test_checkpoints_of_what_is_done_are_cleared_and_files_that_are_none_are_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, run_ids: list[str]) -> None:
        header = json.dumps({"__metadata__": {"sweep": json.dumps({"run_ids": run_ids})}}).encode()
        store.place.write(store.checkpoint(name), len(header).to_bytes(8, "little") + header)

    write("done", ["a", "b"])
    write("half", ["a", "c"])
    odd = {"empty": b"", "garbage": b"\xff" * 100, "other": b"\x02" + bytes(7) + b"{}"}
    for name, content in odd.items():
        store.place.write(store.checkpoint(name), content)
    write("nobodys", [])
    write("odd", [[1]])  # type: ignore[list-item]
    (store.root / store.checkpoint("folder")).mkdir()
    for _ in range(2):
        assert store.tidy({"a", "b"}) == {store.checkpoint("half"): frozenset("ac")}
    left = {path.stem for path in (store.root / "checkpoints").iterdir()}
    assert left == {"half", "nobodys", "odd", "folder", *odd}
    for name, content in odd.items():
        assert store.place.read(store.checkpoint(name)) == content
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6 and all("no training resumes from it" in line for line in said)
    assert any("folder.safetensors: is a folder; expected a file" in line for line in said)


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
    monkeypatch.setattr("sweep.store.storage.RETRY_SECONDS", 0.1)
    with pytest.raises(OSError, match="No space left"):
        store.write("a" * 20, RUNS, IDS, [outcome()] * 4, BY)
    monkeypatch.undo()
    assert store.statuses() == {}
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def _sound(store: Store) -> dict[str, str]:
    """Two runs in a file of their own, and what the store knows of them."""
    store.write("a" * 20, RUNS[:2], IDS[:2], [outcome()] * 2, BY)
    return dict.fromkeys(IDS[:2], "ok")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flipped(path: Path) -> None:
    """Pages that cannot be decoded, below a footer that can."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(600) + content[604:])


def _newer(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata({"schema_version": "4"}), path)


def _another(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns("status"), path)


def _other_types(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "run_id", pa.array(range(len(table)))), path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _with(path: Path, column: str, value: object) -> None:
    """The file as another program writes it, which knows no column as never null; one value is another."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    values = pa.array([value, *table[column].to_pylist()[1:]], table.schema.field(column).type)
    pq.write_table(table.set_column(place, column, values), path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to nothing": (lambda path: _linked(path, "../annex/object"), "is a link to nothing"),
    "a link to itself": (lambda path: _linked(path, path.name), "is a link to nothing"),
    "a pipe": (_pipe, "is not a file"),
    "a null": (lambda path: _with(path, "run_id", None), "column run_id holds nulls"),
    "an unknown status": (
        lambda path: _with(path, "status", "fine"),
        "column status holds values that training cannot produce",
    ),
    "empty": (lambda path: path.write_bytes(b""), "is not a table of this store"),
    "truncated": (_truncated, "is not a table of this store"),
    "cut to its first bytes": (lambda path: path.write_bytes(path.read_bytes()[:100]), "is not a table of this store"),
    "flipped": (_flipped, "is not a table of this store"),
    "text": (lambda path: path.write_text("bias,seed\n1,2\n"), "is not a table of this store"),
    "another schema": (_another, "no column status"),
    "other types": (_other_types, "column run_id is int64, not string"),
    "newer": (_newer, "written by a newer sweep (schema version 4, this one reads up to 3); upgrade sweep to read it"),
    "a folder": (_folder, "is a folder; expected a file"),
}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_once_left_out_and_its_rows_are_written_elsewhere(
    damage: Callable[[Path], object], said: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    known, other = _sound(store), "b" * 20
    store.write(other, RUNS[2:], IDS[2:], [outcome()] * 2, BY)
    path = store.root / "runs" / f"{other}.parquet"
    damage(path)
    before = _content(path)
    for _ in range(2):
        assert store.statuses() == known
        assert store.statuses(["a" * 20, other]) == known
        assert store.read(IDS).rows["run_id"].to_pylist() == IDS[:2]
        assert not store.has_rows(other)
    err = capsys.readouterr().err
    assert err.startswith(f"{path}: ") and said in err and err.count("\n") == 1
    assert "It is left out: its runs count as missing." in err
    assert store.lost() == (set(IDS[2:]), set()), "as the learning curves tell"

    launch = Store(store.root, once=True)
    launch.statuses()
    Store(store.root).write(other, RUNS[2:], IDS[2:], [outcome(0.75)] * 2, BY)
    assert store.has_rows(other) and _content(path) == before and os.path.lexists(path)
    for reader in (launch, store):
        assert reader.statuses(["a" * 20, other]) == dict.fromkeys(IDS, "ok")
        assert reader.read(IDS).rows["test_accuracy"].to_pylist() == [0.5, 0.5, 0.75, 0.75]
        assert reader.read(IDS).array_ids == ["a" * 20] * 2 + [other] * 2
        assert len(reader.curves(IDS)) == 8
    Store(store.root).write(other, RUNS[2:], IDS[2:], [outcome(0.25)] * 2, BY)
    assert store.read(IDS).repeated == 2 and _content(path) == before


@pytest.mark.parametrize("accuracy", [7.0, -0.5, float("nan")])
def test_a_file_with_an_accuracy_that_none_has_is_left_out_and_merged_with_none(
    accuracy: float, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _sound(store)
    store.write("b" * 20, RUNS[2:], IDS[2:], [outcome()] * 2, BY)
    path = store.root / "runs" / f"{'b' * 20}.parquet"
    _with(path, "test_accuracy", accuracy)
    before = path.read_bytes()
    assert store.read(IDS).rows["run_id"].to_pylist() == IDS[:2]
    assert "column test_accuracy holds values that training cannot produce" in capsys.readouterr().err
    assert store.lost() == (set(), set(IDS[2:])), "a launch, which reads no accuracies, takes them for done"
    store.write("c" * 20, RUNS[:1], IDS[:1], [outcome()], BY)
    compact(store)
    assert path.read_bytes() == before and len(store.statuses()) == 4


def test_a_file_that_another_program_has_rewritten_is_read_with_the_others(store: Store) -> None:
    _sound(store)
    store.write("b" * 20, RUNS[2:], IDS[2:], [outcome()] * 2, BY)
    _with(store.root / "runs" / f"{'b' * 20}.parquet", "run_id", IDS[2])
    assert store.statuses() == dict.fromkeys(IDS, "ok") and not store.damaged
    assert store.read(IDS).rows.schema.equals(RUNS_SCHEMA)


def test_curves_that_are_damaged_are_not_written_over(store: Store) -> None:
    _sound(store)
    path = store.root / "curves" / f"{'b' * 20}.parquet"
    path.write_bytes(b"PAR1")
    store.write("b" * 20, RUNS[2:], IDS[2:], [outcome()] * 2, BY)
    assert path.read_bytes() == b"PAR1"
    assert len(store.curves(IDS)) == 8 and store.has_rows("b" * 20)


def test_a_file_that_may_not_be_read_is_left_out_and_an_object_store_that_lets_nobody_read_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = _sound(store)
    store.write("b" * 20, RUNS[2:], IDS[2:], [outcome()] * 2, BY)
    table = sweep.store.rows.read_table

    def closed(source: Any, *arguments: Any) -> pa.Table:
        if "bbb" in str(source):
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        return table(source, *arguments)

    monkeypatch.setattr(sweep.store.rows, "read_table", closed)
    assert store.statuses() == known
    assert f"{'b' * 20}.parquet: cannot be read (permission denied). It is left out" in capsys.readouterr().err
    remote = Store("s3://bucket/x")
    with pytest.raises(PermissionError):
        remote.damaged.leave_out("runs/a.parquet", PermissionError(errno.EACCES, "Access denied"))


def test_what_is_wrong_with_the_disk_is_no_damage_of_a_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _sound(store)

    def broken(*_: Any) -> pa.Table:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sweep.store.rows, "read_table", broken)
    monkeypatch.setattr("sweep.store.storage.RETRY_SECONDS", 0)
    with pytest.raises(OSError, match="Input/output error"):
        store.statuses()
    assert store.damaged == {}


def test_a_table_of_other_things_is_named_by_the_first_column_that_it_lacks(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    known = _sound(store)
    for name, table, said in (
        ("one", pa.table({"run_id": ["x"]}), "no column bias"),
        ("two", pa.table({"x": [1]}), "no column run_id"),
        ("three", pa.table({"run_id": [1]}), "column run_id is int64, not string"),
    ):
        pq.write_table(table, store.root / "runs" / f"{name}.parquet")
        assert store.statuses() == known and len(store.rows(IDS)) == 2
        err = capsys.readouterr().err
        assert f"runs/{name}.parquet: is not a table of this store: {said}" in err and err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"runs/x": 3}', b"[" * 5000])
def test_a_damaged_index_of_merged_files_costs_listings_alone(content: bytes, store: Store) -> None:
    known = _sound(store)
    store.place.write("merged.json", content)
    assert store.has_rows("a" * 20) and not store.has_rows("b" * 20)
    assert store.statuses(["a" * 20, "b" * 20]) == known and len(store.curves(IDS)) == 4


def test_a_folder_of_the_store_that_is_a_file_is_said(store: Store) -> None:
    store.root.mkdir()
    (store.root / "runs").write_text("")
    with pytest.raises(InputError, match=r"results/runs is a file; expected a folder"):
        Store(store.root)


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


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"run_ids": 3}', b'{"run_ids": [[]]}', b"\xff\xfe", b"[" * 5000]
)
def test_a_damaged_note_of_a_failure_hides_no_other(
    content: bytes, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save_failure("a" * 20, {"error": "ValueError: no", "run_ids": IDS})
    store.place.write(f"failures/{'b' * 20}.json", content)
    assert store.failures().keys() == {"a" * 20}
    store.clear_failures(IDS)
    assert store.place.read(f"failures/{'b' * 20}.json") == content
    said = capsys.readouterr().err
    assert f"failures/{'b' * 20}.json: is not " in said and said.count("\n") == 1
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


@pytest.mark.integration
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
