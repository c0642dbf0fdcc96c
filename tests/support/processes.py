"""Processes of this machine, seen from outside."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}
    found: list[int] = []
    rank = [pid]
    while rank:
        rank = [child for child, parent in parents.items() if parent in rank]
        found += rank
    return found


def training(pid: int) -> list[int]:
    """The workers below a launch, or a node's raylet, that are training an array."""
    return [child for child in descendants(pid) if "ImplicitFunc.train" in command_line(child)]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_seconds(pid: int) -> float:
    """Seconds that the process has spent in user mode."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def command_line(pid: int) -> str:
    """The process's command line, as it may have rewritten it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Returns as soon as a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
