"""The library of this machine: found where it was installed, or compiled anew where the sources have changed."""

import contextlib
import ctypes
import functools
import os
from pathlib import Path
from typing import Final

from sweep.networks.conv.native import build

FLAGS: Final = {"avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "avx2": {"avx2", "fma"}, "neon": {"asimd"}}
"""What a CPU has to have for each build."""

CACHE: Final = Path("~/.cache/sweep/native")
"""Where it is compiled to if the package's own folder may not be written."""


DEEPEST: Final = 16
"""Convolutions of a network."""

Address = ctypes.c_void_p


class Convolution(ctypes.Structure):
    """A convolution of a network: its sizes. As in `network.cpp`."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("inputs", "outputs", "height", "width", "out_height", "out_width", "stride"),
            *("pooled_height", "pooled_width"),
        )
    ]


class Network(ctypes.Structure):
    """The shape of a network, and the pictures of a batch. As in `network.cpp`."""

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
    """The networks of all tiles, and what they see. As in `network.cpp`."""

    _fields_ = [
        ("network", ctypes.POINTER(Network)),
        ("tiles", ctypes.c_int64),
        *((name, Address) for name in ("parameters", "statistics", "sizes", "absent", "stored", "labels")),
        *((name, Address) for name in ("factor", "offset", "scratch")),
    ]


class Training(ctypes.Structure):
    """Some steps of training. As in `network.cpp`."""

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
    """An evaluation. As in `network.cpp`."""

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

    def train(self, training: Training) -> None:
        """Trains the networks of all tiles for some steps."""
        self._c.sweep_train(ctypes.byref(training))

    def evaluate(self, evaluation: Evaluation) -> None:
        """Evaluates the networks of all tiles on pictures that all of them see."""
        self._c.sweep_evaluate(ctypes.byref(evaluation))


@functools.cache
def library() -> Library | None:
    """The kernels for this CPU; None where there are none, and none can be compiled."""
    with contextlib.suppress(build.NotBuilt):
        return Library(_file())
    return None


@functools.cache
def is_here() -> bool:
    """Whether there are kernels for this CPU, or they can be compiled."""
    with contextlib.suppress(build.NotBuilt):
        return _file().exists()
    return False


def variant() -> str | None:
    """The kind of build that this CPU is fastest with; None where there is none for it."""
    flags = cpu_flags()
    return next((name for name in build.variants() if FLAGS[name] <= flags), None)


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What the system says that the CPU can do."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(words.split())
    return frozenset()


def _file() -> Path:
    kind = variant()
    if kind is None:
        raise build.NotBuilt("there is no build for this CPU")
    folders = [build.HERE, CACHE.expanduser()]
    for folder in folders:
        if (folder / build.file_name(kind)).exists():
            return folder / build.file_name(kind)
    folder = folders[0] if os.access(folders[0], os.W_OK) else folders[1]
    try:
        return build.build(folder, kind)
    except OSError as error:
        raise build.NotBuilt(str(error)) from error
