"""The answer, written down: `verdict.json`, `report.md`, `effects.parquet`, the figure."""

import json
from pathlib import Path
from typing import Any, Final

import pandas as pd

from analysis import effects, plots
from analysis.effects import Record
from analysis.tables import load_table
from analysis.verdict import DEFAULTS, analyse
from analysis.wording import capital, describe, percent
from sweep.errors import InputError
from sweep.files import replacing

__all__ = ["analyse", "load_table", "write"]

MOST_ROWS: Final = 200
"""Cells listed in `report.md`; `verdict.json` has them all."""


def write(rows: pd.DataFrame, out: Path | str, *, name: str, **options: Any) -> Record:
    """Writes the report into the folder `out`, made if missing, and returns what `verdict.json` holds.

    `options` are those of `analyse`.
    """
    out, verdict = Path(out), analyse(rows, name=name, **options)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: the report's folder cannot be made: {error.strerror}") from error
    with replacing(out / "effects.parquet") as path:
        effects.pairs(rows).to_parquet(path, index=False)
    plots.effect_by_width(
        verdict["cells"],
        verdict["thresholds"],
        margin=verdict["margin"],
        confidence=verdict["confidence"],
        name=name,
        out_stem=out / "effect_by_width",
    )
    with replacing(out / "report.md") as path:
        path.write_text(markdown(verdict), encoding="utf-8")
    # Last: whoever finds the verdict finds the rest.
    with replacing(out / "verdict.json") as path:
        path.write_text(json.dumps(verdict, allow_nan=False, indent=2) + "\n", encoding="utf-8")
    return verdict


def markdown(verdict: Record) -> str:
    """The report as Markdown: the answer first, then what it rests on, the figure, and the cells."""
    missing = verdict["missing_runs"]
    incomplete = f"**Incomplete: {missing:,} runs of this sweep have no row yet;** what they would say is not in here."
    sections = [
        [f"# {verdict['name']}: does the bias of a convolution matter?"],
        *([[incomplete]] if missing else []),
        _answers(verdict),
        ["## What this rests on", "", *_conditions(verdict)],
        ["![effect of bias](effect_by_width.png)"],
        ["## Cells", "", *_table(verdict)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _answers(verdict: Record) -> list[str]:
    cells = verdict["cells"]
    count = {one: sum(cell["verdict"] == one for cell in cells) for one in ("matters", "equivalent", "undecided")}
    lines = [f"- {one['statement']}" for one in verdict["thresholds"]]
    if not lines:
        lines = [f"- {_sentence(cell)}" for cell in cells[:MOST_ROWS]]
    summary = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}: "
    return [*lines, "", summary + ", ".join(f"{number} {one}" for one, number in count.items()) + "."]


def _sentence(cell: Record) -> str:
    where = describe(effects.settings(cell))
    said = {
        "matters": f"bias {cell['direction']} by more than the margin",
        "equivalent": "bias changes accuracy by less than the margin",
        "undecided": "whether bias matters is undecided",
    }[cell["verdict"]]
    measured = "no pair" if cell["effect"] is None else f"{_signed(cell['effect'])} points"
    if cell["low"] is not None:
        measured += f", {_signed(cell['low'])} to {_signed(cell['high'])}"
    reason = f"; {cell['reason']}" if cell["reason"] else ""
    return capital(f"{where + ': ' if where else ''}{said} ({measured}, {cell['pairs']} pairs{reason}).")


def _conditions(verdict: Record) -> list[str]:
    margin, split_varies = verdict["margin"], "split" in verdict["factors"]
    sources = {level: _source(verdict, level) for level in DEFAULTS}
    lines = [
        f"Margin: {margin:g} percentage points{sources['margin']}; "
        f"confidence: {percent(verdict['confidence'])}{sources['confidence']}.",
        "*Matters*: the interval of the mean effect lies wholly outside the margin. *Equivalent*: it is "
        "shown to lie inside. *Undecided*: neither is shown, which is no sign of equality. A level between "
        "the two ends of a threshold is undecided there, even where its own cell has a verdict.",
        f"{verdict['runs']} runs, {verdict['pairs']} pairs; {verdict['missing_pairs']} runs have no partner "
        "and are left out of the effects.",
        f"Diverged: {verdict['diverged_bias']} runs with bias, {verdict['diverged_no_bias']} without; they "
        "count with the accuracy measured.",
        "Every cell holds for its own split of the pictures into training, validation and test."
        if split_varies
        else "Everything holds for one fixed split of the pictures into training, validation and test: seeds "
        "vary, the split does not.",
    ]
    if margin == 0:
        lines.append("With a margin of 0 nothing can be equivalent.")
    equivalent = [cell["pairs"] for cell in verdict["cells"] if cell["verdict"] == "equivalent"]
    if equivalent:
        lines.append(
            "Equivalence from n pairs does not exclude a collapse in up to 3/n of runs: up to "
            f"{min(100, 300 / min(equivalent)):.2g} % in the equivalent cell with the fewest pairs."
        )
    if verdict["ignored_columns"]:
        ignored_columns = ", ".join(verdict["ignored_columns"])
        lines.append(f"Columns that vary but are no setting were ignored: {ignored_columns}.")
    return [f"- {line}" for line in lines]


def _source(verdict: Record, level: str) -> str:
    """Where a level comes from, unless it was declared before looking and is what was used."""
    declared = verdict[f"{level}_declared"]
    if not verdict[f"{level}_given"]:
        return " (default, not declared)" if declared is None else ""
    before = "nothing was declared" if declared is None else f"declared was {declared:g}"
    return f" (given for this report; {before})"


def _table(verdict: Record) -> list[str]:
    names, cells = verdict["factors"], verdict["cells"]
    interval = f"{percent(verdict['confidence'])} interval"
    heads = [*names, "pairs", "effect", interval, "verdict", "more pairs needed", "with bias", "without"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(_row(cell, names)) + " |" for cell in cells[:MOST_ROWS]]
    if len(cells) > MOST_ROWS:
        lines += ["", f"{len(cells) - MOST_ROWS} more cells are in `verdict.json`."]
    return lines


def _row(cell: Record, names: list[str]) -> list[str]:
    known = cell["low"] is not None
    interval = f"{_signed(cell['low'])} to {_signed(cell['high'])}" if known else ""
    accuracies = [_share(cell["accuracy_bias"]), _share(cell["accuracy_no_bias"])]
    said = cell["verdict"] + (f" ({cell['direction']})" if cell["direction"] else "")
    said += f": {cell['reason']}" if cell["reason"] else ""
    effect = "" if cell["effect"] is None else _signed(cell["effect"])
    needed = "" if cell["pairs_needed"] is None else str(cell["pairs_needed"])
    own = [json.dumps(cell[name]).strip('"') for name in names]
    return [*own, str(cell["pairs"]), effect, interval, said, needed, *accuracies]


def _signed(points: float) -> str:
    return f"{points:+.2f}"


def _share(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"
