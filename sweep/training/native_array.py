"""An array whose whole step the native kernels take: its networks in tiles, on a CPU."""

import ctypes
import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sweep.networks.conv import model
from sweep.networks.conv.native import engine
from sweep.networks.conv.native.costs import UNITS
from sweep.networks.conv.native.engine import addresses, packed
from sweep.networks.conv.native.library import Call, Evaluation, Library, Network, Training
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

KINDS: Final = {"sgd": 0, "momentum": 1, "adamw": 2}

AT_ONCE: Final = 4 * 10**9
"""Floating-point operations of steps that are taken in one call: a twentieth of a second, after which we may stop."""


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
        self.assignment, self.batches, self.losses, self.library = assignment, batches, losses, library
        self.turns, networks, lanes = len(assignment.turns), assignment.networks, library.lanes
        self.at = torch.zeros(1, dtype=torch.int64)
        self.names = engine.names(shape)
        self.parameters = {name: packed(numbers, lanes) for name, numbers in _initial(networks, shape).items()}
        self.statistics = {
            f"{layer.name}.{part}": packed(torch.full((len(networks), *layer.shape), start), lanes)
            for layer in shape.norms
            for part, start in (("mean", 0.0), ("variance", 1.0))
        }
        self.optimizer = Optimizer(networks, self.parameters, shape.decayed)
        self._lane = torch.arange(len(networks) + -len(networks) % lanes).clamp_(max=len(networks) - 1)
        self._absent = frozenset(shape.treated if self.turns == 2 else ())
        flops = 3 * networks[0].batch_size * shape.forward_flops() * self.turns * len(networks)
        self._at_once = max(1, AT_ONCE // flops)
        self._kept: list[Any] = []  # what the library is told the addresses of
        network = engine.network(shape, networks[0].batch_size)
        self._call = self._make_call(network, data, scaling)
        self._training = self._make_training(shape)
        self._shares = _shared(self._call.tiles, torch.get_num_threads())
        self._scratch = [self._address(engine.scratch(library, network)) for _ in self._shares]
        self._threads = ThreadPoolExecutor(len(self._shares), "tiles") if len(self._shares) > 1 else None

    def _make_call(self, network: Network, data: DeviceData, scaling: Scaling) -> Call:
        factor, offset = (packed(part.float(), self.library.lanes) for part in scaling)
        return Call(
            network=ctypes.pointer(network),
            tiles=len(self._lane) // self.library.lanes,
            parameters=self._list(self.parameters[name] for name in self.names),
            statistics=self._list(self.statistics.values()),
            sizes=self._address(torch.tensor([self.parameters[name].shape[1] for name in self.names])),
            stored=self._address(data.pictures),
            labels=self._address(data.labels),
            factor=self._address(factor),
            offset=self._address(offset),
        )

    def _make_training(self, shape: Shape) -> Training:
        """All of a call that no step changes."""
        networks, masks, optimizer = self.assignment.networks, self.batches.masks, self.optimizer
        first = networks[0]
        sgd = "momentum" if first.momentum > 0 or first.weight_decay > 0 else "sgd"
        kind = KINDS["adamw" if first.optimizer == "adamw" else sgd]
        moments = ("first", "second") if optimizer.adamw else ("velocity", "none")
        lists = [self._list(optimizer.state.get(f"{moment}/{name}") for name in self.names) for moment in moments]
        treated = () if all(run.bias for run in networks) else shape.treated
        return Training(
            call=self._call,
            turns=self.turns,
            absent=self._marks(self._absent),
            first=lists[0],
            second=lists[1],
            decayed=self._marks(optimizer.decayed),
            treated=self._marks(treated),
            frozen=self._own(torch.tensor([-int(not run.bias) for run in networks], dtype=torch.int32)),
            seeds=self.batches.order.shape[2],
            seed_of=self._own(self.batches.seed_of_network),
            threshold=self._own(masks.threshold),
            scale=self._own(masks.scale.float()),
            momentum=self._own(optimizer.momentum),
            decay=self._own(optimizer.decay),
            optimizer=kind,
            networks=len(networks),
            loss_sum=self.losses.loss_sum.data_ptr(),
            last_loss_sum=self.losses.last_loss_sum.data_ptr(),
        )

    @property
    def tensors(self) -> dict[str, Tiles]:
        """All that training changes, by name, but for the losses."""
        count = len(self.assignment.networks)
        every = {**self.parameters, **self.statistics, **self.optimizer.state}
        return {name: Tiles(tensor, count) for name, tensor in every.items()}

    def take(self, at_most: int = 1) -> int:
        """Trains every network on its next batches, in every turn; returns the number of these steps.

        Steps are taken within a block of batches, and not so many that it would take long.
        """
        done, training, batches = int(self.at), self._training, self.batches
        place = done % ORDER_BLOCK
        steps = min(at_most, self._at_once, ORDER_BLOCK - place)
        numbers = torch.arange(done, done + steps)[:, None]
        rates = self.optimizer.rates_after(numbers).expand(steps, -1)[:, self._lane].contiguous()
        states = addresses([each[place] for each in batches.masks.states.values()])
        corrections = self._corrections(done, steps) if self.optimizer.adamw else None
        training.steps = steps
        training.order = batches.order[place].data_ptr()
        training.states = ctypes.addressof(states)
        training.rate = rates.data_ptr()
        training.corrections = None if corrections is None else corrections.data_ptr()
        training.last_from = self.losses.last_tenth - done
        self._of_all(self.library.train, training)
        self.at += steps
        return steps

    def evaluate(self, turn: int, pictures: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which pictures each network gets right in a turn `[networks, n]`, and the sum of its losses `[networks]`."""
        pictures, labels, count = pictures.contiguous(), labels.contiguous(), len(self.assignment.networks)
        right = torch.empty(len(labels), len(self._lane), dtype=torch.bool)
        loss = torch.zeros(len(self._lane), dtype=torch.float64)
        call = Call.from_buffer_copy(self._call)
        call.stored, call.labels = pictures.data_ptr(), labels.data_ptr()
        call.absent = self._training.absent if turn else None
        evaluation = Evaluation(call=call, count=len(labels), right=right.data_ptr(), loss=loss.data_ptr())
        self._of_all(self.library.evaluate, evaluation)
        return right[:, :count].T, loss[:count]

    def _of_all(self, function: Callable[[Any, range, int], None], given: Training | Evaluation) -> None:
        """Calls the library for all tiles; each thread takes its share of them."""
        run = self._threads.map if self._threads else map
        list(run(functools.partial(function, given), self._shares, self._scratch))

    def _address(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _own(self, numbers: torch.Tensor) -> int:
        """The address of what each network has of its own `[networks]`, as the lanes have it."""
        return self._address(numbers[self._lane].contiguous())

    def _marks(self, names: Collection[str]) -> int:
        return self._address(torch.tensor([name in names for name in self.names], dtype=torch.uint8))

    def _list(self, tensors: Iterable[torch.Tensor | None]) -> int:
        self._kept.append(addresses(list(tensors)))
        return ctypes.addressof(self._kept[-1])

    def _corrections(self, done: int, steps: int) -> torch.Tensor:
        """AdamW's two divisors `[steps, turns, parameters, 2]`, by how often a parameter was updated."""
        both = [
            [
                [step + 1 if name in self._absent else step * self.turns + turn + 1 for name in self.names]
                for turn in range(self.turns)
            ]
            for step in range(done, done + steps)
        ]
        counts = torch.tensor(both, dtype=torch.float64)[..., None]
        return (1 - torch.tensor(BETAS, dtype=torch.float64) ** counts).float()


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


def _shared(tiles: int, threads: int) -> list[range]:
    """The tiles of each thread, none of which is without one."""
    count = min(tiles, threads)
    ends = [tiles * number // count for number in range(count + 1)]
    return [range(start, end) for start, end in itertools.pairwise(ends)]


def _initial(networks: Sequence[Run], shape: Shape) -> dict[str, torch.Tensor]:
    """Starting parameters `[networks, numbers]` in the library's order, drawn as for every other method."""
    found = {}
    for layer in (*shape.convolutions, *shape.linears):
        weight = model.drawn(networks, layer, torch.float32)
        found[layer.weight] = engine.arranged(shape, layer, weight)
        bias = model.biases(networks, shape, layer)
        found[layer.bias] = F.pad(bias, (0, -bias.shape[1] % UNITS)) if layer.kind == "linear" else bias
    for layer in shape.norms:
        found[layer.weight] = torch.ones(len(networks), *layer.shape)
        found[layer.bias] = torch.zeros(len(networks), *layer.shape)
    return found
