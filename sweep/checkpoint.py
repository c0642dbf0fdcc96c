"""An array in training on disk: one safetensors file whose header holds what is no tensor, as JSON."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sweep.files import replacing

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
        path: Path,
        *,
        about: Mapping[str, Any] | None = None,
        every: float = EVERY,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.path, self.about, self.every, self.stopping = path, dict(about or {}), every, stopping
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.last >= self.every or self.stopping()

    def save(self, state: State) -> None:
        """Keeps `state` in place of what was kept before; raises Stopped when training is to stop."""
        header = {"sweep": json.dumps({"version": VERSION, **self.about, **state.numbers})}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, temporary, metadata=header)
        self.last = time.monotonic()
        if self.stopping():
            raise Stopped

    def load(self) -> State | None:
        """What was kept; None where there is nothing, or nothing that can be read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                numbers = json.loads((file.metadata() or {}).get("sweep", "{}"))
                if numbers.pop("version", None) != VERSION:
                    return None
                return State({name: file.get_tensor(name) for name in file.keys()}, numbers)
        except (OSError, SafetensorError, json.JSONDecodeError):
            return None

    def part(self, number: int) -> "Checkpoint":
        """That of a part of the array, which is split where memory is short."""
        path = self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")
        return Checkpoint(path, about=self.about, every=self.every, stopping=self.stopping)

    def remove(self) -> None:
        """Forgets it, and those of its parts: the array is done."""
        for path in self.path.parent.glob(f"{self.path.stem}*{self.path.suffix}"):
            path.unlink(missing_ok=True)
