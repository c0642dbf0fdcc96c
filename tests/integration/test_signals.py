"""A launch and signals: it saves what it has where it is told to end, says one line, and leaves nothing behind."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import alive, descendants, training, wait_for

pytestmark = pytest.mark.integration

SPACE = "{name: long, settings: {dataset: digits, width: 1, steps: 30000, activation: tanh}, axes: {seed: 16}}"
ROOT = Path(__file__).parents[2]
LEAVING = "Interrupted: 0 of 32 runs are kept."


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "long.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder of the test's own, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def launching(space: Path, store: Path, temporary: Path, stream: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """A launch in a session of its own, as in a terminal, which saves no checkpoint unless it is told to end."""
    command = ["launch", "--no-report", "--checkpoint-seconds", "600", str(space), "--store", str(store)]
    return subprocess.Popen(
        [sys.executable, "-m", "sweep", *command],
        stdin=subprocess.DEVNULL if stream == subprocess.PIPE else stream,
        stdout=stream,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TMPDIR": str(temporary)},
        start_new_session=True,
    )


def trains(process: subprocess.Popen[bytes], store: Path) -> list[int]:
    """Waits until a launch trains; its processes."""

    def holders() -> set[int]:
        return {json.loads(lease.read_text())["pid"] for lease in (store / "leases").glob("*.json")}

    # A launch that was killed may have left leases of its own.
    wait_for(lambda: holders() & {*descendants(process.pid)} or process.poll() is not None)
    assert process.poll() is None
    time.sleep(1)
    return [process.pid, *descendants(process.pid)]


def left_nothing(processes: list[int], store: Path, temporary: Path) -> None:
    assert list((store / "checkpoints").glob("*.safetensors")), "what was trained is not saved"
    assert list((store / "leases").iterdir()) == []
    assert not (store / "failures").exists()
    wait_for(lambda: not any(map(alive, processes)), 10)
    assert list(temporary.glob("*sweep-*")) == []


def test_notices_of_a_batch_system_end_nothing_and_a_lost_terminal_costs_no_training(
    space: Path, tmp_path: Path, temporary: Path
) -> None:
    store, (master, terminal) = tmp_path / "results", pty.openpty()
    # As a login shell has it: the launch leads a session whose terminal is lost.
    taking = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from sweep.__main__ import main; main()"
    command = ["launch", "--no-report", "--checkpoint-seconds", "600", str(space), "--store", str(store)]
    with subprocess.Popen(
        [sys.executable, "-c", taking, *command],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TMPDIR": str(temporary)},
        start_new_session=True,
    ) as process:
        os.close(terminal)
        processes = trains(process, store)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            for each in processes:
                os.kill(each, number)
        time.sleep(2)
        assert process.poll() is None and all(map(alive, processes))
        os.close(master)
        assert process.wait(60) == 128 + signal.SIGHUP
    left_nothing(processes, store, temporary)


def test_all_processes_are_told_to_end_at_once_and_what_a_killed_launch_left_is_gone(
    space: Path, tmp_path: Path, temporary: Path
) -> None:
    store = tmp_path / "results"
    with launching(space, store, temporary) as killed:
        trains(killed, store)
        workers = training(killed.pid)
        killed.kill()
        assert killed.stdout is not None
        killed.stdout.close()
    wait_for(lambda: not any(map(alive, workers)), 30)
    [left] = temporary.glob("*sweep-*")
    with launching(space, store, temporary) as process:
        wait_for(lambda: not left.exists() or process.poll() is not None)
        processes = trains(process, store)
        started = time.monotonic()
        for each in processes:
            os.kill(each, signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and LEAVING in out.decode(), out
    assert time.monotonic() - started < 18, "it waited for workers that are gone"
    left_nothing(processes, store, temporary)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_again_and_again_leave_neither_processes_nor_files(
    number: signal.Signals, status: int, space: Path, tmp_path: Path, temporary: Path
) -> None:
    store = tmp_path / "results"
    with launching(space, store, temporary) as process:
        processes = trains(process, store)
        while process.poll() is None:
            os.killpg(process.pid, number)
            time.sleep(0.1)
        out, _ = process.communicate(timeout=60)
    lines = [line for line in out.decode().splitlines() if "runs to train, in" not in line]
    assert lines and all(line.startswith("Interrupted") for line in lines), out
    assert process.returncode == status
    wait_for(lambda: not any(map(alive, processes)), 10)
    assert list(temporary.glob("*sweep-*")) == []


@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.8, 1.6, 3.0])
def test_ctrl_c_in_the_first_seconds_is_one_line(seconds: float, space: Path, tmp_path: Path, temporary: Path) -> None:
    with launching(space, tmp_path / "results", temporary) as process:
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    lines = [line for line in out.decode().splitlines() if "runs to train, in" not in line]
    assert process.returncode == 130 and len(lines) == 1 and lines[0].startswith("Interrupted"), out
    assert list(temporary.glob("*sweep-*")) == []


def test_ctrl_c_while_code_is_made_ends_with_the_status_of_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        """
import sweep.cli
from sweep.__main__ import main
sweep.cli.main = lambda: exec("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
main()
"""
    )
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
