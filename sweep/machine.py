"""What this machine may use."""

import os
from pathlib import Path


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container where there is one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or "max": no quota
        return allowed
