"""Batches come in the order of their streams, whoever draws them and from wherever training goes on."""

import threading
from collections.abc import Sequence
from concurrent.futures import wait

import numpy as np
import pytest

from sweep.common import random_streams
from sweep.data.splits import batches
from sweep.training.batch_feed import ORDER_BLOCK, SEEDS_PER_TASK, BatchFeed

SEEDS = range(3, 2 * SEEDS_PER_TASK + 10)
PLACES = np.arange(40)[::-1] + 7
STEPS = 2 * ORDER_BLOCK + 5


def feed(threads: int) -> BatchFeed:
    return BatchFeed(SEEDS, PLACES, 5, STEPS, ["conv0", "hidden"], threads)


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("asked", [[0, 1, 2], [1, 2], [2, 0, 0]], ids=str)
def test_every_block_is_that_of_the_streams(threads: int, asked: list[int]) -> None:
    drawn = feed(threads)
    for start in (number * ORDER_BLOCK for number in asked):
        block, stop = drawn.block(start), min(start + ORDER_BLOCK, STEPS)
        assert block.start == start and block.order.shape == (stop - start, 5, len(SEEDS))
        assert block.states.keys() == {"conv0", "hidden"}
        for place, seed in enumerate(SEEDS):
            wanted = PLACES[batches(seed, len(PLACES), 5, start, stop)]
            np.testing.assert_array_equal(block.order[..., place], wanted)
            for layer, states in block.states.items():
                words = random_streams.dropout_states(seed, layer, start, stop).view(np.int32)
                np.testing.assert_array_equal(states[:, place], words)
    drawn.close()


def test_the_first_block_is_begun_at_once_and_the_next_with_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    permutations, epochs = random_streams.permutations, set()

    def watched(seeds: Sequence[int], purpose: str, count: int) -> np.ndarray:
        if set(seeds) <= set(own):  # feeds closed by earlier tests may still be drawing
            epochs.add(purpose)
        return permutations(seeds, purpose, count)

    monkeypatch.setattr(random_streams, "permutations", watched)
    own = range(1000, 1000 + len(SEEDS))
    drawn = BatchFeed(own, PLACES, 5, STEPS, ["conv0", "hidden"], 1)
    wait(drawn.tasks)
    first = {f"order/{epoch}" for epoch in range(ORDER_BLOCK * 5 // 40)}
    assert epochs == first
    drawn.block(0)
    wait(drawn.tasks)
    assert len(epochs) == 2 * len(first)
    drawn.close()


def test_what_goes_wrong_in_a_thread_is_raised_where_its_block_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(seeds: Sequence[int], purpose: str, count: int) -> np.ndarray:
        raise MemoryError("none left")

    monkeypatch.setattr(random_streams, "permutations", short)
    drawn = feed(2)
    with pytest.raises(MemoryError, match="none left"):
        drawn.block(0)
    drawn.close()


def test_a_closed_feed_draws_no_more_seeds_than_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    permutations, begun, go_on = random_streams.permutations, threading.Event(), threading.Event()
    drawn_seeds: set[int] = set()

    def slow(seeds: Sequence[int], purpose: str, count: int) -> np.ndarray:
        drawn_seeds.update(seeds)
        begun.set()
        go_on.wait()
        return permutations(seeds, purpose, count)

    monkeypatch.setattr(random_streams, "permutations", slow)
    drawn = feed(1)
    assert begun.wait(timeout=60)
    drawn.close()
    go_on.set()
    assert drawn.drawers is not None
    drawn.drawers.shutdown(wait=True)
    assert drawn_seeds == set(SEEDS[:SEEDS_PER_TASK])
