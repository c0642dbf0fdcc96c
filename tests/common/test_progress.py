import io

import pytest
from rich.console import Console

from sweep.common import progress
from sweep.common.progress import Meter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_speed_and_time_left_follow_from_what_is_done(clock: list[float]) -> None:
    meter = Meter(640, 1000, Console(file=io.StringIO()))
    clock[0] += 10
    meter.finished("a", runs=64, work=200)
    assert meter.words() == "64/640 runs, 6.4 runs/s, 0:40 left"
    meter.partly("b", 50)
    meter.finished("c", runs=64, work=150, failed=True)
    assert meter.share() == 0.4
    assert meter.words() == "64/640 runs, 6.4 runs/s, 0:15 left, 64 failed"
    meter.finished("b", runs=512, work=650)
    assert meter.share() == 1.0
    assert "0:00 left" in meter.words()


def test_nothing_is_promised_before_anything_is_done(clock: list[float]) -> None:
    assert Meter(5, 10, Console(file=io.StringIO())).words() == "0/5 runs, 0.0 runs/s"


def test_where_no_one_watches_a_plain_line_comes_now_and_then(clock: list[float]) -> None:
    page = io.StringIO()
    with Meter(10, 10, Console(file=page)) as meter:
        for done in range(10):
            clock[0] += progress.LINE_EVERY / 4
            meter.finished(str(done), 1, 1)
    assert page.getvalue() == "4/10 runs, 0.4 runs/s, 0:15 left\n8/10 runs, 0.4 runs/s, 0:05 left\n"


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind() -> None:
    page = io.StringIO()
    with Meter(10, 10, Console(file=page, force_terminal=True, width=100)) as meter:
        meter.finished("a", 5, 5)
        meter._bar.refresh()  # type: ignore[union-attr]
    assert "5/10 runs" in page.getvalue()
    assert page.getvalue().endswith("\x1b[2K")
