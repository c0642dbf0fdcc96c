"""The shape of a network: its layers, parameters and arithmetic. Needs neither torch nor data."""

import dataclasses
import functools
import math
from typing import Final, Literal

from sweep.space.runs import Run

MethodName = Literal["grouped", "im2col", "triton"]
"""Ways to compute a convolution of all runs: see `backends`."""

NORM_EPSILON: Final = 1e-5
"""Added to the variance by batch norm: PyTorch's default."""

NORM_MOMENTUM: Final = 0.1
"""Share of the new batch in batch norm's running statistics: PyTorch's default."""

Layer = tuple[str, tuple[int, ...], int]
"""Name, weight shape (PyTorch's order: outputs first) and fan-in."""


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

    def halves(self, layer: int) -> bool:
        """Whether block `layer` halves the picture: the first two do, by a stride or by pooling."""
        return self.pooling != "none" and layer < 2

    def stride(self, layer: int) -> int:
        """Stride of convolution `layer`."""
        return 2 if self.pooling == "stride" and self.halves(layer) else 1

    def pools(self, layer: int) -> bool:
        """Whether a 2 x 2 pooling follows convolution `layer`."""
        return self.pooling != "stride" and self.halves(layer)

    @functools.cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width that convolution i puts out, for every i; last, what the linear layers see."""
        size, sizes = (self.height, self.width), []
        for layer in range(self.depth):
            size = (-(-size[0] // self.stride(layer)), -(-size[1] // self.stride(layer)))
            sizes.append(size)
            if self.pools(layer):  # like PyTorch's pooling, an odd row or column at the end is left out
                size = (size[0] // 2, size[1] // 2)
        return (*sizes, size)

    def given(self, layer: int) -> tuple[int, int]:
        """Height and width that convolution `layer` is given."""
        if layer == 0:
            return self.height, self.width
        height, width = self.sizes[layer - 1]
        return (height // 2, width // 2) if self.pools(layer - 1) else (height, width)

    def pixels(self, layer: int) -> int:
        """Pixels of one channel that convolution `layer` puts out; for `depth`, of what the linear layers see."""
        return math.prod(self.sizes[layer])

    def fan_in(self, layer: int) -> int:
        """Inputs of one unit of convolution `layer`."""
        return (self.channels if layer == 0 else self.filters) * self.kernel_size**2

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer with weights, in the order of the forward pass."""
        side = self.kernel_size
        convs: list[Layer] = [
            (f"conv{i}", (self.filters, self.fan_in(i) // side**2, side, side), self.fan_in(i))
            for i in range(self.depth)
        ]
        hidden = [self.hidden] if self.hidden else []
        sizes = [self.filters * self.pixels(self.depth), *hidden, self.classes]
        names = ["hidden", "logits"] if self.hidden else ["logits"]
        linears = [(name, (sizes[i + 1], sizes[i]), sizes[i]) for i, name in enumerate(names)]
        return (*convs, *linears)

    def treated(self, layer: str) -> bool:
        """Whether `bias` decides over the biases of this layer; others have a bias in both arms."""
        match self.bias_layers:
            case "conv":
                return layer.startswith("conv")
            case "first_conv":
                return layer == "conv0"
            case "later_conv":
                return layer.startswith("conv") and layer != "conv0"
        return True

    def parameter_count(self, bias: bool) -> int:
        """Trainable numbers of one run: weights, the biases that are not fixed at zero, and batch norm's."""
        weights = sum(math.prod(shape) for _, shape, _ in self.layers)
        biases = sum(shape[0] for name, shape, _ in self.layers if bias or not self.treated(name))
        return weights + biases + (2 * self.filters * self.depth if self.batch_norm else 0)

    def forward_flops(self) -> int:
        """Floating-point operations of one picture's forward pass: two for each multiply-add of a weight."""
        convs = sum(self.pixels(i) * self.filters * self.fan_in(i) for i in range(self.depth))
        linears = sum(math.prod(shape) for name, shape, _ in self.layers if not name.startswith("conv"))
        return 2 * (convs + linears)

    def activations(self) -> int:
        """Numbers that one picture's forward pass leaves behind in all its layers together."""
        convs = sum(self.pixels(i) * self.filters for i in range(self.depth))
        return self.channels * self.height * self.width + convs + self.filters * self.pixels(self.depth) + self.hidden


def training_flops(run: Run, shape: Shape) -> int:
    """Floating-point operations of training `run`: forward, and twice that backward, for every picture it sees.

    Of two arms that take turns on shared weights, each is counted with its own passes. Evaluations, the update and
    element-wise operations are not counted.
    """
    return 3 * run.steps * run.batch_size * shape.forward_flops()
