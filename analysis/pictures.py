"""What the stored bits of `test_correct` say about pairs: who gets what right, and where the noise comes from."""

from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COLUMNS: Final = ("only_bias", "only_no_bias", "test_pictures", "seed_spread", "picture_spread")

Bits = NDArray[np.uint8]


def pictures(rows: pd.DataFrame) -> tuple[Bits, NDArray[np.int64]] | None:
    """The packed bits of `test_correct`, one row per run, and how many test pictures each run has (0: unknown).

    Bits are `[runs, bytes]`, from bytes or, as CSV holds them, from hexadecimal text. None where the column is missing
    or holds anything else. The number of pictures is right ones over the accuracy, if it ends in the last byte.
    """
    if "test_correct" not in rows:
        return None
    unpacked = _bytes(rows["test_correct"])
    if unpacked is None:
        return None
    packed, length = unpacked
    right = np.bitwise_count(packed).sum(axis=1, dtype=np.int64)
    accuracy = rows["test_accuracy"].to_numpy(dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.where(right > 0, right / accuracy, 0)
    whole = np.round(np.nan_to_num(count, posinf=0))
    fits = (whole > 8 * (length - 1)) & (whole <= 8 * length) & (np.abs(whole - count) < 1e-6 * whole)
    return packed, np.where(fits, whole, 0).astype(np.int64)


def by_cell(rows: pd.DataFrame, pairs: pd.DataFrame, cells: int) -> pd.DataFrame:
    """`COLUMNS` for cells 0 to `cells` - 1, null where a pair of the cell has no pictures to compare.

    `pairs` gives each pair's `cell` (ascending) and its runs' positions in `rows` (`row_bias`, `row_no_bias`).
    `only_bias`: mean number of test pictures that only the arm with bias gets right. The spreads are standard
    deviations of one pair's effect in points, if both seeds and pictures were drawn anew: `seed_spread` from run to
    run, on infinitely many pictures; `picture_spread` from the finite test set. Both follow from two-way random
    effects, seeds by pictures, estimated by mean squares (Searle, Casella and McCulloch, Variance Components, 1992,
    4.3).
    """
    found = pd.DataFrame(np.nan, index=range(cells), columns=list(COLUMNS))
    known = pictures(rows)
    if known is None:
        return found
    packed, counts = known
    place = [pairs[f"row_{arm}"].to_numpy() for arm in ("bias", "no_bias")]
    starts = np.searchsorted(pairs["cell"].to_numpy(), np.arange(cells + 1))
    values = found.to_numpy(copy=True)
    for cell, (start, stop) in enumerate(pairwise(starts)):
        with_bias, without = place[0][start:stop], place[1][start:stop]
        number = np.unique(np.concatenate([counts[with_bias], counts[without]]))
        # An accuracy of 0 does not give the number; the cell's other runs do.
        number = number[number > 0]
        if len(number) == 1:
            values[cell] = _of_cell(packed[with_bias], packed[without], int(number[0]))
    return pd.DataFrame(values, columns=list(COLUMNS))


def _of_cell(with_bias: Bits, without: Bits, pictures: int) -> tuple[float, ...]:
    seeds = len(with_bias)
    gained = np.bitwise_count(with_bias & ~without).sum(axis=1, dtype=np.int64)
    lost = np.bitwise_count(without & ~with_bias).sum(axis=1, dtype=np.int64)
    counted = (float(gained.mean()), float(lost.mean()), float(pictures))
    if seeds < 2 or pictures < 2:
        return (*counted, np.nan, np.nan)
    # x is 1 where only the arm with bias is right, -1 where only the other is, 0 where both agree.
    by_picture = _sums(with_bias, pictures) - _sums(without, pictures)
    by_seed, all_squares = gained - lost, int((gained + lost).sum())
    level = by_seed.sum() ** 2 / (seeds * pictures)
    of_seeds = (by_seed**2).sum() / pictures - level
    of_pictures = (by_picture**2).sum() / seeds - level
    rest = max(all_squares - level - of_seeds - of_pictures, 0) / ((seeds - 1) * (pictures - 1))
    seed_variance = max(of_seeds / (seeds - 1) - rest, 0) / pictures
    picture_variance = max(of_pictures / (pictures - 1) - rest, 0) / seeds
    return (*counted, 100 * seed_variance**0.5, 100 * ((picture_variance + rest) / pictures) ** 0.5)


def _sums(packed: Bits, pictures: int) -> NDArray[np.int64]:
    """In how many runs each picture is right."""
    total: NDArray[np.int64] = np.unpackbits(packed, axis=1, count=pictures).sum(axis=0, dtype=np.int64)
    return total


def _bytes(column: pd.Series) -> tuple[Bits, NDArray[np.int64]] | None:
    """The bits of each run, padded with zeros to the longest, and the length of each in bytes."""
    values = column.to_list()
    try:
        if isinstance(values[0], str):
            values = [bytes.fromhex(value) for value in values]
    except (TypeError, ValueError):
        return None
    if not all(isinstance(value, bytes) for value in values):
        return None
    length = np.array([len(value) for value in values], dtype=np.int64)
    longest = int(length.max())
    if longest == 0:
        return None
    whole = b"".join(values if length.min() == longest else [value.ljust(longest, b"\0") for value in values])
    return np.frombuffer(whole, dtype=np.uint8).reshape(len(values), longest), length
