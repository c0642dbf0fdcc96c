"""An array in training, kept: one safetensors file whose header holds what is no tensor, as JSON."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sweep.places import Place
from sweep.store import CHECKPOINT as SUFFIX
from sweep.store import checkpoint_header as header_of

EVERY: Final = 60.0
"""Seconds of training between two checkpoints."""

VERSION: Final = 1


class Stopped(Exception):
    """Training was asked to stop, and has saved a checkpoint before."""


@dataclasses.dataclass(frozen=True)
class State:
    """Training as far as it has come: tensors by name, and numbers that JSON can hold."""

    tensors: dict[str, torch.Tensor]
    numbers: dict[str, Any]


class Checkpoint:
    """Where an array in training is kept: written whole or not at all, every `every` seconds and when asked to stop.

    `about` is kept with it, for whoever finds the file.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        *,
        about: Mapping[str, Any] | None = None,
        every: float = EVERY,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.place, self.name, self.about = place, name, dict(about or {})
        self.every, self.stopping = every, stopping
        self.parts: list[Checkpoint] = []
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.last >= self.every or self.stopping()

    def save(self, state: State) -> None:
        """Keeps `state` in place of what was kept before; raises Stopped when training is to stop."""
        header = {"sweep": json.dumps({"version": VERSION, **self.about, **state.numbers})}
        self.place.write(self.name, save({name: each.contiguous() for name, each in state.tensors.items()}, header))
        self.last = time.monotonic()
        if self.stopping():
            raise Stopped

    def load(self) -> State | None:
        """What was kept; None where there is nothing, or nothing that can be read."""
        try:
            content = self.place.read(self.name)
            numbers = header_of(content)
            if numbers.pop("version", None) != VERSION:
                return None
            return State(load(content), numbers)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def part(self, number: int) -> "Checkpoint":
        """That of a part of the array, which is split where memory is short."""
        name = f"{self.name.removesuffix(SUFFIX)}-{number}{SUFFIX}"
        self.parts.append(Checkpoint(self.place, name, about=self.about, every=self.every, stopping=self.stopping))
        return self.parts[-1]

    def remove(self) -> None:
        """Forgets it, and those of its parts: the array is done."""
        self.place.remove(self.name)
        for part in self.parts:
            part.remove()
