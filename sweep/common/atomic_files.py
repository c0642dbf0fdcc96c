"""Atomic writes: a file is written under a temporary name, then renamed, so that nobody reads half a file."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweep.common.host import is_alive, this_host


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends, and is removed if it fails.

    The temporary name starts with a dot, names its owner, and keeps the suffix; the content is synced to disk before
    the rename.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary), temporary):
            raise
        # Users know this name; Arrow's message has the temporary one.
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        with suppress(OSError):  # report what ended the block, not that the file system has become read-only
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A unique name beside `path`, by which `owner_is_dead` recognizes this process."""
    owner = f"{this_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.stem}.{owner}{path.suffix}")


def owner_is_dead(temporary: Path) -> bool:
    """Whether a temporary file belongs to a process of this host that is no longer running."""
    found = re.fullmatch(r"\..+\.([0-9a-f]{12})-(\d+)-[0-9a-f]{8}(\.\w+)?", temporary.name)
    return found is not None and found[1] == this_host() and not is_alive(int(found[2]))
