"""Files below a local folder or a prefix of an object store, through one small set of operations."""

import contextlib
import datetime
import errno
import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa
from pyarrow import fs

from sweep.common import addresses
from sweep.common.atomic_files import owner_is_dead, replacing
from sweep.common.errors import InputError
from sweep.common.redaction import without_secrets

RETRY_SECONDS: Final = 150.0
"""Seconds for which an operation is retried after an error that may pass."""

PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between one try and the next; the last one repeats."""

PASSING: Final = frozenset(
    {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN}
    | {errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNREFUSED, errno.EINTR}
    | {errno.ENOSPC, errno.EDQUOT}
)
"""Errors of a local (or mounted) file system that may pass; even a full disk, when somebody makes room."""

_LASTING: Final = (
    *("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT"),
    *("OAuth2 access token", "PERMISSION_DENIED", "UNAUTHENTICATED"),
    *("HTTP status 301", "HTTP status 400", "HTTP status 401", "HTTP status 403"),
)
"""Words in an object store's errors that no retry will fix."""

T = TypeVar("T")


class Place:
    """Files by name, such as `runs/abc.parquet`, below a folder, `file://…`, `s3://bucket/prefix` or `gs://…`.

    Raises InputError for any other address.

    A file is written whole or not at all. An operation that fails for a reason that may pass is retried for
    `RETRY_SECONDS`, or for `retry_seconds`; then OSError is raised. Only `create` makes a local folder: one that
    disappears is waited for, not made anew, and so is one that was `there` before but is missing now. `on_wait` is
    told why when a wait of the default length begins.
    """

    on_wait: Callable[[str], None] | None = None

    def __init__(self, address: str | Path, there: bool = False) -> None:
        self._parsed = addresses.parse(str(address), "--store", addresses.STORES)
        self.address, self.local = str(self._parsed), self._parsed.local
        self.created = there or self.local is None or self.local.is_dir()

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.address, self.created)

    def create(self) -> None:
        """Makes the folder, if it is local and missing."""
        if self.local is not None and not self.created:
            self.local.mkdir(parents=True, exist_ok=True)
            self.created = True

    def path(self, name: str) -> str:
        """The address of a file, for display."""
        return self._parsed.below(name)

    def read(self, name: str, size: int | None = None) -> bytes:
        """The content of a file, or its first `size` bytes; FileNotFoundError if there is none."""

        def local(path: Path) -> bytes:
            with open(path, "rb") as file:
                return file.read(-1 if size is None else size)

        def remote() -> bytes:
            if size is None or self._parsed.scheme == "gs":
                with self._filesystem.open_input_stream(self._remote(name)) as stream:
                    return bytes(stream.read(size))
            with self._filesystem.open_input_file(self._remote(name)) as file:
                return bytes(file.read_at(min(size, file.size()), 0))

        return self.with_retries(remote if self.local is None else functools.partial(local, self.local / name))

    def write(self, name: str, content: bytes | memoryview, retry_seconds: float | None = None) -> None:
        """Writes a file, replacing any earlier one."""
        if self.local is not None:
            self.with_retries(self.create, retry_seconds)
            self.with_retries(functools.partial(self._write_local, self.local / name, content), retry_seconds)
            return

        def remote() -> None:
            # One PUT: when the stream is closed, the file is there whole or not at all.
            stream = self._filesystem.open_output_stream(self._remote(name))
            try:
                stream.write(content)
                stream.close()
            except (pa.ArrowInvalid, FileNotFoundError) as error:  # interrupted, and cannot be resumed: start again
                raise OSError(str(error)) from error

        self.with_retries(remote, retry_seconds)

    def remove(self, name: str, retry_seconds: float | None = None) -> None:
        """Removes a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                self.with_retries((self.local / name).unlink, retry_seconds)
            else:
                self.with_retries(functools.partial(self._filesystem.delete_file, self._remote(name)), retry_seconds)

    def files(self, folder: str, suffix: str) -> list[str]:
        """The files in a folder with this suffix, sorted; temporary ones, which start with a dot, are skipped."""
        found = self.with_retries(functools.partial(self._listed, folder))
        return sorted(f"{folder}/{name}" for name in found if name.endswith(suffix) and not name.startswith("."))

    def no_files(self, folder: str, suffix: str) -> dict[str, str]:
        """What has this suffix but is not a file, and what it is, in order; object stores have only files."""
        if self.local is None:
            return {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.local / folder) as entries:
            named = [entry for entry in entries if entry.name.endswith(suffix) and not entry.name.startswith(".")]
            return {f"{folder}/{entry.name}": _what(entry) for entry in sorted(named, key=_name) if not _is_file(entry)}
        return {}

    def sizes(self, folder: str, suffix: str) -> dict[str, int]:
        """As `files`, with the sizes in bytes."""
        found = self.with_retries(functools.partial(self._sized, folder))
        names = sorted(name for name in found if name.endswith(suffix) and not name.startswith("."))
        return {f"{folder}/{name}": found[name] for name in names}

    def settle(self, folder: str) -> None:
        """Returns when what was written into a folder would survive a power failure."""
        if self.local is None:
            return  # an object store answers only then
        descriptor = os.open(self.local / folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def clear_temporaries(self, folder: str) -> None:
        """Removes what processes of this host left behind when they died during a write."""
        if self.local is not None:
            for path in _there(self.local / folder):
                if path.name.startswith(".") and owner_is_dead(path):
                    path.unlink(missing_ok=True)

    def upload(self, folder: Path, name: str) -> dict[str, OSError]:
        """Uploads the files of a local folder to `name`; returns those that failed. Only the first one is retried."""
        failed: dict[str, OSError] = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file = path.relative_to(folder).as_posix()
            try:
                self.write(f"{name}/{file}", path.read_bytes(), retry_seconds=0.0 if failed else None)
            except OSError as error:
                failed[file] = error
        return failed

    def _listed(self, folder: str) -> list[str]:
        if self.local is not None:
            if self.created and not self.local.is_dir():
                raise _gone(self.local)
            return [path.name for path in _there(self.local / folder)]
        return list(self._sized(folder))

    def _sized(self, folder: str) -> dict[str, int]:
        if self.local is not None:
            sizes = {}
            for name in self._listed(folder):
                with contextlib.suppress(FileNotFoundError):
                    sizes[name] = (self.local / folder / name).stat().st_size
            return sizes
        selector = fs.FileSelector(self._remote(folder), allow_not_found=True, recursive=False)
        found = self._filesystem.get_file_info(selector)
        if not found and not self._has_bucket():
            raise InputError(f"--store {self.address}: there is no such bucket, or it is not accessible from here")
        return {info.base_name: info.size for info in found if info.type == fs.FileType.File}

    def _has_bucket(self) -> bool:
        [bucket] = self._filesystem.get_file_info([self._parsed.host])
        return bool(bucket.type == fs.FileType.Directory)

    def _write_local(self, path: Path, content: bytes | memoryview) -> None:
        assert self.local is not None
        if not self.local.is_dir():
            raise _gone(self.local)
        folder = self.local
        for part in path.parent.relative_to(self.local).parts:
            folder = folder / part
            folder.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def _remote(self, name: str) -> str:
        return "/".join(part for part in (self._parsed.host, self._parsed.path, name) if part)

    @functools.cached_property
    def _filesystem(self) -> Any:
        options = dict(self._parsed.options)
        return _s3(options) if self._parsed.scheme == "s3" else _gcs(options)

    def with_retries(self, operation: Callable[[], T], retry_seconds: float | None = None) -> T:
        """The result of an operation on these files, retried after errors that may pass."""
        last, told = time.monotonic() + (RETRY_SECONDS if retry_seconds is None else retry_seconds), False
        for pause in _pauses():
            try:
                return operation()
            except OSError as error:
                if not self._passing(error) or time.monotonic() + pause > last:
                    raise
                if self.on_wait and retry_seconds is None and not told:
                    told = True
                    self.on_wait(without_secrets(f"{self.address}: {error.strerror or error}; waiting for it"))
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def _passing(self, error: OSError) -> bool:
        if self.local is not None:
            gone = isinstance(error, FileNotFoundError) and self.created and not self.local.is_dir()
            return gone or error.errno in PASSING
        if isinstance(error, FileNotFoundError | PermissionError):
            return False
        return not any(word in str(error) for word in _LASTING)


def _s3(options: dict[str, Any]) -> Any:
    """Credentials and region as AWS's tools find them; the endpoint from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL."""
    variable = next((name for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)), None)
    if variable and "endpoint_override" not in options:
        options = _endpoint(variable, os.environ[variable]) | options
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options = {"region": region} | options
    # Delayed opening: a small file is one PUT, with no request before it.
    given = {"connect_timeout": 5, "request_timeout": 20, "allow_delayed_open": True} | options
    return fs.S3FileSystem(**given)


def _gcs(options: dict[str, Any]) -> Any:
    """Credentials as Google's tools find them; none for an endpoint from STORAGE_EMULATOR_HOST."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator and "endpoint_override" not in options:
        url = emulator if "://" in emulator else f"http://{emulator}"
        options = _endpoint("STORAGE_EMULATOR_HOST", url) | {"anonymous": True} | options
    return fs.GcsFileSystem(retry_time_limit=datetime.timedelta(seconds=10), **options)


def _endpoint(variable: str, url: str) -> dict[str, Any]:
    found = addresses.parse(url, variable, addresses.SERVERS)
    return {"scheme": found.scheme, "endpoint_override": found.host}


def _pauses() -> Iterator[float]:
    yield from PAUSES
    while True:
        yield PAUSES[-1]


def _there(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from [Path(entry.path) for entry in entries if _is_file(entry)]


def _name(entry: "os.DirEntry[str]") -> str:
    return entry.name


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # links that lead to each other
        return False


def _what(entry: "os.DirEntry[str]") -> str:
    """What an entry that is not a file is."""
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "is a link to nothing"
    return "is a folder; expected a file" if os.path.isdir(entry.path) else "is not a file"


def _gone(folder: Path) -> OSError:
    return FileNotFoundError(errno.ENOENT, "the store is gone", str(folder))
