"""Messages of workers survive the way through Tune, and the watcher hears each for what it is."""

import dataclasses
import typing
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from sweep import plan
from sweep.cluster import messages
from sweep.cluster.messages import Failed, Message, Note, Progress, PutOff, Trained, TrainedElsewhere
from sweep.cluster.watcher import Watcher
from sweep.plan import Array
from sweep.space import search_space

ALL = (Progress(0.5), Note("the disk is full"), PutOff(), TrainedElsewhere(), Trained(3), Failed("ValueError: no"))


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_of_a_report_as_it_went_in_whatever_tune_adds(message: Message) -> None:
    from ray.tune.experiment import Trial

    report = messages.to_report(message)
    trial = Trial("array", stub=True)
    trial.update_last_result(report | {"training_iteration": 1, "time_total_s": 1.0, "done": False})
    assert messages.from_report(trial.last_result) == message


def test_every_kind_of_message_can_be_sent() -> None:
    assert {type(message) for message in ALL} == set(typing.get_args(Message)) == set(messages.KINDS.values())
    assert all(dataclasses.is_dataclass(kind) for kind in messages.KINDS.values())


@pytest.fixture
def array(tmp_path: Path) -> Array:
    path = tmp_path / "one.yaml"
    path.write_text("{settings: {dataset: digits, width: 1, steps: 100}, axes: {seed: 2}}")
    [found] = plan.arrays(search_space.load(path), "cpu")
    return found


def test_the_watcher_hears_each_kind_of_message_for_what_it_is(array: Array) -> None:
    def told(*said: Message) -> Watcher:
        watcher = Watcher([array])
        watcher.meter, watcher.metrics = Mock(), Mock()
        for message in (Progress(0.25), *said):
            trial = SimpleNamespace(config={"array": array.array_id})
            watcher.on_trial_result(1, [], trial, messages.to_report(message))
        return watcher

    def finished(watcher: Watcher) -> list[tuple[object, ...]]:
        return [call.args[-2:] for call in watcher.metrics.finished.call_args_list]  # type: ignore[attr-defined]

    begun = told()
    assert begun.running == {array.array_id} and not finished(begun)
    assert begun.meter.partly.call_args.args == (array.array_id, array.work / 4)  # type: ignore[attr-defined]
    noted = told(Note("slow"), Note("slow"))
    assert noted.meter.console.print.call_count == 1 and noted.running  # type: ignore[attr-defined]
    assert list(told(PutOff()).put_off) == [array.array_id] and not finished(told(PutOff()))
    ended = {message: told(message) for message in (TrainedElsewhere(), Trained(1), Failed("no"))}
    assert not any(watcher.running for watcher in ended.values())
    assert [finished(watcher) for watcher in ended.values()] == [[(None, False)], [(1, False)], [(None, True)]]
    assert [watcher.trained == set(array.run_ids) for watcher in ended.values()] == [False, True, False]
    assert [watcher.failures for watcher in ended.values()] == [{}, {}, {array.array_id: "no"}]
