"""How a section tells what it has found, number by number."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gpu_kit.supervise import DEADLINE, PIPE, RESULTS

MARGIN: Final = 3.0
"""Seconds that a section keeps to end in."""

ERROR_CHARACTERS: Final = 2000
"""The most that is kept of an error: its end."""


class Recorder:
    """Sends records to whoever started this section; without one, prints them.

    A record that could not be measured has the value None, and says why: it costs itself only.
    """

    def __init__(self) -> None:
        self._pipe = int(os.environ[PIPE]) if PIPE in os.environ else None
        self._deadline = float(os.environ.get(DEADLINE, math.inf)) - MARGIN

    @property
    def left(self) -> float:
        """Seconds that this section still has."""
        return self._deadline - time.monotonic()

    def earlier(self) -> dict[str, Any]:
        """What the sections before this one have found; nothing where it runs by itself."""
        path = os.environ.get(RESULTS)
        found: dict[str, Any] = json.loads(Path(path).read_text()) if path else {}
        return found

    def facts(self, **facts: Any) -> None:
        """Tells what is true of the whole call: the device and the versions."""
        self._send({"facts": facts})

    def add(
        self, what: str, value: float | bool | None, unit: str | None, error: str | None = None, **labels: Any
    ) -> None:
        """Adds one number with its unit, or the answer yes or no, without one; None where there is none, and why."""
        if value is not None and not math.isfinite(value):
            value, error = None, f"it came out as {value}"
        self._send({"record": {"what": what, **labels, "value": value, "unit": unit, "error": error}})

    @contextlib.contextmanager
    def guard(self, what: str, unit: str | None, **labels: Any) -> Iterator[None]:
        """Keeps an error in the block from the rest of the section: instead, `what` is recorded as missing."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, NoTime):
                print(f"{what} {labels}:", file=sys.stderr)
                sys.excepthook(type(error), error, error.__traceback__)
            self.add(what, None, unit, said(error), **labels)

    def need(self, seconds: float) -> None:
        """Raises `NoTime` where less time is left than that."""
        if self.left < seconds:
            raise NoTime(f"no time was left for it: it needs {seconds:.0f} s")

    def _send(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        if self._pipe is None:
            sys.stdout.write(data.decode())
            return
        while data:
            data = data[os.write(self._pipe, data) :]


class NoTime(Exception):
    """What was to be measured does not fit into the rest of the section's time."""


def said(error: BaseException) -> str:
    """An error in words, in so far as they fit: of memory that ran out, those that say so."""
    words = str(error) if isinstance(error, NoTime) else f"{type(error).__name__}: {error}"
    return words[-ERROR_CHARACTERS:]
