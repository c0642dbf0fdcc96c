"""A search space: the model, read from YAML and written to it, and the JSON schema of its file.

Types, defaults and descriptions of settings come from `sweep.space.runs.Run`.
`python -m sweep.space.search_space` writes `search_spaces/schema.json`.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from sweep.common.errors import InputError
from sweep.space import catalogue, checks, messages, yaml_lines
from sweep.space.catalogue import Facts
from sweep.space.grid import Grid, Members
from sweep.space.schema import Axes, Clause, Dataset, Settings
from sweep.space.sections import STRICT, Analysis, Claim, Pinned, Tracking


class SearchSpace(BaseModel):
    """A grid of runs: `settings`, `axes` and `exclude` as given, `fixed` and `levels` with defaults."""

    model_config = STRICT

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$",
            description="of the sweep in the store: at most 64 letters, digits and . _ -, "
            "the first neither . nor -; default: the file's stem",
        ),
    ]
    settings: Annotated[Settings, Field(description="what every run shares")] = {}
    axes: Annotated[Axes, Field(description="the levels of each setting that varies; the grid is their product")] = {}
    exclude: Annotated[
        list[Clause],
        Field(description="what the grid leaves out: runs with one of the given levels on every given axis"),
    ] = []
    claim: Annotated[Claim | None, Field(description="what the sweep tests, in words; no run depends on it")] = None
    analysis: Annotated[Analysis, Field(description="what was declared before the first look at results")] = Analysis()
    tracking: Annotated[
        Tracking | None, Field(description="experiment trackers that receive every cell and arm after training")
    ] = None
    data: Annotated[
        dict[Dataset, Pinned],
        Field(
            description="the pictures expected of each data set that is read from files; "
            "a launch fills it in, so that a report needs no pictures"
        ),
    ] = {}

    @property
    def levels(self) -> dict[str, tuple[Any, ...]]:
        """The levels of each axis, in the settings' order; always with `bias` and `seed`, even if they do not vary."""
        return self._grid.levels

    @property
    def fixed(self) -> dict[str, Any]:
        """Every setting that is not an axis, with defaults filled in."""
        return self._grid.fixed

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets that runs are trained on."""
        return self._grid.levels_of("dataset")

    def facts(self, dataset: str) -> Facts | None:
        """What planning needs to know about a data set, from the catalogue or from `data`; None if neither knows."""
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
        """YAML text with everything written out, which `load` reads as the same grid, claim and analysis."""
        axes: dict[str, Any] = {name: list(levels) for name, levels in self.levels.items()}
        if axes["seed"] == list(range(len(axes["seed"]))):
            axes["seed"] = len(axes["seed"])
        document: dict[str, Any] = {"name": self.name, "settings": self.fixed, "axes": axes, "exclude": self.exclude}
        if self.claim:
            document["claim"] = self.claim.model_dump(exclude_none=True)
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
    def _check_parts(self, info: ValidationInfo) -> Self:
        checks.axes(self._grid)
        checks.tuning(self._grid, self.analysis.tune or ())
        checks.conflicts(self._grid)
        checks.data(self._grid, self.data)
        if not (info.context or {}).get("launched"):  # what was once launched stays readable
            checks.pictures(self._grid, self._known_facts)
        checks.shared_weights(self._grid)
        return self


def load(path: Path, launched: bool = False) -> SearchSpace:
    """The search space in the YAML file at `path`; `InputError` says what is wrong, and where.

    With `launched`, the file comes from a store, and its pictures are not checked again.
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
    """Like `load`, but from the file's content; `path` is for the default name and for messages."""
    document, keys = yaml_lines.parse(content, path), list(SearchSpace.model_fields)
    if not isinstance(document.data, dict):
        raise InputError(messages.no_mapping(document, keys))
    given = {key: value for key, value in document.data.items() if not _says_nothing(key, value)}
    try:
        return SearchSpace.model_validate(
            {"name": path.stem} | given, context={"folder": path.parent, "launched": launched}
        )
    except ValidationError as error:
        raise InputError(messages.complaints(document, error, keys)) from None


def _says_nothing(key: str, value: Any) -> bool:
    """Whether it is the user's own, such as a place for anchors, or a section whose entries are all commented out."""
    return key.startswith("x-") or (value is None and key != "name")


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a search space's YAML file."""
    model = _untitled(SearchSpace.model_json_schema())
    del model["required"]  # the name: `load` falls back to the file's stem
    for name, section in model["properties"].items():
        if name != "name" and "anyOf" not in section:
            model["properties"][name] = {"anyOf": [section, {"type": "null"}]}
    model["patternProperties"] = {"^x-": {"description": "your own, such as for anchors; not read"}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Search space", **model}


def _untitled(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _untitled(value) for key, value in node.items() if key != "title"}
    return [_untitled(each) for each in node] if isinstance(node, list) else node


if __name__ == "__main__":
    target = Path(__file__).parents[2] / "search_spaces" / "schema.json"
    target.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
