"""What is installed on a node of a cluster. Self-contained, since it is sent to nodes that lack this project.

Run as a script inside a Ray job, it runs `look` on every node and prints the results as one line of JSON.
"""

import importlib.metadata
import json
import os
import platform
import socket
import sys
from typing import Any, Final

MARK: Final = "visited: "
"""The prefix of the line of JSON."""

TIMEOUT: Final = 90.0
"""Seconds that nodes have to answer."""


def look(distributions: list[str], file: str | None, cuda: bool) -> dict[str, Any]:
    """What this node has: Python, versions of distributions, the project, and a file that the driver has.

    `trainer` is the trainer's version in this node's project, None if that cannot be imported; `cuda` says why PyTorch
    cannot use GPUs, None if it can or was not asked; `native` says why it has no native kernels, None if it has.
    """
    found: dict[str, Any] = {"host": socket.gethostname(), "python": platform.python_version(), "versions": {}}
    for name in distributions:
        try:
            found["versions"][name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found["versions"][name] = None
    try:
        from sweep.space.runs import TRAINER_VERSION

        found["trainer"] = TRAINER_VERSION
    except ImportError as error:
        found |= {"trainer": None, "why": str(error)}
    try:
        from sweep.networks.conv.native.library import why_not

        found["native"] = why_not()
    except ImportError as error:
        found["native"] = str(error)
    found["file"] = file is None or os.path.exists(file)
    found["cuda"] = _cuda() if cuda else None
    return found


def _cuda() -> str | None:
    """Why PyTorch on this node cannot train on GPUs; None if it is built for CUDA."""
    try:
        import torch
    except ImportError as error:
        return str(error)
    return None if torch.version.cuda else f"PyTorch {torch.__version__} there is built without CUDA"


def visit(nodes: list[dict[str, Any]], *arguments: Any) -> dict[str, dict[str, Any]]:
    """What `look` found on these nodes (of `ray.nodes()`), by node id; those that do not answer in time are left out.

    If `look` itself failed, `error` says why.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(look)
    sent = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        # No retry for a node that disappears meanwhile.
        sent[task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(*arguments)] = node["NodeID"]
    ready, late = ray.wait(list(sent), num_returns=len(sent), timeout=TIMEOUT) if sent else ([], [])
    for each in late:
        ray.cancel(each, force=True)
    found = {}
    for each in ready:
        try:
            found[sent[each]] = ray.get(each)
        except ray.exceptions.RayError as error:
            found[sent[each]] = {"error": str(error).strip().splitlines()[-1]}
    return found


def main() -> None:
    """The script: its one argument is the list of distributions, as JSON."""
    import ray

    ray.init(address="auto", log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]
    found = visit(alive, json.loads(sys.argv[1]), None, False)
    print(MARK + json.dumps(list(found.values())), flush=True)


if __name__ == "__main__":
    main()
