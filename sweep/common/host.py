"""This machine: the cores that we may use, its name, and its processes."""

import functools
import hashlib
import os
import socket
from collections.abc import Collection
from pathlib import Path


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or "max": no quota
        return allowed


@functools.cache
def this_host() -> str:
    """12 hexadecimal digits for this host since its last start, or for this container on it.

    A process that computes the same digits can look this process up by its number.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        processes = os.readlink("/proc/self/ns/pid")  # containers may share the host's name, but not this
    except OSError:
        boot = processes = ""
    return hashlib.sha256(f"{socket.gethostname()}\0{boot}\0{processes}".encode()).hexdigest()[:12]


def is_alive(pid: int) -> bool:
    """Whether a process with this number runs on this host; a zombie does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return _fields(pid)[:1] != ["Z"]


def started_at(pid: int) -> str | None:
    """When a process started, as its system writes it; tells the process from a later one with the same number."""
    fields = _fields(pid)
    return fields[19] if len(fields) > 19 else None


def descendants(pids: Collection[int]) -> set[int]:
    """The processes that these have started, and theirs in turn; none are known where there is no /proc."""
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


def _fields(pid: int) -> list[str]:
    """What /proc says of a process, from its state on; nothing where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
