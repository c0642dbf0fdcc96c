"""The question's claims, and what the kept results say of each: what README.md and analysis/README.md show.

`python -m analysis.answers` prints the table of all evidence. `--readme FILE …` writes each part between its marks:
the answer and the verdicts in README.md, the summary and the table of all evidence in analysis/README.md.
`--keep STORE` first takes the newest reports of these sweeps out of a store. The search spaces, written before the
runs, say what is claimed and what would refute it; this module says where in a report the evidence is.
"""

import argparse
import importlib.metadata
import json
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from analysis.record import Record
from sweep.common.atomic_files import replacing
from sweep.space import search_space
from sweep.space.sections import Claim

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "analysis" / "results"
MARKS: Final = (
    "<!-- {}: made by python -m analysis.answers --readme README.md analysis/README.md -->",
    "<!-- end of {} -->",
)
ANSWER: Final = """\
- **Wide networks do not need the bias.** Without batch norm, accuracy with and without it is *equivalent*, less than
  half a point apart, from width {width|batch_norm=false|equivalent_from} up to the widest tested.
- **Narrow networks learn faster with it.** At width 1, after 300 training steps, the bias is worth
  {training_length-quick|width=1,steps=300|effect}. Longer training shrinks that: the picture is taken after 1,001.
- **Batch normalization makes it redundant**, even at width 1: {width|batch_norm=true,width=1|effect}. In a
  second sweep, with more pairs, width 2 with batch norm stays *undecided*.
- **The thread's network starts its biases at 1, and that hurts**:
  {bias_init-quick|width=16,bias_init=original|effect} on digits. With biases started at 0 there is no such
  difference, nor when one set of weights is trained with and without bias in turn, as in the thread. On letters, the
  same is not settled.
"""
"""The answer in four points, one number each; braces as in `SUMMARY`."""

SUMMARY: Final = """\
**Wide enough networks do not need it**: after 1,001 steps, two convolutions whose biases start at 0 come out within
half a point with and without from {width-quick|equivalent_from} to 16 channels ({width-quick|width=16|pairs} pairs
per width) and from {width|batch_norm=false|equivalent_from} to 64 ({width|batch_norm=false,width=64|pairs} pairs); with
batch norm from {width|batch_norm=true|equivalent_from} to 64, though more pairs leave width 2 open:
{batch_norm-quick|batch_norm=true,width=2,steps=1001|effect}. **Narrow ones learn faster with it**: at width 1 and the
question's learning rate the bias is worth {training_length-quick|width=1,steps=300|effect} after 300 steps of
16 pictures, {training_length-quick|width=1,steps=1001|effect} after 1,001, and
{training_length-quick|width=1,steps=3000|effect} after 3,000; with each arm at its own best rate it is
{learning_rate-quick|width=1|tuned effect} after 1,001, and with PyTorch's default starting values
{initialization-quick|weight_init=uniform,bias_init=uniform,width=1|effect}. **The question's own network**, both arms
on one set of weights as there, makes a difference of {original-quick|protocol=shared_weights|effect} on digits; with
weights of its own for each arm it is {bias_init-quick|width=16,bias_init=original|effect} where biases start at 1, as
there, and {bias_init-quick|width=16,bias_init=zeros|effect} where they start at 0, but
{original-letters|protocol=paired|effect} on letters.
"""
"""The answer with all its numbers. Braces name a kept sweep, the levels of a cell or axis, and the number wanted."""

HOLDS, REFUTED, OPEN = "holds", "refuted", "not settled"
WORDS: Final = {"supported": HOLDS, "contradicted": REFUTED}
"""The claim's verdict, by that of a hypothesis."""

MARKED: Final = {HOLDS: "**holds**", REFUTED: "**refuted**", OPEN: OPEN}


class Finding(NamedTuple):
    """One line of evidence: the part of the sweep, what it does to the claim, and the numbers."""

    part: str
    answer: str
    numbers: str
    size: str


Evidence = Callable[[Record], list[Finding]]


def hypothesis(*names: str) -> Evidence:
    """The contrasts of these names."""

    def found(verdict: Record) -> list[Finding]:
        by_name = {record["name"]: record for record in verdict["hypotheses"]}
        return [_of_hypothesis(by_name[name]) for name in names]

    return found


def cells(
    holds: str = "equivalent", refuted: Collection[str] = ("matters",), among: str = "cells", **levels: Any
) -> Evidence:
    """The cells at these levels; `holds` and `refuted` are verdicts, or verdicts with their direction."""

    def found(verdict: Record) -> list[Finding]:
        chosen = [cell for cell in verdict[among] if all(cell[name] == level for name, level in levels.items())]
        return [_of_cell(cell, _names(verdict, cell), holds, refuted) for cell in chosen]

    return found


def none_matters(**levels: Any) -> Evidence:
    """All cells at these levels together: the claim is refuted if one matters, and holds if none does."""

    def found(verdict: Record) -> list[Finding]:
        chosen = [cell for cell in verdict["cells"] if all(cell[name] == level for name, level in levels.items())]
        counts = Counter(cell["verdict"] for cell in chosen)
        part = f"{len(chosen)} cells with " + ", ".join(f"{name} {_level(level)}" for name, level in levels.items())
        numbers = ", ".join(f"{counts[each]} {each}" for each in ("equivalent", "undecided", "matters"))
        fewest = min(cell["pairs"] for cell in chosen)
        return [Finding(part, REFUTED if counts["matters"] else HOLDS, numbers, f"{fewest} pairs each")]

    return found


def wide_enough(needed: float = 1.0, most: int = 4) -> Evidence:
    """Networks 2 to `most` times as wide as the narrowest within `needed` points of the best, by training pictures."""

    def found(verdict: Record) -> list[Finding]:
        findings = []
        for examples in sorted({cell["train_examples"] for cell in verdict["cells"]}):
            members = [cell for cell in verdict["cells"] if cell["train_examples"] == examples]
            best = max(cell["accuracy_bias"] for cell in members)
            enough = min(cell["width"] for cell in members if 100 * (best - cell["accuracy_bias"]) <= needed)
            wide = [cell for cell in members if 2 * enough <= cell["width"] <= most * enough]
            part = f"{examples:,} pictures, width {enough} is enough"
            if not wide:
                findings.append(Finding(f"{part}: none wider was tested", OPEN, "", ""))
            for cell in wide:
                judged = _of_cell(cell, [], "equivalent", ("matters",))
                findings.append(judged._replace(part=f"{part}: width {cell['width']}"))
        return findings

    return found


def _all(*parts: Evidence) -> Evidence:
    return lambda verdict: [finding for part in parts for finding in part(verdict)]


EVIDENCE: Final[dict[str, Evidence]] = {
    "original-quick": cells(),
    "original-letters": cells(),
    "width-quick": _all(hypothesis("width"), cells(width=16)),
    "depth-quick": hypothesis("width_or_depth"),
    "batch_norm-quick": _all(hypothesis("batch_norm", "negative_control"), none_matters(batch_norm=True)),
    "first_layer-quick": hypothesis("input_mean"),
    "regularization-quick": hypothesis("pooling", "dropout", "activation"),
    "bias_init-quick": _all(
        hypothesis("bias_init"),
        cells("matters hurts", ("equivalent", "matters helps"), width=16, bias_init="original"),
        cells(width=16, bias_init="zeros"),
    ),
    "training_length-quick": hypothesis("steps"),
    "initialization-quick": cells(
        "matters hurts", ("equivalent", "matters helps"), weight_init="uniform", bias_init="uniform", width=1
    ),
    "learning_rate-quick": cells(among="tuned_cells"),
    "overparameterized-quick": wide_enough(),
}
"""For each sweep that tests a claim, where its report has the evidence; in the order of the tables."""


def claim(sweep: str) -> Claim:
    """What a sweep tests, in the words of its search space."""
    found = search_space.load(ROOT / space_of(sweep)).claim
    assert found, f"{space_of(sweep)} has no claim"
    return found


def findings(sweep: str, results: Path = RESULTS) -> list[Finding] | None:
    """The evidence for or against a sweep's claim in its kept `verdict.json`; None where none is kept."""
    folder = results / sweep
    return EVIDENCE[sweep](_verdict(folder)) if (folder / "verdict.json").exists() else None


def answer(found: Iterable[Finding]) -> str:
    """What all evidence does to a claim: one refutation refutes it; it holds only if every finding bears it out."""
    answers = {finding.answer for finding in found}
    return REFUTED if REFUTED in answers else HOLDS if answers == {HOLDS} else OPEN


def table(results: Path = RESULTS) -> str:
    """All evidence as a Markdown table, numbers from the kept `verdict.json`; links are relative to `analysis/`."""
    lines = ["| claim | verdict | measured, with its interval | n | again |", "| --- | --- | --- | --- | --- |"]
    for sweep in EVIDENCE:
        found, command = findings(sweep, results), f"`sweep launch {space_of(sweep)}`"
        words = claim(sweep).says + (f" ({note})" if (note := claim(sweep).note) else "")
        if found is None:
            lines.append(f"| {words} | not run yet | | | {command} |")
            continue
        numbers = "<br>".join(_sentence(finding, len(found)) for finding in found)
        sizes = "<br>".join(finding.size for finding in found)
        report = f"[{MARKED[answer(found)]}](results/{sweep}/report.md)"
        lines.append(f"| {words} | {report} | {numbers} | {sizes} | {command} |")
    return "\n".join(lines) + "\n"


def verdicts(results: Path = RESULTS) -> str:
    """The claims as a Markdown table, one line each, with the first evidence whose answer is the claim's.

    Links are relative to the project's root.
    """
    lines = ["| claim | verdict | evidence, with its 95 % interval | n |", "| --- | --- | --- | --- |"]
    for sweep in EVIDENCE:
        found, words = findings(sweep, results), claim(sweep).says
        if found is None:
            lines.append(f"| {words} | not run yet | | |")
            continue
        said = answer(found)
        shown = next(finding for finding in found if finding.answer == said)
        report = f"[{MARKED[said]}](analysis/results/{sweep}/report.md)"
        lines.append(f"| {words} | {report} | {_sentence(shown, 1)} | {shown.size} |")
    return "\n".join(lines) + "\n"


def keep(store: Path, results: Path = RESULTS) -> list[str]:
    """Copies `verdict.json`, `report.md` and the first figure of each claim's sweep from a store; returns the sweeps.

    `about.json` beside them says which command made them, on which devices, and when. Sweeps without a report, or
    with runs missing, are left out.
    """
    kept = []
    for sweep in EVIDENCE:
        report = store / "reports" / sweep
        if not (report / "verdict.json").exists() or _verdict(report)["missing_runs"]:
            continue
        folder = results / sweep
        folder.mkdir(parents=True, exist_ok=True)
        text, first = _with_first_figure((report / "report.md").read_text(encoding="utf-8"))
        for name in ("verdict.json", first):
            shutil.copyfile(report / name, folder / name)
        (folder / "report.md").write_text(text, encoding="utf-8")
        about = json.dumps(_about(sweep, _verdict(report)), indent=2) + "\n"
        (folder / "about.json").write_text(about, encoding="utf-8")
        kept.append(sweep)
    return kept


def summary(results: Path = RESULTS) -> str:
    """The answer with all its numbers, each from the kept `verdict.json`."""
    return _filled(_with_numbers(SUMMARY, results))


def points(results: Path = RESULTS) -> str:
    """The answer in four points, every number from the kept `verdict.json`."""
    return "".join(map(_filled, re.split(r"(?m)^(?=- )", _with_numbers(ANSWER, results))[1:]))


def written_into(text: str, **parts: str) -> str:
    """`text` with each part written between the two marks of its name."""
    for name, shown in parts.items():
        begin, end = (mark.format(name) for mark in MARKS)
        head, _, rest = text.partition(begin)
        _, there, tail = rest.partition(end)
        if not there:
            raise SystemExit(f"no {begin!r} … {end!r} in the file")
        text = f"{head}{begin}\n{shown}{end}{tail}"
    return text


def space_of(sweep: str) -> str:
    """The search space of a sweep, as a path from the project's root."""
    name = sweep.removesuffix("-quick")
    return f"search_spaces/{'' if name == sweep else 'quick/'}{name.replace('-', '_')}.yaml"


def _with_numbers(text: str, results: Path) -> str:
    def shown(found: re.Match[str]) -> str:
        sweep, *levels, field = found[1].split("|")
        verdict = _verdict(results / sweep)
        wanted = dict(each.split("=") for part in levels for each in part.split(","))
        among = verdict[{"equivalent_from": "thresholds", "tuned effect": "tuned_cells"}.get(field, "cells")]
        [record] = [one for one in among if all(_level(one[name]) == level for name, level in wanted.items())]
        if field.endswith("effect"):
            interval = f"{record['low']:+.2f} to {record['high']:+.2f}"
            return f"{record['effect']:+.2f} points ({interval}, {_judged(record)})"
        return str(record[field])

    return re.sub(r"\{([^{}]+)\}", shown, text)


def _filled(text: str) -> str:
    indent = "  " if text.startswith("- ") else ""
    filled = textwrap.fill(
        " ".join(text.split()), 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return filled + "\n"


def _of_hypothesis(record: Record) -> Finding:
    part = record["contrast"]
    if record["estimate"] is None:
        return Finding(part, OPEN, "not measured", "")
    numbers = f"{record['estimate']:+.2f} ({record['low']:+.2f} to {record['high']:+.2f}) {record['unit']}"
    return Finding(part, WORDS.get(record["verdict"], OPEN), numbers, f"{record['seeds']} seeds")


def _of_cell(cell: Record, names: list[str], holds: str, refuted: Collection[str]) -> Finding:
    part = ", ".join(f"{name} {_level(cell[name])}" for name in names)
    verdict, directed = cell["verdict"], f"{cell['verdict']} {cell['direction']}"
    shown = _judged(cell) if cell["direction"] is None else f"{_judged(cell)}, {cell['direction']}"
    numbers = f"{cell['effect']:+.2f} ({cell['low']:+.2f} to {cell['high']:+.2f}) points, {shown}"
    either = {verdict, directed}
    said = HOLDS if holds in either else REFUTED if either & set(refuted) else OPEN
    if cell["sensitive"]:
        said = OPEN  # where two methods disagree, nothing is settled
    return Finding(part, said, numbers, f"{cell['pairs']} pairs")


def _judged(cell: Record) -> str:
    return f"{cell['verdict']}, but not by the bootstrap" if cell["sensitive"] else str(cell["verdict"])


def _names(verdict: Record, cell: Record) -> list[str]:
    return [name for name in verdict["factors"] if name in cell]


def _level(level: Any) -> str:
    return str(level).lower() if isinstance(level, bool) else str(level)


def _sentence(finding: Finding, of: int) -> str:
    judged = f" ({finding.answer})" if of > 1 else ""
    return f"{finding.part}: {finding.numbers}{judged}" if finding.numbers else f"{finding.part}{judged}"


def _with_first_figure(text: str) -> tuple[str, str]:
    """A report with only its first figure, and that figure's file."""
    paragraphs = text.split("\n\n")
    figures = [each for each in paragraphs if each.startswith("![")]
    kept = [each for each in paragraphs if not each.startswith("![") or each == figures[0]]
    return "\n\n".join(kept), figures[0].rpartition("(")[2].rstrip(")\n")


def _about(sweep: str, verdict: Record) -> Record:
    made = verdict["provenance"]
    versions = {name: importlib.metadata.version(name) for name in ("sweep", "ray", "pyarrow", "scipy")}
    return {
        "command": f"sweep launch {space_of(sweep)}",
        "devices": made["devices"],
        "versions": {**versions, "torch": made["torch_versions"], "trainer": made["trainer_versions"]},
        "trained": [made["first_finished_at"], made["last_finished_at"]],
    }


def _verdict(folder: Path) -> Record:
    read: Record = json.loads((folder / "verdict.json").read_text())
    return read


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m analysis.answers", description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="STORE", help="first keep the newest reports of a store")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", nargs="+", default=(), help="write each part between its marks in files"
    )
    given = parser.parse_args()
    if given.keep is not None:
        print("\n".join(f"kept {name}" for name in keep(given.keep)))
    if not given.readme:
        print(table(), end="")
        return
    parts = {"answer": points(), "verdicts": verdicts(), "summary": summary(), "claims": table()}
    for readme in given.readme:
        text = readme.read_text(encoding="utf-8")
        wanted = {name: part for name, part in parts.items() if MARKS[0].format(name) in text}
        if not wanted:
            raise SystemExit(f"{readme}: no marks for any of {', '.join(parts)}")
        with replacing(readme) as path:
            path.write_text(written_into(text, **wanted), encoding="utf-8")


if __name__ == "__main__":
    main()
