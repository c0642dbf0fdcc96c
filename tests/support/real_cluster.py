"""A real Ray cluster for tests, in a process of its own: several nodes on one machine, or in two network namespaces."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
SWEEP = [sys.executable, "-m", "sweep"]


def environment(token: str | None = None, **more: str) -> dict[str, str]:
    """That of a process whose cluster expects this token, with our Python first and this tree on its path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEP_", "TUNE_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    mine = {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    return kept | mine | ({"RAY_AUTH_TOKEN": token} if token else {}) | more


class Cluster:
    """A running cluster: `address` is that of its head, `url` that of its dashboard."""

    def __init__(self, process: subprocess.Popen[str], token: str) -> None:
        self.process, self.token = process, token
        self.address, self.url = self._answer().split()

    def add_node(self, cpus: int) -> None:
        """Starts one more node."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{cpus}\n")
        self.process.stdin.flush()
        assert self._answer() == "added\n"

    def environment(self, **more: str) -> dict[str, str]:
        """That of a client with the right token."""
        return environment(self.token, **more)

    def _answer(self) -> str:
        out: IO[str] | None = self.process.stdout
        assert out is not None
        line = out.readline()
        assert line, "the cluster did not start"
        return line


@contextlib.contextmanager
def running(*cpus: int, python: str = sys.executable, **more: str) -> Iterator[Cluster]:
    """A cluster with token authentication, and one node for each number of CPUs, the head first."""
    token, temporary = secrets.token_hex(32), tempfile.mkdtemp(prefix="rc-")  # short: sockets lie in it
    process = subprocess.Popen(
        [python, __file__, *map(str, cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(token, RAY_AUTH_MODE="token", RAY_TMPDIR=temporary, **more),
        text=True,
        cwd=temporary,
    )
    try:
        yield Cluster(process, token)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(
    *arguments: str | Path,
    env: dict[str, str],
    status: int = 0,
    prefix: tuple[str, ...] = (),
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    done = subprocess.run(
        [*prefix, *SWEEP, *map(str, arguments)], capture_output=True, text=True, timeout=280, env=env, cwd=cwd
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def start(*arguments: str | Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """Starts the command line and leaves it running."""
    return subprocess.Popen(
        [*SWEEP, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def wait_for(condition: object, seconds: float = 120.0) -> None:
    """Returns as soon as a callable is true."""
    assert callable(condition)
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.1)


def _main() -> None:
    from ray.cluster_utils import Cluster as Nodes

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    head, *others = map(int, sys.argv[1:])
    # By default the agent, which starts jobs, has a fixed port; another Ray on this machine may have it.
    with socket.create_server(("", 0)) as free:
        agent = free.getsockname()[1]
    dashboard = {"include_dashboard": True, "dashboard_port": 0, "dashboard_agent_listen_port": agent}
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": head, **dashboard})
    for cpus in others:
        nodes.add_node(num_cpus=cpus)
    print(nodes.address, f"http://{nodes.webui_url}", flush=True)
    for line in sys.stdin:
        nodes.add_node(num_cpus=int(line))
        print("added", flush=True)
    nodes.shutdown()


if __name__ == "__main__":
    _main()
