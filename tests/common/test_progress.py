import io
import os
import sys

import pytest
from rich.console import Console
from rich.table import Table

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


class Page(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


LIES = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables by which rich takes a file for a terminal."""


@pytest.mark.parametrize(
    ("terminal", "environment", "bar"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        *((False, {"TERM": "xterm", name: "1"}, False) for name in LIES),
        (False, {"TERM": "dumb", "FORCE_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "unknown"}, False),
        (True, {"TERM": "xterm", "TTY_INTERACTIVE": "0"}, False),
    ],
    ids=str,
)
def test_a_bar_is_drawn_on_a_terminal_alone_and_lines_come_wherever_it_is_not(
    terminal: bool, environment: dict[str, str], bar: bool, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LIES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    page = Page(terminal)
    monkeypatch.setattr("sys.stderr", page)
    with Meter(10, 10, progress.console(stderr=True)) as meter:
        clock[0] += progress.LINE_EVERY
        meter.finished("a", 5, 5)
    assert ("\x1b[" in page.getvalue()) == bar
    assert (page.getvalue() == "5/10 runs, 0.5 runs/s, 0:10 left\n") == (not bar)


@pytest.mark.parametrize("environment", [{"COLUMNS": "40"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1"}], ids=str)
def test_no_name_is_cut_where_there_is_no_screen(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    table = Table("name", "runs", box=None)
    table.add_row(long := "a" * 300, "12")
    progress.console().print(table)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["name", "runs"], [long, "12"]]


@pytest.mark.parametrize(
    ("encoding", "errors", "shown"),
    [
        ("ascii", "strict", b"s3://?"),
        ("ascii", "surrogateescape", b"s3://?"),
        ("latin-1", "strict", b"s3://?"),
        ("utf-8", "strict", "s3://…".encode()),
    ],
)
def test_what_an_encoding_lacks_is_a_question_mark(
    encoding: str, errors: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding, errors))
    progress.accept_any_text()
    print("s3://…", end="", flush=True)
    assert written.getvalue() == shown


def test_whoever_read_the_messages_may_leave_and_nothing_ends_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        messages = progress.console(stderr=True)
        progress.say(messages, "heard")
        assert os.read(read, 100) == b"heard\n"
        os.close(read)
        for _ in range(3):
            progress.say(messages, "nobody is there")
        assert os.path.samefile(os.devnull, f"/proc/self/fd/{write}")
