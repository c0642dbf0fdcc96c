"""The tables of settings and of data sets in `search_spaces/README.md`, made from the code.

`python tests/support/settings_tables.py` writes them between their marks.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sweep.data.splits import HELD_OUT  # noqa: E402
from sweep.space import search_space  # noqa: E402
from sweep.space.catalogue import CATALOGUE, KINDS, Source  # noqa: E402
from sweep.space.runs import DEFAULTS, SETTINGS  # noqa: E402

README: Final = ROOT / "search_spaces" / "README.md"
MARKS: Final = "<!-- {}: made by python tests/support/settings_tables.py -->", "<!-- end of {} -->"
BOUNDS: Final = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}
HELD: Final = tuple(round(100 * share) for share in HELD_OUT)
SHARES: Final = f"{100 - sum(HELD)} / {HELD[0]} / {HELD[1]} %"
"""Of a data set that is not split by its publisher."""


def settings() -> str:
    """Every setting with its default, its levels and its description, as a run's record declares them."""
    levels = search_space.schema()["$defs"]["Settings"]["properties"]
    rows = [
        f"| `{name}` | {_level(DEFAULTS[name])} | {_allowed(levels[name])} | {levels[name].get('description', '')} |"
        for name in SETTINGS
    ]
    return _table("| setting | default | levels | meaning |", rows)


def data_sets() -> str:
    """Every named data set as the catalogue knows it, then the two kinds that are given by a path."""
    named = [_row(name, source) for name, source in CATALOGUE.items()]
    given = [f"| `{kind}:PATH` | any | any | {SHARES} | yours | your files |" for kind in KINDS]
    return _table("| name | pictures | classes | train / validation / test | licence | source |", [*named, *given])


def written_into(text: str, **tables: str) -> str:
    """`text` with each table between the marks of its name."""
    for name, table in tables.items():
        begin, end = (mark.format(name) for mark in MARKS)
        head, found, rest = text.partition(begin)
        _, ended, tail = rest.partition(end)
        assert found and ended, f"no {begin} … {end}"
        text = f"{head}{begin}\n{table}{end}{tail}"
    return text


def _row(name: str, source: Source) -> str:
    sizes = (source.train, source.validation, source.test)
    parts = SHARES if source.train is None else " / ".join(f"{size:,}" for size in sizes)
    picture = "x".join(map(str, source.picture))
    return f"| `{name}` | {picture} | {source.classes} | {parts} | {source.licence} | {source.origin} |"


def _allowed(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return ", ".join("null" if each.get("type") == "null" else _allowed(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(_level, schema["enum"]))
    if schema["type"] == "boolean":
        return "true, false"
    if schema["type"] == "string":
        return "a data set below"
    if {"minimum", "maximum"} <= set(schema):
        return f"{schema['minimum']:,} to {schema['maximum']:,}"
    return ", ".join(f"{word} {schema[bound]:,}" for bound, word in BOUNDS.items() if bound in schema)


def _level(level: Any) -> str:
    if level is None or isinstance(level, bool):
        return {None: "null", True: "true", False: "false"}[level]
    return f"`{level}`" if isinstance(level, str) else str(level)


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([head, "| " + " | ".join(["---"] * (head.count("|") - 1)) + " |", *rows]) + "\n"


if __name__ == "__main__":
    README.write_text(written_into(README.read_text(), settings=settings(), data_sets=data_sets()))
