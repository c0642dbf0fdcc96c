"""A search space: read from YAML, checked, and walked cell by cell.

Types, defaults and descriptions of settings come from `sweep.space.runs.Run`, the JSON schema from the model here.
An error names the file, the line, the setting, what was given and what is allowed.
"""

import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from sweep.common.errors import InputError
from sweep.space import catalogue, checks, yaml_lines
from sweep.space.catalogue import Facts
from sweep.space.grid import Grid, Members
from sweep.space.runs import IDENTITY, SETTINGS
from sweep.space.schema import LEVEL_SCHEMAS, MAX_LEVELS, Axes, Clause, Dataset, Settings
from sweep.space.sections import STRICT, Analysis, Pinned, Tracking
from sweep.space.yaml_lines import Document, Location, show

_MAX_REPORTED: Final = 5


class SearchSpace(BaseModel):
    """A grid of runs: `settings`, `axes` and `exclude` as given, `fixed` and `levels` with defaults."""

    model_config = STRICT

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$",
            description="of the sweep in the store: letters, digits and . _ -, at most 64, "
            "the first neither . nor -; default: the file's stem",
        ),
    ]
    settings: Annotated[Settings, Field(description="what every run shares")] = {}
    axes: Annotated[Axes, Field(description="the levels of each setting that varies; the grid is their product")] = {}
    exclude: Annotated[
        list[Clause],
        Field(description="what the grid leaves out: runs with one of the given levels on every given axis"),
    ] = []
    analysis: Annotated[Analysis, Field(description="what was declared before looking")] = Analysis()
    tracking: Annotated[
        Tracking | None, Field(description="experiment trackers that hear of every cell and arm after training")
    ] = None
    data: Annotated[
        dict[Dataset, Pinned],
        Field(
            description="the pictures that data sets read from files have to be, by data set; "
            "a launch fills it in, so that a report needs no pictures"
        ),
    ] = {}

    @property
    def levels(self) -> dict[str, tuple[Any, ...]]:
        """Levels by axis, in the settings' order, always with `bias` and `seed`, be it at one level."""
        return self._grid.levels

    @property
    def fixed(self) -> dict[str, Any]:
        """Every setting that is no axis, defaults filled in."""
        return self._grid.fixed

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets that runs are trained on."""
        return self._grid.levels_of("dataset")

    def facts(self, dataset: str) -> Facts | None:
        """What planning has to know of a data set: a constant, or what `data` says; None where neither tells."""
        entry, pinned = catalogue.CATALOGUE.get(dataset), self.data.get(dataset)
        if entry and entry.facts:
            return entry.facts
        if pinned is None:
            return None
        channels, height, width = pinned.picture
        return Facts(pinned.fingerprint, (channels, height, width), pinned.classes, pinned.train)

    def pinned(self, facts: Mapping[str, Facts]) -> Self:
        """This search space with `data` filled in."""
        data = {
            name: Pinned(fingerprint=each.identity, picture=list(each.picture), classes=each.classes, train=each.train)
            for name, each in facts.items()
        }
        pinned = self.model_copy(update={"data": self.data | data})
        try:
            checks.pictures(pinned._grid, pinned._known_facts)
        except PydanticCustomError as problem:
            place, words = ((problem.context or {})[part] for part in ("location", "message"))
            raise InputError(f"{self.name}: {'.'.join(place)}: {words}") from None
        return pinned

    def grid(self) -> Iterator[tuple[dict[str, Any], Members]]:
        """Each cell that has runs, in a fixed order: its settings but bias and seed, and its (bias, seed) members."""
        return self._grid.cells()

    def run_count(self) -> int:
        """Runs in the grid, less those excluded."""
        return self._grid.counts[1]

    def cell_count(self) -> int:
        """Cells with at least one run."""
        return self._grid.counts[0]

    def resolved(self) -> str:
        """YAML text with everything written out, which `load` reads as the same grid and analysis."""
        axes: dict[str, Any] = {name: list(levels) for name, levels in self.levels.items()}
        if axes["seed"] == list(range(len(axes["seed"]))):
            axes["seed"] = len(axes["seed"])
        document: dict[str, Any] = {"name": self.name, "settings": self.fixed, "axes": axes, "exclude": self.exclude}
        declared = self.analysis.declared
        if declared:
            document["analysis"] = declared
        if self.tracking:
            document["tracking"] = self.tracking.model_dump(exclude_none=True)
        if self.data:
            document["data"] = {name: pinned.model_dump() for name, pinned in self.data.items()}
        note = "".join(
            f"# The {name} was not declared; the default is {getattr(self.analysis, name)}.\n"
            for name in ("margin", "confidence")
            if name not in declared
        )
        return yaml_lines.dump(document) + note

    @functools.cached_property
    def _grid(self) -> Grid:
        return Grid(self.settings, self.axes, self.exclude)

    @property
    def _known_facts(self) -> dict[str, Facts]:
        return {dataset: facts for dataset in self.datasets if (facts := self.facts(dataset))}

    @model_validator(mode="after")
    def _hangs_together(self, info: ValidationInfo) -> Self:
        checks.axes(self._grid)
        checks.tuning(self._grid, self.analysis.tune or ())
        checks.conflicts(self._grid)
        checks.data(self._grid, self.data)
        if not (info.context or {}).get("launched"):  # what was launched once is read, whatever is allowed by now
            checks.pictures(self._grid, self._known_facts)
        checks.shared_weights(self._grid)
        return self


def load(path: Path, launched: bool = False) -> SearchSpace:
    """The search space in the YAML file at `path`; `InputError` says what is wrong, and where.

    With `launched`, the file is one that a store keeps: it is not asked whether there are pictures enough.
    """
    return parse(yaml_lines.read(path), path, launched)


def load_all(paths: Sequence[Path]) -> list[SearchSpace]:
    """The search spaces in several files, of which no two may have the same name."""
    spaces = [load(path) for path in paths]
    files: dict[str, Path] = {}
    for space, path in zip(spaces, paths, strict=True):
        other = files.setdefault(space.name, path)
        if other is not path:
            twice = f"{path} is given twice" if other == path else f"{other} and {path} are both named {space.name!r}"
            raise InputError(f"{twice}: in a store, each sweep has its own name")
    return spaces


def parse(content: bytes, path: Path, launched: bool = False) -> SearchSpace:
    """As `load`, from the file's content; `path` gives the default name and stands in messages."""
    document = yaml_lines.parse(content, path)
    if not isinstance(document.data, dict):
        keys = _list(SearchSpace.model_fields)
        raise InputError(document.complaint((), f"{show(document.data)} is not allowed: a mapping with {keys}"))
    try:
        return SearchSpace.model_validate(
            {"name": path.stem} | document.data, context={"folder": path.parent, "launched": launched}
        )
    except ValidationError as error:
        raise InputError(_complaints(document, error)) from None


def _complaints(document: Document, error: ValidationError) -> str:
    """The first few errors by line, one a line."""
    found = []
    for details in error.errors(include_url=False):
        location = details["loc"] + tuple(details.get("ctx", {}).get("location", ()))
        found.append((document.line(location), location, details))
    found.sort(key=lambda each: each[0])
    lines = [
        document.complaint(location, _words(location, details, document))
        for _, location, details in found[:_MAX_REPORTED]
    ]
    if len(found) > _MAX_REPORTED:
        lines.append(f"… and {len(found) - _MAX_REPORTED:,} more")
    return "\n".join(lines)


def _words(location: Location, details: ErrorDetails, document: Document) -> str:
    match details["type"]:
        case "problem":
            return details["msg"]
        case "extra_forbidden":
            return _unknown(location)
        case "too_long" | "too_short" if location[0] in ("analysis", "data"):
            pass
        case "too_long":
            return f"{details['ctx']['actual_length']:,} levels; at most {MAX_LEVELS:,}"
        case "too_short":
            return "no levels; at least one is needed"
    given = f"{show(details['input'])} is not allowed: {_allowed(location)}"
    if location == ("name",) and "name" not in document.data:
        return f"name: the file's stem, {given}; name it in the file"
    near = difflib.get_close_matches(str(details["input"])[:64], _choices(location), 1)
    return given + (f"; did you mean {near[0]!r}?" if near else "")


def _unknown(location: Location) -> str:
    key = str(location[-1])
    if len(location) == 1:
        kind, known = "key", list(SearchSpace.model_fields)
        if key in SETTINGS:
            return f"a setting stands under settings or axes; the keys here are {_list(known)}"
    elif location[0] == "analysis":
        kind, known = "key", list(Analysis.model_fields)
    elif location[0] == "tracking":
        kind, known = "tracker", list(Tracking.model_fields)
    elif location[0] == "data":
        kind, known = "key", list(Pinned.model_fields)
    else:
        kind, known = "setting", list(SETTINGS if location[0] == "settings" else IDENTITY)
        if key == "image_size":
            return "is no axis: it stands under settings; a sweep for each size compares them"
        if key in SETTINGS:
            return "is no part of what a run is, and so never varies: it stands under settings"
    near = difflib.get_close_matches(key[:64], known, 1)
    return f"unknown {kind}; " + (f"did you mean {near[0]!r}?" if near else f"known are {_list(known)}")


def _choices(location: Location) -> list[str]:
    name = next((step for step in location if step in SETTINGS), None)
    schema = LEVEL_SCHEMAS[str(name)] if name else {}
    return [str(level) for level in schema.get("enum", schema.get("examples", ()))]


def _allowed(location: Location) -> str:
    match location:
        case ("name",):
            return "text of letters, digits and . _ -, at most 64, the first neither . nor -"
        case ("settings" | "axes",) | ("exclude", int()):
            return "a mapping from settings to levels"
        case ("exclude",):
            return "a list of mappings from axes to levels"
        case ("analysis",):
            return f"a mapping with {_list(Analysis.model_fields)}"
        case ("data",):
            return f"a mapping from data sets to mappings with {_list(Pinned.model_fields)}"
        case ("data", *_):
            return f"a mapping with {_list(Pinned.model_fields)}, as a launch writes it"
        case ("tracking",):
            return f"a mapping with {_list(Tracking.model_fields)}"
        case ("tracking", "wandb"):
            return "the name of a project: letters, digits and . _ -"
        case ("tracking", *_):
            return "an address or a folder"
        case ("analysis", "tune", *_):
            return "a list with learning_rate"
        case ("analysis", field):
            return _describe(Analysis.model_json_schema()["properties"][field])
        case ("axes", "seed"):
            return "a count of seeds, or a list of them"
        case ("axes", str(name)):
            return f"a list of levels, each {_describe(LEVEL_SCHEMAS[name])}"
        case _:
            name = next(str(step) for step in location if step in SETTINGS)
            return _describe(LEVEL_SCHEMAS[name])


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
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    words = [f"{word} {schema[key]}" for key, word in limits.items() if key in schema]
    return " ".join([noun.get(schema["type"], schema["type"]), " and ".join(words)]).strip()


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a search space's YAML file."""
    model = _untitled(SearchSpace.model_json_schema())
    del model["required"]  # the name, for which `load` takes the file's stem
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Search space", **model}


def _untitled(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _untitled(value) for key, value in node.items() if key != "title"}
    return [_untitled(each) for each in node] if isinstance(node, list) else node


if __name__ == "__main__":
    target = Path(__file__).parents[2] / "search_spaces" / "schema.json"
    target.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
