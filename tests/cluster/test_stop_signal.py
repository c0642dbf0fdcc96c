"""What a stop signal promises to an array in training: it hears of a stop, and waits for no answer."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from sweep.cluster import stop_signal
from sweep.common.errors import ENDS, Terminated


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


class Asked(stop_signal.StopSignal):
    """A stop signal that notes whom it asked, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.of: list[set[str]] = []
        self.meanwhile: signal.Signals | None = None

    def wait_until_obeyed(self, array_ids: Collection[str], seconds: float) -> None:
        self.of.append(set(array_ids))
        if self.meanwhile:
            signal.raise_signal(self.meanwhile)
            raise AssertionError("the second signal was to end the wait")

    def clear(self) -> None: ...


HANDLED = (*ENDS, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """No test leaves another handler than it found."""
    before = [signal.getsignal(number) for number in HANDLED]
    yield
    assert [signal.getsignal(number) for number in HANDLED] == before


@pytest.mark.parametrize(
    ("number", "error", "status"),
    [
        (signal.SIGINT, KeyboardInterrupt, None),
        (signal.SIGTERM, Terminated, 143),
        (signal.SIGHUP, Terminated, 129),
        (signal.SIGQUIT, Terminated, 131),
        (signal.SIGXCPU, Terminated, 152),
        (signal.SIGALRM, Terminated, 142),
    ],
)
def test_a_signal_asks_the_arrays_in_training_and_ends_the_launch(
    number: signal.Signals, error: type[KeyboardInterrupt], status: int | None
) -> None:
    asking, running = Asked(), {"a", "b"}
    with pytest.raises(KeyboardInterrupt) as raised, stop_signal.stopping(running, asking):
        signal.raise_signal(number)
    assert type(raised.value) is error and getattr(raised.value, "status", None) == status
    assert asking.of == [{"a", "b"}]
    running.clear()
    with pytest.raises(error), stop_signal.stopping(running, asking):
        signal.raise_signal(number)
    assert asking.of == [{"a", "b"}], "nobody is asked while nothing is trained"


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_the_wait_for_checkpoints_and_the_first_says_why(second: signal.Signals) -> None:
    asking = Asked()
    asking.meanwhile = second
    with pytest.raises(Terminated) as raised, stop_signal.stopping({"a"}, asking):
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.status == 143 and len(asking.of) == 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_notices_of_batch_systems_end_nothing_and_whoever_listens_to_them_goes_on(number: signal.Signals) -> None:
    with stop_signal.stopping({"a"}, Asked()):
        signal.raise_signal(number)
    heard: list[int] = []
    before = signal.signal(number, lambda number, frame: heard.append(number))
    with stop_signal.stopping({"a"}, Asked()):
        signal.raise_signal(number)
    signal.signal(number, before)
    assert heard == [number]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_hangup_that_nohup_has_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    with stop_signal.stopping({"a"}, Asked()), stop_signal.undisturbed():
        signal.raise_signal(number)
    signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("failing", [False, True])
def test_what_is_put_in_order_is_not_left_half_done_and_the_first_signal_comes_after_it(
    number: signal.Signals, failing: bool
) -> None:
    done: list[str] = []

    def put_in_order() -> None:
        with stop_signal.undisturbed():
            for sent in (number, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(sent)
            done.append("order")
            if failing:
                raise OSError("no space")
        done.append("never")

    with pytest.raises(KeyboardInterrupt) as raised, stop_signal.stopping(set(), Asked()):
        put_in_order()
    assert done == ["order"]
    assert getattr(raised.value, "status", 130) == 128 + number


@pytest.mark.integration
def test_processes_that_are_started_meanwhile_hear_no_signal_and_handlers_are_as_they_were() -> None:
    before = [signal.getsignal(number) for number in HANDLED]
    waiting = "import time; print('there', flush=True); time.sleep(60)"
    with stop_signal.held_back():
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does
        child = subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE)
    assert [signal.getsignal(number) for number in HANDLED] == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(HANDLED)
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"there\n"
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            child.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.kill()
    assert child.returncode == -signal.SIGKILL
