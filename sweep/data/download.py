"""The files of public data sets: checked, and downloaded if they are not on this machine."""

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sweep.common.errors import InputError
from sweep.space.catalogue import File

STALE_DOWNLOAD_SECONDS: Final = 24 * 3600.0
"""Age in seconds at which an unfinished download is removed."""

TIMEOUT: Final = 30.0
"""Seconds without a byte after which a download has failed."""


class NotHere(InputError):
    """The files of a data set are not on this machine."""


def check(dataset: str, file: Path, wanted: str | None) -> None:
    """Raises InputError if the file does not have the expected checksum."""
    if wanted and (found := md5(file)) != wanted:
        raise InputError(
            f"data set {dataset!r}: {file} is truncated or altered (MD5 {found}, expected {wanted}); "
            "remove it to download it again"
        )


def fetch(
    dataset: str, file: File, data_dir: Path, download: bool, whole: Callable[[Path], None] = lambda _: None
) -> Path:
    """The path of a file whose checksum is right, after downloading it if it is missing and `download` allows it.

    `whole` raises InputError if a download without a checksum is incomplete. Raises NotHere if the file cannot be
    obtained, InputError if an existing file has the wrong checksum.
    """
    target = data_dir / file.path
    if target.exists():
        check(dataset, target, file.md5)
        return target
    tried = [f"{url}: {_downloaded(url, file, target, whole)}" for url in file.urls] if download else []
    if target.exists():
        return target
    checksum = f" (MD5 {file.md5})" if file.md5 else ""
    if download:
        raise NotHere(
            f"data set {dataset!r}: {target.name} could not be downloaded ({'; '.join(tried)}). "
            f"Download it yourself and put it at {target}{checksum}"
        )
    raise NotHere(
        f"data set {dataset!r} is not here: there is no {target}{checksum}; "
        f"sweep datasets --download {dataset} gets it from {file.urls[0]}"
    )


def _downloaded(url: str, file: File, target: Path, whole: Callable[[Path], None]) -> str:
    """Tries one URL, unless an earlier one has worked; returns what went wrong."""
    from torchvision.datasets.utils import download_url

    if target.exists():
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".download-*"):
        if time.time() - left.stat().st_mtime > STALE_DOWNLOAD_SECONDS:  # left by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    elsewhere = Path(tempfile.mkdtemp(prefix=".download-", dir=target.parent))
    try:
        with _timeout(TIMEOUT):
            download_url(url, elsewhere, target.name, file.md5)
        if file.md5 is None:
            whole(elsewhere / target.name)
        os.replace(elsewhere / target.name, target)
    except InputError as error:
        return str(error).replace(str(elsewhere / target.name), "the downloaded file")
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        partly = (elsewhere / target.name).exists()
        return (
            "the downloaded file has the wrong checksum" if partly and isinstance(error, RuntimeError) else str(error)
        )
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
    return ""


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def md5(path: Path) -> str:
    """The MD5 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
