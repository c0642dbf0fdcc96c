"""The oracle: the network in plain `torch.nn`, trained by `torch.optim`, one run at a time, fused with nothing.

It shares with the trainer the random streams and the order of the pictures, and no other line of code.
"""

import dataclasses
import math
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from sweep import streams
from sweep.data import Data, batches
from sweep.runs import Run
from sweep.train import Trainer

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
            if isinstance(layer, nn.Conv2d) and layer.bias is None:
                state[f"{name}.bias"] = torch.zeros_like(layer.weight[:, 0, 0, 0]).detach()
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

    return Data("synthetic", part(examples), part(held_out), part(held_out), classes, "none")


def network(run: Run, data: Data, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """The untrained network of `run`."""
    channels, *size = data.picture_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(run.depth):
        inputs, stride = (channels, 2) if i == 0 else (run.width, 2 if i == 1 else 1)
        layers[f"conv{i}"] = nn.Conv2d(
            inputs, run.width, run.kernel_size, stride, padding=(run.kernel_size - 1) // 2, bias=run.bias
        )
        if run.batch_norm:
            layers[f"norm{i}"] = nn.BatchNorm2d(run.width)
        layers[f"relu{i}"] = nn.ReLU()
        size = [math.ceil(side / stride) for side in size]
    layers["flatten"] = nn.Flatten()
    inputs = run.width * math.prod(size)
    if run.hidden:
        layers["hidden"], layers["relu"] = nn.Linear(inputs, run.hidden), nn.ReLU()
    layers["logits"] = nn.Linear(run.hidden or inputs, data.classes)
    return _start(run, nn.Sequential(layers).to(dtype))


def inputs(run: Run, data: Data, pictures: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Pictures as `run` sees them, `[n, channels, height, width]`."""
    scaled = pictures / 255.0
    if run.input_scaling == "centered":
        scaled = scaled - 0.5
    if run.input_scaling == "standardized":
        train = data.train[0] / 255.0
        each_channel = {"axis": (0, 2, 3), "keepdims": True}
        scaled = (scaled - train.mean(**each_channel)) / train.std(**each_channel)
    return torch.from_numpy(scaled).to(dtype)


def train(run: Run, data: Data, dtype: torch.dtype = torch.float64) -> Trained:
    """Trains `run` to its end."""
    net = network(run, data, dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=run.learning_rate)
    losses = []
    for chosen in batches(run.seed, len(data.train[1]), run.batch_size, 0, run.steps):
        logits = net(inputs(run, data, data.train[0][chosen], dtype))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(data.train[1][chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Trained(net, losses)


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
        **unfused(trainer, {name: value.detach() for name, value in trainer.parameters.items()}, slot),
        **{
            name.replace("mean", "running_mean").replace("variance", "running_var"): value[slot]
            for name, value in trainer.statistics.items()
        },
    }


def unfused(trainer: Trainer, tensors: State, slot: int) -> State:
    """One run's parameters, or gradients, without padding; what was padded must still be zero."""
    shape, state = trainer.shape, {}
    for name, (outputs, *rest), _ in shape.layers():
        weight, bias = tensors[f"{name}.weight"][slot], tensors[f"{name}.bias"][slot]
        if not name.startswith("conv"):
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
        return streams.normal(run.seed, purpose, count) * math.sqrt(2 / fan_in)
    if run.weight_init == "truncated_normal":
        return streams.truncated_normal(run.seed, purpose, count) * 0.1
    return _within(1 / math.sqrt(fan_in), run.seed, purpose, count)


def _first_biases(run: Run, layer: str, count: int, fan_in: int) -> np.ndarray:
    if run.bias_init == "uniform":
        return _within(1 / math.sqrt(fan_in), run.seed, f"init/{layer}/bias", count)
    return np.full(count, 1.0 if run.bias_init == "original" and layer != "conv0" else 0.0)


@torch.no_grad()
def _fill(parameter: torch.Tensor, values: np.ndarray) -> None:
    parameter.copy_(torch.from_numpy(values).view_as(parameter))


def _within(limit: float, seed: int, purpose: str, count: int) -> np.ndarray:
    return limit * (2 * streams.uniform(seed, purpose, count) - 1)
