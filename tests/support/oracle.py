"""The oracle: the network in plain `torch.nn`, trained by `torch.optim`, one run at a time, fused with nothing.

It shares the random streams and the order of the pictures with the trainer, but no other line of code.
"""

import dataclasses
import math
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from sweep.common import random_streams
from sweep.data.pool import Pool
from sweep.data.splits import Data, Split, batches
from sweep.space.runs import Run
from sweep.training.trainer import Trainer

State = dict[str, torch.Tensor]


@dataclasses.dataclass
class Trained:
    """A run trained by the oracle: its network and the minibatch loss of every step."""

    network: nn.Sequential
    losses: list[float]

    def state(self) -> State:
        """Parameters and running statistics by name; a bias that the network lacks is zero."""
        state = {name: value.clone() for name, value in self.network.state_dict().items()}
        for name, layer in self.network.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is None:
                state[f"{name}.bias"] = torch.zeros_like(layer.weight.flatten(1)[:, 0]).detach()
        return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def synthetic(
    channels: int = 1, height: int = 8, width: int = 8, classes: int = 4, examples: int = 90, held_out: int = 37
) -> Data:
    """Random pictures with random labels; the mean and the contrast differ between channels."""
    random = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        top = np.array([256, 100, 30])[:channels, None, None]
        pictures = random.integers(0, top, (count, channels, height, width)).astype(np.uint8)
        return pictures, random.integers(0, classes, count)

    parts = [part(count) for count in (examples, held_out, held_out)]
    pictures, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    places = np.split(np.arange(len(labels)), [examples, examples + held_out])
    return Data("synthetic", Pool(pictures, labels, tuple(map(str, range(classes)))), Split(*places))


ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "identity": nn.Identity,
}


class HashedDropout(nn.Module):
    """Dropout whose masks are hashed from the run's seed, by NumPy: one mask per step, in order.

    Units are counted in the order picture, row, column, channel; those of a linear layer as if padded to 16.
    """

    def __init__(self, run: Run, layer: str) -> None:
        super().__init__()
        self.rate, self.states = run.dropout, random_streams.dropout_states(run.seed, layer, 0, run.steps)
        self.step = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        mask = self.mask(tuple(x.shape), self.step)
        self.step += 1
        return x * torch.from_numpy(mask).to(x.dtype) / (1 - self.rate)

    def mask(self, shape: tuple[int, ...], step: int) -> np.ndarray:
        pictures, channels, *size = shape
        padded = (pictures, *size, channels) if size else (pictures, -(-channels // 16) * 16)
        counters = np.arange(math.prod(padded), dtype=np.uint32) * np.uint32(0x9E3779B9)
        hashes = random_streams.mix(counters + self.states[step]).view(np.int32).reshape(padded)
        kept = hashes >= round(self.rate * 2**32) - 2**31
        return kept.transpose(0, 3, 1, 2) if size else kept[:, :channels]


def has_bias(run: Run, layer: str) -> bool:
    touched = {
        "conv": layer.startswith("conv"),
        "first_conv": layer == "conv0",
        "later_conv": layer.startswith("conv") and layer != "conv0",
        "all": True,
    }
    return run.bias or not touched[run.bias_layers]


def network(run: Run, data: Data, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """The untrained network of `run`."""
    channels = data.picture_shape[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def after(i: int | str, layer: str) -> None:
        layers[f"{run.activation}{i}"] = ACTIVATIONS[run.activation]()
        if i in (0, 1) and run.pooling in ("max", "average"):
            layers[f"pool{i}"] = (nn.MaxPool2d if run.pooling == "max" else nn.AvgPool2d)(2)
        if run.dropout:
            layers[f"dropout{i}"] = HashedDropout(run, layer)

    for i in range(run.depth):
        inputs = channels if i == 0 else run.width
        stride = 2 if i < 2 and run.pooling == "stride" else 1
        layers[f"conv{i}"] = nn.Conv2d(
            inputs,
            run.width,
            run.kernel_size,
            stride,
            padding=(run.kernel_size - 1) // 2,
            bias=has_bias(run, f"conv{i}"),
        )
        if run.batch_norm:
            layers[f"norm{i}"] = nn.BatchNorm2d(run.width)
        after(i, f"conv{i}")
    layers["flatten"] = nn.Flatten()
    with torch.no_grad():
        inputs = nn.Sequential(layers).eval()(torch.zeros(1, *data.picture_shape)).shape[1]
    if run.hidden:
        layers["hidden"] = nn.Linear(inputs, run.hidden, bias=has_bias(run, "hidden"))
        after("", "hidden")
    layers["logits"] = nn.Linear(run.hidden or inputs, data.classes, bias=has_bias(run, "logits"))
    return _start(run, nn.Sequential(layers).to(dtype).train())


def inputs(run: Run, data: Data, pictures: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Pictures as `run` sees them, `[n, channels, height, width]`."""
    scaled = pictures / 255.0
    if run.input_scaling == "centered":
        scaled = scaled - 0.5
    if run.input_scaling == "standardized":
        train = data.train[0][: run.train_examples] / 255.0
        each_channel = {"axis": (0, 2, 3), "keepdims": True}
        scaled = (scaled - train.mean(**each_channel)) / train.std(**each_channel)
    return torch.from_numpy(scaled).to(dtype)


def optimizer(run: Run, net: nn.Sequential) -> torch.optim.Optimizer:
    """`torch.optim`'s, with weight decay of the weights of convolutions and linear layers alone."""
    weights = [layer.weight for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    chosen = {id(weight) for weight in weights}
    others = [parameter for parameter in net.parameters() if id(parameter) not in chosen]
    groups = [{"params": weights, "weight_decay": run.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if run.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=run.learning_rate)
    return torch.optim.SGD(groups, lr=run.learning_rate, momentum=run.momentum)


def train(run: Run, data: Data, dtype: torch.dtype = torch.float64) -> Trained:
    """Trains `run` to its end."""
    net = network(run, data, dtype)
    stepper = optimizer(run, net)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=run.steps)
    losses = []
    examples = run.train_examples or len(data.train[1])
    for chosen in batches(run.seed, examples, run.batch_size, 0, run.steps):
        logits = net(inputs(run, data, data.train[0][chosen], dtype))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(data.train[1][chosen]))
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        if run.schedule == "cosine":
            schedule.step()
        losses.append(loss.item())
    return Trained(net, losses)


def train_shared(run: Run, data: Data, dtype: torch.dtype = torch.float64) -> tuple[Trained, Trained]:
    """Trains one set of weights by both arms, which take turns on each batch; the arm with bias comes first.

    The arm without bias is a network of its own whose weights are the very parameters of the other's.
    """
    arms = [dataclasses.replace(run, bias=bias) for bias in (True, False)]
    nets = [network(arm, data, dtype) for arm in arms]
    for mine, other in zip(*nets, strict=True):
        for name in ("weight", "bias", "running_mean", "running_var"):
            if getattr(other, name, None) is not None:
                setattr(other, name, getattr(mine, name))
    stepper = optimizer(run, nets[0])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=run.steps)
    losses: tuple[list[float], list[float]] = ([], [])
    for chosen in batches(run.seed, len(data.train[1]), run.batch_size, 0, run.steps):
        for net, mine in zip(nets, losses, strict=True):
            logits = net(inputs(run, data, data.train[0][chosen], dtype))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(data.train[1][chosen]))
            stepper.zero_grad(set_to_none=True)  # without a gradient it is not in this arm: left alone
            loss.backward()
            stepper.step()
            mine.append(loss.item())
        if run.schedule == "cosine":
            schedule.step()
    return Trained(nets[0], losses[0]), Trained(nets[1], losses[1])


@torch.no_grad()
def evaluate(run: Run, data: Data, net: nn.Sequential, part: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, float]:
    """Which pictures of `part` the trained network gets right, and its mean loss on them."""
    net.eval()
    logits = net(inputs(run, data, part[0], next(net.parameters()).dtype))
    labels = torch.from_numpy(part[1])
    return (logits.argmax(1) == labels).numpy(), nn.functional.cross_entropy(logits, labels).item()


def fused(trainer: Trainer, slot: int) -> State:
    """One run of the trainer's array under the oracle's names and in PyTorch's order of axes."""
    return {
        **unfused(trainer, {name: value.detach() for name, value in trainer.model.parameters.items()}, slot),
        **{
            name.replace("mean", "running_mean").replace("variance", "running_var"): value[slot]
            for name, value in trainer.model.statistics.items()
        },
    }


def unfused(trainer: Trainer, tensors: State, slot: int) -> State:
    """One network's parameters, or gradients, without padding; what was padded must still be zero."""
    shape, state = trainer.model.shape, {}
    for layer in (*shape.convolutions, *shape.linears):
        name, (outputs, *rest) = layer.name, layer.shape
        weight, bias = tensors[f"{name}.weight"][slot], tensors[f"{name}.bias"][slot]
        if layer.kind == "convolution":
            weight = weight.permute(3, 2, 0, 1)
        else:
            assert not weight[rest[0] :].any() and not weight[:, outputs:].any() and not bias[outputs:].any()
            weight, bias = weight[: rest[0], :outputs].T, bias[:outputs]
            if name == ("hidden" if shape.hidden else "logits"):
                weight = weight.reshape(outputs, -1, shape.filters).transpose(1, 2).flatten(1)
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return state | {name: value[slot] for name, value in tensors.items() if name.startswith("norm")}


def _start(run: Run, net: nn.Sequential) -> nn.Sequential:
    """Puts the run's starting weights into `net`."""
    for name, layer in net.named_children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            _fill(layer.weight, _first_weights(run, name, layer.weight.numel(), fan_in))
            if layer.bias is not None:
                _fill(layer.bias, _first_biases(run, name, layer.bias.numel(), fan_in))
    return net


def _first_weights(run: Run, layer: str, count: int, fan_in: int) -> np.ndarray:
    purpose = f"init/{layer}/{run.weight_init}"
    if run.weight_init == "he":
        return random_streams.normal(run.seed, purpose, count) * math.sqrt(2 / fan_in)
    if run.weight_init == "truncated_normal":
        return random_streams.truncated_normal(run.seed, purpose, count) * 0.1
    return _within(1 / math.sqrt(fan_in), run.seed, purpose, count)


def _first_biases(run: Run, layer: str, count: int, fan_in: int) -> np.ndarray:
    if run.bias_init == "uniform":
        return _within(1 / math.sqrt(fan_in), run.seed, f"init/{layer}/bias", count)
    return np.full(count, 1.0 if run.bias_init == "original" and layer != "conv0" else 0.0)


@torch.no_grad()
def _fill(parameter: torch.Tensor, values: np.ndarray) -> None:
    parameter.copy_(torch.from_numpy(values).view_as(parameter))


def _within(limit: float, seed: int, purpose: str, count: int) -> np.ndarray:
    return limit * (2 * random_streams.uniform(seed, purpose, count) - 1)
