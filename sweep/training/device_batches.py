"""The batches of an array on its device: which pictures each network sees in a step, and which units it drops."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.common.host import cores
from sweep.networks.conv.backends import Dropout, Pictures
from sweep.space.runs import Run
from sweep.training.batch_feed import ORDER_BLOCK, BatchFeed
from sweep.training.device_data import DeviceData, Scaling


class DeviceBatches:
    """Batches and masks of a block of steps, sent to the device together; a step reads its own at its place `[1]`.

    Drawing begins at once; for a GPU, in threads.
    """

    def __init__(self, networks: Sequence[Run], data: DeviceData, scaling: Scaling, dropping: Sequence[str]) -> None:
        """`dropping` names the layers with dropout."""
        first, train = networks[0], data.split.train
        # The split's rule shuffles the training pictures, so the first ones represent all.
        examples = first.train_examples or len(train)
        assert examples <= len(train), "more training pictures than there are"
        seeds = sorted({run.seed for run in networks})
        threads = _drawing_threads(data.device)
        self.feed = BatchFeed(seeds, train[:examples], first.batch_size, first.steps, dropping, threads)
        weakref.finalize(self, self.feed.close)
        self.data, self.scaling = data, scaling
        place = {seed: number for number, seed in enumerate(seeds)}
        self.seed_of_network = torch.tensor([place[run.seed] for run in networks], device=data.device)
        size = ORDER_BLOCK, first.batch_size, len(seeds)
        self.order = torch.zeros(size, dtype=torch.int64, device=data.device)
        distinct = [run.seed for run in networks] == seeds
        own_seeds = None if distinct else self.seed_of_network
        self.masks = Masks(networks, len(seeds), own_seeds, dropping, scaling.factor)

    def send(self, step: int) -> None:
        """Sends the block that contains `step`, counted from 0, to the device."""
        block = self.feed.block(step // ORDER_BLOCK * ORDER_BLOCK)
        _send(block.order, self.order)
        for layer, states in block.states.items():
            _send(states, self.masks.states[layer])

    def batch(self, place: torch.Tensor) -> tuple[Pictures, torch.Tensor]:
        """The batch at this place of the block: every network's pictures, and labels `[networks, batch]`."""
        places = self.order.index_select(0, place).squeeze(0).index_select(1, self.seed_of_network).T.contiguous()
        labels = self.data.labels.index_select(0, places.flatten()).view(places.shape)
        return Pictures(self.data.pictures, places, *self.scaling), labels


class Masks:
    """Dropout masks of a block of steps: states `[block, seeds]` by layer, and each network's threshold and scale."""

    def __init__(
        self, networks: Sequence[Run], seeds: int, own: torch.Tensor | None, layers: Sequence[str], like: torch.Tensor
    ) -> None:
        """`own` holds the place of each network's seed, or None where every network has its own seed.

        `like` has the type and the device of the activations.
        """
        self.states = {
            layer: torch.zeros(ORDER_BLOCK, seeds, dtype=torch.int32, device=like.device) for layer in layers
        }
        self.seeds = own
        rates = np.array([run.dropout for run in networks])
        thresholds = (np.round(rates * 2**32) - 2**31).astype(np.int64).clip(max=2**31 - 1)
        self.threshold = torch.tensor(thresholds, dtype=torch.int32, device=like.device)
        self.scale = torch.tensor(1 / (1 - rates), dtype=like.dtype, device=like.device)

    def at(self, place: torch.Tensor) -> dict[str, Dropout]:
        """The masks at this place of the block, by layer."""
        return {
            layer: Dropout(states.index_select(0, place)[0], self.seeds, self.threshold, self.scale)
            for layer, states in self.states.items()
        }


def _drawing_threads(device: str) -> int:
    """Threads that draw batches while the device trains; none on a CPU, which does both."""
    return 0 if device == "cpu" else cores()


def _send(block: NDArray[Any], to: torch.Tensor) -> None:
    source = torch.from_numpy(np.ascontiguousarray(block))
    if to.is_cuda:
        source = source.pin_memory()  # the copy waits for the steps before it, the host does not
    to[: len(source)].copy_(source, non_blocking=True)
