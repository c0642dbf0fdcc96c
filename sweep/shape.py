"""The shape of a network: its layers, parameters and arithmetic. Needs neither torch nor data."""

import dataclasses
import math

from sweep.runs import Run


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

    @classmethod
    def of(cls, run: Run, picture_shape: tuple[int, int, int], classes: int) -> "Shape":
        """The shape of `run` on pictures of `picture_shape` (channels, height, width)."""
        return cls(*picture_shape, classes, run.depth, run.width, run.kernel_size, run.hidden, run.batch_norm)

    def stride(self, layer: int) -> int:
        """The first two convolutions halve the picture."""
        return 2 if layer < 2 else 1

    def pixels(self, layer: int) -> int:
        """Pixels of one channel that convolution `layer` puts out."""
        step = 2 if layer == 0 else 4
        return -(-self.height // step) * -(-self.width // step)

    def fan_in(self, layer: int) -> int:
        """Inputs of one unit of convolution `layer`."""
        return (self.channels if layer == 0 else self.filters) * self.kernel_size**2

    def layers(self) -> list[tuple[str, tuple[int, ...], int]]:
        """Name, weight shape (PyTorch's order: outputs first) and fan-in of every layer with weights."""
        side = self.kernel_size
        convs: list[tuple[str, tuple[int, ...], int]] = [
            (f"conv{i}", (self.filters, self.fan_in(i) // side**2, side, side), self.fan_in(i))
            for i in range(self.depth)
        ]
        sizes = [
            self.filters * self.pixels(self.depth - 1),
            *([self.hidden] if self.hidden else []),
            self.classes,
        ]
        names = ["hidden", "logits"] if self.hidden else ["logits"]
        linears = [(name, (sizes[i + 1], sizes[i]), sizes[i]) for i, name in enumerate(names)]
        return convs + linears

    def parameter_count(self, bias: bool) -> int:
        """Trainable numbers of one run: weights, the biases that are not fixed at zero, and batch norm's."""
        weights = sum(math.prod(shape) for _, shape, _ in self.layers())
        linear_biases = self.hidden + self.classes
        norms = 2 * self.filters * self.depth if self.batch_norm else 0
        return weights + linear_biases + norms + (self.filters * self.depth if bias else 0)

    def forward_flops(self) -> int:
        """Floating-point operations of one picture's forward pass: two for each multiply-add of a weight."""
        convs = sum(self.pixels(i) * self.filters * self.fan_in(i) for i in range(self.depth))
        linears = sum(math.prod(shape) for name, shape, _ in self.layers() if not name.startswith("conv"))
        return 2 * (convs + linears)


def training_flops(run: Run, shape: Shape) -> int:
    """Floating-point operations of training `run`: forward, and twice that backward, for every picture it sees.

    Evaluations, the update and element-wise operations are not counted.
    """
    return 3 * run.steps * run.batch_size * shape.forward_flops()
