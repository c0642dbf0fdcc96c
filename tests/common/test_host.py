"""What this machine may use: affinity, and the CPU quotas of both versions of Linux's control groups."""

import os
from pathlib import Path

import pytest

from sweep.common import host


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "350000 100000"}, 3),
        ("0::/", {"cpu.max": "1600000 100000"}, 8),
        ("0::/a.slice/b.service", {"a.slice/b.service/cpu.max": "300000 100000"}, 3),
        ("0::/a.slice/b.service", {"a.slice/b.service/cpu.max": "max 100000", "a.slice/cpu.max": "200000 100000"}, 2),
        ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (
            "5:memory:/\n4:cpuacct,cpu:/docker/1f\n0::/",
            {"cpu/docker/1f/cpu.cfs_quota_us": "500000", "cpu/docker/1f/cpu.cfs_period_us": "100000"},
            5,
        ),
        ("4:cpu:/docker/1f", {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "50000"}, 3),
        ("5:memory:/\n6:cpuset:/", {}, 8),
        ("", {}, 8),
        ("0::/", {"cpu.max": "not a number"}, 8),
    ],
)
def test_cores_are_those_that_affinity_and_quotas_leave(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "groups").write_text(f"{groups}\n" if groups else "")
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(f"{text}\n")
    monkeypatch.setattr(host, "MINE", tmp_path / "groups")
    monkeypatch.setattr(host, "GROUPS", tmp_path / "tree")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert host.cores() == expected


def test_a_machine_without_groups_has_its_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "MINE", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 4})
    assert host.cores() == 3


@pytest.mark.parametrize(
    ("device", "there"),
    [("nvidia0", True), ("nvidiactl", True), ("kfd", True), ("dxg", True), ("nvme0n1", False), ("null", False)],
)
def test_a_machine_may_have_gpus_where_a_device_is_called_so(
    device: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / device).touch()
    monkeypatch.setattr(host, "DEVICES", tmp_path)
    assert host.may_have_gpus() is there
