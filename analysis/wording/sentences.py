"""What a report says in sentences, the same in Markdown and on the page: plain text, one line each."""

import json
from statistics import median
from typing import Any, Final

from analysis.record import VERDICTS, Record
from analysis.wording.cells import sentence
from analysis.wording.phrases import percent

MOST_SENTENCES: Final = 24
"""With more thresholds or cells than this, the answer begins with their counts and lists the first ones."""


def title(verdict: Record) -> str:
    return f"{verdict['name']}: does the bias of a convolution matter?"


def warnings(verdict: Record) -> list[str]:
    """What must be read before the answer: a look that was not planned, rows that are missing, alarms."""
    missing, looks = verdict["missing_runs"], verdict["looks"]
    lines = []
    if verdict["unplanned_look"]:
        lines.append(
            f"Unplanned look: these rows were looked at {looks['taken']} times, declared were {looks['declared']}; "
            "the verdicts no longer carry their error rate."
        )
    if missing:
        lines.append(f"Incomplete: {missing:,} runs of this sweep have no row yet; what they would say is not in here.")
    return [*lines, *(f"Alarm: {text}" for text in verdict["alarms"])]


def answers(verdict: Record) -> list[str]:
    """The answer in plain sentences: thresholds where there are any, else cell by cell."""
    lines = [one["statement"] for one in verdict["thresholds"]]
    if not lines:
        lines = [sentence(cell) for cell in verdict["cells"][: MOST_SENTENCES + 1]]
        left = len(verdict["cells"]) - MOST_SENTENCES
    else:
        left = len(lines) - MOST_SENTENCES
    if left <= 0:
        return lines
    return [*_counts(verdict), *lines[:MOST_SENTENCES], f"{left:,} more are in verdict.json."]


def summary(verdict: Record) -> str:
    cells = verdict["cells"]
    count = {one: sum(cell["verdict"] == one for cell in cells) for one in VERDICTS}
    said = ", ".join(f"{number:,} {one}" for one, number in count.items())
    return f"{len(cells):,} {'cell' if len(cells) == 1 else 'cells'}: {said}."


def tuned(verdict: Record) -> list[str]:
    """The answer where each arm has its own best rate; empty where nothing was tuned."""
    if verdict["tuned_cells"] is None:
        return []
    lines = [one["statement"] for one in verdict["tuned_thresholds"] or []]
    lines = lines or [sentence(cell) for cell in verdict["tuned_cells"]]
    left = len(lines) - MOST_SENTENCES
    return [*lines[:MOST_SENTENCES], *([f"{left:,} more are in verdict.json."] if left > 0 else [])]


def conditions(verdict: Record) -> list[str]:
    """What the verdicts rest on: levels, what the words mean, what was counted and left out."""
    margin, cells = verdict["margin"], verdict["cells"]
    sources = {level: _source(verdict, level) for level in ("margin", "confidence")}
    lines = [
        f"Margin: {margin:g} percentage points{sources['margin']}; "
        f"confidence: {percent(verdict['confidence'])}{sources['confidence']}.",
        "Matters: the interval of the mean effect lies wholly outside the margin. Equivalent: it is shown to lie "
        "inside. Undecided: neither is shown, which is no sign of equality. A level between the two ends of a "
        "threshold is undecided there, even where its own cell has a verdict.",
        "Verdicts hold cell by cell and axis by axis, unadjusted; the familywise ones beside them hold for all axes "
        "of this report at once.",
        _looks(verdict),
        other_looks(verdict),
        f"{verdict['runs']:,} runs, {verdict['pairs']:,} pairs; {verdict['missing_pairs']} runs have no partner "
        "and are left out of the effects.",
        f"Diverged: {verdict['diverged_bias']} runs with bias, {verdict['diverged_no_bias']} without; they "
        "count with the accuracy measured.",
        "Every cell holds for its own split of the pictures into training, validation and test."
        if "split" in verdict["factors"]
        else "Everything holds for one fixed split of the pictures into training, validation and test: seeds "
        "vary, the split does not.",
        *_pairing(cells),
    ]
    if margin == 0:
        lines.append("With a margin of 0 nothing can be equivalent.")
    equivalent = [cell["pairs"] for cell in cells if cell["verdict"] == "equivalent"]
    if equivalent:
        lines.append(
            "Equivalence from n pairs does not exclude a collapse in up to 3/n of runs: up to "
            f"{min(100, 300 / min(equivalent)):.2g} % in the equivalent cell with the fewest pairs."
        )
    near = sum(cell["verdict"] == "equivalent" and _near_an_end(cell, margin) for cell in cells)
    if near:
        lines.append(
            f"In {near} equivalent cells both arms come within the margin of 100 % or of 0 %, where no larger effect "
            "could have shown."
        )
    sensitive = sum(bool(cell["sensitive"]) for cell in cells)
    if sensitive:
        lines.append(f"Sensitive: in {sensitive} cells the bootstrap's interval would give another verdict.")
    if verdict["repeated_runs"]:
        lines.append(f"{verdict['repeated_runs']} runs stand in the store twice; the earliest row of each counts.")
    return [line for line in [*lines, *ignored(verdict)] if line]


def _near_an_end(cell: Record, margin: float) -> bool:
    accuracies = [100 * cell[f"accuracy_{arm}"] for arm in ("bias", "no_bias")]
    return bool(min(accuracies) > 100 - margin or max(accuracies) < margin)


def ignored(verdict: Record) -> list[str]:
    """Which columns were ignored, if any."""
    names = ", ".join(verdict["ignored_columns"])
    return [f"Columns that vary but are no setting were ignored: {names}."] if names else []


def origin(verdict: Record) -> list[tuple[str, str]]:
    """Where the rows come from: name and text, as far as the rows say."""
    known = verdict["provenance"]
    names = {
        "datasets": "data set", "dataset_fingerprints": "fingerprint of the data", "splits": "split",
        "devices": "devices", "torch_versions": "torch", "trainer_versions": "trainer version",
    }  # fmt: skip
    lines = [(text, ", ".join(map(str, known[key]))) for key, text in names.items() if known[key]]
    if known["methods"]:
        (first, runs), *others = known["methods"].items()
        counts = [f"{first} {runs:,} run{'s' * (runs != 1)}", *(f"{name} {number:,}" for name, number in others)]
        lines.append(("computed by", ", ".join(counts)))
    if known["first_finished_at"]:
        lines.append(("trained", f"{known['first_finished_at'][:16]} to {known['last_finished_at'][:16]} (UTC)"))
    if known["settings"]:
        shared = ", ".join(f"{name} {_level(one)}" for name, one in known["settings"].items())
        lines.append(("settings of all runs", shared))
    lines.append(("settings that vary", ", ".join(verdict["factors"]) or "none but bias and seed"))
    return lines


def citation(verdict: Record) -> str:
    """One line to cite the sweep by: its name, what it holds, its store, the program."""
    known = verdict["provenance"]
    when = f", trained until {known['last_finished_at'][:10]}" if known["last_finished_at"] else ""
    where = f"store {known['store']}" if known["store"] else "a table of runs"
    commit = f", commit {known['commit'][:12]}" if known["commit"] else ""
    version = f" {known['sweep_version']}" if known["sweep_version"] else ""
    counts = f"{verdict['runs']:,} runs, {verdict['pairs']:,} pairs"
    return f"{verdict['name']}: {counts}{when}; {where}; sweep{version}{commit}."


def _level(value: Any) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value)


def _counts(verdict: Record) -> list[str]:
    lines = []
    for axis in dict.fromkeys(one["axis"] for one in verdict["thresholds"]):
        own = [one for one in verdict["thresholds"] if one["axis"] == axis]
        first = sum(one["matters_up_to"] is not None for one in own)
        last = sum(one["equivalent_from"] is not None for one in own)
        lines.append(
            f"Along {axis}, in {len(own):,} combinations of the other settings: bias matters from the first level on "
            f"in {first:,}, and is equivalent from some level on in {last:,}."
        )
    return lines


def _looks(verdict: Record) -> str:
    looks = verdict["looks"]
    each = f"each look at {100 * looks['confidence_each']:.4g} %"
    if looks["taken"] is None:
        return f"Looks: {looks['declared']} planned, {each}." if looks["declared"] > 1 else ""
    return f"Looks: this is number {looks['taken']} of {looks['declared']} declared, {each}."


def other_looks(verdict: Record) -> str:
    """Says that another search space was looked at under this name, and what differed; empty if none was."""
    other = verdict.get("other_looks")
    if not other:
        return ""
    changed = "; ".join(f"{name} {one['before']}, now {one['now']}" for name, one in other["changed"].items())
    times = "1 earlier look" if other["looks"] == 1 else f"{other['looks']:,} earlier looks"
    return f"{times} under this name saw another search space ({changed}) and no cell of this one: not counted here."


def _pairing(cells: list[Record]) -> list[str]:
    lines = []
    rho = [cell["rho"] for cell in cells if cell["rho"] is not None]
    if rho:
        gains = [cell["gain"] for cell in cells if cell["gain"] is not None]
        worth = f"; pairing is worth {median(gains):.2g} times as many runs (1/(1-ρ), median)" if gains else ""
        lines.append(
            f"Pairing: the arms' accuracies correlate over seeds with ρ = {median(rho):.2f} (median of {len(rho):,} "
            f"cells, {min(rho):.2f} to {max(rho):.2f}){worth}."
        )
    only = [(cell["only_bias"], cell["only_no_bias"]) for cell in cells if cell["only_bias"] is not None]
    if only:
        pictures = next(cell["test_pictures"] for cell in cells if cell["only_bias"] is not None)
        with_bias, without = (median(one[arm] for one in only) for arm in (0, 1))
        lines.append(
            f"Of {pictures:,} test pictures, the median cell has {with_bias:.3g} that only the arm with bias gets "
            f"right and {without:.3g} that only the arm without does."
        )
    noise = [(c["seed_spread"], c["picture_spread"]) for c in cells if c["picture_spread"] is not None]
    if noise:
        runs, tests = (median(one[part] for one in noise if one[part] is not None) for part in (0, 1))
        lines.append(
            f"The effect of one pair varies by {runs:.2g} points from run to run, and by {tests:.2g} points because "
            "the test set is finite (standard deviations, medians of the cells)."
        )
    return lines


def _source(verdict: Record, level: str) -> str:
    """Where a level comes from, unless it was declared before looking and is what was used."""
    declared = verdict[f"{level}_declared"]
    if not verdict[f"{level}_given"]:
        return " (default, not declared)" if declared is None else ""
    before = "nothing was declared" if declared is None else f"declared was {declared:g}"
    return f" (given for this report; {before})"
