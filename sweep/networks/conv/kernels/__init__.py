"""Hand-written kernels of the GPU's main way: convolutions, linear layers, batch norm, dropout and updates.

Each kernel computes all runs of an array at once. A program works on one run alone and its tiles depend on the shape of
one run only, never on how many runs there are: a run's bits do not depend on its neighbours, its slot or their number.
Sums are taken in a fixed order, without atomics: the same call gives the same bits.

Activations are `[runs x pictures, channels, height, width]` in channels-last memory: the numbers of one run lie
together, in the order pictures, rows, columns, channels. All numbers in memory are float32. Nothing waits for the
device, and memory is only ever asked of PyTorch's allocator: steps can be captured in a CUDA graph.

Without a GPU, Triton's interpreter runs the kernels if TRITON_INTERPRET=1 is set before this module is imported.
"""

from sweep.networks.conv.kernels.convolutions import convolution
from sweep.networks.conv.kernels.dropouts import dropout
from sweep.networks.conv.kernels.gathering import gathered
from sweep.networks.conv.kernels.linears import linear
from sweep.networks.conv.kernels.norms import batch_norm
from sweep.networks.conv.kernels.products import Precision
from sweep.networks.conv.kernels.updates import SgdStep, adamw, sgd

__all__ = ["Precision", "SgdStep", "adamw", "batch_norm", "convolution", "dropout", "gathered", "linear", "sgd"]
