"""Section `trainer`: arrays beside one network alone, beside processes that share the device, and beside ceilings."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from rates import RECIPE, SHARED, fused_rate, graph_rate, needs, peaks, plain_rate, together, usual

from gpu_kit import device, saturation
from gpu_kit.recorder import Recorder
from gpu_kit.scale import Scale
from sweep.networks.conv.shape import MethodName
from sweep.plan import DeviceKind
from sweep.space.runs import Run
from sweep.training.device import exact_arithmetic

BOUNDS: Final[dict[str, dict[int, float]]] = {
    "alone": {4: 700, 16: 400, 64: 50},
    "shared": {4: 60, 16: 40, 64: 5},
}
"""How many times as fast as these an array has to be on a GPU, by width."""

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "tf32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "batch norm": {"batch_norm": True},
    "dropout": {"dropout": 0.5},
    "AdamW": {"optimizer": "adamw", "learning_rate": 0.001},
    "momentum": {"momentum": 0.9},
    "all": {"batch_norm": True, "dropout": 0.5, "optimizer": "adamw", "learning_rate": 0.001},
}
"""What is measured beside the plain recipe in float32: precisions and variants."""

RATE = "model-steps/s"


class Alone:
    """Stands for the barrier of processes that measure together, where there is one process."""

    def wait(self) -> None:
        """Nobody is waited for."""

    def abort(self) -> None:
        """Nobody waits."""


def measure(recorder: Recorder, scale: Scale) -> None:
    """The widths that have bounds come first, then what settings cost, then the others, as long as there is time."""
    table = _Table(recorder, scale)
    bounded = [width for width in scale.trainer_widths if width in BOUNDS["alone"]]
    others = [width for width in scale.trainer_widths if width not in bounded]
    for width in bounded:
        table.measure(width)
    table.shared(scale.trainer_widths)
    for width in bounded:
        table.compare(width)
    table.ceilings()
    for name, settings in SETTINGS.items():
        table.setting(name, settings)
    for width in others:
        table.measure(width)
        table.compare(width)


class _Table:
    """Measures the rows, and keeps the rates by what they are of and by width."""

    def __init__(self, recorder: Recorder, scale: Scale) -> None:
        self.recorder, self.scale = recorder, scale
        self.rates: dict[tuple[str, int], float] = {}
        self.sizes = saturation.measured_sizes(recorder.earlier())

    def ceilings(self) -> None:
        """What the device does at most, and what that allows at each width."""
        self._attempt("arithmetic", "FLOP/s", 12.0, self._ceilings)

    def measure(self, width: int) -> None:
        """The array, one network alone, and the same as a CUDA graph."""
        run, kind, seconds = self._run(width), self.scale.kind, self.scale.trainer_seconds
        self._fused("fused", run, width)
        self._rate("alone", width, 3.0, lambda: plain_rate(Alone(), kind, run, seconds))
        if kind == "cuda":
            self._rate("graph", width, 3.0, lambda: graph_rate(Alone(), run, seconds))

    def setting(self, name: str, settings: dict[str, Any]) -> None:
        """The array under other settings; its rate beside the plain one's."""
        run = dataclasses.replace(self._run(self.scale.setting_width), **settings)
        self._fused("setting", run, self.scale.setting_width, setting=name)

    def shared(self, widths: tuple[int, ...]) -> None:
        """Processes with one network each, that train all widths one after the other and start once."""
        kind, runs = self.scale.kind, [self._run(width) for width in widths]

        def measure() -> None:
            try:
                rates = together(plain_rates, SHARED[kind], kind, runs, self.scale.trainer_seconds)
            except SystemExit as error:  # so it says that a process failed
                raise RuntimeError(error.code) from error
            for width, rate in zip(widths, rates, strict=True):
                self.rates["shared", width] = rate
                self.recorder.add("shared", rate, RATE, width=width, processes=SHARED[kind])

        self._attempt("shared", RATE, 20.0, measure, processes=SHARED[kind])

    def compare(self, width: int) -> None:
        """Ratios, beside their bounds where they have any."""
        fused = self.rates.get(("fused", width))
        for other in ("alone", "graph", "shared"):
            rate = self.rates.get((other, width))
            if fused and rate:
                bound = BOUNDS.get(other, {}).get(width) if self.scale.kind == "cuda" else None
                met = None if bound is None else fused / rate >= bound
                self.recorder.add(f"fused / {other}", fused / rate, "times", width=width, bound=bound, met=met)

    def _fused(self, what: str, run: Run, width: int, **labels: Any) -> None:
        kind, seconds = self.scale.kind, self.scale.trainer_seconds
        size, method = self._way(width)
        labels |= {"method": method, "runs": size}
        self._rate(what, width, 8.0, lambda: fused_rate(Alone(), kind, run, size, method, seconds), **labels)

    def _rate(self, what: str, width: int, needed: float, rate_of: Callable[[], list[float]], **labels: Any) -> None:
        def measure() -> None:
            [rate] = rate_of()
            if "setting" not in labels:
                self.rates[what, width] = rate
            self.recorder.add(what, rate, RATE, width=width, **labels)

        self._attempt(what, RATE, needed, measure, width=width, **labels)

    def _ceilings(self) -> None:
        with exact_arithmetic():  # whatever it sets is set back
            arithmetic, memory = peaks(Alone(), self.scale.kind, self.scale.trainer_seconds)
        self.recorder.add("arithmetic", arithmetic, "FLOP/s")
        self.recorder.add("copying", memory, "bytes/s")
        for width in self.scale.trainer_widths:
            flops, traffic = needs(self._run(width))
            self.recorder.add("arithmetic allows", arithmetic / flops, RATE, width=width)
            self.recorder.add("memory allows", memory / traffic, RATE, width=width)

    def _attempt(self, what: str, unit: str, needed: float, measure: Callable[[], None], **labels: Any) -> None:
        """Measures; an error is recorded, and nothing is begun that needs more seconds than are left on a GPU."""
        with device.released(self.scale.kind), self.recorder.guard(what, unit, **labels):
            self.recorder.need(needed if self.scale.kind == "cuda" else 0.0)
            measure()

    def _run(self, width: int) -> Run:
        return dataclasses.replace(RECIPE, width=width)

    def _way(self, width: int) -> tuple[int, MethodName]:
        """Array size and method: the best that this call has found, or else the table's."""
        return self.sizes.get(width) or usual(self._run(width), self.scale.kind)


def plain_rates(barrier: Any, kind: DeviceKind, runs: list[Run], seconds: float) -> list[float]:
    """The rate of one network alone, for one run after the other."""
    return [rate for run in runs for rate in plain_rate(barrier, kind, run, seconds)]
