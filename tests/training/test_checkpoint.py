"""An array in training is kept whole, taken up where it was left, and ends as if nothing had happened."""

import dataclasses
import errno
import functools
import itertools
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from support import oracle
from support.outcomes import BY

from sweep import plan
from sweep.networks.conv.native import build
from sweep.networks.conv.native.library import Library, library
from sweep.networks.conv.native.location import FLAGS, cpu_flags
from sweep.networks.conv.shape import MethodName
from sweep.space.runs import Run
from sweep.space.search_space import parse
from sweep.store.outcomes import Outcome
from sweep.store.rows import Store
from sweep.store.storage import Place
from sweep.training.checkpoint import Checkpoint, State, Stopped
from sweep.training.trainer import ORDER_BLOCK, Trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")

GREY = oracle.synthetic()
SMALL = Run(width=3, hidden=5, kernel_size=3, batch_size=5, steps=12)
PROGRAMS = {
    "plain": SMALL,
    "everything": dataclasses.replace(
        SMALL, batch_norm=True, dropout=0.3, optimizer="adamw", weight_decay=0.1, schedule="cosine", activation="gelu"
    ),
    "momentum": dataclasses.replace(SMALL, momentum=0.9, pooling="max"),
    "shared weights": dataclasses.replace(SMALL, protocol="shared_weights", momentum=0.5, batch_norm=True),
    "many batches": dataclasses.replace(SMALL, width=1, depth=1, steps=ORDER_BLOCK + 20, dropout=0.1),
}


needs_kernels = pytest.mark.skipif(library() is None, reason="no compiler, and no build for this CPU")
METHODS = ["grouped", pytest.param("native", marks=needs_kernels)]


def known(run: Run, method: MethodName) -> Run:
    """The run with an activation that the method knows."""
    return dataclasses.replace(run, activation="leaky_relu") if method == "native" and run.activation == "gelu" else run


def pairs(run: Run) -> list[Run]:
    return [dataclasses.replace(run, bias=bias, seed=seed) for seed in (0, 1) for bias in (True, False)]


def plain(outcomes: list[Outcome]) -> list[Outcome]:
    return [dataclasses.replace(outcome, train_seconds=0.0) for outcome in outcomes]


def kept_at(path: Path, **options: Any) -> Checkpoint:
    return Checkpoint(Place(path.parent), path.name, **options)


def stopped_after(steps: int, runs: list[Run], path: Path, method: MethodName | None = None) -> None:
    """Trains `steps` steps and is stopped."""
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked >= steps

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("sweep.training.native_array.AT_ONCE", 0)  # one step at a time
        train(runs, GREY, method=method, checkpoint=kept_at(path, stopping=stopping))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("left", [1, 4, 11])
def test_a_training_that_was_stopped_and_taken_up_ends_bit_for_bit_as_one_that_was_not(
    program: str, left: int, method: MethodName, tmp_path: Path
) -> None:
    runs, path = pairs(known(PROGRAMS[program], method)), tmp_path / "checkpoints" / "a.safetensors"
    done = runs[0].steps - left
    stopped_after(done, runs, path, method)
    kept = kept_at(path).load()
    assert kept is not None and kept.numbers["done"] == done
    seen: list[int] = []
    resumed = train(runs, GREY, method=method, checkpoint=kept_at(path), tick=seen.append)
    assert plain(resumed) == plain(train(runs, GREY, method=method))
    assert min(seen) > done, "trained again what was kept"


@needs_kernels
@pytest.mark.parametrize(("begun", "then"), [("native", "grouped"), ("grouped", "native")])
def test_a_checkpoint_is_not_taken_up_by_other_kernels_than_wrote_it(
    begun: MethodName, then: MethodName, tmp_path: Path
) -> None:
    runs = pairs(SMALL)
    stopped_after(8, runs, tmp_path / "a.safetensors", begun)
    stopped_after(8, runs, tmp_path / "b.safetensors", begun)
    seen: list[int] = []
    checkpoint = kept_at(tmp_path / "a.safetensors", others=["b.safetensors"])
    outcomes = train(runs, GREY, method=then, checkpoint=checkpoint, tick=seen.append)
    assert plain(outcomes) == plain(train(runs, GREY, method=then)) and min(seen) < 8
    checkpoint.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"], "that of the larger array is its own"


@needs_kernels
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_native_part_of_an_array_goes_on_with_the_bits_of_the_whole(program: str, tmp_path: Path) -> None:
    cell = known(PROGRAMS[program], "native")
    runs = [dataclasses.replace(run, seed=seed) for seed in range(10) for run in pairs(cell)[:2]]
    done = cell.steps - 4
    stopped_after(done, runs, tmp_path / "whole.safetensors", "native")
    whole = dict(zip(runs, plain(train(runs, GREY, method="native")), strict=True))
    some, seen = [run for run in runs if run.seed in (3, 8, 9)][::-1], []
    checkpoint = kept_at(tmp_path / "own", others=["whole.safetensors"])
    adopted = plain(train(some, GREY, method="native", checkpoint=checkpoint, tick=seen.append))
    assert min(seen) > done, "trained again what was kept"
    assert adopted == [dataclasses.replace(whole[run], array_size=len(some)) for run in some]
    halves = train(runs, GREY, method="native", checkpoint=kept_at(tmp_path / "whole.safetensors"), halvings=2)
    assert plain(halves) == [
        dataclasses.replace(whole[run], array_size=half.array_size) for run, half in zip(runs, halves, strict=True)
    ]
    assert {half.array_size for half in halves} == {4, 6}


@pytest.fixture(scope="module")
def two_builds() -> list[Library]:
    """The kernels for tiles of two sizes."""
    kinds = [name for name in build.variants() if FLAGS[name] <= cpu_flags()]
    if len(kinds) < 2:
        pytest.skip("this CPU runs tiles of one size only")
    return [Library(path) for path in build.build(build.HERE, kinds)]


@needs_kernels
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_tiles_of_one_size_have_begun_tiles_of_another_end_with_the_same_bits(
    program: str, two_builds: list[Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({each.lanes for each in two_builds}) == 2
    cell = known(PROGRAMS[program], "native")
    runs = [dataclasses.replace(run, seed=seed) for seed in range(11) for run in pairs(cell)[:2]]
    for number, (first, second) in enumerate(itertools.permutations(two_builds)):
        monkeypatch.setattr("sweep.training.trainer.library", lambda first=first: first)
        whole = plain(train(runs, GREY, method="native"))
        path = tmp_path / f"{number}.safetensors"
        stopped_after(cell.steps - 4, runs, path, "native")
        monkeypatch.setattr("sweep.training.trainer.library", lambda second=second: second)
        assert plain(train(runs, GREY, method="native", checkpoint=kept_at(path))) == whole


def test_a_checkpoint_is_written_by_time_and_not_at_every_step(tmp_path: Path) -> None:
    written = []

    class Watched(Checkpoint):
        def save(self, state: State) -> None:
            written.append(state.numbers["done"])
            super().save(state)

    train(pairs(SMALL), GREY, checkpoint=Watched(Place(tmp_path), "a.safetensors", every=0))
    assert written == list(range(1, SMALL.steps))
    written.clear()
    train(pairs(SMALL), GREY, checkpoint=Watched(Place(tmp_path), "b.safetensors", every=3600))
    assert written == []


def test_checkpoints_come_often_where_the_machine_is_about_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.training.checkpoint.HURRIED", 0.0)
    for hurried in (False, True):
        checkpoint = kept_at(tmp_path / f"{hurried}.safetensors", hurried=lambda hurried=hurried: hurried)
        train(pairs(SMALL), GREY, checkpoint=checkpoint)
        kept = checkpoint.load()
        assert (kept and kept.numbers["done"]) == (SMALL.steps - 1 if hurried else None)


def test_the_time_before_an_interruption_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    trainer = Trainer(pairs(SMALL), GREY)
    trainer.step()
    kept_at(path).save(trainer.state(1000.0))
    [first, *_] = train(pairs(SMALL), GREY, checkpoint=kept_at(path))
    assert 250 < first.train_seconds < 260


def test_a_checkpoint_of_other_runs_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stopped_after(5, pairs(SMALL), path)
    others = pairs(dataclasses.replace(SMALL, learning_rate=0.1))
    assert plain(train(others, GREY, checkpoint=kept_at(path))) == plain(train(others, GREY))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_part_of_an_array_takes_up_its_own_part_of_what_was_kept_of_the_whole(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An array's size shows in rounding, which AdamW makes large in float32: another CPU, another picture that is right.
    monkeypatch.setattr("sweep.training.trainer.Trainer", functools.partial(Trainer, dtype=torch.float64))
    runs = [dataclasses.replace(run, seed=seed) for seed in (7, 3, 5) for run in pairs(PROGRAMS[program])[:2]]
    done = runs[0].steps - 4
    stopped_after(done, runs, tmp_path / "whole.safetensors")
    some = [run for run in runs if run.seed != 3][::-1]
    seen: list[int] = []
    adopted = train(some, GREY, checkpoint=kept_at(tmp_path / "own", others=["whole.safetensors"]), tick=seen.append)
    assert min(seen) > done, "trained again what was kept"
    whole = dict(zip(runs, plain(train(runs, GREY)), strict=True))
    for run, outcome in zip(some, adopted, strict=True):
        wanted = whole[run]
        assert outcome.array_size == 4 and outcome.test_correct == wanted.test_correct
        assert (outcome.test_loss, outcome.train_loss) == pytest.approx((wanted.test_loss, wanted.train_loss), rel=1e-9)
        assert [(point.step, point.validation_accuracy) for point in outcome.curve] == [
            (point.step, point.validation_accuracy) for point in wanted.curve
        ]
        assert [point.train_loss for point in outcome.curve] == pytest.approx(
            [point.train_loss for point in wanted.curve], rel=1e-9
        )


def test_more_runs_than_were_kept_start_anew_and_other_runs_of_a_larger_array_too(tmp_path: Path) -> None:
    runs = pairs(SMALL)
    stopped_after(5, runs[:2], tmp_path / "a.safetensors")
    for wanted in (runs, runs[2:]):
        seen: list[int] = []
        checkpoint = kept_at(tmp_path / "b.safetensors", others=["a.safetensors", "none.safetensors"])
        assert plain(train(wanted, GREY, checkpoint=checkpoint, tick=seen.append)) == plain(train(wanted, GREY))
        assert min(seen) <= 5


def test_halves_of_an_array_take_up_what_was_kept_before_memory_ran_out(tmp_path: Path) -> None:
    runs, path = pairs(SMALL), tmp_path / "a.safetensors"
    stopped_after(8, runs, path)
    seen: list[int] = []
    checkpoint = kept_at(path, every=0)
    halves = train(runs, GREY, checkpoint=checkpoint, tick=seen.append, halvings=1)
    assert [outcome.array_size for outcome in halves] == [2] * 4 and min(seen) >= 8 // 2
    for one, other in zip(halves, train(runs, GREY), strict=True):
        assert one.test_loss == pytest.approx(other.test_loss, rel=1e-4)
    assert len(list(tmp_path.iterdir())) == 3
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
    assert [outcome.array_size for outcome in train(runs, GREY, halvings=5)] == [2] * 4, "no pair is parted"


def test_a_checkpoint_that_cannot_be_written_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, heard = Place(tmp_path), []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, "write", full)
    checkpoint = Checkpoint(place, "a.safetensors", every=0, failing=heard.append)
    assert plain(train(pairs(SMALL), GREY, checkpoint=checkpoint)) == plain(train(pairs(SMALL), GREY))
    assert len(heard) == SMALL.steps - 1 and all(error.errno == errno.ENOSPC for error in heard)


@pytest.mark.parametrize("damage", ["nothing there", "cut off", "no such file format", "another version"])
def test_a_checkpoint_that_cannot_be_read_starts_the_array_anew(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stopped_after(5, pairs(SMALL), path)
    content = path.read_bytes()
    match damage:
        case "nothing there":
            path.unlink()
        case "cut off":
            path.write_bytes(content[:-7])
        case "no such file format":
            path.write_bytes(b"nonsense")
        case "another version":
            path.write_bytes(content.replace(b'\\"version\\": 2', b'\\"version\\": 9'))
            assert path.read_bytes() != content
    assert kept_at(path).load() is None
    assert plain(train(pairs(SMALL), GREY, checkpoint=kept_at(path))) == plain(train(pairs(SMALL), GREY))


def test_the_parts_of_an_array_that_was_split_have_checkpoints_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, asked = Trainer.step, 0

    def short(trainer: Trainer, at_most: int) -> None:
        if len(trainer.runs) > 2:
            raise torch.OutOfMemoryError("no memory left")
        step(trainer, at_most)

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    whole = plain(train(pairs(SMALL), GREY))
    monkeypatch.setattr(Trainer, "step", short)
    path, seen = tmp_path / "a.safetensors", []
    with pytest.raises(Stopped):
        train(pairs(SMALL), GREY, checkpoint=kept_at(path, stopping=stopping))
    assert [file.name for file in tmp_path.iterdir()] == ["a-0.safetensors"]
    checkpoint = kept_at(path)
    split = plain(train(pairs(SMALL), GREY, checkpoint=checkpoint, tick=seen.append))
    assert seen == sorted(seen) and seen[-1] == SMALL.steps and seen[0] > 2
    for one, other in zip(whole, split, strict=True):
        assert one.test_loss == pytest.approx(other.test_loss, rel=1e-4)
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_says_what_it_is_and_holds_no_code(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    trainer = Trainer(pairs(SMALL), GREY)
    kept_at(path, about={"run_ids": ["one", "other"]}).save(trainer.state(0.0))
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["sweep"])["run_ids"] == ["one", "other"]
    assert header["conv0.weight"]["shape"] == [4, 3, 3, 1, 3]
    kept = kept_at(path).load()
    assert kept is not None
    torch.testing.assert_close(kept.tensors["conv0.weight"], trainer.model.parameters["conv0.weight"].detach())
    assert list(tmp_path.iterdir()) == [path], "a temporary file was left"
    kept_at(path).remove()
    assert not path.exists()


@needs_kernels
def test_what_vanished_kernels_have_begun_goes_when_others_have_trained_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.SATURATION, "native", (plan.Saturation(1024, "native", 64),))
    monkeypatch.setitem(plan.SATURATION, "cpu", (plan.Saturation(1024, "grouped", 32),))
    space = parse(b"{settings: {width: 1, hidden: 4, steps: 6}, axes: {seed: 32}}", tmp_path / "few.yaml")
    native, grouped = (list(plan.arrays(space, kind)) for kind in ("native", "cpu"))
    assert (len(native), len(grouped), native[0].method) == (1, 2, "native")
    store = Store(tmp_path / "store")
    name, about = store.checkpoint(native[0].array_id), {"run_ids": native[0].run_ids}
    begun = Checkpoint(store.place, name, about=about, every=0, stopping=lambda: True)
    with pytest.raises(Stopped):
        train(native[0].runs(), GREY, method="native", checkpoint=begun)
    for array in plan.missing(grouped, store.statuses()):
        kept = store.tidy(store.statuses())
        larger = [each for each, run_ids in kept.items() if run_ids.issuperset(array.run_ids)]
        own = Checkpoint(store.place, store.checkpoint(array.array_id), others=larger)
        outcomes = train(array.runs(), GREY, checkpoint=own)
        assert plain(outcomes) == plain(train(array.runs(), GREY))
        store.write(array.array_id, array.runs(), array.run_ids, outcomes, BY)
        own.remove()
        assert name in kept
    assert store.tidy(store.statuses()) == {} and not store.exists(name)
    assert plan.missing(native, store.statuses()) == []
