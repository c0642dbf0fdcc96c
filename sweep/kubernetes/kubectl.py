"""Calls kubectl: to build manifests, to apply them, and to follow a job."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from sweep.common.errors import InputError

POLL: Final = 5.0
"""Seconds between two queries of a job's state."""

MAX_FAILED_QUERIES: Final = 12
"""Consecutive queries that may fail before `follow` gives up."""

ENDS: Final = ("Complete", "Failed")
"""Final states of a RayJob. The operator never leaves `ValidationFailed` either; it counts as a failure."""


def build(folder: Path) -> str:
    """The manifests of a kustomization, as YAML. Neither a cluster nor the network is touched."""
    return _run(["kustomize", str(folder)])


def context() -> str:
    """The name of kubectl's current context."""
    return _run(["config", "current-context"]).strip()


def apply(manifests: str) -> str:
    """Applies manifests on the server's side; returns kubectl's lines."""
    return _run(["apply", "--server-side", "--field-manager", "sweep", "-f", "-"], manifests)


def follow(name: str, namespace: str, say: Callable[[str], None], poll: float = POLL) -> bool:
    """Reports a RayJob's states with `say` and prints its log until it ends; returns whether it succeeded.

    The log is that of the pod that submitted the job; the operator gives the pod's Job the RayJob's name.
    """
    logs: subprocess.Popen[bytes] | None = None
    seen, told, failures, submitted, read_until = "", "", 0, None, None
    try:
        while True:
            status, trouble = _status(name, namespace)
            failures = failures + 1 if trouble else 0
            if failures > MAX_FAILED_QUERIES:
                raise InputError(trouble)
            state = _state(status)
            if status and state != seen:
                say(seen := state)
            if trouble and trouble != told:
                say(told := trouble)
            deployment = status.get("jobDeploymentStatus", "")
            if deployment == "Running" and status.get("jobId") != submitted and logs is None:
                submitted, read_until = status.get("jobId"), None  # a new cluster: its log from the beginning
            if logs is not None and logs.poll() is not None:
                logs, read_until = None, time.monotonic()
            if logs is None and submitted is not None and deployment == "Running":
                logs = _follow_log(name, namespace, read_until)
            if deployment in (*ENDS, "ValidationFailed"):
                _drain(logs)
                return deployment == "Complete" and status.get("jobStatus") == "SUCCEEDED"
            time.sleep(poll)
    finally:
        if logs is not None and logs.poll() is None:
            logs.terminate()


def _follow_log(name: str, namespace: str, read_until: float | None) -> subprocess.Popen[bytes]:
    """Resumes the log where an earlier reader stopped, to the second."""
    since = [] if read_until is None else [f"--since={int(time.monotonic() - read_until) + 1}s"]
    command = ["logs", "--follow", f"job/{name}", "--namespace", namespace, *since]
    return subprocess.Popen([_kubectl(), *command], stderr=subprocess.DEVNULL)


def _drain(logs: "subprocess.Popen[bytes] | None") -> None:
    """Waits for the end of the log, at most 30 seconds."""
    if logs is not None:
        try:
            logs.wait(30)
        except subprocess.TimeoutExpired:
            logs.terminate()


def _status(name: str, namespace: str) -> tuple[dict[str, Any], str]:
    """The status of a RayJob, and what went wrong if it cannot be read."""
    try:
        found = json.loads(_run(["get", "rayjob", name, "--namespace", namespace, "--output", "json"]))
    except InputError as error:
        return {}, str(error)
    status: dict[str, Any] = found.get("status") or {}
    return status, ""


def _state(status: dict[str, Any]) -> str:
    """The state of a RayJob in one line: `Running, job RUNNING, 3 of 8 workers`."""
    cluster = status.get("rayClusterStatus") or {}
    parts = [status.get("jobDeploymentStatus") or "New"]
    parts += [f"job {status['jobStatus']}"] if status.get("jobStatus") else []
    if cluster.get("desiredWorkerReplicas"):
        parts.append(f"{cluster.get('availableWorkerReplicas', 0)} of {cluster['desiredWorkerReplicas']} workers")
    parts += [f"failed tries: {status['failed']}"] if status.get("failed") else []
    ended = status.get("jobDeploymentStatus") in (*ENDS, "ValidationFailed")
    parts += [status[key] for key in ("reason", "message") if ended and status.get(key)]
    return ", ".join(parts)


def _run(arguments: Sequence[str], text: str | None = None) -> str:
    done = subprocess.run([_kubectl(), *arguments], input=text, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"kubectl {arguments[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def _kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise InputError(
            "sweep kubernetes needs kubectl 1.27 or newer to build the manifests, but none is on the PATH; "
            "see https://kubernetes.io/docs/tasks/tools"
        )
    return found
