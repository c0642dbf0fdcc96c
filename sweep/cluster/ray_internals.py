"""Everything that uses private names of Ray and Tune, with one contract test each.

It was tested with the versions in `TRIED`; `caution` warns if another is installed. Ray is imported inside functions,
since the head is asked before that.
"""

import contextlib
import importlib.metadata
import os
import re
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sweep.common.errors import ENDS

TRIED: Final = ("2.52", "2.60")
"""The first and the last minor version of Ray that the contract tests have passed with."""

ANSWER: Final = 5.0
"""Seconds that a cluster's head has to answer."""

OUT_OF_MEMORY: Final = ("running low on memory", "exceeds the memory usage threshold")
"""Ray's words when it kills a worker because its node is out of memory."""

NO_AGENT: Final = "No available agent"
"""Words of a cluster that has just started and does not accept jobs yet."""

ASK: Final = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""A request that a head answers for every authorized client."""

REFUSED: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED")


def caution() -> str | None:
    """A warning before a launch if the installed version of Ray is untested; otherwise None."""
    installed = importlib.metadata.version("ray")
    if _minor(TRIED[0]) <= _minor(installed) <= _minor(TRIED[1]):
        return None
    first, last = TRIED
    return (
        f"Ray {installed} is installed; sweep was tested with Ray {first} to {last}. If this launch fails: "
        f"pip install 'ray[default,tune]=={last}.*'"
    )


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def last_started() -> str | None:
    """The address of the cluster last started on this machine, from the file that Ray writes; None if there is none."""
    # `ray start` may have run with a different TMPDIR.
    named = [os.environ.get("RAY_TMPDIR")] if "RAY_TMPDIR" in os.environ else [os.environ.get("TMPDIR"), "/tmp"]
    for folder in filter(None, named):
        with contextlib.suppress(OSError):
            if address := (Path(folder) / "ray" / "ray_current_cluster").read_text().strip():
                return address
    return None


def head_refuses(address: str, token: str | None, seconds: float) -> bool:
    """Whether a cluster's head rejects this token. Raises ConnectionError if no head answers."""
    import grpc

    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(ASK)(
                b"", timeout=seconds, metadata=[("authorization", f"Bearer {token}")] if token else []
            )
        except grpc.RpcError as error:
            if error.code().name in REFUSED:
                return True
            raise ConnectionError(error.details() or error.code().name) from None
    return False


def pickled_callback() -> tuple[Any, ...]:
    """The pickled form of a callback: Tune pickles callbacks to restore them, but a terminal cannot be pickled."""
    from ray import tune

    return tune.Callback, ()


@contextlib.contextmanager
def every_death_is_one_trials_own() -> Iterator[None]:
    """Makes Tune treat every error of Ray about a lost worker as the failure of its trial.

    Otherwise Tune ends all trials when Ray kills one worker for lack of memory: it handles only errors of actors and
    tasks.
    """
    import ray

    try:
        from ray.air.execution._internal.actor_manager import RayActorManager
    except ImportError:  # another version of Ray
        yield
        return
    known = ray.exceptions.RayActorError, ray.exceptions.RayTaskError
    failed = RayActorManager._actor_task_failed

    def tolerant(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.RayError) and not isinstance(exception, known):
            exception = ray.exceptions.RayActorError(error_msg=str(exception))
        failed(self, tracked_actor_task, exception)

    with _replaced({(RayActorManager, "_actor_task_failed"): tolerant}):
        yield


@contextlib.contextmanager
def tune_leaves_signals_alone() -> Iterator[None]:
    """Keeps Tune from treating SIGUSR1 as a request to stop; batch systems send it as a notice."""
    import ray.tune.tune as running

    with _replaced({(running, "_setup_signal_catching"): threading.Event}):
        yield


def files_in(folder: Path) -> dict[str, Any]:
    """Options with which `ray.init` keeps its files below this folder."""
    return {"_temp_dir": str(folder)}


def preloading(modules: Sequence[str]) -> dict[str, Any]:
    """What tells `ray.init` to have workers import these modules as they start."""
    return {"_system_config": {"preload_python_modules": list(modules)}}


@contextlib.contextmanager
def only_what_trains() -> Iterator[None]:
    """Has Ray start without dashboard, autoscaler and log monitor.

    `include_dashboard=False` still starts a dashboard, without pages, and waits for it.
    """
    from ray._private.node import Node

    none = {
        (Node, "start_api_server"): lambda self, **options: None,
        (Node, "start_monitor"): lambda self: None,
        (Node, "start_log_monitor"): lambda self: None,
    }
    with _replaced(none):
        yield


@contextlib.contextmanager
def waiting_workers_train() -> Iterator[None]:
    """Has Tune take the workers that our Ray started beforehand, which have this process's environment.

    As it is, Tune reserves resources by a task, which takes one of them, and asks for environment variables of its own,
    which none of them has.
    """
    import ray
    from ray.air.execution import FixedResourceManager
    from ray.tune.execution import tune_controller
    from ray.tune.execution.class_cache import _ActorClassCache

    def plain(self: Any, trainable: Any) -> Any:
        return self._cache.setdefault(trainable, ray.remote(trainable))

    ways = {
        (_ActorClassCache, "get"): plain,
        (tune_controller, "PlacementGroupResourceManager"): FixedResourceManager,
    }
    with _replaced(ways):
        yield


@contextlib.contextmanager
def _replaced(by: Mapping[tuple[Any, str], Any]) -> Iterator[None]:
    """Replaces attributes while the block runs; those that another Ray has not are left out."""
    before = {(owner, name): getattr(owner, name) for owner, name in by if hasattr(owner, name)}
    for owner, name in before:
        setattr(owner, name, by[owner, name])
    try:
        yield
    finally:
        for (owner, name), kept in before.items():
            setattr(owner, name, kept)


def hear_again() -> None:
    """Ray's core takes the handler of SIGTERM away where it ends: one in the midst of it would leave processes."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def last_failure(trial: Any) -> list[str]:
    """The lines of a trial's last failure; Tune keeps all its failures in one file on the driver."""
    try:
        text = Path(trial.error_file).read_text()
    except (OSError, TypeError):  # there is none
        text = ""
    last = re.split(r"^Failure # \d+ \(occurred at .*\)$", text, flags=re.MULTILINE)[-1]
    return last.strip().splitlines() or ["unknown"]


def ran_out_of_memory(trial: Any) -> bool:
    """Whether a trial's last worker was killed because its node ran out of memory."""
    return any(word in line for line in last_failure(trial) for word in OUT_OF_MEMORY)


def forget_numbers(trial: Any) -> None:
    """Clears what Tune keeps of a trial that has ended.

    Tune keeps means, extremes and queues of every reported number, for each trial until the end: nothing uses them, and
    over many thousands of arrays they fill the driver's memory.
    """
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()


def draining_nodes() -> Collection[str]:
    """The ids of the nodes that are about to be removed; raises any error if the head does not answer."""
    import ray

    found: Collection[str] = ray._private.state.state.get_draining_nodes()
    return found


class Table:
    """Our part of the key-value table of a Ray cluster's head. Every call raises if the head does not answer."""

    PART: Final = b"sweep"

    def __init__(self) -> None:
        from ray.experimental import internal_kv

        self._client = internal_kv.internal_kv_get_gcs_client()

    def put(self, key: bytes) -> None:
        """Stores a key."""
        self._client.internal_kv_put(key, b"", True, self.PART, ANSWER)

    def exists(self, key: bytes) -> bool:
        """Whether a key was stored."""
        return bool(self._client.internal_kv_exists(key, self.PART, ANSWER))

    def keys(self, prefix: bytes) -> Collection[bytes]:
        """The keys with this prefix."""
        found: Collection[bytes] = self._client.internal_kv_keys(prefix, self.PART, ANSWER)
        return found

    def clear(self, prefix: bytes) -> None:
        """Deletes the keys with this prefix."""
        self._client.internal_kv_del(prefix, True, self.PART, ANSWER)


def table() -> Table:
    """The head's table; an error if this process has not joined a cluster."""
    return Table()


def job_client(address: str, answer: tuple[float, float]) -> Any:
    """Ray's client of a dashboard, which has `answer` seconds to accept a connection, and to answer.

    Ray's own waits forever for a dashboard that accepts a request and never answers.
    """
    from ray import job_submission

    class Client(job_submission.JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, *arguments: Any, **options: Any) -> Any:
            return super()._do_request(*arguments, **{"timeout": answer, **options})

    return Client(address)


def ray_version(client: Any) -> str:
    """The version of Ray on the cluster of a `job_client`."""
    return str(client._do_request("GET", "/api/version").json()["ray_version"])
