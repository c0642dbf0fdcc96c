"""The library of kernels: the structures that it takes, and its calls."""

import contextlib
import ctypes
import functools
from pathlib import Path
from typing import Final

from sweep.networks.conv.native import build, location

DEEPEST: Final = 16
"""Convolutions of a network."""

Address = ctypes.c_void_p


class Convolution(ctypes.Structure):
    """A convolution of a network: its sizes. As in `network.hpp`."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("inputs", "outputs", "height", "width", "out_height", "out_width", "stride"),
            *("pooled_height", "pooled_width"),
        )
    ]


class Network(ctypes.Structure):
    """The shape of a network, and the pictures of a batch. As in `network.hpp`."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in (
                *("depth", "side", "activation", "norm", "pooling", "dropout", "hidden", "classes", "pictures"),
                *("channels", "height", "width"),
            )
        ),
        ("convolutions", Convolution * DEEPEST),
    ]


class Call(ctypes.Structure):
    """The networks of all tiles, and what they see. As in `network.hpp`."""

    _fields_ = [
        ("network", ctypes.POINTER(Network)),
        ("tiles", ctypes.c_int64),
        *((name, Address) for name in ("parameters", "statistics", "sizes", "absent", "stored", "labels")),
        *((name, Address) for name in ("factor", "offset")),
    ]


class Training(ctypes.Structure):
    """Some steps of training. As in `network.hpp`."""

    _fields_ = [
        ("call", Call),
        ("steps", ctypes.c_int64),
        ("turns", ctypes.c_int64),
        *((name, Address) for name in ("absent", "first", "second", "decayed", "treated", "frozen", "order")),
        ("seeds", ctypes.c_int64),
        *((name, Address) for name in ("seed_of", "states", "threshold", "scale", "momentum", "decay", "rate")),
        ("corrections", Address),
        ("optimizer", ctypes.c_int32),
        ("networks", ctypes.c_int64),
        ("loss_sum", Address),
        ("last_loss_sum", Address),
        ("last_from", ctypes.c_int64),
    ]


class Evaluation(ctypes.Structure):
    """An evaluation. As in `network.hpp`."""

    _fields_ = [("call", Call), ("count", ctypes.c_int64), ("right", Address), ("loss", Address)]


class Library:
    """A build of the kernels; `lanes` networks make a tile."""

    def __init__(self, path: Path) -> None:
        self._c = ctypes.CDLL(str(path))
        self._c.sweep_scratch.restype = ctypes.c_int64
        self.lanes = int(self._c.sweep_lanes())

    def scratch_bytes(self, network: Network) -> int:
        """Working memory that networks of one shape need."""
        return int(self._c.sweep_scratch(ctypes.byref(network)))

    def prepare(self, network: Network, scratch: int) -> None:
        """Makes working memory at an address, all of it zero, that of networks of this shape."""
        self._c.sweep_prepare(ctypes.byref(network), Address(scratch))

    def train(self, training: Training, tiles: range, scratch: int) -> None:
        """Trains the networks of some tiles for some steps; each thread has working memory of its own."""
        self._c.sweep_train(ctypes.byref(training), *_ends(tiles), Address(scratch))

    def evaluate(self, evaluation: Evaluation, tiles: range, scratch: int) -> None:
        """Evaluates the networks of some tiles on pictures that all of them see."""
        self._c.sweep_evaluate(ctypes.byref(evaluation), *_ends(tiles), Address(scratch))

    def multiply_adds(self, rounds: int) -> int:
        """Computes so many rounds of them in registers; returns how many floating-point operations that were."""
        count = self._c.sweep_multiply_adds
        count.restype = ctypes.c_int64
        return int(count(ctypes.c_int64(rounds)))


def _ends(tiles: range) -> tuple[ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_int64(tiles.start), ctypes.c_int64(tiles.stop)


@functools.cache
def library() -> Library | None:
    """The kernels for this CPU; None where there are none, and none can be compiled."""
    with contextlib.suppress(build.NotBuilt):
        return Library(location.located())
    return None


def is_here() -> bool:
    """Whether there are kernels for this CPU; they are compiled first, if need be."""
    return library() is not None


def why_not() -> str | None:
    """Why there are no kernels for this CPU, and none can be compiled; None where there are, or are by now."""
    try:
        location.located()
    except build.NotBuilt as error:
        return str(error)
    return None
