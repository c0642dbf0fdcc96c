"""What `sweep.cluster.nodes.StopSign` promises to an array in training: it hears of a stop, and waits for no answer."""

import threading
import time
from typing import Any

import pytest

from sweep.cluster import nodes


class Table:
    """The table of Ray's head, as slow to answer as the test wants it."""

    def __init__(self) -> None:
        self.answers, self.asked = threading.Semaphore(0), 0
        self.there = False

    def internal_kv_exists(self, *_: Any) -> bool:
        self.asked += 1
        assert self.answers.acquire(timeout=30)
        return self.there


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    slow = Table()
    monkeypatch.setattr(nodes, "_table", lambda: slow)
    monkeypatch.setattr(nodes, "LOOK_EVERY", 0.0)
    return slow


def until(condition: Any) -> None:
    last = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.01)


def test_training_goes_on_while_the_head_does_not_answer_and_asks_once_at_a_time(table: Table) -> None:
    sign = nodes.StopSign()
    assert not any(sign.asked() for _ in range(100))
    until(lambda: table.asked == 1)
    assert not sign.asked() and table.asked == 1
    table.answers.release()  # no stop
    until(lambda: sign.asked() or table.asked == 2)
    assert not sign.asked()
    table.there = True
    table.answers.release()
    until(sign.asked)
    assert table.asked == 2, "what is known is not asked again"


def test_a_head_that_cannot_be_asked_has_not_asked_for_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def gone() -> None:
        calls.append(1)
        raise ConnectionError("no head")

    monkeypatch.setattr(nodes, "_table", gone)
    monkeypatch.setattr(nodes, "LOOK_EVERY", 0.0)
    sign = nodes.StopSign()
    until(lambda: sign.asked() or len(calls) > 2)
    assert not sign.asked()
