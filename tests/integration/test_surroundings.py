"""A launch in surroundings that were made for something else: environment, folder, streams, and who starts it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SPACE = "{name: few, settings: {dataset: digits, width: 1, steps: 20}, axes: {seed: 2}}"

HOSTILE = {
    "TUNE_RESULT_DIR": "/nowhere",
    "RAY_AIR_LOCAL_CACHE_DIR": "/nowhere",
    "RAY_RUNTIME_ENV_HOOK": "nowhere.hook",
    "RAY_TUNE_CALLBACKS": "nowhere.Callback",
    "RAY_START_HOOK": "nowhere.hook",
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 0}',
    "RAY_LOG_TO_STDERR": "1",
    "RAY_NAMESPACE": "somebody's",
    "RAY_USE_TLS": "1",
    "PYTHONWARNINGS": "error",
    "RAY_AUTH_TOKEN_PATH": "/nowhere",
    "RAY_REDIS_ADDRESS": "127.0.0.1:9",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"working_dir": "/nowhere"}}',
    "TUNE_MAX_PENDING_TRIALS_PG": "nonsense",
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
}
"""What reaches into Ray and Tune unless it is kept away."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with modules that are called as ours and PyTorch's, a search space, and the console script elsewhere."""
    path = Path(tempfile.mkdtemp(prefix="surroundings-"))
    path.chmod(0o777)
    for name in ("sweep", "torch", "ray", "numpy"):
        (path / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    (path / "few.yaml").write_text(SPACE)
    (path / "bin").mkdir()
    (path / "bin" / "sweep").write_text("from sweep.__main__ import main\n\nmain()\n")
    # As `uv run` stands above what it runs.
    (path / "run").write_text("import subprocess, sys\n\nsys.exit(subprocess.run(sys.argv[1:]).returncode)\n")
    yield path
    shutil.rmtree(path)


def command(folder: Path) -> list[str]:
    return [sys.executable, str(folder / "bin" / "sweep"), "launch", "--no-report", "--json", "few.yaml"]


def test_what_lies_around_or_is_set_for_others_reaches_no_worker(folder: Path) -> None:
    done = subprocess.run(
        ["uv", "run", *command(folder)],
        executable=sys.executable,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | HOSTILE,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trained"] == 4
    assert done.stderr == "4 of 4 runs to train, in 1 array\n"


def nameless() -> list[str]:
    """What has a command run under a user id that has no name, where this user may have that."""
    unshare = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    may = shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0
    return unshare if may else []


def test_a_process_without_streams_name_home_or_a_usable_temporary_folder_trains(folder: Path) -> None:
    temporary = folder / ("ä" * 60)
    temporary.mkdir()
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME", "RAY_TMPDIR")}
    arguments = [*nameless(), *command(folder)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *arguments],
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
    )
    assert (done.returncode, json.loads(done.stdout)["trained"]) == (0, 4)
    assert {each.name for each in temporary.glob("sweep-*")} <= {"sweep-user-54321"}, "its home, and nothing of Ray's"
