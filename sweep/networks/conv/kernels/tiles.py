"""The part of a product that one program computes; it depends on the shape of one run alone."""

from dataclasses import dataclass
from typing import Final

import triton  # type: ignore[import-untyped]

PIXELS_PER_STEP: Final = 32
"""Pixels that the weight gradient's kernel multiplies at once."""


@dataclass(frozen=True)
class Tile:
    """The part of a matrix product that one program computes, `rows` x `columns`, in steps of `depth`.

    The product's long axis runs over taps and channels, channels fastest. If `flat`, a block of it may span taps, so
    that few channels can fill it; otherwise it lies within one tap, whose position is computed once per block.
    """

    rows: int
    columns: int
    depth: int
    flat: bool = False
    least_warps: int = 1

    @property
    def warps(self) -> int:
        """One warp per 1024 numbers of the largest of the three matrices: 32 registers per thread.

        With four warps, products of 64 rows go to Hopper's matrix units, which need as many.
        """
        largest = max(self.rows * self.columns, self.rows * self.depth, self.depth * self.columns)
        return 4 if self.rows == 64 else max(self.least_warps, largest // 1024)

    @property
    def stages(self) -> int:
        """Small tiles hide latency by having many programs per multiprocessor, so they leave shared memory free."""
        return 2 if self.warps == 1 else 3

    def launch(self) -> dict[str, int]:
        """The tile as constants of a kernel."""
        sizes = {"ROWS": self.rows, "COLUMNS": self.columns, "DEPTH": self.depth}
        return {**sizes, "num_warps": self.warps, "num_stages": self.stages}


def pixel_tile(columns: int, channels: int, taps: int) -> Tile:
    """Tile of a product of pixels x (taps x channels) with (taps x channels) x columns."""
    flat = channels % 16 != 0
    narrow = taps * channels <= 16 if flat else channels % 32 != 0
    return Tile(32 if columns <= 32 else 64, _columns(columns), 16 if narrow else 32, flat)


def weight_tile(rows: int, columns: int) -> Tile:
    """Tile of a product of filters x pixels with pixels x (taps x channels).

    The pixels' addresses take registers, too: in a single warp, all of them.
    """
    return Tile(_columns(rows), _columns(columns), PIXELS_PER_STEP, least_warps=2)


def _columns(columns: int) -> int:
    return min(64, max(16, int(triton.next_power_of_2(columns))))  # 16 is the matrix unit's minimum


def pixel_blocks(pixels: int, pictures: int) -> tuple[int, int]:
    """How many `pictures` of `pixels` each form a group, cut into blocks of `PIXELS_PER_STEP`, and how many blocks.

    A block's pixels lie at the same places in every group of pictures. Computing the places costs about half as much as
    multiplying the pixels; groups share that cost, and differ in how many pixels of the last block stay unused.
    """

    def blocks(group: int) -> int:
        return -(-group * pixels // PIXELS_PER_STEP)

    group = min((2**power for power in range(6)), key=lambda each: blocks(each) * (-(-pictures // each) + 0.5))
    return group, blocks(group)
