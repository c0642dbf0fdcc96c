"""What differs between the search space of a sweep and what was launched, or trained, under its name before."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sweep.commands.status import launched
from sweep.common.errors import InputError
from sweep.space import catalogue
from sweep.space.runs import IDENTITY, SETTINGS
from sweep.space.search_space import SearchSpace
from sweep.space.yaml_lines import show
from sweep.store.rows import Store

Levels = Mapping[str, Iterable[Any]]
"""The levels of settings, by name."""


def since_launch(space: SearchSpace, store: Store) -> str | None:
    """What a search space has changed since the last launch under its name, in a sentence; None where nothing."""
    if space.name not in store.sweeps():
        return None
    try:
        before = launched(store, space.name)
    except (InputError, OSError) as error:
        reason = str(error).splitlines()[0]
        return f"{space.name}: what was launched under this name before cannot be read, nor what has changed: {reason}"
    changed = dict(_changed_parts(before, space))
    if not changed:
        return None
    said = "; ".join(f"{name} {was}, now {now}" for name, (was, now) in changed.items())
    share = " They share no run: the rows of before stay, and are no part of this sweep."
    return (
        f"{space.name}: not the search space that was launched under this name before: {said}."
        f"{share if _apart(before, space) else ''}"
    )


def _apart(before: SearchSpace, now: SearchSpace) -> bool:
    """Whether some setting alone tells that no run is in both; data sets read from files may be the same elsewhere."""
    was, given = levels(before), levels(now)
    names = [name for name in IDENTITY if set(was[name]).isdisjoint(given[name])]
    fixed = all(map(catalogue.has_constant, [*was["dataset"], *given["dataset"]]))
    return bool(names) and (fixed or names != ["dataset"])


def levels(space: SearchSpace) -> dict[str, tuple[Any, ...]]:
    """The levels of every setting, be it an axis or fixed."""
    return {name: space.levels.get(name) or (space.fixed[name],) for name in SETTINGS}


def differences(before: Levels, now: Levels) -> dict[str, tuple[str, str]]:
    """The settings that have other levels now, in words: before, and now; those that one of them lacks are left out."""
    return {
        name: (words(name, before[name]), words(name, now[name]))
        for name in SETTINGS
        if name in before and name in now and set(before[name]) != set(now[name])
    }


def words(name: str, given: Iterable[Any]) -> str:
    """Levels as one would write them; seeds that follow each other as `0 to 31`."""
    known = list(dict.fromkeys(given))
    if name == "seed" and len(known) > 2 and sorted(known) == list(range(min(known), max(known) + 1)):
        return f"{min(known)} to {max(known)}"
    ordered = known if any(isinstance(each, bool | str) or each is None for each in known) else sorted(known)
    shown = [each if isinstance(each, str) else show(each) for each in ordered[:12]]
    return ", ".join(shown) + (f" and {len(known) - 12:,} more" if len(known) > 12 else "")


def _changed_parts(before: SearchSpace, now: SearchSpace) -> Iterable[tuple[str, tuple[str, str]]]:
    """The settings, then the other parts, that are not as they were, each in words: before, and now."""
    yield from differences(levels(before), levels(now)).items()
    if before.exclude != now.exclude:
        yield "exclude", (_cut(json.dumps(before.exclude)), _cut(json.dumps(now.exclude)))
    for name in ("says", "refuted_if"):
        was, given = (getattr(space.claim, name, "nothing") for space in (before, now))
        if was != given:
            yield f"claim.{name}", (_cut(was), _cut(given))
    for name in type(now.analysis).model_fields:
        was, given = getattr(before.analysis, name), getattr(now.analysis, name)
        if was != given:
            yield f"analysis.{name}", (show(was), show(given))
    for dataset in before.data.keys() & now.data.keys():
        if before.data[dataset].fingerprint != now.data[dataset].fingerprint:
            yield f"pictures of {dataset}", (before.data[dataset].fingerprint, now.data[dataset].fingerprint)


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "…"
