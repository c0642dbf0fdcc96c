"""The device that trains: which one there is, its name, its arithmetic, and how it reports that memory ran out."""

import contextlib
import platform
from collections.abc import Iterator
from typing import Any, Literal

import torch

from sweep.networks.conv.native.library import why_not
from sweep.plan import DeviceKind


def local_device() -> Literal["cpu", "cuda"]:
    """The kind of device that this machine trains on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def planned_kind() -> DeviceKind:
    """What a launch on this machine plans its arrays for."""
    device = local_device()
    return "native" if device == "cpu" and why_not() is None else device


def kind_of(device: str) -> Literal["cpu", "cuda"]:
    """The kind of a device by its PyTorch name: "cpu", or "cuda" with or without a number."""
    return "cpu" if device == "cpu" else "cuda"


def device_name(device: str) -> str:
    """What the store calls the device: "cpu (…)" with its model, or the GPU's name."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"cpu ({names[0] if names else platform.processor() or platform.machine()})"


@contextlib.contextmanager
def exact_arithmetic(precision: str = "float32") -> Iterator[None]:
    """Float32 means float32 unless `precision` says otherwise, and the same program gives the same bits."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    tensor_cores = precision != "float32"  # tf32 products leave numbers rounded to bfloat16 unchanged
    flags = [(matmul, "allow_tf32", tensor_cores), (cudnn, "allow_tf32", tensor_cores)]
    flags += [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    before = [getattr(backend, name) for backend, name, _ in flags]
    for backend, name, wanted in flags:
        setattr(backend, name, wanted)
    # Confident runs have gradients below the normal range, which CPUs compute many times slower.
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        for (backend, name, _), value in zip(flags, before, strict=True):
            setattr(backend, name, value)


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. On a CPU, and in a GPU's libraries, only the message of a RuntimeError says so.

    A GPU's library that finds no memory to start with reports that it is not initialized.
    """
    words = ("can't allocate memory", "ALLOC_FAILED", "STATUS_NOT_INITIALIZED", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)
