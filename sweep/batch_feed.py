"""Draws what the steps of an array need: which pictures each seed sees, and the states of its dropout masks."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweep import streams
from sweep.data import Batches, Indices

ORDER_BLOCK: Final = 128
"""Steps whose batches are drawn at once."""

SEEDS_PER_TASK: Final = 32
"""Few enough that threads end a block together, enough that handing them out costs nothing."""


class Block(NamedTuple):
    """What the steps from `start` on need: pictures' places `[steps, batch, seeds]`, masks' states `[steps, seeds]`."""

    start: int
    order: NDArray[np.int64]
    states: dict[str, NDArray[np.int32]]


class BatchFeed:
    """Blocks of batches of all seeds of an array, drawn by `threads` ahead of the training, or by the caller if 0.

    It knows nothing of the trainer: drawing that still goes on keeps none of its tensors alive. The first block is
    begun at once, each other one when the one before it is handed out.
    """

    def __init__(
        self, seeds: Sequence[int], places: Indices, batch_size: int, steps: int, layers: Sequence[str], threads: int
    ) -> None:
        """`places` are those of the training pictures in their pool, `layers` the ones that drop out."""
        self.seeds, self.places, self.steps, self.layers = tuple(seeds), places, steps, tuple(layers)
        self.batch_size = batch_size
        self.batches = [Batches(seed, len(places), batch_size) for seed in seeds]
        self.drawers = ThreadPoolExecutor(threads, "batches") if threads else None
        self.ahead = self._empty(0)
        self.tasks: list[Future[None]] = []
        if self.drawers:
            self._begin(self.drawers, 0)

    def block(self, start: int) -> Block:
        """The block whose first step is `start`, a multiple of `ORDER_BLOCK`."""
        if self.drawers is None:
            block = self._empty(start)
            self._fill(block, range(len(self.seeds)))
            return block
        if self.ahead.start != start:
            wait(self.tasks)  # a seed's epochs are no two threads' at a time
            self._begin(self.drawers, start)
        for task in self.tasks:
            task.result()
        block, following = self.ahead, start + ORDER_BLOCK
        if following < self.steps:
            self._begin(self.drawers, following)
        return block

    def close(self) -> None:
        """Begins nothing more; does not wait for what is being drawn."""
        if self.drawers:
            self.drawers.shutdown(wait=False, cancel_futures=True)

    def _begin(self, drawers: ThreadPoolExecutor, start: int) -> None:
        self.ahead, count = self._empty(start), len(self.seeds)
        tasks = [range(first, min(first + SEEDS_PER_TASK, count)) for first in range(0, count, SEEDS_PER_TASK)]
        self.tasks = [drawers.submit(self._fill, self.ahead, task) for task in tasks]

    def _empty(self, start: int) -> Block:
        steps, seeds = min(ORDER_BLOCK, self.steps - start), len(self.seeds)
        order = np.empty((steps, self.batch_size, seeds), np.int64)
        return Block(start, order, {layer: np.empty((steps, seeds), np.int32) for layer in self.layers})

    def _fill(self, block: Block, seeds: range) -> None:
        """Draws some of the seeds, by their numbers."""
        start, stop, part = block.start, block.start + len(block.order), slice(seeds.start, seeds.stop)
        taken = np.stack([self.places[self.batches[seed].take(start, stop)] for seed in seeds])
        # All seeds of a step lie side by side: copied so, for `np.stack` along the last axis takes three times as long.
        block.order[:, :, part] = taken.transpose(1, 2, 0)
        for layer, states in block.states.items():
            words = [streams.dropout_states(self.seeds[seed], layer, start, stop) for seed in seeds]
            np.stack([each.view(np.int32) for each in words], axis=1, out=states[:, part])
