"""A launch's temporary folders: locked while it lives, gone when it ends, removed by the next where it was killed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.cluster import scratch
from sweep.common.errors import InputError


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a short path, which pytest's own has not."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        yield Path(folder)


def killed(base: Path, program: str = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)") -> None:
    """Has a process that holds a folder end without removing it."""
    holding = f"from sweep.cluster import scratch\nwith scratch.folder() as mine: (mine / 'log').touch(); {program}"
    subprocess.run([sys.executable, "-c", holding], check=False, env=os.environ | {"TMPDIR": str(base)})


def test_a_folder_is_there_while_the_block_runs_and_others_leave_it_alone(base: Path) -> None:
    with scratch.folder() as mine, scratch.folder() as other:
        (mine / "session").mkdir()
        scratch.remove_abandoned(base)
        assert {mine, other} == set(base.iterdir()) and (mine / "session").is_dir()
    assert list(base.iterdir()) == []
    with pytest.raises(ValueError, match="mine"), scratch.folder():
        raise ValueError("mine")
    assert list(base.iterdir()) == []


@pytest.mark.integration
def test_what_a_killed_launch_left_is_removed_by_the_next_and_nothing_else(base: Path, tmp_path: Path) -> None:
    killed(base)
    [first] = base.glob("sweep-*/log")
    killed(base, "os = __import__('os'); os._exit(1)")
    [second] = base.glob("sweep-*/log")
    assert first != second
    others = [base / "sweep-results", base / "sweep.yaml", base / "ray", base / ".sweep-new"]  # as users name theirs
    for each in others:
        each.mkdir()
    (tmp_path / scratch.LOCK).touch()
    linked = base / "sweep-link"
    linked.symlink_to(tmp_path)
    with scratch.folder() as mine:
        assert set(base.iterdir()) == {*others, linked, mine}
    assert (tmp_path / scratch.LOCK).exists()


@pytest.mark.integration
def test_what_a_launch_left_that_was_killed_while_it_removed_its_folder_is_removed_by_the_next(base: Path) -> None:
    dying = "import shutil; shutil.rmtree = lambda *_, **more: os.kill(os.getpid(), 9); (mine / 'session').mkdir()"
    killed(base, f"import os; {dying}")
    [left] = base.glob("sweep-*")
    assert (left / "session").is_dir()
    with scratch.folder() as mine:
        assert list(base.iterdir()) == [mine]


def test_a_signal_that_comes_while_a_folder_is_removed_leaves_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = shutil.rmtree

    def interrupted(*arguments: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        remove(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), scratch.folder() as mine:
        (mine / "session").mkdir()
        patched.setattr(shutil, "rmtree", interrupted)
    assert list(base.iterdir()) == []


@pytest.mark.integration
def test_the_folder_of_another_user_is_left_alone(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(base)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    scratch.remove_abandoned(base)
    assert len(list(base.glob("sweep-*"))) == 1


@pytest.mark.parametrize("name", ["x" * 40, "tmpé", "x" * 200])
def test_a_folder_in_which_ray_cannot_have_its_sockets_is_passed_over(
    name: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(base / name))
    with scratch.folder() as mine:
        assert mine.parent in (Path("/tmp"), Path("/var/tmp"))
    assert not mine.exists()


@pytest.mark.parametrize("name", ["missing", "relative"])
def test_a_folder_that_is_none_is_passed_over(name: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(base / "missing") if name == "missing" else name)
    with scratch.folder() as mine:
        assert mine.parent in (Path("/tmp"), Path("/var/tmp"))


def test_the_folder_that_ray_is_told_of_comes_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(base / "ray"))
    with scratch.folder() as mine:
        assert mine.parent == base / "ray"


def test_full_disks_are_passed_over_and_named_where_all_are_full(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = {str(base)}

    def usage(path: object) -> SimpleNamespace:
        return SimpleNamespace(free=2**20 if str(path) in full or "all" in full else 2**40)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with scratch.folder() as mine:
        assert mine.parent == Path("/tmp")
    full.add("all")
    with pytest.raises(InputError) as error, scratch.folder():
        pass
    assert f"{base} (its disk is full: 1 MiB are free)" in str(error.value)
    assert "set TMPDIR to another folder" in str(error.value)


@pytest.mark.parametrize(("files", "left", "fits"), [(5000, 12, False), (5000, 4000, True), (0, 0, True)])
def test_a_disk_without_room_for_files_is_passed_over(
    files: int, left: int, fits: bool, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_files=files, f_favail=left))
    said = scratch._unfit(base)
    assert said is None if fits else said == "its disk has no room for files: 12 more are allowed"
