"""Random numbers as pure functions of a seed and a purpose.

No stream depends on another's draws, on a run's place in its array, or on a device's generator, so the two runs of a
pair start from the same weights and see the same batches. Only a bit generator's raw output is used, which NumPy
guarantees not to change between versions (NEP 19 excludes `Generator`'s methods from that promise).
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

GOLDEN: Final = 0x9E3779B9
"""Multiplier of a hash's counter: 2 ** 32 divided by the golden ratio."""

MIX: Final = ((16, 0x7FEB352D), (15, 0x846CA68B))
"""Shifts and factors of `mix`, which the kernels and the PyTorch version repeat."""

LAST_SHIFT: Final = 16
"""The last shift of `mix`."""


def bits(seed: int, purpose: str, count: int) -> NDArray[np.uint64]:
    """`count` independent 64-bit words of the stream named by `seed` and `purpose`."""
    key = np.frombuffer(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:16], dtype="<u8")
    return np.random.Philox(key=key).random_raw(count)


def uniform(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """`count` numbers in the open interval (0, 1)."""
    # 52 bits plus a half are exact in float64; with 53 bits the largest number would round to 1.
    return ((bits(seed, purpose, count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """`count` standard normal numbers, by inverting the distribution function."""
    from scipy.special import ndtri  # here alone: a launch with nothing to train draws nothing

    return np.asarray(ndtri(uniform(seed, purpose, count)), dtype=np.float64)


def truncated_normal(seed: int, purpose: str, count: int, cut: float = 2.0) -> NDArray[np.float64]:
    """`count` standard normal numbers within ±`cut`: the distribution that redrawing those outside gives."""
    from scipy.special import ndtr, ndtri

    low, high = float(ndtr(-cut)), float(ndtr(cut))
    return np.asarray(ndtri(low + (high - low) * uniform(seed, purpose, count)), dtype=np.float64)


def permutation(seed: int, purpose: str, count: int) -> NDArray[np.int64]:
    """A permutation of 0 … `count` - 1: the stable sort order of `count` random words."""
    return np.asarray(permutations([seed], purpose, count)[0])


def permutations(seeds: Sequence[int], purpose: str, count: int) -> NDArray[np.int64]:
    """`permutation` for several seeds, `[seeds, count]`, in few NumPy calls: between calls threads wait."""
    words = np.stack([bits(seed, purpose, count) for seed in seeds])
    # NumPy sorts several times faster than it argsorts, so each word carries its index in its low bits.
    low = np.uint64(count.bit_length())
    mask = (np.uint64(1) << low) - np.uint64(1)
    carriers = (words & ~mask) | np.arange(count, dtype=np.uint64)
    carriers.sort(axis=1)
    order = (carriers & mask).astype(np.int64)
    heads = carriers >> low
    for row in np.flatnonzero((heads[:, 1:] == heads[:, :-1]).any(axis=1)):
        order[row] = np.argsort(words[row], kind="stable")  # the bits that the index replaced break ties
    return order


def mix(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Chris Wellons's 32-bit hash `lowbias32` (https://github.com/skeeto/hash-prospector), word by word."""
    mixed = words.astype(np.uint32)
    for shift, factor in MIX:
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(LAST_SHIFT))


def dropout_states(seed: int, layer: str, start: int, stop: int) -> NDArray[np.uint32]:
    """The words from which a run's dropout masks of one layer are hashed: one for each step `start` … `stop` - 1.

    Units are numbered in the order picture, row, column, channel. Unit i is dropped if the hash of
    `state + i * GOLDEN`, read as a signed number, is below the run's threshold.
    """
    [key] = bits(seed, f"dropout/{layer}", 1).astype(np.uint32)
    return mix(key ^ mix(np.arange(start, stop, dtype=np.uint32)))
