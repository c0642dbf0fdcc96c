"""Products of float32, TF32 and bfloat16 factors on tensor cores, with sums in float32."""

from typing import Final, Literal

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

Precision = Literal["float32", "tf32", "bfloat16"]


@triton.jit  # type: ignore[untyped-decorator]
def _cut(x: tl.tensor) -> tl.tensor:
    """The high part of a float32, which is what tensor cores read: ten bits after the leading one."""
    return (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _nearest(x: tl.tensor) -> tl.tensor:
    """The nearest TF32, ties away from zero. NaN stays NaN: rounded, its bits could overflow to those of zero."""
    nearest = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(x == x, nearest, x)


INTERPRETED: Final = tl.constexpr(not isinstance(_cut, triton.runtime.JITFunction))
"""The interpreter multiplies in float32 only, so what tensor cores would cut off is cut off beforehand."""


@triton.jit  # type: ignore[untyped-decorator]
def multiply_add(a: tl.tensor, b: tl.tensor, total: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """`total + a @ b`: factors of `PRECISION`, sums in float32.

    A float32 is the sum of two TF32. Of the four products, that of the low parts is smaller than a float32's rounding
    and is left out; the small ones are added first. Tensor cores truncate a sum at each addition (Fasi et al., PeerJ
    Computer Science 7:e330), so they sum each block by itself, and the blocks are added in float32. An infinite factor
    gives NaN: such a run has diverged anyway.
    """
    if PRECISION == "float32":
        a_high, b_high = _cut(a), _cut(b)
        a_low, b_low = a - a_high, b - b_high
        if INTERPRETED:
            a_low, b_low = _cut(a_low), _cut(b_low)
        block = tl.dot(a_low, b_high, input_precision="tf32")
        block = tl.dot(a_high, b_low, block, input_precision="tf32")
        return total + tl.dot(a_high, b_high, block, input_precision="tf32")
    elif PRECISION == "tf32":
        return tl.dot(_nearest(a), _nearest(b), total, input_precision="tf32")
    elif INTERPRETED:
        return tl.dot(a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32), total)
    else:
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), total)
