"""A CPU's 5 x 5 convolution of stride 2 over many channels, with about half the multiplications.

Three of the kernel's five rows meet even rows of the picture, the other two odd ones: along the height these are two
convolutions of stride 1, and minimal filtering (Lavin and Gray, arXiv 1509.09308, section 4.1) computes m outputs of r
taps with m + r - 1 products instead of m r. One tile holds a whole column: 7 rows take 17 products instead of 35. Taps
along the width stay as they are: matrix products over slices of one memory layout, without copies of patches.

Every run is computed alone, with the same sizes and alignment, so its bits depend on neither slot nor neighbours.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

SIDE: Final = 5
CHANNELS: Final = range(64, 513, 16)
"""Numbers of channels for which this pays: below, transforms cost what products save; above, they need much memory."""

PICTURES: Final = 64
"""Most pictures that an evaluation computes at once: more would not fit into caches."""

ROWS: Final = 8
"""Most output rows: each needs another point, and rounding errors grow with the points."""

EVEN: Final = tuple(map(Fraction, ("0", "1", "-1", "2", "-1/2", "-2", "1/2", "4", "-1/4")))
ODD: Final = tuple(map(Fraction, ("0", "1", "-1", "2", "-1/2", "-2", "1/2", "-1/4")))
"""Points of the transforms, of which the first ones are used: small numbers, their negatives and reciprocals round
least (Barabasz and others, arXiv 1803.10986); the later ones had the smallest error of the few that were tried."""


def takes(inputs: int, outputs: int, side: int, stride: int, size: tuple[int, int]) -> bool:
    """Whether `convolution` can compute this convolution of pictures of `size` (height, width), and faster."""
    height, width = size
    return (
        (side, stride) == (SIDE, 2)
        and inputs in CHANNELS
        and outputs in CHANNELS
        and (height + 1) // 2 <= ROWS
        and width % 2 == 0
    )


def convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`[pictures, runs x inputs, height, width]` to `[pictures, runs x outputs, rows, columns]`, both channels last.

    `weight` `[runs, 5, 5, inputs, outputs]` is contiguous, `bias` is `[runs, outputs]`. Padding is 2, stride 2.
    """
    pixels = x.permute(0, 2, 3, 1)
    parts = [pixels] if torch.is_grad_enabled() else pixels.split(PICTURES)  # type: ignore[no-untyped-call]
    results: list[torch.Tensor] = [_Convolution.apply(part, weight, bias) for part in parts]
    y = results[0] if len(results) == 1 else torch.cat(results)
    return y.permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """From and to channels last; inside, a run is `[points, pairs of columns, pictures, (parity, channels)]`."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        runs, _, _, inputs, outputs = weight.shape
        pictures, height, width, _ = x.shape
        rows, columns = (height + 1) // 2, width // 2
        of_input, of_kernel, to_output = _transforms(height, x.dtype)
        points = len(of_input)
        pairs = x.reshape(pictures, height, columns, 2, runs, inputs)
        pairs = pairs.permute(4, 1, 2, 0, 3, 5).contiguous().view(runs, height, -1)
        given = x.new_empty(runs, points, columns, pictures, 2 * inputs)
        kernels = x.new_empty(runs, points, SIDE * inputs, outputs)
        products = x.new_empty(points, columns, pictures, outputs)
        sums = x.new_empty(runs, rows, columns * pictures * outputs)
        for run in range(runs):
            torch.mm(of_input, pairs[run], out=given[run].view(points, -1))
            torch.mm(of_kernel, weight[run].view(SIDE, -1), out=kernels[run].view(points, -1))
            whole, *others = _taps(given[run], kernels[run], products)
            torch.bmm(whole.given, whole.kernels, out=whole.products)
            for part in others:
                part.products.baddbmm_(part.given, part.kernels)
            torch.mm(to_output, products.view(points, -1), out=sums[run])
        ctx.save_for_backward(given, kernels)
        ctx.height = height
        y = x.new_empty(pictures, rows, columns, runs * outputs)  # no view: a ReLU may be applied in place
        sums = sums.view(runs, rows, columns, pictures, outputs).permute(3, 1, 2, 0, 4)
        torch.add(sums, bias, out=y.view(sums.shape))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        given, kernels = ctx.saved_tensors
        runs, points, columns, pictures, pair = given.shape
        inputs, outputs, height = pair // 2, kernels.shape[3], ctx.height
        rows = gradient.shape[1]
        of_input, of_kernel, to_output = _transforms(height, gradient.dtype)
        dy = gradient.reshape(pictures, rows, columns, runs, outputs)
        dy = dy.permute(3, 1, 2, 0, 4).contiguous().view(runs, rows, -1)
        dx = gradient.new_empty(runs, height, columns * pictures * pair)
        dweight = gradient.new_empty(runs, SIDE, SIDE, inputs, outputs)
        dproducts = gradient.new_empty(points, columns, pictures, outputs)
        dgiven, dkernels = torch.empty_like(given[0]), torch.empty_like(kernels[0])
        for run in range(runs):
            torch.mm(to_output.T, dy[run], out=dproducts.view(points, -1))
            for part in _taps(given[run], dkernels, dproducts):
                torch.bmm(part.given.mT, part.products, out=part.kernels)
            torch.mm(of_kernel.T, dkernels.view(points, -1), out=dweight[run].view(SIDE, -1))
            whole, *others = _taps(dgiven, kernels[run], dproducts)
            torch.bmm(whole.products, whole.kernels.mT, out=whole.given)
            for part in others:
                part.given.baddbmm_(part.products, part.kernels.mT)
            torch.mm(of_input.T, dgiven.view(points, -1), out=dx[run])
        dx = dx.view(runs, height, columns, pictures, 2, inputs).permute(3, 1, 2, 4, 0, 5)
        return dx.contiguous().view(pictures, height, 2 * columns, -1), dweight, dy.view(runs, -1, outputs).sum(1)


class _Taps(NamedTuple):
    """Some taps along the width, as views `[points, …]`: they add `given` times `kernels` to `products`."""

    given: torch.Tensor
    kernels: torch.Tensor
    products: torch.Tensor


def _taps(given: torch.Tensor, kernels: torch.Tensor, products: torch.Tensor) -> list[_Taps]:
    """All taps along the width; the first group covers all columns given and all products.

    Output column j sums over taps 0 and 1 of the pair of columns j - 1, 2 and 3 of pair j, and 4 of pair j + 1.
    """
    columns, inputs = given.shape[1], kernels.shape[1] // SIDE
    found = []
    for tap, count, shift in ((2, 2, 0), (0, 2, -1), (4, 1, 1)):
        start, stop = max(0, -shift), columns - max(0, shift)  # output columns whose pair is inside the picture
        a = given[:, start + shift : stop + shift, :, : count * inputs].flatten(1, 2)
        b = kernels[:, tap * inputs : (tap + count) * inputs]
        found.append(_Taps(a, b, products[:, start:stop].flatten(1, 2)))
    return found


@functools.lru_cache(maxsize=16)
def _transforms(height: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrices for a column's input `[points, height]`, the kernel `[points, 5]` and the output `[rows, points]`.

    The points for the even rows' taps come first, then those for the odd rows'.
    """
    rows = (height + 1) // 2
    even, odd = minimal_filter(rows, 3, EVEN), minimal_filter(rows, 2, ODD)
    points = len(even[0]) + len(odd[0])
    of_input, of_kernel = np.zeros((points, height)), np.zeros((points, SIDE))
    at = 0
    for parity, (column, kernel, _) in enumerate((even, odd)):
        here = slice(at, at + len(column))
        of_kernel[here, parity::2] = kernel
        for place, factors in enumerate(column.T):
            row = 2 * (place - 1) + parity  # the kernel's first tap lies two rows above its middle
            if 0 <= row < height:
                of_input[here, row] = factors
        at += len(column)
    to_output = np.concatenate([even[2], odd[2]], axis=1)
    tensors = [torch.from_numpy(matrix).to(dtype) for matrix in (of_input, of_kernel, to_output)]
    return tensors[0], tensors[1], tensors[2]


def minimal_filter(
    outputs: int, taps: int, points: Sequence[Fraction]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Matrices B, G, A such that `A ((G kernel) * (B input))` is the convolution F(outputs, taps) of stride 1.

    The method is Toom and Cook's, transposed: a product of polynomials from its values at `points` and at infinity. It
    is computed in exact fractions; a power of two balances each point's factors between B and G.
    """
    finite = list(points[: outputs + taps - 2])
    assert len(finite) == outputs + taps - 2, "too few points"
    b = []
    for point in finite:
        others = [other for other in finite if other != point]
        scale = math.prod(point - other for other in others)
        b.append([factor / scale for factor in _polynomial(others)] + [Fraction(0)])
    b.append(_polynomial(finite))
    of_input, of_kernel = np.array(b, dtype=np.float64), _values(finite, taps)
    balance = 2.0 ** np.round(np.log2(np.abs(of_kernel).max(axis=1, keepdims=True)))
    return of_input * balance, of_kernel / balance, _values(finite, outputs).T


def _values(points: Sequence[Fraction], count: int) -> NDArray[np.float64]:
    """What each of `count` coefficients contributes to a polynomial's value at `points` and, last, at infinity."""
    rows = [[point**power for power in range(count)] for point in points]
    return np.array([*rows, [0] * (count - 1) + [1]], dtype=np.float64)


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, constant first, of the monic polynomial with these roots."""
    found = [Fraction(1)]
    for root in roots:
        found = [below - root * here for below, here in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found
