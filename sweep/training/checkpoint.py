"""Checkpoints of arrays in training: one safetensors file each; its header holds what is not a tensor, as JSON."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sweep.common.fault_options import FaultOptions
from sweep.store.checkpoint_header import SUFFIX, read_header
from sweep.store.storage import Place

HURRIED: Final = 3.0
"""Seconds of training between two checkpoints when the machine is about to be taken away."""

PATIENCE: Final = 2.0
"""Seconds that a checkpoint may wait for a store that is unreachable or full: training can go on without it."""

LAST_PATIENCE: Final = 10.0
"""Seconds that the last checkpoint may wait, when training is to stop."""

VERSION: Final = 2
"""2: every run is identified by itself."""


class Stopped(Exception):
    """Training was asked to stop, and has saved a checkpoint."""


@dataclasses.dataclass(frozen=True)
class State:
    """A snapshot of training: tensors by name, and numbers that JSON can hold."""

    tensors: dict[str, torch.Tensor]
    numbers: dict[str, Any]


class Checkpoint:
    """The checkpoint of an array in training: written whole or not at all, every `every` seconds and when stopping.

    `about` is stored with it, for whoever finds the file. `others` names checkpoints of larger arrays that hold the
    same runs. A checkpoint that cannot be written does not stop training: `failing` is called with the error.
    `hurried` says that the machine is about to be taken away; checkpoints then come every `HURRIED` seconds.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        *,
        about: Mapping[str, Any] | None = None,
        every: float = FaultOptions.checkpoint_seconds,
        stopping: Callable[[], bool] = lambda: False,
        others: Sequence[str] = (),
        failing: Callable[[OSError], None] = lambda error: None,
        hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        self.place, self.name, self.about = place, name, dict(about or {})
        self.every, self.stopping, self.failing, self.others = every, stopping, failing, tuple(others)
        self.hurried = hurried
        self.parts: list[Checkpoint] = []
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        since = time.monotonic() - self.last
        return since >= self.every or self.stopping() or (since >= HURRIED and self.hurried())

    def save(self, state: State) -> None:
        """Replaces what was saved before by `state`; raises Stopped when training is to stop."""
        header = {"sweep": json.dumps({"version": VERSION, **self.about, **state.numbers})}
        content = save({name: each.contiguous() for name, each in state.tensors.items()}, header)
        try:
            self.place.write(self.name, content, retry_seconds=LAST_PATIENCE if self.stopping() else PATIENCE)
        except OSError as error:
            self.failing(error)
        self.last = time.monotonic()
        if self.stopping():
            raise Stopped

    def load(self) -> State | None:
        """The saved state; None where there is none, or none that can be read."""
        return self._load(self.name)

    def states(self) -> Iterator[State]:
        """The saved state, then those of the checkpoints of larger arrays."""
        for name in (self.name, *self.others):
            state = self._load(name)
            if state is not None:
                yield state

    def _load(self, name: str) -> State | None:
        try:
            content = self.place.read(name)
            numbers = read_header(content)
            if numbers.pop("version", None) != VERSION:
                return None
            return State(load(content), numbers)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def part(self, number: int) -> "Checkpoint":
        """The checkpoint of a part of the array, which is split where memory is short."""
        part = Checkpoint(
            self.place,
            f"{self.name.removesuffix(SUFFIX)}-{number}{SUFFIX}",
            about=self.about,
            every=self.every,
            stopping=self.stopping,
            others=(self.name, *self.others),
            failing=self.failing,
            hurried=self.hurried,
        )
        self.parts.append(part)
        return part

    def remove(self) -> None:
        """Removes it and those of its parts, once the array is done."""
        self.place.remove(self.name)
        for part in self.parts:
            part.remove()
