"""Messages about a search space's file: the line, the setting, what was given and what is allowed."""

import difflib
import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sweep.space.runs import IDENTITY, SETTINGS
from sweep.space.schema import LEVEL_SCHEMAS, MAX_LEVELS
from sweep.space.sections import Analysis, Claim, Pinned, Tracking
from sweep.space.yaml_lines import Document, Location, show

_MAX_REPORTED: Final = 5
_TRUTHS: Final = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
"""What stands for a truth value elsewhere, or in quotation marks, and how it is written here."""

_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "claim": Claim,
    "analysis": Analysis,
    "tracking": Tracking,
    "data": Pinned,
}


def complaints(document: Document, error: ValidationError, keys: Sequence[str]) -> str:
    """The first few errors in the order of the file, one per line; `keys` are a search space's top-level keys."""
    found = []
    for details in error.errors(include_url=False):
        location = details["loc"] + tuple(details.get("ctx", {}).get("location", ()))
        found.append((document.line(location), location, details))
    found.sort(key=lambda each: each[0])
    lines = [
        document.complaint(location, _words(location, details, document, keys))
        for _, location, details in found[:_MAX_REPORTED]
    ]
    if len(found) > _MAX_REPORTED:
        lines.append(f"… and {len(found) - _MAX_REPORTED:,} more")
    return "\n".join(lines)


def no_mapping(document: Document, keys: Sequence[str]) -> str:
    """The complaint about a document that is not a mapping."""
    return document.complaint((), f"{show(document.data)} is not allowed; expected a mapping with {', '.join(keys)}")


def _words(location: Location, details: ErrorDetails, document: Document, keys: Sequence[str]) -> str:
    match details["type"]:
        case "problem":
            return details["msg"]
        case "extra_forbidden":
            return _unknown(location, keys)
        case "missing" if location[0] == "claim":
            return f"{location[-1]} is missing; expected {_allowed(location)}"
        case "too_long" | "too_short" if location[0] in _SECTIONS:
            pass
        case "too_long":
            return f"{details['ctx']['actual_length']:,} levels; at most {MAX_LEVELS:,}"
        case "too_short":
            return "no levels; at least one is needed"
    given = f"{show(details['input'])} is not allowed; expected {_allowed(location)}"
    if location == ("name",) and "name" not in document.data:
        return f"name: the file's stem {given}; give a name in the file"
    if plain := _plain(details["input"], location):
        return f"{given}; this is text: write {plain}, without quotation marks"
    near = difflib.get_close_matches(str(details["input"])[:64], _choices(location), 1)
    return given + (f"; did you mean {near[0]!r}?" if near else "")


def _plain(given: Any, location: Location) -> str | None:
    """How to write what was given as text, where it is a truth value or a number in quotation marks."""
    if not isinstance(given, str):
        return None
    section, *inside = location
    if section in _SECTIONS and inside:
        schema = _SECTIONS[str(section)].model_json_schema()["properties"].get(inside[0], {})
    else:
        schema = LEVEL_SCHEMAS.get(str(next((step for step in location if step in SETTINGS), None)), {})
    kinds = {each.get("type") for each in schema.get("anyOf", [schema])}
    word = given.strip().lower()
    if "boolean" in kinds:
        return _TRUTHS.get(word)
    number = {"integer": r"[-+]?\d+", "number": r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"}
    return word if any(re.fullmatch(number[kind], word) for kind in kinds & number.keys()) else None


def _unknown(location: Location, keys: Sequence[str]) -> str:
    section, key = str(location[0]), str(location[-1])
    if len(location) == 1:
        kind, known = "key", list(keys)
        if key in SETTINGS:
            return f"a setting belongs under settings or axes; the keys here are {', '.join(known)}"
    elif section in _SECTIONS:
        kind, known = "tracker" if section == "tracking" else "key", list(_SECTIONS[section].model_fields)
    else:
        kind, known = "setting", list(SETTINGS if section == "settings" else IDENTITY)
        if key == "image_size":
            return "cannot be an axis; give it under settings, and compare sizes with one sweep each"
        if key in SETTINGS:
            return "not part of a run's identity, so it cannot vary; give it under settings"
    near = difflib.get_close_matches(key[:64], known, 1)
    return f"unknown {kind}; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}")


def _choices(location: Location) -> list[str]:
    name = next((step for step in location if step in SETTINGS), None)
    schema = LEVEL_SCHEMAS[str(name)] if name else {}
    return [str(level) for level in schema.get("enum", schema.get("examples", ()))]


def _allowed(location: Location) -> str:
    match location:
        case ("name",):
            return "text of at most 64 letters, digits and . _ -, the first neither . nor -"
        case ("settings" | "axes",) | ("exclude", int()):
            return "a mapping from settings to levels"
        case ("exclude",):
            return "a list of mappings from axes to levels"
        case ("axes", "seed"):
            return "a count of seeds, or a list of them"
        case ("axes", str(name)):
            return f"a list of levels, each {_describe(LEVEL_SCHEMAS[name])}"
        case (str(section), *inside) if section in _SECTIONS:
            return _allowed_in(section, inside)
        case _:
            name = next(str(step) for step in location if step in SETTINGS)
            return _describe(LEVEL_SCHEMAS[name])


def _allowed_in(section: str, inside: Sequence[str | int]) -> str:
    """What is allowed in a section, or `inside` it."""
    mapping = f"a mapping with {', '.join(_SECTIONS[section].model_fields)}"
    match section, *inside:
        case ("data",):
            return mapping.replace("a mapping", "a mapping from data sets to mappings", 1)
        case ("data", *_):
            return f"{mapping}, as a launch writes it"
        case (_,):
            return mapping
        case ("claim", str(key)):
            return f"text that says {_SECTIONS['claim'].model_fields[key].description}"
        case ("tracking", "wandb"):
            return "the name of a project: letters, digits and . _ -"
        case ("tracking", *_):
            return "an address or a folder"
        case ("analysis", "tune", *_):
            return "a list with learning_rate"
    return _describe(_SECTIONS[section].model_json_schema()["properties"][inside[0]])


def _describe(schema: dict[str, Any]) -> str:
    """A JSON schema of a single value in words."""
    if "anyOf" in schema:
        return " or ".join(map(_describe, schema["anyOf"]))
    if "enum" in schema:
        return "one of " + ", ".join(map(show, schema["enum"]))
    if "examples" in schema:
        return "one of " + ", ".join(schema["examples"])
    noun = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false"}
    if "minimum" in schema and "maximum" in schema:
        return f"{noun[schema['type']]} from {schema['minimum']} to {schema['maximum']}"
    limits = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    words = [f"{word} {schema[key]}" for key, word in limits.items() if key in schema]
    return " ".join([noun.get(schema["type"], schema["type"]), " and ".join(words)]).strip()
