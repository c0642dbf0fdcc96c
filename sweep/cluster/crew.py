"""Who trains, with what each array gets: this machine, or a cluster that this process joins."""

import contextlib
import dataclasses
import errno
import os
import socket
import time
from collections.abc import Iterator
from typing import Final, Literal

from rich.console import Console

from sweep.cluster import ray_internals
from sweep.cluster.address import Where
from sweep.common.errors import InputError
from sweep.common.host import cores, may_have_gpus
from sweep.common.progress import say
from sweep.networks.conv.native import location
from sweep.networks.conv.native.library import why_not
from sweep.plan import DeviceKind
from sweep.store.rows import Store

AWAY: Final = 5.0
"""Seconds that a node which cannot train for us keeps an array, so that others get the next one."""


@dataclasses.dataclass(frozen=True)
class Crew:
    """Who trains the arrays, with what each of them gets; on a cluster, Ray is joined already.

    `native` says that arrays are planned for the native kernels, which all nodes seen so far have. `witness` is the
    path of a file beside a local store: a node that does not see it does not see the store.
    """

    where: Where
    device: Literal["cpu", "cuda"]
    cpus: int
    gpus: float
    native: bool = False
    witness: str | None = None

    @property
    def kind(self) -> DeviceKind:
        """What arrays are planned for."""
        return "native" if self.native else self.device

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for an array."""
        return {"cpu": self.cpus, "gpu": self.gpus}

    def check_here(self) -> None:
        """Raises OSError where the worker that calls cannot train for us: its node joined after the others were seen.

        Tune tries again, on another node if there is one.
        """
        host, reason = socket.gethostname(), None
        if self.witness and not os.path.exists(self.witness):
            reason = f"{host} does not see the folder of the store, {os.path.dirname(self.witness)}"
        elif self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                reason = f"{host} cannot train on a GPU: PyTorch {torch.__version__} finds no CUDA there"
        elif self.native and (why := why_not()):
            reason = f"{host} lacks the native kernels, for which arrays are planned: {why}"
        if reason is None:
            return
        time.sleep(AWAY)
        raise OSError(errno.EHOSTDOWN, reason)


@contextlib.contextmanager
def mustered(where: Where, store: Store, console: Console) -> Iterator[Crew]:
    """Finds who trains, and decides the device; a cluster is joined, and left when the block ends.

    InputError where arrays cannot have what `where` says, or where the cluster cannot train for us.
    """
    if caution := ray_internals.caution():
        say(console, caution)
    if where.kind == "here":
        yield _here(where, console)
    else:
        from sweep.cluster.nodes import joined

        with joined(where, store, console) as crew:
            yield crew


def _here(where: Where, console: Console) -> Crew:
    gpus, found = where.gpus_per_array, _gpus_here()
    if gpus and not found:
        raise InputError(f"--gpus-per-array {gpus:g}: PyTorch finds no GPU on this machine")
    if where.cpus_per_array > cores():
        raise InputError(f"--cpus-per-array {where.cpus_per_array}: this machine has {cores()}")
    if not found or gpus == 0:
        return Crew(where, "cpu", where.cpus_per_array, 0, _native_here(console))
    return Crew(where, "cuda", where.cpus_per_array, 1 if gpus is None else gpus)


def _native_here(console: Console) -> bool:
    """Whether this machine has the native kernels, which are compiled before any worker asks for them."""
    if location.to_be_compiled():
        say(console, "compiling the native kernels for this CPU, once")
    why = why_not()
    if why:
        say(console, f"native kernels are not used: {why}")
    return not why


def own_gpus(crew: Crew) -> int:
    """The GPUs of this machine, as far as the crew trains on any."""
    return _gpus_here() if crew.device == "cuda" else 0


def _gpus_here() -> int:
    if not may_have_gpus():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
