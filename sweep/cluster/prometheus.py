"""Metrics of a launch for Prometheus: every node of a Ray cluster serves them at its metrics port."""

import time
from collections import deque
from typing import Final

from ray.util.metrics import Counter, Gauge

WINDOW: Final = 30.0
"""Seconds over which the speed is averaged."""


class Metrics:
    """Metrics of one launch, tagged with its sweep; Ray prefixes names with `ray_` and ends counters in `_total`."""

    def __init__(self, sweep: str, runs: int) -> None:
        own = {"tag_keys": ("sweep",)}
        self._done = Counter("sweep_runs_done", description="Runs trained by this launch", **own)
        self._failed = Counter("sweep_runs_failed", description="Runs whose array failed in this launch", **own)
        self._diverged = Counter("sweep_runs_diverged", description="Runs trained that diverged", **own)
        self._left = Gauge("sweep_runs_left", description="Runs that this launch has still to train", **own)
        self._speed = Gauge("sweep_model_steps_per_second", description="Steps of all networks together", **own)
        for each in (self._done, self._failed, self._diverged, self._left, self._speed):
            each.set_default_tags({"sweep": sweep})
        self._runs_left, self._steps = runs, 0.0
        self._partial: dict[str, float] = {}
        self._seen = deque([(time.monotonic(), 0.0)])
        self._left.set(runs)
        self._speed.set(0)

    def partly(self, array_id: str, steps: float) -> None:
        """Records the steps that an array has done, of all its networks together."""
        self._partial[array_id] = steps
        self._show()

    def finished(self, array_id: str, runs: int, steps: float, diverged: int | None, failed: bool) -> None:
        """Records the end of an array; `diverged` counts its runs that did, None if this launch did not train it."""
        self._partial.pop(array_id, None)
        self._runs_left -= runs
        self._left.set(self._runs_left)
        if failed:
            self._failed.inc(runs)
        elif diverged is not None:
            self._steps += steps
            self._done.inc(runs)
            if diverged:
                self._diverged.inc(diverged)
        self._show()

    def over(self) -> None:
        """Records that training has ended."""
        self._speed.set(0)

    def _show(self) -> None:
        now, steps = time.monotonic(), self._steps + sum(self._partial.values())
        while len(self._seen) > 1 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        if now - self._seen[-1][0] > 0.1:  # hundreds of arrays may end per second
            self._seen.append((now, steps))
        if now > since:
            self._speed.set(max(0.0, (steps - before) / (now - since)))
