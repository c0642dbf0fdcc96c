"""Launches as Ray Jobs: submitted over HTTP, followed, listed, stopped. The search spaces are sent with the job."""

import sweep.cluster.ray_environment  # noqa: F401  # isort: skip  (Ray reads it when imported)

import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import ray
from rich.console import Console

from sweep.cluster import node_probe, packaging, ray_internals, scratch
from sweep.cluster.address import Where
from sweep.common.errors import InputError
from sweep.common.progress import say
from sweep.space import catalogue
from sweep.space.search_space import SearchSpace
from sweep.store.storage import Place

STOP_TIMEOUT: Final = 40
"""Seconds that a job has to save its checkpoints and end when it is stopped; Ray's own default is 3."""

POLL: Final = 0.5
"""Seconds between two queries of a job's status."""

DASHBOARD_TIMEOUT: Final = 60.0
"""Seconds for which the dashboard may be unreachable while a job is followed, or not yet accept jobs."""

LOG_TIMEOUT: Final = 60.0
"""Seconds without output after which a job's log is requested again: a connection may die without an error."""

REQUEST_TIMEOUTS: Final = (10.0, 120.0)
"""Seconds that the dashboard may take to accept a connection, and to answer."""

PROBE_TIMEOUT: Final = 300.0
"""Seconds that inspecting the nodes before an installation may take."""

ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})

STOPPED: Final = 143
"""Exit status of a launch that was stopped: that of a process ended by SIGTERM."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A launch on a cluster: Ray's status, when it started (UTC), and Ray's message."""

    id: str
    sweep: str
    status: str
    started: str | None
    message: str | None

    @property
    def has_ended(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in ENDED


class Cluster:
    """A cluster's dashboard. Raises InputError if it does not answer, rejects us, or runs another version of Ray."""

    def __init__(self, where: Where) -> None:
        self.address = str(where.address)
        for logger in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        if where.kind == "jobs":
            for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # Ray would use these instead
                os.environ.pop(name, None)
        with self._speaking():
            self.client = ray_internals.job_client(self.address, REQUEST_TIMEOUTS)
            version = ray_internals.ray_version(self.client)
        if version != ray.__version__:
            raise InputError(
                f"--address {self.address}: the cluster runs Ray {version}, and this machine "
                f"Ray {ray.__version__}; install the same version on both"
            )

    def jobs(self, sweep: str | None = None) -> list[Job]:
        """The launches on the cluster, or those of one sweep; the oldest first."""
        with self._speaking():
            found = sorted(self.client.list_jobs(), key=lambda each: each.start_time or 0)
        jobs = [_job(each) for each in found if "sweep" in (each.metadata or {})]
        return [job for job in jobs if sweep is None or sweep in job.sweep.split(", ")]

    def stop(self, job_id: str) -> Job:
        """Makes a job save its checkpoints and end; returns its final state. InputError if there is no such job."""
        known = {job.id: job for job in self.jobs()}
        if job_id not in known:
            running = [job.id for job in known.values() if job.status not in ENDED]
            raise InputError(
                f"no job {job_id!r} of sweep at {self.address}; running jobs: {', '.join(running) or 'none'}"
            )
        with self._speaking():
            if known[job_id].status not in ENDED:
                self.client.stop_job(job_id)
            return _job(self._ended(job_id, STOP_TIMEOUT + 20))

    def launch(
        self,
        files: Sequence[Path],
        spaces: Sequence[SearchSpace],
        store: str,
        options: Sequence[str],
        where: Where,
        console: Console,
    ) -> tuple[int, dict[str, Any] | None]:
        """Submits a launch as a job, or finds the same one running, and follows it; returns the job's exit status, and
        what it printed for `--json`. `options` are those of the launch, including `--store`.

        KeyboardInterrupt detaches: the job continues.
        """
        check_travels(spaces, store)
        names = _names(files)
        arguments = ["launch", *names, "--address", "auto", *options]
        content = b"\0".join(file.read_bytes() for file in files)
        same = hashlib.sha256(shlex.join(arguments).encode() + b"\0" + content).hexdigest()[:16]
        job_id = self._running(same)
        if job_id:
            say(console, f"job {job_id} is already running this launch: following it")
        else:
            with self._speaking():
                job_id = self._submit(
                    files, names, arguments, {"launch": same, "sweep": _title(spaces)}, where, console
                )
            say(console, f"job {job_id} at {self.address}")
        try:
            return self._followed(job_id, console)
        except KeyboardInterrupt:
            say(console, f"Detached: job {job_id} continues. To follow it again, repeat this command.")
            say(console, f"To see its status: sweep status --address {self.address}")
            say(console, f"To stop it: sweep stop {job_id} --address {self.address}")
            raise

    def _running(self, same: str) -> str | None:
        with self._speaking():
            for each in self.client.list_jobs():
                if (each.metadata or {}).get("launch") == same and each.status not in ENDED:
                    return str(each.submission_id)
        return None

    def _submit(
        self,
        files: Sequence[Path],
        names: Sequence[str],
        arguments: Sequence[str],
        metadata: dict[str, str],
        where: Where,
        console: Console,
    ) -> str:
        program, environment = ["sweep"], {}
        if where.installs:
            # A package sent with the job has no console script.
            program, environment = ["python", "-m", "sweep"], packaging.runtime_env(self._lacking(console), console)
        with scratch.folder() as own:
            folder = own / "job"  # what is uploaded
            for file, name in zip(files, names, strict=True):
                (folder / name).parent.mkdir(parents=True)
                shutil.copyfile(file, folder / name)
            return self._sent(
                entrypoint=shlex.join([*program, *arguments]),
                submission_id=f"sweep-{_slug(metadata['sweep'])}-{secrets.token_hex(4)}",
                runtime_env=environment
                | {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_TIMEOUT)}},
                metadata=metadata,
            )

    def _sent(self, **job: Any) -> str:
        """Submits a job; a cluster that has just started does not accept jobs at once."""
        last = time.monotonic() + DASHBOARD_TIMEOUT
        while True:
            try:
                return str(self.client.submit_job(**job))
            except RuntimeError as error:
                if ray_internals.NO_AGENT not in str(error) or time.monotonic() > last:
                    raise
            time.sleep(POLL)

    def _lacking(self, console: Console) -> list[str]:
        """What the cluster's nodes have to install for us, found by a small job."""
        wanted = packaging.requirements()
        with scratch.folder() as own:
            folder = own / "job"
            folder.mkdir()
            shutil.copyfile(node_probe.__file__, folder / "node_probe.py")
            job_id = self._sent(
                entrypoint=shlex.join(["python", "node_probe.py", json.dumps(list(wanted))]),
                submission_id=f"sweep-visit-{secrets.token_hex(4)}",
                runtime_env={"working_dir": str(folder)},
            )
        try:
            ended, logs = self._ended(job_id, PROBE_TIMEOUT), self.client.get_job_logs(job_id)
        finally:
            # One that has not ended would keep running for nothing.
            for over in (self.client.stop_job, self.client.delete_job):
                with contextlib.suppress(RuntimeError):
                    over(job_id)
        lines = [line for line in logs.splitlines() if line.startswith(node_probe.MARK)]
        if not lines:
            why = "".join(logs.strip().splitlines()[-1:]) or ended.message or ended.status
            raise InputError(f"--address {self.address}: its nodes could not be inspected: {why}; see --no-install")
        nodes = [node for node in json.loads(lines[-1].removeprefix(node_probe.MARK)) if "versions" in node]
        _check_python(nodes, self.address)
        missing = packaging.lacking([node["versions"] for node in nodes], wanted)
        if missing:
            say(console, f"installing on the cluster: {', '.join(missing)}")
        return missing

    def _ended(self, job_id: str, seconds: float) -> Any:
        """A job's details once it has ended, or after `seconds`."""
        last = time.monotonic() + seconds
        while True:
            details = self.client.get_job_info(job_id)
            if details.status in ENDED or time.monotonic() > last:
                return details
            time.sleep(POLL)

    def _followed(self, job_id: str, console: Console) -> tuple[int, dict[str, Any] | None]:
        shown, heard = _Shown(console), time.monotonic()
        while True:
            # A broken connection says nothing about the job.
            with contextlib.suppress(
                RuntimeError, OSError, asyncio.TimeoutError, ray.exceptions.AuthenticationError, *_client_errors()
            ):
                asyncio.run(self._tail(job_id, shown))
            try:
                with self._speaking():
                    details, heard = self.client.get_job_info(job_id), time.monotonic()
                    if details.status in ENDED:
                        shown(self.client.get_job_logs(job_id), whole=True)
                        break
            except InputError as error:
                if time.monotonic() - heard > DASHBOARD_TIMEOUT:
                    raise InputError(f"{error}; job {job_id} may still be running") from error
            time.sleep(POLL)
        if details.status != "SUCCEEDED" and details.message:
            say(console, f"job {job_id}: {_first(details.message)}")
        return _exit_status(details), shown.answer()

    async def _tail(self, job_id: str, shown: "_Shown") -> None:
        shown.rewind()
        texts = self.client.tail_job_logs(job_id)
        while True:
            async with asyncio.timeout(LOG_TIMEOUT):
                text = await anext(texts, None)
            if text is None:
                return
            shown(text)

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turns errors of requests to the dashboard into one InputError."""
        try:
            yield
        except ray.exceptions.AuthenticationError as error:
            missing = "required" in str(error).splitlines()[0]
            raise InputError(
                f"--address {self.address}: the cluster "
                + ("requires a token, but none was found" if missing else "rejects this token")
                + ": set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or write it to ~/.ray/auth_token"
            ) from error
        except (ConnectionError, *_client_errors()) as error:
            raise InputError(f"--address {self.address}: no Ray dashboard answers there") from error
        except InputError:
            raise
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f"--address {self.address}: {' '.join(str(error).split())[:500]}") from error


def check_travels(spaces: Sequence[SearchSpace], store: str) -> None:
    """Raises InputError if a job needs something that is only on this machine."""
    if Place(store).local is not None and "://" not in store and not Path(store).is_absolute():
        raise InputError(
            f"--store {store}: the cluster that runs the job has no such folder; expected s3://BUCKET/PREFIX, "
            "gs://BUCKET/PREFIX, or the absolute path of a folder that all its hosts mount"
        )
    for space in spaces:
        for dataset in space.datasets:
            if catalogue.path_of(dataset):
                raise InputError(
                    f"{space.name}: the files of data set {dataset} are not sent with a job: "
                    "launch on a machine of the cluster that has them, with --address auto"
                )
        trackers = space.tracking.model_dump(exclude_none=True, exclude={"wandb"}) if space.tracking else {}
        for tracker, address in trackers.items():
            if "://" not in address:
                raise InputError(
                    f"{space.name}: tracking: {tracker} writes to {address}, a folder that a job cannot see: "
                    "give a server's address, or launch on a machine of the cluster, with --address auto"
                )


def _check_python(nodes: Sequence[dict[str, Any]], address: str) -> None:
    for node in nodes:
        if tuple(map(int, node["python"].split(".")[:2])) < (3, 11):
            raise InputError(
                f"--address {address}: Python {node['python']} on {node['host']}; sweep needs 3.11 or newer"
            )


class _Shown:
    """Prints a job's log; what was shown before a connection broke is not shown again."""

    def __init__(self, console: Console) -> None:
        self.console, self.text, self._come = console, "", 0

    def rewind(self) -> None:
        """The log starts from its beginning again."""
        self._come = 0

    def __call__(self, text: str, whole: bool = False) -> None:
        if whole:
            self.rewind()
        self._come += len(text)
        new = text[-(self._come - len(self.text)) :] if self._come > len(self.text) else ""
        self.text += new
        self.console.file.write(new)
        self.console.file.flush()

    def answer(self) -> dict[str, Any] | None:
        """The last line that is a JSON object with the result of a launch."""
        for line in reversed(self.text.splitlines()):
            with contextlib.suppress(ValueError):
                found = json.loads(line) if line.startswith("{") else None
                if isinstance(found, dict) and {"name", "runs", "trained", "report"} <= found.keys():
                    return found
        return None


def _client_errors() -> Any:
    import aiohttp
    import requests

    return aiohttp.ClientError, requests.exceptions.RequestException


def _exit_status(details: Any) -> int:
    if details.status == "STOPPED":
        return STOPPED
    if details.driver_exit_code is not None:
        code = int(details.driver_exit_code)
        return code if code >= 0 else 128 - code  # a signal, as a shell reports it
    return 0 if details.status == "SUCCEEDED" else 1


def _job(details: Any) -> Job:
    started = details.start_time and datetime.datetime.fromtimestamp(details.start_time / 1000, datetime.UTC)
    return Job(
        id=str(details.submission_id),
        sweep=details.metadata["sweep"],
        status=str(getattr(details.status, "value", details.status)),
        started=started.isoformat(timespec="seconds") if started else None,
        message=_first(details.message) or None,
    )


def _first(message: str | None) -> str:
    """Ray's message about a job, without the log that it may append."""
    return (message or "").strip().partition("\n")[0].partition(", last available logs")[0]


def _names(files: Sequence[Path]) -> list[str]:
    """A path for each file in the job's folder, keeping its name, which may be the sweep's."""
    return [f"{number}/{file.name}" for number, file in enumerate(files, 1)]


def _title(spaces: Sequence[SearchSpace]) -> str:
    return ", ".join(space.name for space in spaces)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:60].strip("-")
