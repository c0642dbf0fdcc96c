"""A small YAML document as plain data that remembers its lines, so that every complaint can name one.

Scalars are read as in YAML 1.2, like editors and JSON Schema do: `1e-3` is a number; `on` and `1_000` are text. Aliases
and merge keys (`<<`) are followed.
"""

import dataclasses
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from sweep.common.errors import InputError

MAX_BYTES: Final = 1024 * 1024
MAX_NODES: Final = 200_000
_MAX_DIGITS: Final = 400

Location = tuple[str | int, ...]
"""The keys and indices that lead to a part of a document."""

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 60, 6, 3, 2

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = _TAG + "merge"
_SCALARS: Final = {  # kind: (what it looks like, the characters it may start with)
    "bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    "null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    "int": (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), "-+0123456789"),
    "float": (
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        "-+0123456789.",
    ),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own attribute, filled below)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=False)


for _kind, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, list(_first))
    # The dumper keeps PyYAML's own rules too, so text that either version of YAML reads as a number is quoted.
    _Dumper.add_implicit_resolver(_TAG + _kind, _pattern, list(_first))
_Loader.add_implicit_resolver(_MERGE, re.compile(r"<<\Z"), ["<"])
_Dumper.add_implicit_resolver(_MERGE, re.compile(r"<<\Z"), ["<"])


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """`data` as read from `path`, and the nodes that know the lines."""

    path: Path
    data: Any
    root: yaml.Node
    children: dict[int, dict[str, tuple[int, yaml.Node]]]
    """By the `id` of each mapping's node: the line of each key, and its value's node."""

    def line(self, location: Location) -> int:
        """The line of that part, or of the nearest enclosing one that is written in the file."""
        return self._find(location)[1]

    def complaint(self, location: Location, message: str) -> str:
        """`file:line: axes.width[2]: message`; the location is cut where the file has no deeper part."""
        known, line = self._find(location)
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in known)
        return f"{self.path}:{line}: {where.removeprefix('.')}{': ' if where else ''}{message}"

    def _find(self, location: Location) -> tuple[Location, int]:
        node, line = self.root, self.root.start_mark.line
        for depth, step in enumerate(location):
            if isinstance(node, yaml.MappingNode):
                if step not in self.children[id(node)]:
                    return location[:depth], line + 1
                line, node = self.children[id(node)][str(step)]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line
            else:
                return location[:depth], line + 1
        return location, line + 1


def show(value: Any) -> str:
    """The value as one would write it in YAML, cut short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _SHORT.repr(value)


def read(path: Path) -> bytes:
    """The file's bytes; `InputError` when it cannot be read or is larger than any search space."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory; expected a YAML file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return content


def parse(content: bytes, path: Path) -> Document:
    """The single document in `content` (`path` is for messages); `InputError` for all but plain, unambiguous data."""
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: is larger than {MAX_BYTES // 1024**2} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 text") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise InputError(f"{path}:1: the file is empty; expected a mapping")
        builder = _Builder(path)
        return Document(path, builder.build(root), root, builder.children)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {_cut(reason)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}:{line}: not valid YAML: a character that YAML does not allow") from None
    except RecursionError:
        raise InputError(f"{path}:1: nested too deeply") from None
    except InputError:
        raise
    except (
        ValueError,
        OverflowError,
    ) as error:  # PyYAML lets these through from escapes such as "\UFFFFFFFF"
        raise InputError(f"{path}:1: not valid YAML: {_cut(str(error))}") from None


def dump(data: Any) -> str:
    """YAML text that `parse` reads as the same data: keys in order, one per line; plain lists on a single line."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return text


class _Builder:
    """Turns nodes into plain data, refusing what is ambiguous or could be endless."""

    def __init__(self, path: Path) -> None:
        self.children: dict[int, dict[str, tuple[int, yaml.Node]]] = {}
        self._path = path
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise self._error(node, f"more than {MAX_NODES:,} values, counting an alias as often as it is used")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error(node, "this alias contains itself")
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            raise self._tag_error(node)
        self._open.add(id(node))
        built = self._mapping(node) if isinstance(node, yaml.MappingNode) else [*map(self.build, node.value)]
        self._open.remove(id(node))
        return built

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        children: dict[str, tuple[int, yaml.Node]] = {}
        data: dict[str, Any] = {}
        merged: list[yaml.MappingNode] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged += self._merged(value_node)
                continue
            key = self.build(key_node)
            if not isinstance(key, str):
                raise self._error(key_node, f"{show(key)} is not allowed as a key; expected a name")
            if key in children:
                raise self._error(key_node, f"{_key(key)}: given twice, first on line {children[key][0] + 1}")
            children[key] = (key_node.start_mark.line, value_node)
            data[key] = self.build(value_node)
        for source in merged:  # what is written here comes first, then the earlier source
            data = self.build(source) | data
            children = self.children[id(source)] | children
        self.children[id(node)] = children
        return data

    def _merged(self, node: yaml.Node) -> list[yaml.MappingNode]:
        sources: list[yaml.MappingNode] = []
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                raise self._error(source, "<<: merges mappings; expected one, or a list of them")
            sources.append(source)
        return sources

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind not in _READ:
            raise self._tag_error(node)
        if kind in _SCALARS and not _SCALARS[kind][0].match(node.value):
            raise self._error(node, f"{show(node.value)} does not have the type that its tag names, {_cut(kind)}")
        if kind == "int" and len(node.value) > _MAX_DIGITS:
            raise self._error(node, f"a number of {len(node.value):,} characters; at most {_MAX_DIGITS}")
        return _READ[kind](node.value)

    def _tag_error(self, node: yaml.Node) -> InputError:
        return self._error(node, f"the tag {show(node.tag)} is not allowed: plain values only")

    def _error(self, node: yaml.Node, message: str) -> InputError:
        return InputError(f"{self._path}:{node.start_mark.line + 1}: {message}")


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _floating(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan") if "." in text[:2] else text)


_READ: Final[dict[str, Callable[[str], Any]]] = {
    "str": str,
    "merge": str,
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": lambda text: _floating(text.lower()),
}


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "…"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]{1,60}", key) else show(key)
