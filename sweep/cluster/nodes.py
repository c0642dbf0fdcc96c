"""A running Ray cluster: joined, and looked over before anything starts there."""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it while it is imported)

import contextlib
import dataclasses
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final

import ray
from ray import cloudpickle
from rich.console import Console

from sweep.cluster import node_probe, packaging, ray_environment
from sweep.cluster.address import Where, running
from sweep.cluster.crew import Crew
from sweep.cluster.ray_internals import ANSWER, table
from sweep.cluster.stop_signal import handlers_kept
from sweep.common.atomic_files import temporary_name
from sweep.common.errors import InputError
from sweep.common.progress import say
from sweep.networks.conv.native.library import why_not
from sweep.space.runs import TRAINER_VERSION
from sweep.store.rows import Store

WAITING: Final = 5.0
"""Seconds between two looks whether the cluster has room for an array yet."""


@contextlib.contextmanager
def joined(where: Where, store: Store, console: Console) -> Iterator[Crew]:
    """Joins a running cluster, refuses one that cannot train for us, and leaves it when the block ends.

    InputError where it cannot be joined, its Ray is of another version, its nodes lack the project, or a local store
    is not seen by all of them.
    """
    ray_environment.hush()
    crew = None
    try:
        _join(where, console)
        crew = _crew_there(where, store, console)
        yield crew
    finally:
        ray.shutdown()
        if crew and crew.witness:
            Path(crew.witness).unlink(missing_ok=True)


@contextlib.contextmanager
def watched(crew: Crew, console: Console) -> Iterator[None]:
    """Says so while the cluster has no room for an array, and when its head does not answer."""
    with _waiting(crew, console), _hearing_the_head(console):
        yield


def _join(where: Where, console: Console) -> None:
    """Joins a running cluster; with `--install`, once more where its nodes lack something."""
    if not where.installs:
        _connect(where, None)
        return
    wanted = packaging.requirements()
    _connect(where, None)
    nodes = node_probe.visit(_alive(), list(wanted), None, False).values()
    missing = packaging.lacking([node["versions"] for node in nodes if "versions" in node], wanted)
    ray.shutdown()
    if missing:
        say(console, f"nodes of the cluster get {', '.join(missing)}")
    _connect(where, packaging.runtime_env(missing, console))


def _connect(where: Where, runtime_env: dict[str, Any] | None) -> None:
    _by_value()
    try:
        # Workers import what lies in the current folder: not the user's, unless this project is run from it.
        with handlers_kept(), contextlib.chdir(os.sep if os.getcwd() != packaging.checkout() else os.curdir):
            ray.init(
                # Ray would look for the one that it calls `auto` in one temporary folder alone.
                address=running() if where.address == "auto" else where.address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env=runtime_env,
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(f"--address {where.address}: {_words(error)}") from error


def _words(error: Exception) -> str:
    """Why Ray does not let us in, in a line."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return f"{text}; install here what runs there, or the other way round"
    if "one of the Raylet addresses" in text or "raylet" in text.lower():
        return f"this machine is no node of that cluster: give http://HOST:8265 to send it a job ({text[:300]})"
    return text[:500]


def _by_value() -> None:
    """What looks a node over travels whole: the node may lack this project."""
    with contextlib.suppress(ValueError):  # it does already
        cloudpickle.register_pickle_by_value(node_probe)


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _crew_there(where: Where, store: Store, console: Console) -> Crew:
    nodes = _alive()
    gpus = where.gpus_per_array
    if gpus is None:
        gpus = 1.0 if any(node["Resources"].get("GPU", 0) >= 1 for node in nodes) else 0.0
    crew = Crew(where, "cuda" if gpus else "cpu", where.cpus_per_array, gpus)
    able = [node for node in nodes if _has_room(node, crew)]
    with _witness(store) as witness:
        looks = node_probe.visit(able, [], witness, crew.device == "cuda")
        names = {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in able}
        _check({names[node]: look for node, look in looks.items()}, where, store)
    devices = f"{gpus:g} GPU and " if gpus else ""
    say(console, f"nodes: {len(nodes)}, with room for arrays of {devices}{crew.cpus} CPU: {len(able)}")
    native = crew.device == "cpu" and _all_native(
        {names[node]: look["native"] for node, look in looks.items()}, console
    )
    return dataclasses.replace(crew, witness=witness, native=native)


def _all_native(lacking: dict[str, str | None], console: Console) -> bool:
    """Whether the nodes have the native kernels, given what each lacks; where there is none yet, whether we do."""
    without = {node: why for node, why in (lacking or {socket.gethostname(): why_not()}).items() if why}
    if without:
        node, why = next(iter(without.items()))
        say(console, f"native kernels are not used: there are none on {_some(without)}: {node}: {why}")
    return not without


def _has_room(node: dict[str, Any], crew: Crew) -> bool:
    has: dict[str, float] = node["Resources"]
    return has.get("CPU", 0) >= crew.cpus and has.get("GPU", 0) >= crew.gpus


@contextlib.contextmanager
def _witness(store: Store) -> Iterator[str | None]:
    """A file beside a local store, by which nodes tell whether they see it; gone when the block fails."""
    folder = store.place.local
    if folder is None:
        yield None
        return
    there = folder.is_dir()
    store.place.create()
    store.place.clear_temporaries(".")
    file = temporary_name(folder / "launch")
    file.touch()
    try:
        yield str(file)
    except BaseException:
        file.unlink(missing_ok=True)
        if not there:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _check(looks: dict[str, dict[str, Any]], where: Where, store: Store) -> None:
    """Refuses nodes on which arrays could not be trained, by name."""
    if failed := {node: look["error"] for node, look in looks.items() if "error" in look}:
        node, error = next(iter(failed.items()))
        raise InputError(f"--address {where.address}: {_some(failed)} cannot work for us: {node}: {error}")
    if without := [node for node, look in looks.items() if look["trainer"] is None]:
        why = looks[without[0]]["why"]
        raise InputError(
            f"--address {where.address}: sweep cannot be imported on {_some(without)} ({why}): --install brings it"
        )
    if other := [node for node, look in looks.items() if look["trainer"] != TRAINER_VERSION]:
        raise InputError(
            f"--address {where.address}: another version of sweep is on {_some(other)}: --install brings this one"
        )
    if blind := [node for node, look in looks.items() if not look["file"]]:
        raise InputError(
            f"--store {store.address}: a folder that {_some(blind)} cannot see, so rows written there would be lost: "
            "give s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, or a folder that all hosts mount under this path"
        )
    if slow := {node: look["cuda"] for node, look in looks.items() if look["cuda"]}:
        node, why = next(iter(slow.items()))
        raise InputError(
            f"--address {where.address}: {_some(slow)} cannot train on a GPU: {why}; --gpus-per-array 0 trains on CPUs"
        )


def _some(nodes: Collection[str]) -> str:
    """Up to three of them by name."""
    named = list(nodes)[:3]
    return ", ".join(named) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")


@contextlib.contextmanager
def _beside(look: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `look` in a thread of its own while the block does, whose end sets the event that it is given."""
    done = threading.Event()
    thread = threading.Thread(target=look, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(ANSWER)


def _waiting(crew: Crew, console: Console) -> contextlib.AbstractContextManager[None]:
    """Says so while no node of the cluster has room for an array: it may be about to grow."""
    devices = f"{crew.gpus:g} GPU and " if crew.gpus else ""
    alone = f"no node of the cluster has room for an array yet ({devices}{crew.cpus} CPU): waiting"

    def look(done: threading.Event) -> None:
        said = False
        while not done.is_set():
            with contextlib.suppress(Exception):  # the head may be gone: whoever trains hears of it
                room = any(_has_room(node, crew) for node in _alive())
                if room == said:
                    say(console, "a node with room has joined" if said else alone)
                    said = not said
                if room:
                    return
            done.wait(WAITING)

    return _beside(look)


def _hearing_the_head(console: Console) -> contextlib.AbstractContextManager[None]:
    """Says so when the head does not answer: where it is lost, Ray soon ends this process, and lets nobody speak."""

    def look(done: threading.Event) -> None:
        heard = True
        while not done.wait(WAITING):
            before = heard
            try:
                table().exists(b"")
                heard = True
            except Exception:
                heard = False
            if before and not heard and not done.is_set():
                say(
                    console,
                    "the head of the cluster does not answer. If it is lost, this launch ends; what is in the store is "
                    "kept. To go on: the same command, on a cluster.",
                )

    return _beside(look)
