"""Runs sections one after the other, each as a process of its own, which is killed when its time is over."""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from gpu_kit.results import Results

PIPE: Final = "GPU_KIT_PIPE"
"""Names, in a section's environment, the file descriptor that takes what it finds: one JSON object a line."""

DEADLINE: Final = "GPU_KIT_DEADLINE"
"""Names, in a section's environment, when its time is over, as `time.monotonic` has it in every process."""

RESULTS: Final = "GPU_KIT_RESULTS"
"""Names, in a section's environment, the file of what the sections before it have found."""

LOOK: Final = 0.05
"""Seconds between two looks whether a process has ended."""

LAST_LINES: Final = 12
"""Lines of a failed section's log that the results keep."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A command that writes what it finds to `PIPE`, and the seconds it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float


class Unfinished(Exception):
    """A program that failed, or whose time was over; it says how it ended."""


def run(
    sections: Sequence[Section],
    results: Results,
    environment: Mapping[str, str],
    say: Callable[[str], None] = print,
    started: float | None = None,
) -> None:
    """Runs every section, whatever becomes of the others; what each finds is in `results` at once.

    A section has until the sum of its own limit and those before it, counted from `started` (of `time.monotonic`): it
    may use what the others have left over, and all of them together keep to the sum.
    """
    due = time.monotonic() if started is None else started
    for section in sections:
        due += section.seconds
        limit = max(0.0, due - time.monotonic())
        _run(section, limit, results, environment)
        found = results.sections[section.name]
        missing = f", {found.missing} of {len(found.results)} numbers missing" if found.missing else ""
        say(f"{section.name}: {found.status} after {found.seconds:.1f} s{missing}")


def _run(section: Section, limit: float, results: Results, environment: Mapping[str, str]) -> None:
    results.begin(section.name, limit)
    log = results.path.with_name(f"{section.name}.log")
    begun = time.monotonic()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        with open(log, "wb") as output:
            process = subprocess.Popen(
                section.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[writer],
                env={**environment, PIPE: str(writer), DEADLINE: str(begun + limit), RESULTS: str(results.path)},
            )
        os.close(writer)
        try:
            _follow(process, reader, begun + limit, lambda lines: results.add(section.name, lines))
            status = "timeout" if process.returncode is None else "failed" if process.returncode else "ok"
        finally:
            end(process)
    finally:
        os.close(reader)
    seconds = time.monotonic() - begun
    results.end(section.name, status, seconds, None if status == "ok" else _why(process, status, limit, log))


def _follow(
    process: "subprocess.Popen[bytes]", reader: int, deadline: float, take: Callable[[list[dict[str, Any]]], None]
) -> None:
    """Takes what a process writes, line by line, until it has ended or its time is over."""
    rest = b""
    while True:
        ended = process.poll() is not None  # asked before reading: what it wrote until then is read
        ready, _, _ = select.select([reader], [], [], 0 if ended else LOOK)
        chunk = os.read(reader, 2**20) if ready else b""
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            take([json.loads(line) for line in lines])
        if not chunk:
            if ended or time.monotonic() > deadline:
                return
            if ready:  # it has closed the pipe, and goes on
                time.sleep(LOOK)
        elif time.monotonic() > deadline:
            return


def _why(process: "subprocess.Popen[bytes]", status: str, limit: float, log: Path) -> str:
    """How a section ended, and the last lines that it wrote."""
    how = f"its {limit:.0f} s were over" if status == "timeout" else how_it_ended(process.returncode)
    return "\n".join([how, *log.read_text(errors="replace").splitlines()[-LAST_LINES:]])


def how_it_ended(status: int) -> str:
    """An exit status of `subprocess` in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def end(process: "subprocess.Popen[Any]") -> None:
    """Kills a process that leads a session, and all that it began: below it, and left over in its session."""
    for _ in range(2):  # the second time those that came up meanwhile
        _kill({*_below(process.pid), *_session(process.pid)})
    process.wait()


class Finished(NamedTuple):
    """A program that has ended by itself."""

    status: int
    stdout: str
    stderr: str

    @property
    def why(self) -> str:
        """How it ended, and the last lines that it wrote."""
        lines = (self.stdout + self.stderr).strip().splitlines()
        return "\n".join([how_it_ended(self.status), *lines[-LAST_LINES:]])


def finished(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> Finished:
    """Runs a program to its end. Raises `Unfinished` where it takes longer than `seconds`, and kills it."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            printed, errors = process.communicate(timeout=max(0.0, seconds))
        except subprocess.TimeoutExpired as error:
            raise Unfinished(f"it took longer than {seconds:.0f} s") from error
        finally:
            if process.returncode is None:
                _kill({process.pid, *_below(process.pid)})
    return Finished(process.returncode, printed, errors)


def output_of(command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> str:
    """What a program printed. Raises `Unfinished` where it failed, or took longer than `seconds`."""
    done = finished(command, seconds, environment)
    if done.status:
        raise Unfinished(done.why)
    return done.stdout


def _kill(pids: Collection[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _session(leader: int) -> list[int]:
    """The processes of the session that this process leads, or led."""
    return [pid for pid, (_, session) in _processes().items() if session == leader]


def _below(ancestor: int) -> list[int]:
    """All processes below one."""
    processes = _processes()
    found: list[int] = []
    rank = [ancestor]
    while rank:
        rank = [pid for pid, (parent, _) in processes.items() if parent in rank]
        found += rank
    return found


def _processes() -> dict[int, tuple[int, int]]:
    """Parent and session of every process of this machine, as /proc has them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found[int(folder.name)] = int(fields[1]), int(fields[3])
    return found
