"""An array whose whole step the native kernels take: its networks in tiles, on a CPU."""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sweep.networks.conv import model
from sweep.networks.conv.native import engine
from sweep.networks.conv.native.engine import addresses, packed
from sweep.networks.conv.native.library import Call, Evaluation, Library, Step
from sweep.networks.conv.shape import Shape
from sweep.space.runs import Run
from sweep.training.array_step import Losses
from sweep.training.assignment import Assignment
from sweep.training.batch_feed import ORDER_BLOCK
from sweep.training.device_batches import DeviceBatches
from sweep.training.device_data import DeviceData, Scaling
from sweep.training.evaluation import Evaluator
from sweep.training.optimizers import BETAS, Optimizer
from sweep.training.tiles import Tiles

KINDS = {"sgd": 0, "momentum": 1, "adamw": 2}


class NativeArray:
    """Parameters, statistics and optimizer state of an array's networks, and the library's calls on them."""

    def __init__(
        self,
        assignment: Assignment,
        shape: Shape,
        data: DeviceData,
        scaling: Scaling,
        batches: DeviceBatches,
        losses: Losses,
        library: Library,
    ) -> None:
        self.assignment, self.shape, self.batches, self.losses, self.library = (
            assignment,
            shape,
            batches,
            losses,
            library,
        )
        self.turns, networks = len(assignment.turns), assignment.networks
        lanes, self.at = library.lanes, torch.zeros(1, dtype=torch.int64)
        self.names = engine.names(shape)
        numbers = _initial(networks, shape)
        self.parameters = {name: packed(numbers[name], lanes) for name in self.names}
        self.statistics = {
            f"{layer.name}.{part}": packed(torch.full((len(networks), *layer.shape), start), lanes)
            for layer in shape.norms
            for part, start in (("mean", 0.0), ("variance", 1.0))
        }
        self.optimizer = Optimizer(networks, self.parameters, shape.decayed)
        first = networks[0]
        sgd = "momentum" if first.momentum > 0 or first.weight_decay > 0 else "sgd"
        self.kind = KINDS["adamw" if first.optimizer == "adamw" else sgd]
        lane = torch.arange(len(numbers[self.names[0]]) + -len(networks) % lanes).clamp_(max=len(networks) - 1)
        self._lane = lane
        self._own = {name: value[lane].contiguous() for name, value in self._of_networks(networks).items()}
        treated = shape.treated if not all(run.bias for run in networks) else ()
        self._flags = {
            "decayed": self._marks(self.optimizer.decayed),
            "treated": self._marks(treated),
            "absent": self._marks(shape.treated if self.turns == 2 else ()),
        }
        self._absent = {*(shape.treated if self.turns == 2 else ())}
        self._scaling = [packed(part.float(), lanes) for part in scaling]
        self._losses = torch.zeros(len(lane))
        self._sizes = torch.tensor([self.parameters[name].shape[1] for name in self.names])
        self._network = engine.network(shape, first.batch_size)
        self._scratch = engine.scratch(library, self._network)
        state = self.optimizer.state
        moments = ("first", "second") if self.kind == KINDS["adamw"] else ("velocity", "none")
        self._lists = [
            addresses([self.parameters[name] for name in self.names]),
            addresses(list(self.statistics.values())),
            *(addresses([state.get(f"{moment}/{name}") for name in self.names]) for moment in moments),
        ]
        self._call = Call(
            network=ctypes.pointer(self._network),
            tiles=len(lane) // lanes,
            parameters=ctypes.addressof(self._lists[0]),
            statistics=ctypes.addressof(self._lists[1]),
            sizes=self._sizes.data_ptr(),
            stored=data.pictures.data_ptr(),
            labels=data.labels.data_ptr(),
            factor=self._scaling[0].data_ptr(),
            offset=self._scaling[1].data_ptr(),
            scratch=self._scratch.data_ptr(),
        )

    @property
    def tensors(self) -> dict[str, Tiles]:
        """All that training changes, by name, but for the losses."""
        count = len(self.assignment.networks)
        every = {**self.parameters, **self.statistics, **self.optimizer.state}
        return {name: Tiles(tensor, count) for name, tensor in every.items()}

    def take(self) -> None:
        """Trains every network on its next batch, in every turn."""
        done, own, batches = int(self.at), self._own, self.batches
        place = done % ORDER_BLOCK
        rates = self.optimizer.rates_after(self.at)[self._lane].contiguous()
        states = None
        if self.shape.dropping:
            masks = batches.masks.states
            states = torch.stack([masks[layer][place][own["seed_of"]] for layer in self.shape.dropping])
        for turn in range(self.turns):
            corrections = self._corrections(done, turn)
            self._call.absent = self._flags["absent"].data_ptr() if turn else None
            step = Step(
                call=self._call,
                first=ctypes.addressof(self._lists[2]),
                second=ctypes.addressof(self._lists[3]),
                decayed=self._flags["decayed"].data_ptr(),
                treated=self._flags["treated"].data_ptr(),
                order=batches.order[place].data_ptr(),
                seeds=batches.order.shape[2],
                states=states.data_ptr() if states is not None else None,
                rate=rates.data_ptr(),
                corrections=corrections.data_ptr(),
                optimizer=self.kind,
                loss=self._losses.data_ptr(),
                **{name: own[name].data_ptr() for name in own},
            )
            self.library.step(step)
            self.losses.add(turn, self._losses[: len(self.assignment.networks)], self.at)
        self.at += 1

    def evaluate(self, turn: int, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which pictures each network gets right in a turn `[networks, n]`, and the sum of its losses `[networks]`."""
        pictures, labels, count = pictures.contiguous(), labels.contiguous(), len(self.assignment.networks)
        right = torch.empty(len(labels), len(self._lane), dtype=torch.bool)
        loss = torch.zeros(len(self._lane), dtype=torch.float64)
        call = Call.from_buffer_copy(self._call)
        call.stored, call.labels = pictures.data_ptr(), labels.data_ptr()
        call.absent = self._flags["absent"].data_ptr() if turn else None
        self.library.evaluate(Evaluation(call=call, count=len(labels), right=right.data_ptr(), loss=loss.data_ptr()))
        return right[:, :count].T, loss[:count]

    def _of_networks(self, networks: Sequence[Run]) -> dict[str, torch.Tensor]:
        """What each network has of its own, `[networks]`, by the library's names."""
        masks = self.batches.masks
        return {
            "frozen": torch.tensor([-int(not run.bias) for run in networks], dtype=torch.int32),
            "seed_of": self.batches.seed_of_network,
            "threshold": masks.threshold,
            "scale": masks.scale.float(),
            "momentum": self.optimizer.momentum,
            "decay": self.optimizer.decay,
        }

    def _marks(self, names: Sequence[str] | frozenset[str]) -> torch.Tensor:
        return torch.tensor([name in names for name in self.names], dtype=torch.uint8)

    def _corrections(self, done: int, turn: int) -> torch.Tensor:
        """AdamW's two divisors of every parameter."""
        counts = [done + 1 if name in self._absent else done * self.turns + turn + 1 for name in self.names]
        return torch.tensor([1 - beta**count for count in counts for beta in BETAS], dtype=torch.float32)


class NativeEvaluator(Evaluator):
    """Evaluates every run of an array in the current state of its networks."""

    def __init__(self, array: NativeArray, data: DeviceData) -> None:
        self.array, self.assignment, self.data = array, array.assignment, data

    def evaluate(self, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which pictures each run gets right `[runs, n]`, and each run's mean loss `[runs]`."""
        found = [self.array.evaluate(turn, pictures, labels) for turn in range(self.array.turns)]
        by_run = self.array.assignment.by_run
        right, loss = (torch.stack(list(part)) for part in zip(*found, strict=True))
        return by_run(right), by_run(loss / len(labels))


def _initial(networks: Sequence[Run], shape: Shape) -> dict[str, torch.Tensor]:
    """Starting parameters `[networks, numbers]` in the library's order, drawn as for every other method."""
    found = {}
    for layer in (*shape.convolutions, *shape.linears):
        weight = model.drawn(networks, layer, torch.float32)
        found[layer.weight] = engine.arranged(shape, layer, weight)
        bias = model.biases(networks, shape, layer)
        found[layer.bias] = F.pad(bias, (0, -bias.shape[1] % engine.UNIT_BLOCK)) if layer.kind == "linear" else bias
    for layer in shape.norms:
        found[layer.weight] = torch.ones(len(networks), *layer.shape)
        found[layer.bias] = torch.zeros(len(networks), *layer.shape)
    return found
