"""What holds before the command line is imported: every process is somebody, somewhere, and has a home."""

import getpass
import os
import tempfile
from pathlib import Path

import pytest

from sweep import __main__ as program


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without a name and a home, as containers have it."""
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that it is put back, where it was not set, too
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)


def test_a_user_id_without_a_name_gets_one_and_a_home_of_its_own(
    nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program._be_somebody()
    assert getpass.getuser() == f"user-{os.getuid()}"
    assert Path.home() == tmp_path / f"sweep-user-{os.getuid()}"
    assert Path.home().stat().st_mode & 0o777 == 0o700


def test_a_home_that_somebody_else_made_is_not_taken(
    nobody: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"sweep-user-{os.getuid()}").symlink_to(tmp_path / "theirs")
    program._be_somebody()
    assert Path.home().name.startswith("sweep-home-")


def test_where_nothing_can_be_written_the_home_is_the_root(nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    program._be_somebody()
    assert Path.home() == Path("/")


def test_a_current_folder_that_was_deleted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(SystemExit) as ended:
        program._be_somewhere()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the current folder no longer exists; change to another one\n"
