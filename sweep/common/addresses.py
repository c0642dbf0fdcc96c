"""Addresses that users give: folders, object stores, servers. An invalid one raises a single InputError.

Addresses that hold a secret are rejected, so that no secret is kept, sent or printed.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from sweep.common.errors import InputError
from sweep.common.redaction import SECRET_NAME, without_secrets


class Kinds(NamedTuple):
    """The schemes accepted somewhere, `file` for paths on this machine, and the words for them in messages."""

    schemes: tuple[str, ...]
    words: str


STORES: Final = Kinds(("file", "s3", "gs"), "expected a folder, file://, s3:// or gs://")
LOCAL: Final = Kinds(("file",), "expected a path on this machine")
SERVERS: Final = Kinds(("http", "https"), "expected http://HOST:PORT or https://HOST")
PODS: Final = Kinds(
    ("s3", "gs", "pvc"),
    "expected a place that all pods can reach: s3://bucket/prefix, gs://bucket/prefix, or pvc://claim/folder for a "
    "ReadWriteMany claim",
)
DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
TRACKERS: Final = {
    "mlflow": Kinds(
        ("file", "http", "https", "databricks", *DATABASES),
        "expected a folder, file://, a database URL as for MLflow, http://HOST:5000 or https://HOST "
        "(credentials come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)",
    ),
    "tensorboard": Kinds(("file",), "expected a folder"),
}

_KNOWN: Final = frozenset({"file", "s3", "s3a", "s3n", "gs", "gcs", "pvc", "http", "https", "hdfs", "abfs", "az"})
"""Words that count as schemes even if slashes are missing (`pathlib` turns two into one)."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)")

_OTHER_NAMES: Final = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}

_NO_SCHEME: Final = re.compile(r"\A[^\s/]*:.*@")
"""An address with a user and a secret that would otherwise be read as a folder's name."""

_MISTAKES: Final = (
    (re.compile(r"\s|.*\s\Z"), "begins or ends with white space"),
    (re.compile(r"""(['"]).*\1\Z"""), "is in quotation marks"),
    (re.compile(r".*\$(?:\{|[A-Za-z_])"), "contains a variable, $…, that no shell has expanded"),
)
"""Text that a shell, or a reader of .env files, should have processed."""

_NO_PATHS: Final = (
    (re.compile(r"-"), "looks like an option; put ./ before it to name a folder"),
    (re.compile(r"[A-Za-z]:[\\/]|\\\\"), "is a Windows path, but this is not a Windows machine"),
    (re.compile(r"[\w.@-]+:/|\S+@\S+:"), "names another machine, or an unknown kind of place"),
    (re.compile(rf"(?:{'|'.join(sorted(_KNOWN))})\s*:?//", re.IGNORECASE), "is misspelt: a scheme ends in ://"),
)
"""What is not a path on this machine, unless it exists."""

_HOST_AND_PORT: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}(?:/|\Z)")


@dataclasses.dataclass(frozen=True)
class Address:
    """`local` is the path if it is on this machine; otherwise `host` (a bucket, a claim, a server) and `path`.

    `options` are the typed values of the query; `str` gives the same form for all spellings of an address.
    """

    scheme: str
    local: Path | None = None
    host: str = ""
    path: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        if self.local is not None:
            return str(self.local)
        given = {name: str(value).lower() if value in (True, False) else value for name, value in self.options.items()}
        return self.below() + (f"?{urlencode(given, safe=':/')}" if given else "")

    def below(self, name: str = "") -> str:
        """The address of something below this one, for display: without options."""
        if self.local is not None:
            return f"{self.local}/{name}" if name else str(self.local)
        return f"{self.scheme}://" + "/".join(part for part in (self.host, self.path, name) if part)


def parse(given: str, name: str, kinds: Kinds, folder: Path | str = "") -> Address:
    """Parses an address. `name` is used in messages; relative paths start at `folder`, by default the current one.

    Raises InputError, which never shows a secret.
    """

    def refused(why: str) -> InputError:
        return InputError(f"{name} {_shown(given)}: {why}".strip())

    if not given.strip():
        raise refused(f"is empty; {kinds.words}")
    found = _SCHEME.match(given)
    scheme = found[1].lower() if found else ""
    try:
        if re.search(r"[\x00-\x1f\x7f]", given):
            raise _Invalid("contains a control character")
        if not os.path.lexists(os.path.join(folder, given)):
            _check(given, _MISTAKES)
        if not found or (len(found[2]) < 2 and scheme not in _KNOWN.union(kinds.schemes)):
            if "http" in kinds.schemes and _HOST_AND_PORT.match(given):
                raise _Invalid("names a server without http:// or https:// before it")
            scheme = "file"
            if scheme not in kinds.schemes:
                raise refused(kinds.words)
            return Address(scheme, _local(given, folder))
        scheme = _checked_scheme(scheme, kinds)
        rest = given[found.end(1) + 1 :]
        if scheme == "file":
            return Address(scheme, _of_file_url(rest))
        if len(found[2]) < 2:
            raise _Invalid(f"needs two slashes after the scheme: {scheme}://")
        if scheme in _OPTIONS:
            return _object_store(scheme, rest[2:])
        return _server(scheme, rest[2:])
    except _Invalid as error:
        raise refused(f"{error}; {kinds.words}") from None


def local(given: Path | str, name: str) -> Path:
    """A path on this machine: expands `~` and `file://`; InputError for other kinds of addresses."""
    found = parse(str(given), name, LOCAL).local
    assert found is not None
    return found if found.is_absolute() and _is_rewritten(str(given)) else Path(given)


def tracker(given: str, kind: str, folder: Path | str) -> str:
    """The address of an experiment tracker, with an absolute path for a folder. InputError if it is invalid."""
    if (kind, given) == ("mlflow", "databricks"):  # MLflow's name for the workspace in its environment
        return given
    found = parse(given, "", TRACKERS[kind], folder)
    return given if found.local is None else os.path.abspath(found.local)


class _Invalid(ValueError):
    """What is wrong with an address, without quoting any of it."""


def _shown(given: str) -> str:
    """An address for a message: without query, possible secrets and unprintable characters."""
    found = _SCHEME.match(given)
    if found and (found[2] or found[1].lower() in _KNOWN):
        rest = given[found.end() :]
        user = "[^/]*[:@%]" if found[1].lower() in STORES.schemes else ".*@|[^/]*[:%]"
        if found[1].lower() != "file" and re.match(user, rest, re.DOTALL):
            return f"{found[1]}://…"
    elif re.search(":.*@", given):
        return "…"
    head, separator, _ = without_secrets(given).partition("?")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in head) + (
        "?…" if separator else ""
    )


def _checked_scheme(scheme: str, kinds: Kinds) -> str:
    if scheme.partition("+")[0] in kinds.schemes:
        return scheme
    meant = _OTHER_NAMES.get(scheme)
    hint = f"; did you mean {meant}://?" if meant in kinds.schemes else ""
    raise _Invalid(f"unknown kind {scheme!r}{hint}")


def _is_rewritten(given: str) -> bool:
    return given.startswith("~") or given.lower().startswith("file:/")


def _local(given: str, folder: Path | str) -> Path:
    if _NO_SCHEME.match(given):
        raise _Invalid("contains a user and a secret but no scheme; put ./ before it to name a folder")
    path = os.path.expanduser(given)
    if not os.path.lexists(os.path.join(folder, given)) and os.name != "nt":
        if path.startswith("~"):
            raise _Invalid("there is no such user; use ./~ for a folder of that name")
        _check(given, _NO_PATHS)
    return Path(os.path.join(folder, path)).absolute()


def _check(given: str, mistakes: Iterable[tuple[re.Pattern[str], str]]) -> None:
    for pattern, why in mistakes:
        if pattern.match(given):
            raise _Invalid(why)


def _of_file_url(rest: str) -> Path:
    """The path in what follows `file:`: one slash, three, or `//localhost/`."""
    host, path = "", rest
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        path = slash + path
    if host not in ("", "localhost"):
        raise _Invalid("file: names another machine; expected three slashes, file:///PATH")
    if not path.startswith("/"):
        raise _Invalid("file: must be followed by an absolute path, file:///PATH")
    if "#" in path or "?" in path:
        raise _Invalid("a file:// address has neither fragment nor query; write # and ? as %23 and %3F")
    try:
        path = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise _Invalid("its %-escapes are not UTF-8") from None
    if "\0" in path:
        raise _Invalid("contains a NUL character")
    return Path("/" + path.lstrip("/"))


def _object_store(scheme: str, rest: str) -> Address:
    """A bucket (or a claim) and a prefix; `rest` is what follows `://`."""
    what, variables = {"s3": ("bucket", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")}.get(
        scheme, ("bucket" if scheme == "gs" else "claim", "the usual variables")
    )
    if "#" in rest:
        raise _Invalid("has a fragment, #…, which a store's address cannot have")
    rest, _, query = rest.partition("?")
    host, _, path = rest.partition("/")
    if re.fullmatch(r"[^:@%]*:\d{1,5}", host):
        raise _Invalid("names a port: ?endpoint_override=HOST:PORT sets the bucket's server")
    if re.search("[:@%]", host):
        raise _Invalid(f"contains a user or a secret: credentials belong in the environment ({variables})")
    if not host:
        raise _Invalid(f"names no {what}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", host):
        raise _Invalid(f"is not a valid {what} name")
    parts = [part for part in path.split("/") if part]
    if {".", ".."}.intersection(parts):
        raise _Invalid("its prefix contains . or ..")
    return Address(scheme, None, host, "/".join(parts), _query(query, _OPTIONS[scheme]))


def _server(scheme: str, rest: str) -> Address:
    user, at, _ = rest.rpartition("@")
    database = scheme.partition("+")[0] in DATABASES
    if at and (":" in user or not database):
        raise _Invalid("contains a password or a user; those belong in the environment")
    if re.search(r"\s", rest):
        raise _Invalid("contains white space")
    if "#" in rest:
        raise _Invalid("has a fragment, #…, which servers never receive")
    if "?" in rest and not database:
        raise _Invalid("has a query, ?…, which this kind of server does not accept")
    for key, _ in parse_qsl(rest.partition("?")[2], keep_blank_values=True):
        if re.fullmatch(SECRET_NAME, key, re.IGNORECASE):
            raise _Invalid(
                "contains a password in its query; put it in the environment, or in the database's own files"
            )
    if database:
        return Address(scheme, None, "", rest)
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        _ = parts.port
    except ValueError:
        raise _Invalid("does not name a host and port") from None
    if not parts.hostname:
        raise _Invalid("names no host")
    return Address(scheme, None, parts.netloc, parts.path.strip("/"))


def _text(given: str) -> str:
    if not given or "@" in given:
        raise ValueError
    return given


def _flag(given: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[given.lower()]


def _seconds(given: str) -> float:
    seconds = float(given)
    if not 0 < seconds < 1e6:
        raise ValueError
    return seconds


_ENDPOINT: Final[dict[str, Callable[[str], Any]]] = {"scheme": _text, "endpoint_override": _text, "anonymous": _flag}
_OPTIONS: Final[dict[str, dict[str, Callable[[str], Any]]]] = {
    "s3": {
        **_ENDPOINT,
        "region": _text,
        "connect_timeout": _seconds,
        "request_timeout": _seconds,
        "force_virtual_addressing": _flag,
    },
    "gs": {**_ENDPOINT, "project_id": _text},
    "pvc": {},
}
"""Options of a query, by scheme; each is an argument of pyarrow's file system."""


def _query(query: str, allowed: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if re.fullmatch(SECRET_NAME, key, re.IGNORECASE):
            raise _Invalid("contains a secret in its query: credentials belong in the environment")
        if key not in allowed:
            known = f"expected {', '.join(allowed)}" if allowed else "expected none"
            raise _Invalid(
                f"unknown option {f'{key!r} ' if re.fullmatch('[a-z_]{1,40}', key) else ''}after the ?; {known}"
            )
        if key in options:
            raise _Invalid(f"option {key} is given twice")
        try:
            options[key] = allowed[key](value)
        except (ValueError, KeyError):
            raise _Invalid(f"option {key} has an invalid value") from None
    return options
