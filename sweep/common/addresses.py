"""Addresses as people give them: folders, object stores, servers. What is not understood is refused, in one message.

No address that holds a secret is accepted, so that none is kept, sent or printed.
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
    """Which schemes a place takes, `file` for folders and files of this machine, and how to say so."""

    schemes: tuple[str, ...]
    words: str


STORES: Final = Kinds(("file", "s3", "gs"), "allowed are a folder, file://, s3:// and gs://")
LOCAL: Final = Kinds(("file",), "allowed is a path on this machine")
SERVERS: Final = Kinds(("http", "https"), "allowed is http://HOST:PORT or https://HOST")
PODS: Final = Kinds(
    ("s3", "gs", "pvc"),
    "has to be a place that all pods see: s3://bucket/prefix, gs://bucket/prefix, or pvc://claim/folder for a "
    "ReadWriteMany claim",
)
DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
TRACKERS: Final = {
    "mlflow": Kinds(
        ("file", "http", "https", "databricks", *DATABASES),
        "allowed are a folder, file://, databases as MLflow names them, http://HOST:5000 and https://HOST "
        "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD say who asks)",
    ),
    "tensorboard": Kinds(("file",), "allowed is a folder"),
}

_KNOWN: Final = frozenset({"file", "s3", "s3a", "s3n", "gs", "gcs", "pvc", "http", "https", "hdfs", "abfs", "az"})
"""Schemes that are meant as such even where their slashes are missing or were cut (`pathlib` makes one of two)."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)")

_OTHER_NAMES: Final = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}

_NO_SCHEME: Final = re.compile(r"\A[^\s/]*:.*@")
"""What is meant as an address with a user and a secret, and would be the name of a folder."""

_MISTAKES: Final = (
    (re.compile(r"\s|.*\s\Z"), "begins or ends with white space"),
    (re.compile(r"""(['"]).*\1\Z"""), "stands in quotation marks"),
    (re.compile(r".*\$(?:\{|[A-Za-z_])"), "holds a variable, $…, that no shell has filled in"),
)
"""What would be taken for a name where a shell, or a file of variables, was to do something with it."""

_NO_PATHS: Final = (
    (re.compile(r"-"), "looks like an option; ./ before it names a folder"),
    (re.compile(r"[A-Za-z]:[\\/]|\\\\"), "is a path of Windows, and this machine is none"),
    (re.compile(r"[\w.@-]+:/|\S+@\S+:"), "names another machine, or a kind of place that is not known"),
    (re.compile(rf"(?:{'|'.join(sorted(_KNOWN))})\s*:?//", re.IGNORECASE), "is misspelt: a scheme ends in ://"),
)
"""What is no path of this machine, unless there is one of that name."""

_HOST_AND_PORT: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}(?:/|\Z)")


@dataclasses.dataclass(frozen=True)
class Address:
    """`local` is the path where it is one of this machine; else `host` (a bucket, a claim, a server) and `path`.

    `options` come from the query, with their types; `str` gives one form for all spellings of an address.
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
        """The address of something below this one, for people: without options."""
        if self.local is not None:
            return f"{self.local}/{name}" if name else str(self.local)
        return f"{self.scheme}://" + "/".join(part for part in (self.host, self.path, name) if part)


def parse(given: str, name: str, kinds: Kinds, folder: Path | str = "") -> Address:
    """What an address says. `name` stands in messages; relative paths start at `folder`, by default the current one.

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
            raise _Odd("holds a character that no address has")
        if not os.path.lexists(os.path.join(folder, given)):
            _check(given, _MISTAKES)
        if not found or (len(found[2]) < 2 and scheme not in _KNOWN.union(kinds.schemes)):
            if "http" in kinds.schemes and _HOST_AND_PORT.match(given):
                raise _Odd("names a server and not how to reach it: http:// or https:// comes before it")
            scheme = "file"
            if scheme not in kinds.schemes:
                raise refused(kinds.words)
            return Address(scheme, _local(given, folder))
        scheme = _checked_scheme(scheme, kinds)
        rest = given[found.end(1) + 1 :]
        if scheme == "file":
            return Address(scheme, _of_file_url(rest))
        if len(found[2]) < 2:
            raise _Odd(f"two slashes follow the scheme: {scheme}://")
        if scheme in _OPTIONS:
            return _object_store(scheme, rest[2:])
        return _server(scheme, rest[2:])
    except _Odd as odd:
        raise refused(f"{odd}; {kinds.words}") from None


def local(given: Path | str, name: str) -> Path:
    """A path on this machine: `~` is expanded, `file://` read, addresses of other kinds refused (InputError)."""
    found = parse(str(given), name, LOCAL).local
    assert found is not None
    return found if found.is_absolute() and _is_rewritten(str(given)) else Path(given)


def tracker(given: str, kind: str, folder: Path | str) -> str:
    """The address of an experiment tracker; a folder's from the root. InputError where it makes no sense."""
    if (kind, given) == ("mlflow", "databricks"):  # MLflow's name for the workspace that its environment names
        return given
    found = parse(given, "", TRACKERS[kind], folder)
    return given if found.local is None else os.path.abspath(found.local)


class _Odd(ValueError):
    """What is wrong with an address, in words that quote none of it."""


def _shown(given: str) -> str:
    """An address for a message: no query, nothing that may be a secret, nothing that would break a line."""
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
    raise _Odd(f"unknown kind {scheme!r}{hint}")


def _is_rewritten(given: str) -> bool:
    return given.startswith("~") or given.lower().startswith("file:/")


def _local(given: str, folder: Path | str) -> Path:
    if _NO_SCHEME.match(given):
        raise _Odd("holds a user and a secret, and no scheme; ./ before it names a folder")
    path = os.path.expanduser(given)
    if not os.path.lexists(os.path.join(folder, given)) and os.name != "nt":
        if path.startswith("~"):
            raise _Odd("there is no such user's home; ./~ names a folder of that name")
        _check(given, _NO_PATHS)
    return Path(os.path.join(folder, path)).absolute()


def _check(given: str, mistakes: Iterable[tuple[re.Pattern[str], str]]) -> None:
    for pattern, why in mistakes:
        if pattern.match(given):
            raise _Odd(why)


def _of_file_url(rest: str) -> Path:
    """The path in what follows `file:`, be it with one slash, with three, or with this machine between them."""
    host, path = "", rest
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        path = slash + path
    if host not in ("", "localhost"):
        raise _Odd("file: names another machine; file:///PATH has three slashes")
    if not path.startswith("/"):
        raise _Odd("file: is followed by a path from the root, file:///PATH")
    if "#" in path or "?" in path:
        raise _Odd("a file:// address has neither fragment nor query: %23 and %3F stand for # and ?")
    try:
        path = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise _Odd("what its % signs stand for is no text") from None
    if "\0" in path:
        raise _Odd("holds a character that no path has")
    return Path("/" + path.lstrip("/"))


def _object_store(scheme: str, rest: str) -> Address:
    """A bucket (or a claim) and a prefix; `rest` is what follows `://`."""
    what, variables = {"s3": ("bucket", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")}.get(
        scheme, ("bucket" if scheme == "gs" else "claim", "the usual variables")
    )
    if "#" in rest:
        raise _Odd("has a fragment, #…, which no address of a store has")
    rest, _, query = rest.partition("?")
    host, _, path = rest.partition("/")
    if re.fullmatch(r"[^:@%]*:\d{1,5}", host):
        raise _Odd("names a port: ?endpoint_override=HOST:PORT says which server has the bucket")
    if re.search("[:@%]", host):
        raise _Odd(f"holds a user or a secret: credentials belong into the environment ({variables})")
    if not host:
        raise _Odd(f"names no {what}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", host):
        raise _Odd(f"that is no name of a {what}")
    parts = [part for part in path.split("/") if part]
    if {".", ".."}.intersection(parts):
        raise _Odd("a prefix has no . and no ..")
    return Address(scheme, None, host, "/".join(parts), _query(query, _OPTIONS[scheme]))


def _server(scheme: str, rest: str) -> Address:
    user, at, _ = rest.rpartition("@")
    database = scheme.partition("+")[0] in DATABASES
    if at and (":" in user or not database):
        raise _Odd("holds a password or a user; those belong into the environment")
    if re.search(r"\s", rest):
        raise _Odd("holds white space")
    if "#" in rest:
        raise _Odd("has a fragment, #…, which no server sees")
    if "?" in rest and not database:
        raise _Odd("has a query, ?…, which no server of this kind takes")
    for key, _ in parse_qsl(rest.partition("?")[2], keep_blank_values=True):
        if re.fullmatch(SECRET_NAME, key, re.IGNORECASE):
            raise _Odd("holds a password in its query; put it into the environment, or into the database's own files")
    if database:
        return Address(scheme, None, "", rest)
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        _ = parts.port
    except ValueError:
        raise _Odd("that is no host and port") from None
    if not parts.hostname:
        raise _Odd("names no host")
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
"""What a query may say, by scheme; each is an argument of pyarrow's file system."""


def _query(query: str, allowed: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if re.fullmatch(SECRET_NAME, key, re.IGNORECASE):
            raise _Odd("holds a secret in its query: credentials belong into the environment")
        if key not in allowed:
            known = f"known are {', '.join(allowed)}" if allowed else "there are none"
            raise _Odd(f"unknown option {f'{key!r} ' if re.fullmatch('[a-z_]{1,40}', key) else ''}after the ?: {known}")
        if key in options:
            raise _Odd(f"option {key} is given twice")
        try:
            options[key] = allowed[key](value)
        except (ValueError, KeyError):
            raise _Odd(f"option {key} has a value that it cannot have") from None
    return options
