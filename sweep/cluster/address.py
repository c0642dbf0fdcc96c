"""Where the user wants a launch to train: this machine, a Ray cluster, or a cluster that accepts jobs over HTTP."""

import dataclasses
import errno
import os
import re
import sys
from pathlib import Path
from typing import Final, Literal

from sweep.cluster import ray_internals
from sweep.common.errors import InputError

CONNECT_TIMEOUT: Final = 10.0
"""Seconds that a cluster has to answer the first request."""

PASSED_ON: Final = re.compile(r"RAY_(TMPDIR|[a-z].*)")
"""Which of the user's variables for Ray a Ray of our own gets: where its files are, and its settings."""

FILES: Final = ("RAY_AUTH_TOKEN_PATH", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
"""Variables that name files for Ray."""

_HOST_AND_PORT: Final = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})")

_FORMS: Final = "expected auto, HOST:PORT, http://HOST:8265 or https://HOST"


@dataclasses.dataclass(frozen=True)
class Where:
    """By default, this machine. `gpus_per_array` None: one if there are GPUs; 0: arrays train on CPUs.

    `install` None: only if the address is HTTP. Raises InputError.
    """

    address: str | None = None
    gpus_per_array: float | None = None
    cpus_per_array: int = 1
    install: bool | None = None

    def __post_init__(self) -> None:
        if self.address is not None:
            _check_address(self.address)
        gpus = self.gpus_per_array
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
            raise InputError(f"--gpus-per-array {gpus:g}: expected 0 (none), a share up to 1, or a whole number")
        if self.cpus_per_array < 1:
            raise InputError(f"--cpus-per-array {self.cpus_per_array}: must be at least 1")
        if self.install and self.kind == "here":
            raise InputError("--install: requires --address; on this machine, sweep is installed already")

    @property
    def kind(self) -> Literal["here", "cluster", "jobs"]:
        """This machine, a cluster that this process joins, or one that is sent a job."""
        if self.address is None:
            return "here"
        return "jobs" if self.address.startswith(("http://", "https://")) else "cluster"

    @property
    def installs(self) -> bool:
        """Whether this project is installed on the nodes."""
        return self.kind == "jobs" if self.install is None else self.install


def _check_address(address: str) -> None:
    if address.startswith("ray://"):
        raise InputError(f"--address {address}: Ray Client is not supported; {_FORMS}")
    host_and_port = _HOST_AND_PORT.fullmatch(address)
    url = re.fullmatch(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[\w./-]*)?", address)
    if not (address == "auto" or url or (host_and_port and 0 < int(host_and_port[1]) < 65536)):
        raise InputError(f"--address {address}: {_FORMS}")


def token() -> str | None:
    """The user's token for Ray clusters, found as Ray does: two variables, then `~/.ray/auth_token`."""
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return (Path(named) if named else Path.home() / ".ray" / "auth_token").read_text().strip() or None
    except FileNotFoundError:
        if named:
            raise InputError(f"RAY_AUTH_TOKEN_PATH {named}: there is no such file") from None
        return None
    except OSError as error:
        raise InputError(f"Ray's token: {error}") from error


def authenticate(where: Where) -> None:
    """Decides, before Ray is imported, whether this process sends the user's token to the cluster.

    A RAY_AUTH_MODE set by the user is kept. Raises InputError if the cluster cannot be reached, or requires a token
    that we do not have. For this machine, drops what was set for clusters; `sweep.cluster.ray_environment` makes the
    rest of the environment.
    """
    if sys.flags.optimize > 1:
        raise InputError("PYTHONOPTIMIZE=2 (python -OO): Ray cannot be imported without docstrings; unset it")
    if where.kind == "here" or where.address is None:
        _forget_clusters()
        return
    mine = token()
    for name in FILES:  # Ray is joined from another folder
        if given := os.environ.get(name):
            os.environ[name] = os.path.abspath(given)
    if where.kind == "jobs":
        # A dashboard that requires no token ignores it.
        os.environ.setdefault("RAY_AUTH_MODE", "token" if mine else "disabled")
        return
    address = running() if where.address == "auto" else where.address
    if address is None:
        if where.address == "auto":
            raise InputError("--address auto: no Ray cluster is running on this machine, and RAY_ADDRESS is not set")
        return
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        wants = mine is not None  # only Ray can make the request
    else:
        wants = _wants_token(address, None)
        if wants and mine is None:
            raise InputError(
                f"--address {where.address}: the cluster requires a token, but none was found: "
                "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or write it to ~/.ray/auth_token"
            )
        if wants and _wants_token(address, mine):
            raise InputError(f"--address {where.address}: the cluster rejects this token (see RAY_AUTH_TOKEN)")
    os.environ.setdefault("RAY_AUTH_MODE", "token" if wants else "disabled")


def _forget_clusters() -> None:
    """Drops the certificates, tokens, databases and jobs of clusters, and all else that is set for another Ray."""
    if "ray" not in sys.modules:  # where it is, it has made variables of its own
        for name in [name for name in os.environ if name.startswith("RAY_") and not PASSED_ON.fullmatch(name)]:
            del os.environ[name]


def running() -> str | None:
    """The cluster that Ray calls `auto`: RAY_ADDRESS, or else the one last started on this machine.

    InputError if RAY_ADDRESS is not HOST:PORT, such as the address of a dashboard.
    """
    given = os.environ.get("RAY_ADDRESS", "").strip()
    if given in ("", "auto"):
        return ray_internals.last_started()
    if not _HOST_AND_PORT.fullmatch(given):
        raise InputError(f"RAY_ADDRESS {given}: --address auto joins a HOST:PORT; else give the address to --address")
    return given


def _wants_token(address: str, shown: str | None) -> bool:
    """Whether a cluster's head rejects this token; InputError if there is no cluster."""
    try:
        return ray_internals.head_refuses(address, shown, CONNECT_TIMEOUT)
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({_reason(str(error))})") from None


def _reason(details: str) -> str:
    """The useful part of gRPC's error message."""
    refused = os.strerror(errno.ECONNREFUSED)
    return refused if refused in details else details.strip().rpartition("; ")[2][:200]
