"""The GPU's kernels, on a GPU or else through Triton's interpreter, against PyTorch in float64, run by run."""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle

pytest.importorskip("triton")

from sweep.networks.conv import kernels
from sweep.networks.conv.kernels import convolutions, dropouts, gathering, linears, norms, updates
from sweep.space.runs import Run
from sweep.training.device import exact_arithmetic
from sweep.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED_SLOWLY = () if torch.cuda.is_available() else pytest.mark.slow

# Relative errors: rounding of float32; TF32 keeps 11 bits of a factor, bfloat16 8, which the interpreter cuts off where
# a GPU rounds.
TOLERANCE: dict[kernels.Precision, float] = {"float32": 1e-5, "tf32": 2e-3, "bfloat16": 2e-2}


def drawn(*size: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in float32."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.to(memory_format=torch.channels_last)


def assert_close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    """By the norm of the whole: single numbers may cancel."""
    assert found.shape == wanted.shape
    assert float((found.double() - wanted).norm()) <= tolerance * float(wanted.norm()) + 1e-12


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Bit for bit; a NaN is the same as any other."""
    pairs = list(zip(a, b, strict=True))
    return all(
        torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) and torch.equal(x.isnan(), y.isnan()) for x, y in pairs
    )


# Convolution


@dataclass(frozen=True)
class Case:
    """A convolution; a side of pictures is in pixels."""

    runs: int = 2
    pictures: int = 2
    inputs: int = 3
    outputs: int = 5
    height: int = 8
    width: int = 9
    side: int = 3
    stride: int = 1
    relu: bool = True

    def tensors(self) -> list[torch.Tensor]:
        """Pictures, weights, biases and a gradient of the output."""
        out = -(-self.height // self.stride), -(-self.width // self.stride)
        return [
            channels_last(drawn(self.runs * self.pictures, self.inputs, self.height, self.width, seed=1)),
            drawn(self.runs, self.side, self.side, self.inputs, self.outputs, seed=2),
            drawn(self.runs, self.outputs, seed=3),
            channels_last(drawn(self.runs * self.pictures, self.outputs, *out, seed=4)),
        ]

    def computed(self, tensors: list[torch.Tensor], precision: kernels.Precision = "float32") -> list[torch.Tensor]:
        """Output and gradients of weights, biases and pictures, each `[runs, ...]`."""
        x, weight, bias, gradient = tensors
        wanted = [weight.requires_grad_(), bias.requires_grad_(), x.requires_grad_()]
        y = kernels.convolution(x, weight, bias, self.stride, self.relu, precision)
        assert y.is_contiguous(memory_format=torch.channels_last)
        parts = [y.detach(), *torch.autograd.grad(y, wanted, gradient)]
        return [part.unflatten(0, (len(weight), -1)) if part.dim() == 4 else part for part in parts]

    def reference(self, tensors: list[torch.Tensor], y: torch.Tensor, run: int) -> list[torch.Tensor]:
        """The same for one run, in float64. Where ReLU cuts gradients off is taken from `y`: rounding may move zero."""
        x, weight, bias, gradient = (part.detach().double() for part in tensors)
        parts = weight[run], bias[run], x.unflatten(0, (self.runs, -1))[run]
        leaves = [part.clone().requires_grad_() for part in parts]
        wanted = F.conv2d(
            leaves[2], leaves[0].permute(3, 2, 0, 1), leaves[1], stride=self.stride, padding=self.side // 2
        )
        gradient = gradient.unflatten(0, (self.runs, -1))[run]
        if self.relu:
            gradient = gradient * (y[run] > 0)
        gradients = torch.autograd.grad(wanted, leaves, gradient)
        return [(wanted.relu() if self.relu else wanted).detach(), *gradients]

    def check(self, precision: kernels.Precision = "float32") -> None:
        tensors = self.tensors()
        found = self.computed(tensors, precision)
        for run in range(self.runs):
            for part, wanted in zip(found, self.reference(tensors, found[0], run), strict=True):
                assert_close(part[run], wanted, TOLERANCE[precision])


@pytest.mark.parametrize(
    "case",
    [
        # One input, so that the format of the memory cannot be told from the strides.
        Case(inputs=1, outputs=1, side=5, stride=2, height=9),
        Case(inputs=2, outputs=4, side=1, stride=2),
        Case(inputs=3, outputs=2, side=7, relu=False),
        # Taps longer than a picture's side, pictures of one pixel.
        Case(inputs=2, outputs=3, height=2, width=3, side=15, stride=2),
        Case(inputs=2, outputs=3, height=1, width=1, side=3),
        # Blocks within a tap: of 16 and of 32 channels; several tiles of rows and columns.
        Case(inputs=16, outputs=16, height=5, width=5, side=3, stride=2),
        Case(inputs=32, outputs=64, height=4, width=5, side=3, stride=2),
        Case(inputs=64, outputs=32, height=4, width=4, side=1, pictures=5),
        Case(inputs=5, outputs=70, height=4, width=5, side=3),
        Case(inputs=70, outputs=5, height=4, width=5, side=1, stride=2),
    ],
    ids=str,
)
def test_a_convolution_and_its_gradients_are_those_of_pytorch(case: Case) -> None:
    case.check()


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=12)
@given(
    st.builds(
        Case,
        runs=st.integers(1, 3),
        pictures=st.integers(1, 5),
        inputs=st.integers(1, 20),
        outputs=st.integers(1, 20),
        height=st.integers(8, 13),
        width=st.integers(8, 13),
        side=st.sampled_from([1, 3, 5, 7]),
        stride=st.sampled_from([1, 2]),
        relu=st.booleans(),
    )
)
def test_any_convolution_and_its_gradients_are_those_of_pytorch(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("case", [Case(stride=2), Case(inputs=32, outputs=64, height=4, width=4)], ids=str)
def test_coarser_products_are_close(case: Case, precision: kernels.Precision) -> None:
    case.check(precision)


@pytest.mark.parametrize(
    "size",
    [(5, 16, 16), pytest.param((16, 784, 64), marks=INTERPRETED_SLOWLY), (20, 80, 32), (40, 32, 112), (1, 64, 16)],
    ids=str,
)
def test_float32_products_are_as_exact_as_float32_and_tf32_products_those_of_rounded_factors(
    size: tuple[int, int, int],
) -> None:
    pictures, inputs, units = size
    x, weight, gradient = drawn(2, pictures, inputs), drawn(2, inputs, units, seed=1), drawn(2, pictures, units, seed=2)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    bias = drawn(2, units, seed=3).requires_grad_()
    # A GPU cuts the sums of TF32 products off as it adds; TF32 factors that were cut off would be 3e-4 away.
    for precision, to, tolerance in [("float32", lambda part: part, 1e-6), ("tf32", nearest_tf32, 1e-5)]:
        y = kernels.linear(x, weight, bias, False, precision)
        found = [y.detach(), *torch.autograd.grad(y, [x, weight, bias], gradient)]
        a, b, g = (to(part.detach()).double() for part in (x, weight, gradient))
        wanted = [a @ b + bias.detach().double()[:, None], g @ b.mT, a.mT @ g, gradient.double().sum(1)]
        for part, exact in zip(found, wanted, strict=True):
            assert_close(part, exact, tolerance)


def nearest_tf32(x: torch.Tensor) -> torch.Tensor:
    """Rounded to ten bits behind the leading one, by arithmetic: the mantissa is scaled to a whole number."""
    mantissa, exponent = torch.frexp(x.double())
    scaled = mantissa * 2**11
    return torch.ldexp(torch.sign(scaled) * torch.floor(scaled.abs() + 0.5) / 2**11, exponent).float()


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter, of infinity less itself
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_stays_so_in_products(value: float, precision: kernels.Precision) -> None:
    x = drawn(2, 5, 16)
    x[1, 3, 7] = value
    y = kernels.linear(x, drawn(2, 16, 16, seed=1), drawn(2, 16, seed=2), True, precision)
    assert not y[1, 3].isfinite().all() and y[0].isfinite().all() and y[1, :3].isfinite().all()


@pytest.mark.parametrize("side", ["pictures", "weights", "gradient"])
def test_bfloat16_rounds_both_factors_and_float32_neither(side: str) -> None:
    """1 + 2^-12 is a float32, but neither a bfloat16 nor a TF32, where it becomes 1."""
    near = 1 + 2**-12
    case = Case(runs=1, pictures=1, inputs=1, outputs=1, height=1, width=1, side=1, relu=False)
    one = torch.ones(1, 1, 1, 1, device=DEVICE)
    x, weight, gradient = (one * (near if side == name else 1) for name in ("pictures", "weights", "gradient"))
    tensors = [x, weight.view(1, 1, 1, 1, 1), torch.zeros(1, 1, device=DEVICE), gradient]
    for precision, factor in [("bfloat16", 1.0), ("float32", near)]:
        y, weight_gradient, bias_gradient, x_gradient = (float(p) for p in case.computed(tensors, precision))
        assert y == (factor if side in ("pictures", "weights") else 1)
        assert weight_gradient == (factor if side in ("pictures", "gradient") else 1)
        assert x_gradient == (factor if side in ("weights", "gradient") else 1)
        assert bias_gradient == (near if side == "gradient" else 1)  # a sum, not a product


def test_pictures_and_gradients_may_lie_in_memory_in_any_way() -> None:
    case = Case()
    tensors = case.tensors()
    expected = case.computed(tensors)
    tensors[0] = tensors[0].detach().contiguous()
    tensors[3] = tensors[3].contiguous()
    assert same(case.computed(tensors), expected)


@pytest.mark.parametrize(
    ("wanted", "unwanted"), [(0, "_weight_gradient"), (1, "_input_gradient"), (2, "_input_gradient")]
)
def test_gradients_nobody_wants_are_not_computed(wanted: int, unwanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *leaves, gradient = Case().tensors()
    leaves[wanted].requires_grad_()
    y = kernels.convolution(*leaves, 1, True, "float32")
    monkeypatch.setattr(convolutions, unwanted, None)  # whoever calls it fails
    torch.autograd.grad(y, [leaves[wanted]], gradient)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case(pictures=2, inputs=3, outputs=20, height=9), marks=INTERPRETED_SLOWLY),
        Case(pictures=3, inputs=32, outputs=8, side=1),
    ],
    ids=str,
)
def test_split_sums_are_those_of_one_piece(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = case.tensors()
    whole = case.computed(tensors)
    monkeypatch.setattr(convolutions, "SPLIT_PIXELS", 64)  # three parts each; the last are not full
    split = case.computed(tensors)
    for part, wanted in zip(split, whole, strict=True):
        assert_close(part, wanted.double(), 1e-6)
    assert not torch.equal(split[1], whole[1]), "nothing was split: not even the order of sums differs"
    assert same(case.computed(tensors), split)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "side", "pictures"), [(1, 5, 3), (3, 3, 2), (3, 1, 4), (1, 15, 1)])
def test_stored_pictures_are_gathered_scaled_and_convolved_as_pytorch_does(
    channels: int, side: int, pictures: int, stride: int
) -> None:
    case = Case(pictures=pictures, inputs=channels, outputs=7, height=8, width=11, side=side, stride=stride)
    generator = torch.Generator().manual_seed(5)
    stored = torch.randint(0, 256, (6, channels, 8, 11), dtype=torch.uint8, generator=generator).to(DEVICE)
    places = torch.randint(0, 6, (2, pictures), generator=generator).to(DEVICE)
    factor, offset = drawn(2, channels, seed=6), drawn(2, channels, seed=7)
    x = kernels.gathered(stored, places, factor, offset, side // 2)
    seen = stored[places].float() * factor[:, None, :, None, None] + offset[:, None, :, None, None]
    torch.testing.assert_close(x, F.pad(seen.flatten(0, 1), [side // 2] * 4))
    _, weight, bias, gradient = case.tensors()
    leaves = [weight.requires_grad_(), bias.requires_grad_()]
    y = kernels.convolution(x, *leaves, stride, True, "float32", padded=True)
    found = [y.detach().unflatten(0, (2, -1)), *torch.autograd.grad(y, leaves, gradient)]
    for run in range(2):
        wanted = case.reference([seen.flatten(0, 1), weight, bias, gradient], found[0], run)
        for part, exact in zip(found, wanted, strict=False):  # without that of the pictures
            assert_close(part[run], exact)


def test_a_gradient_cut_off_by_the_next_layer_is_the_one_that_the_layer_itself_cuts_off() -> None:
    x, weight, bias, _ = Case(inputs=3, outputs=16, height=4, width=4).tensors()
    later, later_bias = drawn(2, 3, 3, 16, 16, seed=8), drawn(2, 16, seed=9)
    last, last_bias = drawn(2, 64, 16, seed=10), drawn(2, 16, seed=11)
    leaves = [part.requires_grad_() for part in (x, weight, bias, later, later_bias, last, last_bias)]

    def computed(told: bool) -> list[torch.Tensor]:
        y = kernels.convolution(*leaves[:3], 1, True, "float32", masked=told)
        y = kernels.convolution(y, *leaves[3:5], 2, True, "float32", rectified=told, masked=told)
        features = y.permute(0, 2, 3, 1).reshape(2, 2, 64)
        hidden = kernels.linear(features, *leaves[5:], True, "float32", rectified=told, masked=told)
        logits = kernels.linear(hidden, drawn(2, 16, 16, seed=12), last_bias, False, "float32", rectified=told)
        return list(torch.autograd.grad(logits.square().sum(), leaves))

    alone, together = computed(False), computed(True)
    assert same(together, alone) and all(part.any() for part in alone)


def convolved(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return Case(pictures=3, inputs=4, outputs=6, side=3, stride=2).computed(tensors)


def convolution_tensors() -> list[torch.Tensor]:
    return Case(runs=3, pictures=3, inputs=4, outputs=6, side=3, stride=2).tensors()


# Batch norm


def norm_tensors(
    runs: int = 3, pictures: int = 2, channels: int = 5, height: int = 4, width: int = 5
) -> list[torch.Tensor]:
    """Activations far from zero, weights, biases, running means and variances, and a gradient of the output."""
    return [
        channels_last(3 + 2 * drawn(runs * pictures, channels, height, width, seed=1)),
        *(drawn(runs, channels, seed=seed) for seed in (2, 3, 4)),
        drawn(runs, channels, seed=5).abs(),
        channels_last(drawn(runs * pictures, channels, height, width, seed=6)),
    ]


def normalized(tensors: list[torch.Tensor], training: bool = True, relu: bool = True) -> list[torch.Tensor]:
    """Output, running statistics and the gradients of activations, weights and biases, each `[runs, ...]`."""
    x, weight, bias, mean, variance, gradient = (part.detach().clone() for part in tensors)
    leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    y = kernels.batch_norm(x, weight, bias, mean, variance, len(weight), training, relu)
    assert y.is_contiguous(memory_format=torch.channels_last)
    parts = [y.detach(), mean, variance, *torch.autograd.grad(y, leaves, gradient)]
    return [part.unflatten(0, (len(weight), -1)) if part.dim() == 4 else part for part in parts]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "size", [(2, 3, 5, 4, 5), (1, 1, 1, 1, 2), (2, 5, 1, 9, 13), (3, 2, 20, 3, 3), (1, 6, 9, 13, 11)]
)
def test_batch_norm_its_gradients_and_its_statistics_are_those_of_pytorch(
    size: tuple[int, int, int, int, int], training: bool, relu: bool
) -> None:
    tensors = norm_tensors(*size)
    found = normalized(tensors, training, relu)
    for run in range(size[0]):
        x, gradient = (tensors[i].unflatten(0, (size[0], -1))[run].double() for i in (0, 5))
        weight, bias, mean, variance = (part[run].double() for part in tensors[1:5])
        leaves = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
        y = F.batch_norm(x, mean, variance, weight, bias, training=training)
        gradient = gradient * (found[0][run] > 0) if relu else gradient
        gradients = torch.autograd.grad(y, leaves, gradient)
        expected = [y.relu() if relu else y, mean, variance, *gradients]
        for index, (part, wanted) in enumerate(zip(found, expected, strict=True)):
            # Two numbers normalize to 1 and -1 whatever they are: the gradient that is left of them is rounding.
            if not (index == 3 and training and size[1:] == (1, 1, 1, 2)):
                assert_close(part[run], wanted.detach())


def test_batch_norm_in_training_refuses_a_single_number_as_pytorch_does() -> None:
    tensors = norm_tensors(runs=2, pictures=1, height=1, width=1)
    with pytest.raises(ValueError, match="more than one"):
        normalized(tensors)
    normalized(tensors, training=False)


# Dropout


def hashed(state: int, count: int) -> np.ndarray:
    """lowbias32 (Chris Wellons) of `count` positions, as signed numbers."""
    with np.errstate(over="ignore"):
        h = np.uint32(state & 0xFFFFFFFF) + np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9)
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x7FEB352D)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x846CA68B)
        h ^= h >> np.uint32(16)
    return h.view(np.int32)


STATES = [0, 123456789, -5]
SHARES = [0.5, 0.75, 0.0]  # of numbers dropped


def dropout_numbers() -> list[torch.Tensor]:
    """States, thresholds and scales of three runs."""
    thresholds = [int(share * 2**32) - 2**31 for share in SHARES]
    return [
        torch.tensor(STATES, dtype=torch.int32, device=DEVICE),
        torch.tensor(thresholds, dtype=torch.int32, device=DEVICE),
        torch.tensor([1 / (1 - share) for share in SHARES], device=DEVICE),
    ]


def in_memory(x: torch.Tensor) -> torch.Tensor:
    """`[runs, numbers]` of three runs, in the order of memory."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(3, -1)


@pytest.mark.parametrize("size", [(6, 5, 7, 9), (3, 2, 700), (6, 1, 5, 6), (3, 1, 3)])
def test_dropout_keeps_and_scales_what_the_hash_says_and_so_does_its_gradient(size: tuple[int, ...]) -> None:
    x, gradient = drawn(*size, seed=1).requires_grad_(), drawn(*size, seed=2)
    state, threshold, scale = dropout_numbers()
    y = kernels.dropout(x, state, threshold, scale, 3)
    (x_gradient,) = torch.autograd.grad(y, [x], gradient)
    assert y.shape == x.shape
    for found, source in ((y, x), (x_gradient, gradient)):
        values, sources = in_memory(found.detach()).cpu().numpy(), in_memory(source.detach()).cpu().numpy()
        for run in range(3):
            kept = hashed(STATES[run], values.shape[1]) >= int(threshold[run])
            assert np.array_equal(values[run] != 0, kept)
            wanted = sources[run] * np.float32(scale[run].item())
            assert np.array_equal(values[run], np.where(kept, wanted, 0))


def test_dropout_keeps_the_share_it_should_in_another_pattern_at_every_state() -> None:
    count, runs = 4000, 8
    states = torch.arange(runs, dtype=torch.int32, device=DEVICE)
    thresholds = torch.full((runs,), int(0.3 * 2**32) - 2**31, dtype=torch.int32, device=DEVICE)
    kept = kernels.dropout(
        torch.ones(runs, 1, count, device=DEVICE), states, thresholds, torch.ones(runs, device=DEVICE), runs
    )
    spread = (0.7 * 0.3 / count) ** 0.5
    assert ((kept.mean((1, 2)) - 0.7).abs() < 4 * spread).all()
    # Runs agree by chance alone: in 0.7² + 0.3² of the places.
    for a, b in itertools.combinations(kept.flatten(1), 2):
        assert abs(float((a == b).float().mean()) - 0.58) < 4 * (0.58 * 0.42 / count) ** 0.5


# Optimizers

UPDATES = ["adamw", "sgd", "sgd without momentum"]


def update_tensors() -> list[torch.Tensor]:
    """Parameters, their gradients at three steps, and rates, decays and momenta of three runs."""
    return [
        *(drawn(3, 5, 7, 31, seed=seed) for seed in range(4)),
        torch.tensor([0.1, 0.003, 0.02], device=DEVICE),
        torch.tensor([0.0, 0.3, 0.01], device=DEVICE),
        torch.tensor([0.9, 0.0, 0.5], device=DEVICE),
    ]


def updated(rule: str, tensors: list[torch.Tensor], frozen: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Parameters, then moments, after a step on each gradient."""
    parameter, *gradients, rate, decay, momentum = (part.clone() for part in tensors)
    moments = [torch.zeros_like(parameter) for _ in range({"adamw": 2, "sgd": 1}.get(rule, 0))]
    for step, gradient in enumerate(gradients, 1):
        if rule == "adamw":
            corrections = torch.tensor([1 - 0.9**step, (1 - 0.999**step) ** 0.5], device=DEVICE)
            kernels.adamw(parameter, gradient, *moments, rate, decay, corrections, frozen)
        else:
            kernels.sgd(parameter, gradient, *(moments or [None]), rate, momentum, decay, frozen)
    return [parameter, *moments]


@pytest.mark.parametrize("frozen", [None, torch.bool, torch.int8])
@pytest.mark.parametrize("rule", UPDATES)
def test_updates_are_those_of_pytorchs_optimizers(rule: str, frozen: torch.dtype | None) -> None:
    tensors = update_tensors()
    mask = None if frozen is None else torch.tensor([0, 1, 0], device=DEVICE).to(frozen)
    found = updated(rule, tensors, mask)
    start, *gradients, rates, decays, momenta = tensors
    for run in range(3):
        parameter = torch.nn.Parameter(start[run].double())
        rate, decay, momentum = (float(part[run]) for part in (rates, decays, momenta))
        optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW([parameter], lr=rate, weight_decay=decay)
            if rule == "adamw"
            else torch.optim.SGD([parameter], rate, momentum if rule == "sgd" else 0, weight_decay=decay)
        )
        for gradient in gradients:
            parameter.grad = gradient[run].double() * (0 if frozen and run == 1 else 1)
            optimizer.step()
        state: dict[str, Any] = optimizer.state[parameter]
        moments = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}.get(rule, ())
        expected = [parameter.detach(), *(state.get(name) for name in moments)]
        for part, wanted in zip(found, expected, strict=True):
            # Momentum 0: PyTorch keeps no velocity then, the kernel the last step's gradient.
            if wanted is not None:
                assert_close(part[run], wanted, 4e-7)  # the least step is 1e-3 of the parameters


# Linear layers


def linear_tensors(pictures: int = 5, inputs: int = 48, units: int = 32) -> list[torch.Tensor]:
    """Inputs, weights, biases, a gradient, velocities, rates, momenta and decays of three runs."""
    return [
        drawn(3, pictures, inputs, seed=1),
        drawn(3, inputs, units, seed=2),
        drawn(3, units, seed=3),
        drawn(3, pictures, units, seed=4),
        drawn(3, inputs, units, seed=5),
        torch.tensor([0.1, 0.003, 0.02], device=DEVICE),
        torch.tensor([0.9, 0.0, 0.5], device=DEVICE),
        torch.tensor([0.0, 0.3, 0.01], device=DEVICE),
    ]


def stepped(tensors: list[torch.Tensor], velocity: bool = True) -> list[torch.Tensor]:
    """Output, gradients of inputs and biases, and weights and velocities after the step."""
    x, weight, bias, gradient, moment, *numbers = (part.detach().clone() for part in tensors)
    leaves = [x.requires_grad_(), bias.requires_grad_()]
    step = kernels.SgdStep(moment if velocity else None, *numbers)
    y = kernels.linear(x, weight.requires_grad_(), bias, True, "float32", step=step)
    return [y.detach(), *torch.autograd.grad(y, leaves, gradient), weight.detach(), moment]


@pytest.mark.parametrize("velocity", [True, False])
@pytest.mark.parametrize("size", [(5, 48, 32), (16, 64, 16), (33, 16, 80)], ids=str)
def test_a_step_taken_in_the_backward_pass_is_the_one_that_is_taken_after_it(
    size: tuple[int, int, int], velocity: bool
) -> None:
    tensors = linear_tensors(*size)
    y, x_gradient, bias_gradient, weight, moment = stepped(tensors, velocity)
    leaves = [part.detach().clone().requires_grad_() for part in tensors[:3]]
    expected = kernels.linear(*leaves, True, "float32")
    gradients = torch.autograd.grad(expected, leaves, tensors[3])
    assert same([y, x_gradient, bias_gradient], [expected.detach(), gradients[0], gradients[2]])
    wanted, wanted_moment = tensors[1].clone(), tensors[4].clone()
    kernels.sgd(wanted, gradients[1], wanted_moment if velocity else None, *tensors[5:])
    assert_close(weight, wanted.double(), 1e-7)  # a GPU may round the last product and sum once or twice
    assert_close(moment, wanted_moment.double(), 1e-7)
    assert not torch.equal(weight, tensors[1]) and torch.equal(moment, tensors[4]) == (not velocity)


# Runs by themselves


def dropped(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    x, gradient, *numbers = tensors
    x = x.detach().clone().requires_grad_()
    y = kernels.dropout(x, *numbers, len(numbers[0]))
    return [part.unflatten(0, (len(numbers[0]), -1)) for part in (y.detach(), *torch.autograd.grad(y, [x], gradient))]


def dropout_tensors() -> list[torch.Tensor]:
    return [drawn(6, 5, 7, 9, seed=1), drawn(6, 5, 7, 9, seed=2), *dropout_numbers()]


Computation = Callable[[list[torch.Tensor]], list[torch.Tensor]]
COMPUTATIONS: dict[str, tuple[Computation, Callable[[], list[torch.Tensor]]]] = {
    "convolution": (convolved, convolution_tensors),
    "batch norm": (normalized, norm_tensors),
    "dropout": (dropped, dropout_tensors),
    "linear layer": (stepped, linear_tensors),
    **{rule: (lambda tensors, rule=rule: updated(rule, tensors), update_tensors) for rule in UPDATES},
}


def chosen(tensors: list[torch.Tensor], runs: list[int]) -> list[torch.Tensor]:
    """The tensors of these of three runs, in this order."""
    return [part.detach().unflatten(0, (3, -1))[runs].flatten(0, 1) for part in tensors]


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_a_runs_bits_depend_on_neither_its_neighbours_nor_its_slot(name: str) -> None:
    compute, make = COMPUTATIONS[name]
    together = compute(make())
    for runs in ([2], [1, 0], [2, 2, 0, 1]):
        assert same(compute(chosen(make(), runs)), [part[runs] for part in together]), runs


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_the_same_call_gives_the_same_bits(name: str) -> None:
    compute, make = COMPUTATIONS[name]
    tensors = make()
    assert same(compute(tensors), compute(tensors))


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_a_run_that_diverged_stays_so_and_leaves_the_others_alone(name: str) -> None:
    compute, make = COMPUTATIONS[name]
    healthy = compute(make())
    tensors = make()
    with torch.no_grad():
        tensors[0].unflatten(0, (3, -1))[1] = float("nan")
    ill = compute(tensors)
    assert same([part[[0, 2]] for part in ill], [part[[0, 2]] for part in healthy])
    assert ill[0][1].isnan().any() and not ill[0][[0, 2]].isnan().any()


class Grids:
    """Stands for a kernel: keeps the grids that it is launched with, and launches nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.seen.append(grid)
        return lambda *arguments, **constants: None


def test_no_grid_of_the_largest_arrays_is_larger_than_cuda_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    grids = {name: Grids() for names in LAUNCHED.values() for name in names}
    for module, names in LAUNCHED.items():
        for name in names:
            monkeypatch.setattr(module, name, grids[name])
    runs, pictures = 4096, 1024

    def numbers(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta", requires_grad=dtype == torch.float32)

    scale, state = numbers(runs, 3).detach(), numbers(runs, dtype=torch.int32)
    stored, places = numbers(9, 3, 32, 32, dtype=torch.uint8), numbers(runs, pictures, dtype=torch.int64)
    kernels.gathered(stored, places, scale, scale, 2)
    y = kernels.convolution(
        numbers(runs * pictures, 3, 32, 32), numbers(runs, 5, 5, 3, 64), numbers(runs, 64), 1, True, "float32"
    )
    y = kernels.batch_norm(
        y, *(numbers(runs, 64) for _ in range(2)), *2 * [numbers(runs, 64).detach()], runs, True, True
    )
    y = kernels.dropout(y, state, state, numbers(runs).detach(), runs)
    y.sum().backward()
    wide = numbers(runs, 2**16, 1024)
    step = kernels.SgdStep(None, *3 * [numbers(runs).detach()])
    kernels.linear(
        numbers(runs, pictures, 2**16), wide, numbers(runs, 1024), True, "float32", step=step
    ).sum().backward()
    weight = wide.detach()
    rates = numbers(runs).detach()
    kernels.sgd(weight, weight, None, rates, rates, rates)
    kernels.adamw(weight, weight, weight, weight, rates, rates, numbers(2).detach())
    for name, each in grids.items():
        assert each.seen, f"{name} was not launched"
        for x, *others in each.seen:
            assert x < 2**31 and all(size < 2**16 for size in others), name


LAUNCHED = {
    gathering: ["_gather"],
    convolutions: ["_convolution_forward", "_convolution_input", "_convolution_weight", "_add_parts"],
    linears: ["_linear_forward", "_linear_input", "_linear_weight"],
    norms: ["_norm_forward", "_norm_backward"],
    dropouts: ["_drop"],
    updates: ["_adamw", "_sgd"],
}
"""The kernels of every module, without what they call."""


# Whole networks


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"batch_norm": True, "dropout": 0.3, "optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine"},
            marks=INTERPRETED_SLOWLY,
        ),
        pytest.param(
            {"momentum": 0.9, "weight_decay": 0.1, "activation": "tanh", "pooling": "max"}, marks=INTERPRETED_SLOWLY
        ),
        pytest.param(
            {"protocol": "shared_weights", "bias_layers": "all", "bias_init": "original"}, marks=INTERPRETED_SLOWLY
        ),
        {"hidden": 0, "depth": 1, "width": 16},
        # Nothing to pad: what is transposed would stay so.
        pytest.param({"width": 16, "hidden": 64, "steps": 2, "batch_size": 2}, marks=INTERPRETED_SLOWLY),
    ],
    ids=str,
)
def test_a_network_trained_by_the_kernels_is_the_plain_one(settings: dict[str, Any]) -> None:
    common = Run(width=3, hidden=5, kernel_size=3, batch_size=4, steps=3, learning_rate=0.01)
    common = dataclasses.replace(common, **settings)
    runs = [dataclasses.replace(common, bias=bias, seed=seed) for seed in (0, 1) for bias in (True, False)]
    data = oracle.synthetic(channels=2, held_out=5)
    trainer, start = (Trainer(runs, data, device=DEVICE, method="triton") for _ in range(2))
    with exact_arithmetic():
        for _ in range(common.steps):
            trainer.step()
    for slot, run in enumerate(trainer.assignment.networks):
        found, before = oracle.fused(trainer, slot), oracle.fused(start, slot)
        shared = common.protocol == "shared_weights"
        alone = oracle.train_shared(run, data)[0] if shared else oracle.train(run, data)
        for name, wanted in alone.state().items():
            if run.batch_norm and ((name.startswith("conv") and name.endswith("bias")) or name.endswith("mean")):
                continue  # batch norm takes a bias away: its gradient is rounding alone, which AdamW blows up
            moved = wanted - before[name].detach().cpu()
            assert_close(found[name].cpu() - before[name].detach().cpu(), moved, 1e-3)
    right, loss = trainer.evaluator.evaluate(*trainer.data.test)
    assert right.shape == (4, len(data.test[1])) and np.isfinite(loss).all()


def test_the_kernels_round_to_bfloat16_what_the_other_methods_round() -> None:
    run = Run(width=4, hidden=5, kernel_size=3, batch_size=4, steps=1, learning_rate=1.0)
    data, moved = oracle.synthetic(), {}
    for precision in ("float32", "bfloat16"):
        for method in ("triton", "grouped"):
            chosen = dataclasses.replace(run, precision=precision)
            trainer, start = (Trainer([chosen], data, device=DEVICE, method=method) for _ in range(2))
            with exact_arithmetic(precision):
                trainer.step()
            after, before = oracle.fused(trainer, 0), oracle.fused(start, 0)
            moved[precision, method] = torch.cat([(after[name] - before[name]).flatten() for name in after])
    exact = moved["float32", "grouped"]
    assert float((moved["float32", "triton"] - exact).norm()) < 1e-4 * float(exact.norm())
    for method in ("triton", "grouped"):
        assert 1e-3 < float((moved["bfloat16", method] - exact).norm() / exact.norm()) < 5e-2
