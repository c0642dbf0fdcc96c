"""Members of a tar archive, one after the other: no path outside it, and a limited number of bytes."""

import contextlib
import functools
import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from sweep.common.errors import InputError
from sweep.data.formats import guards
from sweep.data.formats.guards import gibibytes, reading

MAX_READ: Final = 2**30
"""Largest number of bytes read from a compressed archive at once."""


def tar_members(path: Path) -> Iterator[tuple[PurePosixPath, Callable[[], bytes]]]:
    """Names and contents of the files in a tar archive, gzipped or not; contents are available only in turn.

    InputError for paths outside the archive's own folder, links, devices, and more than 4 GiB in total.
    """
    guard = functools.partial(reading, path, "a .tar.gz archive")
    with contextlib.ExitStack() as stack:
        with guard():
            raw = stack.enter_context(open(path, "rb"))
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw
            limited = _Limited(stream, path)
            archive = stack.enter_context(tarfile.open(fileobj=limited, mode="r|"))
        total = 0
        while True:
            with guard():
                member = archive.next()
                if member is None:
                    while limited.read(2**20):
                        pass  # gzip's checksum is at its end
                    return
                name = PurePosixPath(member.name)
                _check_member(path, member, name)
                total += member.size
                if total > guards.MAX_BYTES:
                    raise InputError(f"{path}: unpacks to more than {gibibytes()}; is it the right archive?")
                file = archive.extractfile(member) if member.isfile() else None
            if file is not None:

                def content(file: IO[bytes] = file) -> bytes:
                    with guard():
                        return file.read()

                yield name, content


def check_tar(path: Path) -> None:
    """Raises InputError unless the archive can be read to its end."""
    for _ in tar_members(path):
        pass


def _check_member(path: Path, member: tarfile.TarInfo, name: PurePosixPath) -> None:
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        raise InputError(f"{path}: holds {member.name!r}, a path outside it; nothing was unpacked")
    if not member.isfile() and not member.isdir():
        raise InputError(f"{path}: holds {member.name!r}, which is a link or a device; nothing was unpacked")


class _Limited(io.RawIOBase):
    """A stream that fails a little after `guards.MAX_BYTES`: sizes in headers may be false."""

    def __init__(self, stream: Any, path: Path) -> None:
        self.stream, self.path, self.left = stream, path, guards.MAX_BYTES + 2**28

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_READ:
            raise InputError(f"{self.path}: holds a file of more than {MAX_READ / 2**30:.0f} GiB")
        found: bytes = self.stream.read(size)
        self.left -= len(found)
        if self.left < 0:
            raise InputError(f"{self.path}: unpacks to more than {gibibytes()}; is it the right archive?")
        return found
