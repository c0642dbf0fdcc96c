"""A Ray of our own that cannot be started says why: a limit of the process, or a full disk."""

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.processes import alive, descendants, wait_for

from sweep.cluster import local_ray, ray_process
from sweep.common.errors import InputError


def limited(monkeypatch: pytest.MonkeyPatch, which: int | None = None, to: int = resource.RLIM_INFINITY) -> None:
    """Has a limit of this process seem to be this, and all others none."""
    none = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (to, to) if asked == which else none)


@pytest.mark.parametrize(
    ("which", "limit", "expected"),
    [
        (resource.RLIMIT_NPROC, 100, "only 100 processes and threads of this user (ulimit -u"),
        (resource.RLIMIT_NOFILE, 40, "only 40 open files (ulimit -n"),
        (resource.RLIMIT_NOFILE, 65536, None),
        (resource.RLIMIT_FSIZE, 10 * 2**20, "only 10,485,760 bytes per file (ulimit -f"),
        (None, resource.RLIM_INFINITY, None),
    ],
)
def test_a_small_limit_is_named_behind_what_ray_says(
    which: int | None, limit: int, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, which, limit)
    said = local_ray._reason(RuntimeError("The current node\n timed out"), tmp_path)
    assert said.startswith("The current node timed out")
    assert said.endswith("timed out") if expected is None else f"; a likely cause: {expected}" in said


def test_a_full_disk_is_named_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    said = local_ray._reason(TimeoutError("gcs_server_port"), tmp_path / "sweep-x")
    assert said == (
        f"gcs_server_port; a likely cause: the disk of {tmp_path} is full, 1 MiB are free (TMPDIR names another)"
    )


@pytest.mark.parametrize(("limit", "enough"), [(2**20, False), (6 * 2**30, False), (2**60, True), (-1, True)])
def test_too_little_address_space_is_refused_before_ray_ends_the_process(
    limit: int, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, resource.RLIMIT_AS, limit)
    if enough:
        local_ray._check_address_space()
    else:
        with pytest.raises(InputError, match=rf"ulimit -v {limit // 1024}: Ray needs more address space"):
            local_ray._check_address_space()


def test_rays_processes_find_this_project_and_debug_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    made = local_ray._environment()
    assert made["PYTHONPATH"] == f"{Path(__file__).parents[2]}{os.pathsep}/mine"
    assert {name for name in os.environ if name not in made} == {"PYTHONWARNINGS"}


@pytest.mark.parametrize(
    ("answer", "errors", "expected"),
    [('{"error": "no room"}', "", "no room"), ("", "Traceback\nImportError: no ray\n", "ImportError: no ray")],
    ids=["Ray says why", "its process died"],
)
def test_a_ray_that_does_not_start_is_one_message(answer: str, errors: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / local_ray.ERRORS).write_text(errors)
    process: Any = SimpleNamespace(pid=os.getpid(), stdout=io.StringIO(answer))
    with pytest.raises(InputError, match=f"^Ray cannot be started on this machine: {expected}"):
        local_ray.LocalRay(process, tmp_path).connect()


LAUNCH = """
import sys, time
from sweep.cluster import local_ray, scratch
with scratch.folder() as folder, local_ray.starting(1, 0, folder) as ray:
    if sys.argv[1] == "started":
        ray.connect()
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.mark.integration
@pytest.mark.parametrize("moment", ["starting", "started"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_our_ray_ends_with_its_launch_however_that_ends(moment: str, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCH, moment], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as launch:
        assert launch.stdout and launch.stdout.readline() == b"there\n"
        ours = descendants(launch.pid)
        assert ours
        launch.send_signal(number)
    wait_for(lambda: not any(map(alive, ours)))


@pytest.mark.integration
def test_what_workers_import_beforehand_asks_no_driver_for_gpus() -> None:
    """A worker is told later which GPUs are its own: whoever has asked before would see all of them for good."""
    program = (
        "import importlib, torch\n"
        "def asked(*_): raise AssertionError('CUDA was asked')\n"
        "torch._C._cuda_getDeviceCount = torch.cuda.device_count = torch.cuda.is_available = asked\n"
        "from sweep.cluster.ray_process import PRELOADED\n"
        "print(*[importlib.import_module(name).__name__ for name in PRELOADED])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(ray_process.PRELOADED)
