"""Draws what the steps of an array need: which pictures each seed sees, and the states of its dropout masks."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweep.common import random_streams
from sweep.data.splits import Batches, Indices

ORDER_BLOCK: Final = 128
"""Steps whose batches are drawn at once."""

SEEDS_PER_TASK: Final = 32
"""Few enough that threads finish a block together, and enough that they seldom wait for Python between NumPy calls."""


class Block(NamedTuple):
    """What the steps from `start` on need: picture indices `[steps, batch, seeds]` and mask states `[steps, seeds]`."""

    start: int
    order: NDArray[np.int64]
    states: dict[str, NDArray[np.int32]]


class BatchFeed:
    """Blocks of batches of all seeds of an array, drawn ahead by `threads` threads, or by the caller if 0.

    It knows nothing of the trainer, so drawing that is still under way keeps none of its tensors alive. The first block
    is begun at once, each later one when the block before it is handed out.
    """

    def __init__(
        self, seeds: Sequence[int], places: Indices, batch_size: int, steps: int, layers: Sequence[str], threads: int
    ) -> None:
        """`places` are the indices of the training pictures in their pool, `layers` the names of those with dropout."""
        self.places, self.batch_size, self.steps = places, batch_size, steps
        self.seeds, self.layers = tuple(seeds), tuple(layers)
        parts = [self.seeds[first : first + SEEDS_PER_TASK] for first in range(0, len(seeds), SEEDS_PER_TASK)]
        self.parts = [Batches(part, len(places), batch_size) for part in parts]
        self.drawers = ThreadPoolExecutor(threads, "batches") if threads else None
        self.ahead = self._empty(0)
        self.tasks: list[Future[None]] = []
        if self.drawers:
            self._begin(self.drawers, 0)

    def block(self, start: int) -> Block:
        """The block whose first step is `start`, a multiple of `ORDER_BLOCK`."""
        if self.drawers is None:
            block = self._empty(start)
            for part in range(len(self.parts)):
                self._fill(block, part)
            return block
        if self.ahead.start != start:
            wait(self.tasks)  # no two threads may draw from one seed at a time
            self._begin(self.drawers, start)
        for task in self.tasks:
            task.result()
        block, following = self.ahead, start + ORDER_BLOCK
        if following < self.steps:
            self._begin(self.drawers, following)
        return block

    def close(self) -> None:
        """Begins no further blocks, and does not wait for the one being drawn."""
        if self.drawers:
            self.drawers.shutdown(wait=False, cancel_futures=True)

    def _begin(self, drawers: ThreadPoolExecutor, start: int) -> None:
        self.ahead = self._empty(start)
        self.tasks = [drawers.submit(self._fill, self.ahead, part) for part in range(len(self.parts))]

    def _empty(self, start: int) -> Block:
        steps, seeds = min(ORDER_BLOCK, self.steps - start), len(self.seeds)
        order = np.empty((steps, self.batch_size, seeds), np.int64)
        return Block(start, order, {layer: np.empty((steps, seeds), np.int32) for layer in self.layers})

    def _fill(self, block: Block, part: int) -> None:
        """Draws some of the seeds. All seeds of a step lie side by side in a block."""
        start, stop, seeds = block.start, block.start + len(block.order), self.parts[part].seeds
        there = slice(part * SEEDS_PER_TASK, part * SEEDS_PER_TASK + len(seeds))
        block.order[:, :, there] = self.places[self.parts[part].take(start, stop)].transpose(1, 2, 0)
        for layer, states in block.states.items():
            words = [random_streams.dropout_states(seed, layer, start, stop).view(np.int32) for seed in seeds]
            states[:, there] = np.stack(words, axis=1)
