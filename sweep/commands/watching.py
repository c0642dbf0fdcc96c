"""How sweeps come along, looked at again and again: each look reads only what is new in the store."""

import json
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweep import plan
from sweep.commands.status import Status, launched
from sweep.common.progress import say
from sweep.store.rows import Store

EVERY: Final = 2.0
"""Seconds between two looks."""

WINDOW: Final = 60.0
"""Seconds over which the speed is taken."""


class Watch:
    """The status of the sweeps of a store, or of one; remembers the files that it has read."""

    def __init__(self, store: Store, name: str | None = None) -> None:
        self.store, self.name = store, name
        self._files: set[str] = set()
        self._statuses: dict[str, str] = {}
        self._sweeps: dict[str, _Sweep] = {}

    def look(self) -> list[Status]:
        """Every sweep, or the one of this name, as `sweep status` tells it."""
        new = self.store.new_statuses(self._files)
        new = {run_id: status for run_id, status in new.items() if run_id not in self._statuses}
        self._statuses |= new
        failed = {run_id for failure in self.store.failures().values() for run_id in failure["run_ids"]}
        if self.name:
            return [self._status(self.name, new, failed)]
        found = []
        for name in self.store.sweeps():
            with self.store.left_out(f"sweeps/{name}.yaml"):
                found.append(self._status(name, new, failed))
        return found

    def _status(self, name: str, new: dict[str, str], failed: set[str]) -> Status:
        text = self.store.sweep(name)
        sweep = self._sweeps.get(name)
        if sweep is None or sweep.text != text:  # launched for the first time, or with another search space
            space = launched(self.store, name)
            sweep = self._sweeps[name] = _Sweep(text, set(plan.run_ids(space)))
            new = self._statuses
        mine = [status for run_id, status in new.items() if run_id in sweep.run_ids]
        sweep.done += len(mine)
        sweep.diverged += mine.count("diverged")
        return Status(
            name=name,
            runs=len(sweep.run_ids),
            done=sweep.done,
            missing=len(sweep.run_ids) - sweep.done,
            diverged=sweep.diverged,
            failed=sum(run_id in sweep.run_ids and run_id not in self._statuses for run_id in failed),
        )


class _Sweep:
    def __init__(self, text: bytes, run_ids: set[str]) -> None:
        self.text, self.run_ids = text, run_ids
        self.done = self.diverged = 0


def follow(watch: Watch, every: float, as_json: bool, console: Console) -> None:
    """Shows the status until it is interrupted: a table on a terminal, elsewhere a line a sweep where it changes.

    With `as_json`, one line for each look: what `sweep status --json` prints.
    """
    looks = _looks(watch, every)
    if as_json:
        for found in looks:
            print(json.dumps([vars(each) for each in found]), flush=True)
    elif console.is_interactive:
        speeds = Speeds()
        with Live(console=console, auto_refresh=False) as live:
            for found in looks:
                live.update(table(found, speeds.of(found)), refresh=True)
    else:
        before: list[Status] = []
        for found in looks:
            for each in found:
                if each not in before:
                    say(console, words(each))
            before = found


def _looks(watch: Watch, every: float) -> Iterator[list[Status]]:
    while True:
        started = time.monotonic()
        yield watch.look()
        time.sleep(max(0.0, every - (time.monotonic() - started)))


def words(status: Status) -> str:
    """`width: 128 of 640 runs done, 1 diverged, 2 failed`."""
    odd = [f"{count:,} {name}" for name in ("diverged", "failed") if (count := getattr(status, name))]
    return ", ".join([f"{status.name}: {status.done:,} of {status.runs:,} runs done", *odd])


class Speeds:
    """Runs a second of every sweep, over the last minute."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def of(self, found: list[Status]) -> dict[str, float]:
        """By name; sweeps that were seen once have none."""
        now, speeds = time.monotonic(), {}
        for each in found:
            seen = self._seen.setdefault(each.name, deque())
            seen.append((now, each.done))
            while len(seen) > 2 and seen[1][0] < now - WINDOW:
                seen.popleft()
            since, before = seen[0]
            if now > since:
                speeds[each.name] = max(0.0, (each.done - before) / (now - since))
        return speeds


def table(found: list[Status], speeds: dict[str, float]) -> Table:
    """The sweeps, with their speed and the time left where anything moves."""
    heads = ("name", "runs", "done", "missing", "diverged", "failed", "runs/s", "left")
    shown = Table(*heads, box=None)
    for each in found:
        speed: Any = speeds.get(each.name, 0)
        left = f"{each.missing / speed / 60:,.0f} min" if speed and each.missing else ""
        numbers = (each.runs, each.done, each.missing, each.diverged, each.failed)
        shown.add_row(each.name, *(f"{number:,}" for number in numbers), f"{speed:.1f}" if speed else "", left)
    return shown
