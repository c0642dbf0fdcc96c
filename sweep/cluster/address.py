"""Where a launch trains, as the user says it: this machine, a Ray cluster, or a cluster that takes jobs over HTTP."""

import dataclasses
import errno
import os
import re
from pathlib import Path
from typing import Final, Literal

from sweep.cluster import ray_internals
from sweep.common.errors import InputError

CONNECT_TIMEOUT: Final = 10.0
"""Seconds that a cluster has to answer when it is first asked."""

_FORMS: Final = "allowed are auto, HOST:PORT, http://HOST:8265 and https://HOST"


@dataclasses.dataclass(frozen=True)
class Where:
    """Nothing said is this machine. `gpus_per_array` None: one where there are GPUs; 0: arrays train on CPUs.

    `install` None: where the address is HTTP. Raises InputError.
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
            raise InputError(f"--gpus-per-array {gpus:g}: allowed are 0 (none), a share up to 1, or a whole number")
        if self.cpus_per_array < 1:
            raise InputError(f"--cpus-per-array {self.cpus_per_array}: at least 1")
        if self.install and self.kind == "here":
            raise InputError("--install: belongs to --address; here is installed what runs this command")

    @property
    def kind(self) -> Literal["here", "cluster", "jobs"]:
        """This machine, a cluster that this process joins, or one that gets a job."""
        if self.address is None:
            return "here"
        return "jobs" if self.address.startswith(("http://", "https://")) else "cluster"

    @property
    def installs(self) -> bool:
        """Whether nodes get this project with the work."""
        return self.kind == "jobs" if self.install is None else self.install


def _check_address(address: str) -> None:
    if address.startswith("ray://"):
        raise InputError(f"--address {address}: Ray Client is not supported; {_FORMS}")
    host_and_port = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", address)
    url = re.fullmatch(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[\w./-]*)?", address)
    if not (address == "auto" or url or (host_and_port and 0 < int(host_and_port[1]) < 65536)):
        raise InputError(f"--address {address}: {_FORMS}")


def token() -> str | None:
    """The user's token for Ray clusters, where Ray itself looks for it: two variables, then `~/.ray/auth_token`."""
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
    """Settles, before Ray is imported, whether this process shows the user's token to the cluster.

    What the user has set in RAY_AUTH_MODE holds. Raises InputError where the cluster cannot be reached, or wants a
    token that we have not. Nothing is done for this machine: see `sweep.cluster.ray_environment`.
    """
    if where.kind == "here" or where.address is None:
        return
    mine = token()
    if where.kind == "jobs":
        # A dashboard that wants none takes no notice of it.
        os.environ.setdefault("RAY_AUTH_MODE", "token" if mine else "disabled")
        return
    address = running() if where.address == "auto" else where.address
    if address is None:
        if where.address == "auto":
            raise InputError("--address auto: no Ray cluster runs on this machine, and RAY_ADDRESS names none")
        return
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        wants = mine is not None  # only Ray knows how to ask
    else:
        wants = _wants_token(address, None)
        if wants and mine is None:
            raise InputError(
                f"--address {where.address}: the cluster wants a token, and there is none: "
                "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or write it to ~/.ray/auth_token"
            )
        if wants and _wants_token(address, mine):
            raise InputError(f"--address {where.address}: the cluster refuses this token (see RAY_AUTH_TOKEN)")
    os.environ.setdefault("RAY_AUTH_MODE", "token" if wants else "disabled")


def running() -> str | None:
    """The cluster that Ray calls `auto`: RAY_ADDRESS, else the one that was last started on this machine."""
    given = os.environ.get("RAY_ADDRESS", "")
    if given and given != "auto":
        return given
    return ray_internals.last_started()


def _wants_token(address: str, shown: str | None) -> bool:
    """Whether a cluster's head refuses who shows this token; InputError where there is no cluster."""
    try:
        return ray_internals.head_refuses(address, shown, CONNECT_TIMEOUT)
    except ConnectionError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({_reason(str(error))})") from None


def _reason(details: str) -> str:
    """What of gRPC's words a reader can use."""
    refused = os.strerror(errno.ECONNREFUSED)
    return refused if refused in details else details.strip().rpartition("; ")[2][:200]
