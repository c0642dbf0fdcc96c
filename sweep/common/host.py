"""This machine: the cores available to us, its name, and its processes."""

import contextlib
import functools
import hashlib
import os
import signal
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

GROUPS: Final = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of control groups: one tree (version 2), or one per kind of limit (version 1)."""

DEVICES: Final = Path("/dev")
GPUS: Final = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")
"""Where devices are, and what GPUs are called there: Nvidia's, those of its boards, WSL's, and AMD's."""

MINE: Final = Path("/proc/self/cgroup")
"""The control groups of this process."""


def cores() -> int:
    """Cores that this process may use: its affinity, and the quotas of its container, service or batch job."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota(folder) for folder in _groups())
    return max(1, min([allowed, *(int(quota) for quota in quotas if quota is not None)]))


def _groups() -> Iterator[Path]:
    """The folders of this process's groups and their parents, each of which may have a quota."""
    try:
        lines = [line.split(":", 2) for line in MINE.read_text().splitlines()]
    except OSError:
        return
    for _, kinds, path in lines:
        if not kinds or "cpu" in kinds.split(","):
            tree = GROUPS / "cpu" if kinds else GROUPS
            # In a container the path may be as on the host, while the container's own group is the root of the tree.
            own = tree / path.lstrip("/")
            yield from (each for each in (own, *own.parents) if each.is_relative_to(tree))


def _quota(folder: Path) -> float | None:
    """Cores that a group's processes may use together; None if it has no quota."""
    try:
        if (both := folder / "cpu.max").exists():
            quota, period = both.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None


@functools.cache
def this_host() -> str:
    """12 hexadecimal digits that identify this host since its last boot, or this container on it.

    A process that computes the same digits can look this process up by its pid.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        processes = os.readlink("/proc/self/ns/pid")  # containers may share the hostname, but not this
    except OSError:
        boot = processes = ""
    return hashlib.sha256(f"{socket.gethostname()}\0{boot}\0{processes}".encode()).hexdigest()[:12]


def is_alive(pid: int) -> bool:
    """Whether a process with this pid is running on this host; a zombie does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return _fields(pid)[:1] != ["Z"]


def started_at(pid: int) -> str | None:
    """When a process started, as the system records it; distinguishes it from a later one with the same pid."""
    fields = _fields(pid)
    return fields[19] if len(fields) > 19 else None


def descendants(pids: Collection[int]) -> set[int]:
    """All descendants of these processes; empty without /proc."""
    try:
        numbers = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:
        return set()
    parents = {number: int(fields[1]) for number in numbers if (fields := _fields(number))}
    found, rank = set[int](), set(pids)
    while rank:
        rank = {number for number, parent in parents.items() if parent in rank} - found
        found |= rank
    return found


def kill_all(pids: Collection[int]) -> None:
    """Ends these processes and all that they have started, at once."""
    processes = {pid: started_at(pid) for pid in {*pids} | descendants(pids)}
    for pid, started in processes.items():
        if is_alive(pid) and started_at(pid) == started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def may_have_gpus() -> bool:
    """Whether this machine has a device that PyTorch may train on; to ask PyTorch takes seconds."""
    return any(True for name in GPUS for _ in DEVICES.glob(name))


def _fields(pid: int) -> list[str]:
    """The fields of a process in /proc, from its state on; empty without /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
