"""The network's shape, its size and arithmetic, and where it starts from."""

import dataclasses
import itertools

import pytest
import torch
from support import oracle
from torch.utils.flop_counter import FlopCounterMode

from sweep.data.splits import Data
from sweep.networks.conv import model
from sweep.networks.conv.backends import Grouped, Im2col, Method, Pictures
from sweep.networks.conv.shape import Shape
from sweep.space.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")

GREY, COLOUR = oracle.synthetic(), oracle.synthetic(channels=3, height=13, width=10, classes=10)
NETWORKS = [
    Run(depth=depth, width=width, batch_norm=batch_norm, hidden=hidden, kernel_size=kernel_size, pooling=pooling)
    for (depth, pooling), (width, hidden, kernel_size), batch_norm in itertools.product(
        ((1, "stride"), (2, "max"), (3, "average"), (3, "none"), (4, "stride")),
        ((1, 64, 5), (3, 0, 3), (8, 5, 1)),
        (False, True),
    )
]


def shape_of(run: Run, data: Data) -> Shape:
    return Shape.of(run, data.picture_shape, data.classes)


def start(*runs: Run, data: Data = GREY) -> model.Tensors:
    parameters, _ = model.initial(runs, shape_of(runs[0], data), dtype=torch.float64)
    return parameters


# Size and arithmetic


@pytest.mark.parametrize("data", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("bias_layers", ["conv", "first_conv", "later_conv", "all"])
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_counted_as_the_plain_network_has_them(bias: bool, bias_layers: str, data: Data) -> None:
    for network in NETWORKS:
        run = dataclasses.replace(network, bias=bias, bias_layers=bias_layers)
        plain = oracle.network(run, data)
        assert shape_of(run, data).parameter_count(bias) == sum(p.numel() for p in plain.parameters()), run


@pytest.mark.parametrize("data", [GREY, COLOUR], ids=["grey", "colour"])
def test_sizes_are_those_that_the_plain_network_s_layers_put_out(data: Data) -> None:
    for run in NETWORKS:
        x, sizes = oracle.inputs(run, data, data.test[0][:2]), []
        for name, layer in oracle.network(run, data).eval().named_children():
            if name == "flatten":
                break
            x = layer(x)
            if name.startswith("conv"):
                sizes.append(tuple(x.shape[2:]))
        assert shape_of(run, data).sizes == (*sizes, tuple(x.shape[2:])), run


@pytest.mark.parametrize("data", [GREY, COLOUR], ids=["grey", "colour"])
def test_flops_are_counted_as_pytorch_counts_them(data: Data) -> None:
    for run in NETWORKS:
        plain = oracle.network(run, data).eval()
        with FlopCounterMode(display=False) as counted:
            plain(oracle.inputs(run, data, data.test[0][:1]))
        assert shape_of(run, data).forward_flops() == counted.get_total_flops(), run


def test_the_default_network_on_mnist_has_this_size() -> None:
    shape = Shape.of(Run(), (1, 28, 28), 10)
    # Convolutions of 16 x 25 and 16 x 400 weights onto 14 x 14 and 7 x 7 pixels, then 784 to 64 to 10.
    assert shape.parameter_count(True) == 400 + 16 + 6400 + 16 + 50176 + 64 + 640 + 10
    assert shape.parameter_count(True) - shape.parameter_count(False) == 32
    assert shape.forward_flops() == 2 * (400 * 196 + 6400 * 49 + 50176 + 640)


# The layers


def test_parameters_have_the_names_that_checkpoints_know_and_the_sizes_of_the_plain_network_s() -> None:
    for run in NETWORKS:
        shape = shape_of(run, COLOUR)
        named = {name: size for layer in shape.layers for name, size in layer.parameters.items()}
        plain = oracle.network(run, COLOUR).named_parameters()
        assert named == {name: tuple(parameter.shape) for name, parameter in plain}, run
        assert named.keys() == start(run, data=COLOUR).keys()


@pytest.mark.parametrize(
    ("bias_layers", "treated"),
    [
        ("conv", ["conv0.bias", "conv1.bias", "conv2.bias"]),
        ("first_conv", ["conv0.bias"]),
        ("later_conv", ["conv1.bias", "conv2.bias"]),
        ("all", ["conv0.bias", "conv1.bias", "conv2.bias", "hidden.bias", "logits.bias"]),
    ],
)
def test_the_arm_without_bias_goes_without_those_of_the_layers_that_bias_layers_names(
    bias_layers: str, treated: list[str]
) -> None:
    shape = shape_of(Run(depth=3, batch_norm=True, bias_layers=bias_layers), GREY)
    assert list(shape.treated) == treated


def test_weights_of_convolutions_and_linear_layers_decay_and_nothing_else() -> None:
    assert shape_of(Run(batch_norm=True), GREY).decayed == (
        "conv0.weight",
        "conv1.weight",
        "hidden.weight",
        "logits.weight",
    )
    assert shape_of(Run(depth=1, hidden=0), GREY).decayed == ("conv0.weight", "logits.weight")


def test_every_activation_drops_out_but_the_logits() -> None:
    assert shape_of(Run(dropout=0.1), GREY).dropping == ("conv0", "conv1", "hidden")
    assert shape_of(Run(dropout=0.1, hidden=0), GREY).dropping == ("conv0", "conv1")
    assert shape_of(Run(), GREY).dropping == ()


# The start


def test_a_pair_starts_from_equal_weights_whatever_the_rest_of_its_array_is() -> None:
    for run in NETWORKS:
        pair = [dataclasses.replace(run, bias=bias, bias_init="uniform", seed=3) for bias in (True, False)]
        parameters = start(dataclasses.replace(run, seed=9), *pair)
        for name, value in parameters.items():
            treated = name.startswith("conv") and name.endswith(".bias")
            assert torch.equal(value[1], value[2]) != treated, name
            if name.endswith("weight") and not name.startswith("norm"):
                assert not torch.equal(value[0], value[1])


@pytest.mark.parametrize("weight_init", ["he", "truncated_normal", "uniform"])
@pytest.mark.parametrize("bias_init", ["zeros", "uniform", "original"])
def test_every_network_starts_where_the_plain_one_does(weight_init: str, bias_init: str) -> None:
    for plan in NETWORKS:
        run = dataclasses.replace(plan, weight_init=weight_init, bias_init=bias_init, seed=2)
        trainer = oracle.Trainer([dataclasses.replace(run, seed=1), run], COLOUR, dtype=torch.float64)
        fused, plain = oracle.fused(trainer, 1), oracle.network(run, COLOUR).state_dict()
        for name, value in fused.items():
            torch.testing.assert_close(value.detach(), plain[name], rtol=1e-15, atol=0)


def test_layers_draw_from_streams_of_their_own() -> None:
    parameters = start(Run(depth=4, width=8, bias_init="uniform"))
    for one, other in itertools.combinations(["conv1", "conv2", "conv3"], 2):
        assert not torch.equal(parameters[f"{one}.weight"], parameters[f"{other}.weight"])
        assert not torch.equal(parameters[f"{one}.bias"], parameters[f"{other}.bias"])


@pytest.mark.parametrize(
    ("weight_init", "deviation", "largest"),
    # fan-in 8 x 25: sqrt(2 / 200); a normal cut at 2 sigma keeps 0.8796 of its deviation; 1 / sqrt(200), over sqrt(3).
    [("he", 0.1, 0.6), ("truncated_normal", 0.08796, 0.2), ("uniform", 0.040825, 0.070711)],
)
def test_starting_weights_have_the_spread_that_their_name_says(
    weight_init: str, deviation: float, largest: float
) -> None:
    weights = start(*[Run(width=8, weight_init=weight_init, seed=seed) for seed in range(40)])["conv1.weight"]
    assert weights.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(weights.mean().item()) < 5 * deviation / weights.numel() ** 0.5
    assert largest * 0.6 < weights.abs().max().item() <= largest


def test_the_original_biases_are_zero_in_the_first_convolution_and_one_elsewhere() -> None:
    parameters = start(Run(depth=3, bias_init="original"))
    firsts = {name: value.unique().tolist() for name, value in parameters.items() if name.endswith("bias")}
    assert firsts["conv0.bias"] == [0.0] and firsts["conv1.bias"] == firsts["conv2.bias"] == [1.0]
    # Four classes in sixteen padded places, 64 hidden units in 64.
    assert firsts["hidden.bias"] == [1.0] and firsts["logits.bias"] == [0.0, 1.0]
    assert parameters["logits.bias"].sum() == GREY.classes


# The pass


@pytest.mark.parametrize("method", [Grouped(), Im2col()], ids=["grouped", "im2col"])
def test_the_logits_are_those_of_the_plain_network(method: Method) -> None:
    runs = [Run(width=3, depth=3, seed=seed, bias_init="uniform", input_scaling="unit") for seed in range(3)]
    shape = shape_of(runs[0], COLOUR)
    parameters, statistics = model.initial(runs, shape, method, torch.float64)
    logits = model.forward(shape, method, parameters, statistics, seen(3), False)
    for slot, run in enumerate(runs):
        expected = oracle.network(run, COLOUR).eval()(oracle.inputs(run, COLOUR, COLOUR.test[0]))
        torch.testing.assert_close(logits[slot], expected.detach(), rtol=1e-10, atol=1e-12)


def test_pictures_that_all_runs_share_give_the_logits_of_pictures_repeated() -> None:
    runs = [Run(width=3, depth=3, seed=seed, bias_init="uniform") for seed in range(3)]
    shape, method = shape_of(runs[0], COLOUR), Grouped()
    parameters, statistics = model.initial(runs, shape, method, torch.float64)
    one, each = (model.forward(shape, method, parameters, statistics, seen(rows), False) for rows in (1, 3))
    torch.testing.assert_close(one, each, rtol=1e-10, atol=1e-12)


def seen(rows: int) -> Pictures:
    """All test pictures, in 0 ... 1, in so many rows."""
    stored = torch.from_numpy(COLOUR.test[0])
    scale = torch.full((rows, stored.shape[1]), 1 / 255, dtype=torch.float64)
    return Pictures(stored, torch.arange(len(stored)).expand(rows, -1), scale, 0 * scale)


@pytest.mark.parametrize("method", [Grouped(), Im2col()], ids=["grouped", "im2col"])
def test_activations_are_split_into_runs_and_joined_again(method: Method) -> None:
    runs, pictures, height, width, channels = 3, 2, 5, 4, 7
    x = torch.arange(runs * pictures * height * width * channels).view(runs, pictures, height, width, channels)
    joined = method.join(x)
    assert joined.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(method.split(joined, runs), x)
    shape = (runs * pictures, channels) if method.runs_first else (pictures, runs * channels)
    assert joined.shape == (*shape, height, width)


def test_features_keep_the_runs_apart_and_pad_with_zeros() -> None:
    runs, pictures, height, width, channels = 3, 2, 2, 3, 5
    x = torch.arange(1, runs * pictures * height * width * channels + 1).view(runs, pictures, height, width, channels)
    flat = model.features(x)
    assert flat.shape == (runs, pictures, 32)
    assert not flat[..., channels * height * width :].any()
    assert torch.equal(flat[..., : channels * height * width].view_as(x), x)
