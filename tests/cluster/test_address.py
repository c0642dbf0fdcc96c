"""Where a launch trains, as the user says it: addresses, shares of a GPU, tokens."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweep.cluster import address
from sweep.cluster.address import Where
from sweep.common.errors import InputError


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (None, "here"),
        ("auto", "cluster"),
        ("10.0.0.1:6379", "cluster"),
        ("head.example:6379", "cluster"),
        ("[::1]:6379", "cluster"),
        ("http://head:8265", "jobs"),
        ("https://ray.example/team/a", "jobs"),
    ],
)
def test_an_address_says_whether_we_join_or_send_a_job(address: str | None, kind: str) -> None:
    assert Where(address).kind == kind


@pytest.mark.parametrize("address", ["", "head", "head:0", "head:99999", "ray://head:10001", "ftp://head", "a b:1"])
def test_other_addresses_are_refused_with_the_allowed_forms(address: str) -> None:
    with pytest.raises(InputError, match=r"--address .*expected auto, HOST:PORT, http://HOST:8265"):
        Where(address)


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 2])
def test_shares_of_a_gpu_and_whole_ones_are_allowed(gpus: float) -> None:
    assert Where(gpus_per_array=gpus).gpus_per_array == gpus


@pytest.mark.parametrize("gpus", [-1, 1.5, float("nan"), float("inf")])
def test_other_numbers_of_gpus_are_refused(gpus: float) -> None:
    with pytest.raises(InputError, match="--gpus-per-array"):
        Where(gpus_per_array=gpus)


def test_an_array_has_a_core_at_least() -> None:
    with pytest.raises(InputError, match="--cpus-per-array 0"):
        Where(cpus_per_array=0)


def test_jobs_bring_the_project_and_clusters_that_are_joined_do_not_unless_asked() -> None:
    assert Where("http://head:8265").installs
    assert not Where("http://head:8265", install=False).installs
    assert not Where("auto").installs
    assert Where("auto", install=True).installs
    with pytest.raises(InputError, match="--install"):
        Where(install=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


def test_the_token_is_looked_for_where_ray_looks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert address.token() is None
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("of home\n")
    assert address.token() == "of home"
    (home / "named").write_text("of a file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "named"))
    assert address.token() == "of a file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert address.token() == "given"


def test_a_token_file_that_is_named_and_not_there_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "none"))
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH"):
        address.token()


def test_what_the_user_set_for_tokens_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    monkeypatch.chdir(home)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "of-a-cluster")
    address.authenticate(Where("http://head:8265"))
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(home / "of-a-cluster"), "Ray is joined from another folder"


def test_a_ray_of_our_own_hears_nothing_that_is_set_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"RAY_TMPDIR": "/scratch", "RAY_memory_usage_threshold": "0.9", "RAYON_NUM_THREADS": "2"}
    others = ("USE_TLS", "AUTH_TOKEN_PATH", "REDIS_ADDRESS", "JOB_CONFIG_JSON_ENV_VAR", "ADDRESS", "BACKEND_LOG_LEVEL")
    monkeypatch.setattr(os, "environ", kept | {f"RAY_{name}": "1" for name in others})
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    address.authenticate(Where())
    assert os.environ == kept
    monkeypatch.setitem(sys.modules, "ray", pytest)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "Ray's own")
    address.authenticate(Where())
    assert "RAY_AUTH_TOKEN" in os.environ


def test_a_python_in_which_ray_cannot_be_imported_is_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "flags", SimpleNamespace(optimize=2))
    with pytest.raises(InputError, match="PYTHONOPTIMIZE=2"):
        address.authenticate(Where())


def test_auto_with_no_cluster_at_all_is_refused(home: Path) -> None:
    with pytest.raises(InputError, match="--address auto: no Ray cluster is running on this machine"):
        address.authenticate(Where("auto"))


@pytest.mark.parametrize("given", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "local", "127.0.0.1"])
def test_auto_refuses_a_ray_address_that_no_process_can_join(
    given: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(InputError, match=f"RAY_ADDRESS {given}: --address auto joins a HOST:PORT"):
        address.authenticate(Where("auto"))


def test_an_address_where_nothing_listens_is_refused_at_once(home: Path) -> None:
    with pytest.raises(InputError, match=r"--address 127.0.0.1:9: no Ray cluster answers there"):
        address.authenticate(Where("127.0.0.1:9"))


def test_auto_is_the_cluster_that_was_started_here_whatever_the_temporary_folder_is_now(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(folder: Path, at: str) -> None:
        (folder / "ray").mkdir(parents=True)
        (folder / "ray" / "ray_current_cluster").write_text(at)

    started(home / "ours", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_TMPDIR", str(home / "ours"))
    assert address.running() == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_TMPDIR", str(home / "empty"))
    assert address.running() is None, "what Ray is told to use is all that is looked at"
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(home / "ours"))
    assert address.running() == "10.0.0.1:6379"
    monkeypatch.setenv("TMPDIR", str(home / "empty"))
    seen: list[str] = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *rest: seen.append(str(path)) or real(path, *rest))
    address.running()
    assert seen == [str(home / "empty/ray/ray_current_cluster"), "/tmp/ray/ray_current_cluster"]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert address.running() == "10.0.0.2:6379"
    for nothing_said in ("auto", " "):
        monkeypatch.setenv("RAY_ADDRESS", nothing_said)
        seen.clear()
        address.running()
        assert seen
