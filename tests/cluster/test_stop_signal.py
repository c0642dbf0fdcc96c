"""What a stop signal promises to an array in training: it hears of a stop, and waits for no answer."""

import threading
import time
from typing import Any

import pytest

from sweep.cluster import stop_signal


class Table:
    """The table of Ray's head, as slow to answer as the test wants it."""

    def __init__(self) -> None:
        self.answers, self.asked = threading.Semaphore(0), 0
        self.there = False

    def exists(self, *_: Any) -> bool:
        self.asked += 1
        assert self.answers.acquire(timeout=30)
        return self.there


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    slow = Table()
    monkeypatch.setattr(stop_signal, "table", lambda: slow)
    monkeypatch.setattr(stop_signal, "LOOK_EVERY", 0.0)
    return slow


def until(condition: Any) -> None:
    last = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.01)


def test_training_goes_on_while_the_head_does_not_answer_and_asks_once_at_a_time(table: Table) -> None:
    asking = stop_signal.StopSignal()
    assert not any(asking.asked() for _ in range(100))
    until(lambda: table.asked == 1)
    assert not asking.asked() and table.asked == 1
    table.answers.release()  # no stop
    until(lambda: asking.asked() or table.asked == 2)
    assert not asking.asked()
    table.there = True
    table.answers.release()
    until(asking.asked)
    assert table.asked == 2, "what is known is not asked again"


def test_a_head_that_cannot_be_asked_has_not_asked_for_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def gone() -> None:
        calls.append(1)
        raise ConnectionError("no head")

    monkeypatch.setattr(stop_signal, "table", gone)
    monkeypatch.setattr(stop_signal, "LOOK_EVERY", 0.0)
    asking = stop_signal.StopSignal()
    until(lambda: asking.asked() or len(calls) > 2)
    assert not asking.asked()
