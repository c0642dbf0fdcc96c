"""The shape of a network: its layers, parameters and arithmetic. Needs neither torch nor data."""

import dataclasses
import functools
import math
from typing import Final, Literal

from sweep.space.runs import Run

MethodName = Literal["grouped", "im2col", "triton", "native"]
"""Ways to compute a convolution of all runs; see `backends`."""

NORM_EPSILON: Final = 1e-5
"""Added to the variance by batch norm: PyTorch's default."""

NORM_MOMENTUM: Final = 0.1
"""Share of the new batch in batch norm's running statistics: PyTorch's default."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with a weight and a bias. `shape` is the weight's, in PyTorch's order: outputs first.

    `treated` names those of its parameters that one arm trains and the other goes without.
    """

    name: str
    kind: Literal["convolution", "linear", "norm"]
    shape: tuple[int, ...]
    treated: tuple[str, ...] = ()

    @property
    def weight(self) -> str:
        """The name of its weight among all parameters."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """The name of its bias, which has one value per output."""
        return f"{self.name}.bias"

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Its parameters' names and shapes."""
        return {self.weight: self.shape, self.bias: self.shape[:1]}

    @property
    def decays(self) -> bool:
        """Whether weight decay touches its weight; it never touches a bias."""
        return self.kind != "norm"

    @property
    def fan_in(self) -> int:
        """Inputs of one unit."""
        return math.prod(self.shape[1:])


@dataclasses.dataclass(frozen=True)
class Shape:
    """What fixes the program: runs of one array have one shape. Picture sizes are in pixels."""

    channels: int
    height: int
    width: int
    classes: int
    depth: int
    filters: int
    kernel_size: int
    hidden: int
    batch_norm: bool
    activation: str
    pooling: str
    dropout: bool
    bias_layers: str

    @classmethod
    def of(cls, run: Run, picture_shape: tuple[int, int, int], classes: int) -> "Shape":
        """The shape of `run` on pictures of `picture_shape` (channels, height, width)."""
        convs = run.depth, run.width, run.kernel_size
        return cls(
            *picture_shape,
            classes,
            *convs,
            run.hidden,
            run.batch_norm,
            run.activation,
            run.pooling,
            run.dropout > 0,
            run.bias_layers,
        )

    def halves(self, number: int) -> bool:
        """Whether block `number` halves the picture: the first two do, by a stride or by pooling."""
        return self.pooling != "none" and number < 2

    def stride(self, number: int) -> int:
        """Stride of convolution `number`."""
        return 2 if self.pooling == "stride" and self.halves(number) else 1

    def pools(self, number: int) -> bool:
        """Whether a 2 x 2 pooling follows convolution `number`."""
        return self.pooling != "stride" and self.halves(number)

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width that convolution i puts out, for every i; last, what the linear layers see."""
        size, sizes = (self.height, self.width), []
        for number in range(self.depth):
            size = (-(-size[0] // self.stride(number)), -(-size[1] // self.stride(number)))
            sizes.append(size)
            if self.pools(number):  # like PyTorch's pooling, an odd row or column at the end is left out
                size = (size[0] // 2, size[1] // 2)
        return (*sizes, size)

    def input_size(self, number: int) -> tuple[int, int]:
        """Height and width of the input of convolution `number`."""
        if number == 0:
            return self.height, self.width
        height, width = self.sizes[number - 1]
        return (height // 2, width // 2) if self.pools(number - 1) else (height, width)

    def pixels(self, number: int) -> int:
        """Pixels per channel of the output of convolution `number`; for `depth`, of the linear layers' input."""
        return math.prod(self.sizes[number])

    @functools.cached_property
    def convolutions(self) -> tuple[Layer, ...]:
        """The convolutions, in the order of the forward pass."""
        side = self.kernel_size
        inputs = [self.channels, *[self.filters] * (self.depth - 1)]
        return tuple(
            self._layer(f"conv{number}", "convolution", number, (self.filters, inputs[number], side, side))
            for number in range(self.depth)
        )

    @functools.cached_property
    def linears(self) -> tuple[Layer, ...]:
        """The linear layers, in the order of the forward pass."""
        names = ["hidden", "logits"] if self.hidden else ["logits"]
        sizes = [self.filters * self.pixels(self.depth), *[self.hidden] * (len(names) - 1), self.classes]
        return tuple(
            self._layer(name, "linear", number, (sizes[number + 1], sizes[number])) for number, name in enumerate(names)
        )

    @functools.cached_property
    def norms(self) -> tuple[Layer, ...]:
        """The batch norm after each convolution, if any."""
        count = self.depth if self.batch_norm else 0
        return tuple(Layer(f"norm{number}", "norm", (self.filters,)) for number in range(count))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with parameters."""
        return (*self.convolutions, *self.linears, *self.norms)

    @property
    def decayed(self) -> tuple[str, ...]:
        """The parameters that weight decay touches."""
        return tuple(layer.weight for layer in self.layers if layer.decays)

    @property
    def treated(self) -> tuple[str, ...]:
        """The parameters that one arm trains and the other goes without."""
        return tuple(name for layer in self.layers for name in layer.treated)

    @property
    def dropping(self) -> tuple[str, ...]:
        """The layers with dropout after their activation."""
        return tuple(layer.name for layer in (*self.convolutions, *self.linears[:-1]) if self.dropout)

    def _layer(self, name: str, kind: Literal["convolution", "linear"], number: int, shape: tuple[int, ...]) -> Layer:
        """Layer `number` of its kind; its bias is treated where `bias_layers` says so."""
        layer, conv = Layer(name, kind, shape), kind == "convolution"
        treats = {"conv": conv, "first_conv": conv and number == 0, "later_conv": conv and number > 0, "all": True}
        return dataclasses.replace(layer, treated=(layer.bias,)) if treats[self.bias_layers] else layer

    def parameter_count(self, bias: bool) -> int:
        """Trainable parameters of one run; for the arm without bias, those that are not fixed at zero."""
        return sum(
            math.prod(shape)
            for layer in self.layers
            for name, shape in layer.parameters.items()
            if bias or name not in layer.treated
        )

    def forward_flops(self) -> int:
        """Floating-point operations of one picture's forward pass: two per multiply-add of a weight."""
        convolutions = sum(self.pixels(i) * math.prod(layer.shape) for i, layer in enumerate(self.convolutions))
        return 2 * (convolutions + sum(math.prod(layer.shape) for layer in self.linears))

    def activations(self) -> int:
        """Activations that one picture's forward pass keeps in all layers together."""
        convs = sum(self.pixels(i) * self.filters for i in range(self.depth))
        return self.channels * self.height * self.width + convs + self.filters * self.pixels(self.depth) + self.hidden

    def largest_activation(self) -> int:
        """Size of the largest of these for one picture."""
        convs = self.filters * max(map(self.pixels, range(self.depth)))
        return max(self.channels * self.height * self.width, convs, self.hidden)


def training_flops(run: Run, shape: Shape) -> int:
    """Floating-point operations of training `run`: forward, and twice that backward, for every picture it sees.

    Where two arms take turns on shared weights, each is counted with its own passes. Evaluations, the update and
    element-wise operations are not counted.
    """
    return 3 * run.steps * run.batch_size * shape.forward_flops()
