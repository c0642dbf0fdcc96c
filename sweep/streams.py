"""Random numbers as pure functions of a seed and a purpose.

No stream depends on another's draws, on a run's place in its array, or on a device's generator, so the two runs of a
pair start from the same weights and see the same batches. Only a bit generator's raw output is used, which NumPy
guarantees not to change between versions (NEP 19 excludes `Generator`'s methods from that promise).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri


def bits(seed: int, purpose: str, count: int) -> NDArray[np.uint64]:
    """`count` independent 64-bit words of the stream named by `seed` and `purpose`."""
    key = np.frombuffer(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:16], dtype="<u8")
    return np.random.Philox(key=key).random_raw(count)


def uniform(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """`count` numbers in the open interval (0, 1)."""
    # 52 bits and a half are exact in a float64; with 53 the largest would round to 1.
    return ((bits(seed, purpose, count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, purpose: str, count: int) -> NDArray[np.float64]:
    """`count` standard normal numbers, by the inverse of the distribution function."""
    return np.asarray(ndtri(uniform(seed, purpose, count)), dtype=np.float64)


def truncated_normal(seed: int, purpose: str, count: int, cut: float = 2.0) -> NDArray[np.float64]:
    """`count` standard normal numbers conditional on lying within ±`cut`: the law of redrawing those outside."""
    low, high = float(ndtr(-cut)), float(ndtr(cut))
    return np.asarray(ndtri(low + (high - low) * uniform(seed, purpose, count)), dtype=np.float64)


def permutation(seed: int, purpose: str, count: int) -> NDArray[np.int64]:
    """A permutation of 0 … `count` - 1."""
    return np.argsort(bits(seed, purpose, count), kind="stable")
