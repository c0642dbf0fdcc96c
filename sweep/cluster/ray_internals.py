"""All that stands on names which Ray and Tune keep to themselves, one contract test each.

Known to hold for Ray 2.52 to 2.60; the contract tests say whether they do for the one that is installed. Ray itself is
imported where it is used: a head is asked before.
"""

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

ASK: Final = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""The question that a head answers to everybody whom it would let in."""

REFUSED: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED")


def head_refuses(address: str, token: str | None, seconds: float) -> bool:
    """Whether a cluster's head refuses who shows this token. Raises ConnectionError where no head answers."""
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
    """What a callback is pickled as: Tune pickles them for a restoration, and a terminal cannot be pickled."""
    from ray import tune

    return tune.Callback, ()


@contextlib.contextmanager
def every_death_is_one_trials_own() -> Iterator[None]:
    """Has Tune take all that Ray says of a lost worker as the failure of its trial.

    As it is, Tune ends all trials where Ray ended one worker for want of memory: it knows no other errors than those of
    an actor and of a task.
    """
    import ray

    try:
        from ray.air.execution._internal.actor_manager import RayActorManager
    except ImportError:  # another Ray, with other ways
        yield
        return
    known = ray.exceptions.RayActorError, ray.exceptions.RayTaskError
    failed = RayActorManager._actor_task_failed

    def tolerant(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.RayError) and not isinstance(exception, known):
            exception = ray.exceptions.RayActorError(error_msg=str(exception))
        failed(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = tolerant
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = failed


def last_failure(trial: Any) -> list[str]:
    """The lines of what last went wrong; Tune keeps all failures of a trial in one file of the driver's."""
    try:
        text = Path(trial.error_file).read_text()
    except (OSError, TypeError):  # there is none
        text = ""
    last = re.split(r"^Failure # \d+ \(occurred at .*\)$", text, flags=re.MULTILINE)[-1]
    return last.strip().splitlines() or ["unknown"]


def forget_numbers(trial: Any) -> None:
    """Empties what Tune keeps of a trial that has ended.

    It keeps means, extremes and queues of every number that was ever reported, for each trial until the end: nobody
    asks for them, and over many thousand arrays they fill the driver's memory.
    """
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()


def draining_nodes() -> Collection[str]:
    """The ids of the nodes that are about to be taken away; any error where there is no head to ask."""
    import ray

    found: Collection[str] = ray._private.state.state.get_draining_nodes()
    return found
