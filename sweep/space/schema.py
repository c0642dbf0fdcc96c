"""The types of settings, axes and clauses, and the JSON schema of each: derived from the fields of `Run`."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from sweep.common import addresses
from sweep.common.errors import InputError
from sweep.space import catalogue
from sweep.space.runs import DEFAULTS, IDENTITY, SETTINGS, TYPES
from sweep.space.yaml_lines import Location, show

MAX_LEVELS: Final = 10_000


def problem(message: str, location: Location = ()) -> PydanticCustomError:
    """An error with this very message, about the part at `location` below the one being validated."""
    # A template is formatted, which would break a message with braces in it, so the message is passed as a value.
    return PydanticCustomError("problem", "{message}", {"message": message, "location": location})


def _path(given: str, kind: str, info: ValidationInfo) -> str:
    """The absolute path; a path in a file is relative to that file's folder."""
    context = info.context or {}
    if context.get("launched"):  # what was launched once is read, whatever is allowed by now
        return given
    try:
        found = addresses.parse(given, kind, addresses.LOCAL, context.get("folder", Path()))
    except InputError as error:
        raise problem(str(error)) from None
    return os.path.abspath(str(found))


def _level_schema(name: str) -> dict[str, Any]:
    """The JSON schema of one level; a check in Python, such as "odd", becomes the list of the levels that pass it."""
    adapter = TypeAdapter[Any](TYPES[name])
    schema = adapter.json_schema()
    if any(isinstance(part, AfterValidator) for part in TYPES[name].__metadata__):
        span = range(schema.pop("minimum"), schema.pop("maximum") + 1)
        schema["enum"] = [level for level in span if _passes(adapter, level)]
    return schema


def _passes(adapter: TypeAdapter[Any], level: Any) -> bool:
    try:
        adapter.validate_python(level, strict=True)
    except ValidationError:
        return False
    return True


LEVEL_SCHEMAS: Final = {name: _level_schema(name) for name in SETTINGS}
"""The JSON schema of one level of each setting."""


def _normal(level: Any, info: ValidationInfo) -> Any:
    """The canonical form of a level: 0.0 for -0.0 (-0.0 + 0.0 is 0.0), and absolute paths."""
    if isinstance(level, str) and (path := catalogue.path_of(level)):
        kind = catalogue.kind(level)
        return f"{kind}:{_path(path, kind, info)}"
    return level + 0.0 if isinstance(level, float) else level


def _distinct(levels: list[Any]) -> list[Any]:
    seen = set()
    for index, level in enumerate(levels):
        if level in seen:
            raise problem(f"{show(level)} is given twice", (index,))
        seen.add(level)
    return levels


def _count_to_seeds(given: Any) -> Any:
    if type(given) is not int:
        return given
    if not 1 <= given <= MAX_LEVELS:
        raise problem(f"{show(given)} is not allowed; expected a count of seeds from 1 to {MAX_LEVELS:,}, or a list")
    return list(range(given))


def _one_to_list(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


def _level(name: str) -> Any:
    return Annotated[TYPES[name], AfterValidator(_normal), WithJsonSchema(LEVEL_SCHEMAS[name])]


def _setting(name: str) -> Any:
    schema = TypeAdapter(_level(name)).json_schema() | {"default": DEFAULTS[name]}
    return Annotated[_level(name), WithJsonSchema(schema)]


def _levels(name: str, **words: Any) -> Any:
    schema: dict[str, Any] = {"uniqueItems": True, **words}
    length = Field(min_length=1, max_length=MAX_LEVELS, json_schema_extra=schema)
    listed: Any = GenericAlias(list, (_level(name),))
    return Annotated[listed, length, AfterValidator(_distinct)]


def _axis(name: str) -> Any:
    if name == "bias":
        return _levels(name, default=[True, False], description="both arms by default")
    if name != "seed":
        return _levels(name)
    count = {"type": "integer", "minimum": 1, "maximum": MAX_LEVELS, "description": "n stands for seeds 0 to n - 1"}
    either = [count, TypeAdapter(_levels(name)).json_schema()]
    schema = WithJsonSchema({"anyOf": either, "default": [0], "description": "a count of seeds, or a list"})
    return Annotated[_levels(name), BeforeValidator(_count_to_seeds), schema]


def _excluded(name: str) -> Any:
    """Levels that a clause names: a list, or a single one."""
    either = [TypeAdapter(kind).json_schema() for kind in (_level(name), _levels(name))]
    return Annotated[_levels(name), BeforeValidator(_one_to_list), WithJsonSchema({"anyOf": either})]


Dataset = Annotated[str, AfterValidator(_normal)]
"""The name of a data set, as a key."""

if TYPE_CHECKING:
    Settings = dict[str, Any]
    Axes = dict[str, list[Any]]
    Clause = dict[str, list[Any]]
else:
    from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

    def _table(name: str, names: Iterable[str], kind: Callable[[str], Any]) -> Any:
        table = TypedDict(name, {setting: kind(setting) for setting in names}, total=False)
        table.__pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
        return table

    Settings = _table("Settings", SETTINGS, _setting)
    Axes = _table("Axes", IDENTITY, _axis)
    Clause = _table("Clause", IDENTITY, _excluded)
