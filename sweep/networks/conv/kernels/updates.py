"""Updates of parameters, with the order of operations of `torch.optim`."""

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from sweep.networks.conv.kernels.memory import BLOCK, check_size


@dataclass(frozen=True)
class SgdStep:
    """What a step of torch.optim.SGD needs besides the gradient; see `sgd`."""

    velocity: torch.Tensor | None
    rate: torch.Tensor
    momentum: torch.Tensor
    decay: torch.Tensor


def adamw(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    rate: torch.Tensor,
    decay: torch.Tensor,
    corrections: torch.Tensor,
    frozen: torch.Tensor | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """One step of torch.optim.AdamW, in place, each run with its own learning rate and weight decay, `[runs]` float32.

    The moments have the shape of `parameter`, `[runs, ...]`. `corrections` is 1 - beta1^t and the square root of
    1 - beta2^t at step t, float32. In runs that are `frozen`, `[runs]` bool or int8, the gradient counts as zero.
    """
    runs = _check_update(parameter, gradient, (first, second), (rate, decay))
    assert corrections.shape == (2,) and corrections.dtype == torch.float32
    count = parameter.numel() // runs
    _adamw[triton.cdiv(count, BLOCK), runs](
        parameter,
        gradient.contiguous(),
        first,
        second,
        rate,
        decay,
        corrections,
        None if frozen is None else frozen.view(torch.int8),
        count,
        BETA1=beta1,
        BETA2=beta2,
        EPSILON=epsilon,
        BLOCK=BLOCK,
    )


def sgd(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    velocity: torch.Tensor | None,
    rate: torch.Tensor,
    momentum: torch.Tensor,
    decay: torch.Tensor,
    frozen: torch.Tensor | None = None,
) -> None:
    """One step of torch.optim.SGD, in place, each run with its own numbers, `[runs]` float32.

    `velocity` has the shape of `parameter`, `[runs, ...]`, and starts at zero; without it there is no momentum. In runs
    that are `frozen`, `[runs]` bool or int8, the gradient counts as zero.
    """
    runs = _check_update(parameter, gradient, () if velocity is None else (velocity,), (rate, momentum, decay))
    count = parameter.numel() // runs
    _sgd[triton.cdiv(count, BLOCK), runs](
        parameter,
        gradient.contiguous(),
        velocity,
        rate,
        momentum,
        decay,
        None if frozen is None else frozen.view(torch.int8),
        count,
        BLOCK=BLOCK,
    )


def _check_update(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, ...],
    numbers: tuple[torch.Tensor, ...],
) -> int:
    """The number of runs, if all tensors of an update fit together."""
    assert all(part.shape == parameter.shape for part in (gradient, *moments))
    assert all(part.is_contiguous() for part in (parameter, *moments)), "updated in place"
    assert all(part.shape == parameter.shape[:1] for part in numbers)
    assert all(part.dtype == torch.float32 for part in (parameter, gradient, *moments, *numbers))
    check_size(parameter[0].numel())
    return len(parameter)


@triton.jit  # type: ignore[untyped-decorator]
def _adamw(
    parameter: tl.tensor,
    gradient: tl.tensor,
    first: tl.tensor,
    second: tl.tensor,
    rate: tl.tensor,
    decay: tl.tensor,
    corrections: tl.tensor,
    frozen: tl.tensor,
    count: tl.tensor,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A block of one run's numbers; the order of operations is that of torch.optim.AdamW."""
    run = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    offset, real = run * count + index, index < count
    p = tl.load(parameter + offset, mask=real, other=0.0)
    g = tl.load(gradient + offset, mask=real, other=0.0)
    if frozen is not None:
        g = tl.where(tl.load(frozen + run) != 0, 0.0, g)
    m = tl.load(first + offset, mask=real, other=0.0)
    v = tl.load(second + offset, mask=real, other=0.0)
    r = tl.load(rate + run)
    p = p * (1 - r * tl.load(decay + run))
    m = m + (g - m) * (1 - BETA1)
    v = v * BETA2 + g * g * (1 - BETA2)
    denominator = tl.div_rn(tl.sqrt_rn(v), tl.load(corrections + 1)) + EPSILON
    p = p - tl.div_rn(r, tl.load(corrections)) * tl.div_rn(m, denominator)
    tl.store(parameter + offset, p, mask=real)
    tl.store(first + offset, m, mask=real)
    tl.store(second + offset, v, mask=real)


@triton.jit  # type: ignore[untyped-decorator]
def _sgd(
    parameter: tl.tensor,
    gradient: tl.tensor,
    velocity: tl.tensor,
    rate: tl.tensor,
    momentum: tl.tensor,
    decay: tl.tensor,
    frozen: tl.tensor,
    count: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """A block of one run's numbers."""
    run = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    offset, real = run * count + index, index < count
    g = tl.load(gradient + offset, mask=real, other=0.0)
    if frozen is not None:
        g = tl.where(tl.load(frozen + run) != 0, 0.0, g)
    sgd_step(parameter, velocity, g, rate + run, momentum + run, decay + run, offset, real)


@triton.jit  # type: ignore[untyped-decorator]
def sgd_step(
    parameter: tl.tensor,
    velocity: tl.tensor,
    g: tl.tensor,
    rate: tl.tensor,
    momentum: tl.tensor,
    decay: tl.tensor,
    offset: tl.tensor,
    real: tl.tensor,
) -> None:
    """Steps by the gradient `g` where it is `real`; the order of operations is that of torch.optim.SGD."""
    p = tl.load(parameter + offset, mask=real, other=0.0)
    g = g + tl.load(decay) * p
    if velocity is not None:
        g = tl.load(momentum) * tl.load(velocity + offset, mask=real, other=0.0) + g
        tl.store(velocity + offset, g, mask=real)
    tl.store(parameter + offset, p - tl.load(rate) * g, mask=real)
