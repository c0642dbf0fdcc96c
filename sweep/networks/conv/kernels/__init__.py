"""Our own kernels for GPUs: convolutions, linear layers, batch norm, dropout and updates.

Each kernel computes all runs of an array at once. A program works on a single run, and its tiles depend on the shape of
one run, never on the number of runs: a run's bits depend neither on its slot nor on its neighbours. Sums are taken in a
fixed order, without atomics, so the same call gives the same bits.

Activations are `[runs x pictures, channels, height, width]` in channels-last memory: the numbers of one run lie
together, in the order pictures, rows, columns, channels. All numbers in memory are float32. Nothing waits for the
device, and all memory comes from PyTorch's allocator, so steps can be captured in a CUDA graph.

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
