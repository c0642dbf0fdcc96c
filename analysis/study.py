"""What the rows of one study say, as one record ready for JSON: the contents of `verdict.json`."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from analysis import alarms, effects, threshold, tuned_arms, variance
from analysis.hypotheses import hypotheses
from analysis.judging import check_levels
from analysis.provenance import provenance
from analysis.record import Record
from analysis.run_table import checked, ignored
from analysis.seed_effects import seed_effects
from analysis.unknown_columns import check_ignored
from analysis.wording import alarms as alarm_sentences
from analysis.wording.cells import statement, with_reasons
from analysis.wording.claims import claim

DEFAULTS: Final = {"margin": 0.5, "confidence": 0.95}


def analyse(
    rows: pd.DataFrame,
    *,
    name: str,
    margin: float | None = None,
    confidence: float | None = None,
    declared: Mapping[str, Any] = MappingProxyType({}),
    missing_runs: int = 0,
    repeated_runs: int | None = None,
    disagreeing_runs: int | None = None,
    looks_taken: int | None = None,
    looks_declared_before: int | None = None,
    declared_before: Mapping[str, Any] = MappingProxyType({}),
    other_looks: Record | None = None,
    store: str | None = None,
    ignore: Collection[str] = (),
) -> Record:
    """The contents of `verdict.json`: counts, one record per cell and per threshold, and what the reader must know.

    `margin` is in percentage points; `confidence` is 1 - alpha over all looks together. Where they are None, `declared`
    decides (what was fixed before looking: `margin`, `confidence`, `looks`, `tune`), and where that is silent,
    `DEFAULTS`, one look and no tuning. Intervals and verdicts are at `looks["confidence_each"]`, which spends alpha
    evenly over the declared looks.

    `missing_runs` counts runs of the sweep without a row, `repeated_runs` those that are in the store twice,
    `disagreeing_runs` those of them whose results differ. `looks_taken` is the number of this look, None where looks
    are not counted; `looks_declared_before` is how many the earlier ones declared: further ones, declared after
    looking, are unplanned. `declared_before` has the margin and the confidence of the first look. `other_looks` says
    how many `looks` under this name were at another search space, and which settings have `changed` since.
    `ignore` names columns over which pairs may be pooled. Raises InputError where the rows cannot be analysed.
    """
    rows = checked(rows)
    check_ignored(rows, ignore)
    left_out, rows = ignored(rows), rows.drop(columns=list(ignore))
    given = {"margin": margin, "confidence": confidence}
    levels = {level: _chosen(level, value, declared) for level, value in given.items()}
    check_levels(**levels)
    looks = int(declared.get("looks", 1))
    each = {"margin": levels["margin"], "confidence": spent(levels["confidence"], looks)}
    names = effects.factors(rows)
    table = effects.matched(rows)
    cells = with_reasons(threshold.familywise(effects.records(rows, table, names, **each), **each))
    pairs, by_seed = sum(cell["pairs"] for cell in cells), seed_effects(table, names)
    origin = provenance(rows, store)
    tuned_cells = _tuned(rows, list(declared.get("tune") or []), each)
    return {
        "name": name,
        **levels,
        **{f"{level}_declared": declared.get(level) for level in given},
        **{f"{level}_given": value is not None for level, value in given.items()},
        "looks": {"declared": looks, "taken": looks_taken, "confidence_each": each["confidence"]},
        "other_looks": other_looks,
        "unplanned_look": None if looks_taken is None else looks_taken > min(looks, looks_declared_before or looks),
        "runs": len(rows),
        "missing_runs": missing_runs,
        "repeated_runs": repeated_runs,
        "disagreeing_runs": disagreeing_runs,
        "pairs": pairs,
        "missing_pairs": len(rows) - 2 * pairs,  # each run without a partner is a pair with a run missing
        "diverged_bias": sum(cell["diverged_bias"] for cell in cells),
        "diverged_no_bias": sum(cell["diverged_no_bias"] for cell in cells),
        "factors": names,
        "ignored_columns": left_out,
        "cells": cells,
        "thresholds": _thresholds(cells, each),
        "hypotheses": [claim(one, **each) for one in hypotheses(by_seed, origin["settings"], **each)],
        "variance": variance.shares(by_seed),
        "tuned_cells": tuned_cells,
        "tuned_thresholds": None if tuned_cells is None else _thresholds(tuned_cells, each),
        "alarms": [
            *alarm_sentences.negative_control(*alarms.failed_control(cells, origin["settings"])),
            *alarm_sentences.disagreeing(disagreeing_runs),
            *alarm_sentences.mixed(alarms.mixed(rows, names)),
            *alarm_sentences.changed(alarms.changed(DEFAULTS | dict(declared), declared_before)),
        ],
        "provenance": origin,
        "aggregated": None,
    }


def spent(confidence: float, looks: int) -> float:
    """The confidence of each look when alpha is divided evenly among them (Bonferroni): 0.975 for 2 looks at 0.95."""
    # A single look has exactly the declared confidence, free of rounding.
    return confidence if looks == 1 else round(1 - (1 - confidence) / looks, 12)


def _chosen(level: str, given: float | None, declared: Mapping[str, Any]) -> float:
    return float(declared.get(level, DEFAULTS[level]) if given is None else given)


def _tuned(rows: pd.DataFrame, tune: list[str], levels: Mapping[str, float]) -> list[Record] | None:
    if not tune:
        return None
    return with_reasons(threshold.familywise(tuned_arms.cells(rows, tune, **levels), **levels))


def _thresholds(cells: list[Record], levels: Mapping[str, float]) -> list[Record]:
    found = zip(threshold.thresholds(cells, **levels), threshold.lines(cells), strict=True)
    return [{**one, "statement": statement(one, line, **levels)} for one, line in found]
