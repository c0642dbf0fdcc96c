"""Consoles, and the progress of a launch: a live bar on a terminal, occasional plain lines elsewhere."""

import io
import os
import sys
import time
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from sweep.common.redaction import without_secrets

LINE_EVERY: Final = 10.0
"""Seconds between plain lines."""


_NO_SCREEN: Final[dict[str, Any]] = {"force_interactive": False, "width": 100_000, "height": 25}
"""Without a screen, nothing is redrawn, and tables are as wide as they need to be: nothing is cut."""


class _Messages(Console):
    """Standard error: where whoever reads it leaves, what is said goes nowhere, and costs no training."""

    def on_broken_pipe(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def console(stderr: bool = False) -> Console:
    """A console on standard output, or on standard error.

    The stream itself tells whether it is a terminal: FORCE_COLOR and TTY_COMPATIBLE would put bars into logs. A dumb
    terminal, which cannot move its cursor, is treated as a file.
    """
    stream = sys.stderr if stderr else sys.stdout
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    screen = stream is not None and stream.isatty() and not dumb
    return (_Messages if stderr else Console)(stderr=stderr, force_terminal=screen, **({} if screen else _NO_SCREEN))


def accept_any_text() -> None:
    """Makes standard output show unencodable characters as `?`, so that PYTHONIOENCODING=ascii breaks no command."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and (out.errors == "strict" or not out.encoding.lower().startswith("utf")):
        out.reconfigure(errors="replace")


def say(console: Console, text: str) -> None:
    """Prints plain text: without markup, colours, line wrapping, and secrets in addresses."""
    console.print(without_secrets(text), markup=False, highlight=False, soft_wrap=True)


class _Counts(ProgressColumn):
    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(task.fields["words"])


class Meter:
    """Counts runs and failures, and estimates the time left from the share of the work done."""

    def __init__(self, runs: int, work: int, console: Console) -> None:
        self.runs, self.work, self.console = runs, work, console
        self.runs_done = self.failed = 0
        self._work_done = 0.0
        self._partial: dict[str, float] = {}
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_interactive:
            columns = (TextColumn("training"), BarColumn(bar_width=None), _Counts(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self.console, transient=True, expand=True)
            self._task = self._bar.add_task("", total=1.0, words=self.words())
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def partly(self, array_id: str, work: float) -> None:
        """Records how much of its work an array has done."""
        self._partial[array_id] = work
        self._show()

    def finished(self, array_id: str, runs: int, work: int, failed: bool = False) -> None:
        """Records that an array has been trained or has failed."""
        self._partial.pop(array_id, None)
        self._work_done += work
        self.failed += runs if failed else 0
        self.runs_done += 0 if failed else runs
        self._show()

    def words(self) -> str:
        """`128/640 runs, 21.3 runs/s, 0:24 left, 2 failed`."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        parts = [f"{self.runs_done:,}/{self.runs:,} runs", f"{self.runs_done / elapsed:.1f} runs/s"]
        share = self.share()
        if share > 0:
            minutes, seconds = divmod(round(elapsed * (1 - share) / share), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        return ", ".join([*parts, *([f"{self.failed:,} failed"] if self.failed else [])])

    def share(self) -> float:
        """Share of the work done, 0 … 1."""
        return min(1.0, (self._work_done + sum(self._partial.values())) / self.work) if self.work else 1.0

    def _show(self) -> None:
        if self._bar:
            self._bar.update(self._task, completed=self.share(), words=self.words())
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            say(self.console, self.words())
