"""The report as Markdown, for people who paste into notes: answer, figures, hypotheses, what it rests on, cells."""

import json
from collections.abc import Sequence
from typing import Any, Final

from analysis.record import Record
from analysis.wording import sentences
from analysis.wording.captions import CAPTIONS
from analysis.wording.cells import said_verdict
from analysis.wording.phrases import percent, signed

MOST_ROWS: Final = 200
"""Cells listed in `report.md`; `verdict.json` has them all."""


def markdown(verdict: Record, figures: Sequence[str] = ()) -> str:
    """`figures` are the names that `figures.draw` returned; their pictures are in the same folder."""
    hypotheses = [f"- {_text(one['statement'])}" + _reason(one) for one in verdict["hypotheses"]]
    names = verdict["factors"]
    sections = [
        [f"# {_text(sentences.title(verdict))}"],
        *([f"**{_text(line)}**"] for line in sentences.warnings(verdict)),
        [*_bullets(sentences.answers(verdict)), "", sentences.summary(verdict)],
        *_tuned(verdict),
        *([f"![{CAPTIONS[name]}]({name}.png)"] for name in figures),
        ["## Hypotheses", "", *hypotheses] if hypotheses else [],
        ["## What this rests on", "", *_bullets(sentences.conditions(verdict))],
        ["## How it was measured", "", *(f"- {name}: {_text(said)}" for name, said in sentences.origin(verdict))],
        ["## Cells", "", *_table(verdict["cells"], names, verdict["looks"]["confidence_each"])],
        ["## Citation", "", _text(sentences.citation(verdict))],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _tuned(verdict: Record) -> list[list[str]]:
    if verdict["tuned_cells"] is None:
        return []
    first = verdict["tuned_cells"][0] if verdict["tuned_cells"] else {}
    names = [name for name in verdict["factors"] if name in first]
    return [
        ["## Each arm at its own best learning rate"],
        ["Chosen for every seed by the other seeds' validation accuracy."],
        _bullets(sentences.tuned(verdict)),
        _table(verdict["tuned_cells"], names, verdict["looks"]["confidence_each"], ("rate_bias", "rate_no_bias")),
    ]


def _table(cells: list[Record], names: list[str], confidence: float, more: Sequence[str] = ()) -> list[str]:
    interval = f"{percent(confidence)} interval"
    heads = [
        *names, "pairs", "effect", interval, "verdict", "familywise", "more pairs needed", "with bias", "without",
        *(name.replace("_", " ") for name in more),
    ]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(_row(cell, [*names], more)) + " |" for cell in cells[:MOST_ROWS]]
    if len(cells) > MOST_ROWS:
        lines += ["", f"{len(cells) - MOST_ROWS:,} more cells are in `verdict.json`."]
    return lines


def _row(cell: Record, names: list[str], more: Sequence[str]) -> list[str]:
    known = cell["low"] is not None
    interval = f"{signed(cell['low'])} to {signed(cell['high'])}" if known else ""
    accuracies = [_share(cell["accuracy_bias"]), _share(cell["accuracy_no_bias"])]
    said = said_verdict(cell) + (", sensitive" if cell["sensitive"] else "")
    said += f": {cell['reason']}" if cell["reason"] else ""
    effect = "" if cell["effect"] is None else signed(cell["effect"])
    needed = "" if cell["pairs_needed"] is None else str(cell["pairs_needed"])
    family = cell["verdict_familywise"] or ""
    own, rates = ([_plain(cell[name]) for name in part] for part in (names, more))
    return [*own, str(cell["pairs"]), effect, interval, said, family, needed, *accuracies, *rates]


def _reason(hypothesis: Record) -> str:
    return f" {hypothesis['reason']}" if hypothesis["reason"] else ""


def _bullets(lines: Sequence[str]) -> list[str]:
    return [f"- {_text(line)}" for line in lines]


def _plain(value: Any) -> str:
    return _text(json.dumps(value, ensure_ascii=False).strip('"'))


def _share(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def _text(line: str) -> str:
    """Escapes what would be table or HTML markup in names that users chose."""
    return line.replace("<", "&lt;").replace("|", "\\|")
