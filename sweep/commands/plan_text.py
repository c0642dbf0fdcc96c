"""A plan in words: the grid of each search space, what is to be trained, how much that is, and how long it takes."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sweep.commands.plan import Plan
from sweep.space.runs import DEFAULTS, SETTINGS
from sweep.space.search_space import SearchSpace

START: Final = 5.0
"""Seconds that a launch takes to start Ray and its first workers; measured on two cores of an EPYC."""

REPORT: Final = 4.0
"""Seconds that the report of a sweep takes; measured likewise, on 640 runs."""

BRIEF: Final = "a few seconds"

SHOWN: Final = 8
"""Levels of an axis that are listed; of more, the first ones and the last."""

LOADED: Final = 0.5
"""Programs per core from which on they are said to slow training down."""


def lines(spaces: Sequence[SearchSpace], planned: Plan, devices: int, load: float) -> Iterator[str]:
    """The plan of a launch of `spaces` on `devices` cores or GPUs, where other programs load each core by `load`."""
    for space in spaces:
        yield from grid(space)
        yield ""
    if len(spaces) > 1 and planned.runs is not None and planned.cells is not None:
        yield f"Together: {_together(spaces, planned.cells, planned.runs)}."
    yield f"In the store: {_stored(planned)}."
    yield f"To train: {_to_train(spaces, planned)}."
    if planned.to_train != 0:
        yield f"Time: {_time(planned, devices, len(spaces))}."
    if planned.estimated_seconds and _on_cpu(planned) and load >= LOADED:
        yield f"Other programs use these cores, too; while they do, it takes {_two_digits(1 + load)} times as long."


def grid(space: SearchSpace) -> Iterator[str]:
    """A search space by its axes, and what it fixes at another level than the default."""
    axes = {name: levels for name, levels in space.levels.items() if len(levels) > 1}
    single = {name: levels[0] for name, levels in space.levels.items() if name not in axes} | space.fixed
    fixed = [name for name in SETTINGS if name in single and (single[name] != DEFAULTS[name] or name == "dataset")]
    heads = (*axes, *(["fixed"] if fixed else []), *(["without"] if space.exclude else []))
    wide = max(map(len, heads), default=0)
    yield f"{space.name}: {_cells(space)}, {_count(space.run_count(), 'run')}"
    for name, levels in axes.items():
        yield f"  {name:{wide}}  {in_short(levels)}"
    if fixed:
        yield f"  {'fixed':{wide}}  {', '.join(f'{name} {_level(single[name])}' for name in fixed)}"
    for clause in space.exclude:
        left_out = " and ".join(f"{name} {in_short(levels)}" for name, levels in clause.items())
        yield f"  {'without':{wide}}  {left_out}"


def in_short(levels: Sequence[Any]) -> str:
    """The levels of an axis: consecutive numbers as a range, long lists by their ends."""
    whole = all(type(level) is int for level in levels)
    if whole and len(levels) > 3 and list(levels) == list(range(levels[0], levels[0] + len(levels))):
        return f"{levels[0]} to {levels[-1]}"
    if len(levels) <= SHOWN:
        return ", ".join(map(_level, levels))
    return f"{', '.join(map(_level, levels[:3]))}, … {_level(levels[-1])} ({len(levels):,} levels)"


def duration(seconds: float) -> str:
    """As people say it: `40 s`, `13 min`, `2.5 h`, `3 days`."""
    if seconds < 10:
        return BRIEF
    if seconds < 55:
        return f"{round(seconds, -1):.0f} s"
    for unit, name, most in ((60.0, "min", 90), (3600.0, "h", 48)):
        if seconds < most * unit:
            return f"{_halves(seconds / unit)} {name}"
    return f"{_halves(seconds / 86400)} days"


def flops(count: int) -> str:
    """Floating-point operations with a prefix: `95 TFLOP`."""
    return _scaled(count, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))


def number(count: int) -> str:
    """A large number in words: `1.2 million`."""
    return _scaled(count, ("", "thousand", "million", "billion", "trillion")).strip()


def _cells(space: SearchSpace) -> str:
    """`10 cells of 32 pairs`, or of as many runs where there is one arm only."""
    members = {of_cell for _, of_cell in space.grid()} if space.exclude else [_members(space)]
    sizes, noun = [], "pair"
    for of_cell in members:
        arms = [{seed for bias, seed in of_cell if bias == arm} for arm in (True, False)]
        noun = noun if all(arms) else "run"
        sizes.append(len(arms[0] & arms[1]) if noun == "pair" else len(of_cell))
    least, most = min(sizes), max(sizes)
    each = _count(most, noun) if least == most else f"{least:,} to {most:,} {noun}s"
    return f"{_count(space.cell_count(), 'cell')} of {each}"


def _members(space: SearchSpace) -> tuple[tuple[bool, int], ...]:
    return tuple(itertools.product(space.levels["bias"], space.levels["seed"]))


def _together(spaces: Sequence[SearchSpace], cells: int, runs: int) -> str:
    shared = sum(space.run_count() for space in spaces) - runs
    once = f"; {_count(shared, 'run')} that search spaces share count once" if shared else ""
    return f"{_count(cells, 'cell')}, {_count(runs, 'run')}{once}"


def _stored(planned: Plan) -> str:
    if planned.in_store is None or planned.runs is None:
        return "unknown without the pictures"
    share = "none" if not planned.in_store else f"{planned.in_store:,}" if planned.to_train else "all"
    return f"{share}{' of' * bool(planned.to_train)} {_count(planned.runs, 'run')}"


def _to_train(spaces: Sequence[SearchSpace], planned: Plan) -> str:
    if planned.to_train == 0:
        return "nothing"
    runs = sum(space.run_count() for space in spaces) if planned.to_train is None else planned.to_train
    parts = [f"{'at most ' * (planned.in_store is None)}{_count(runs, 'run')}"]
    if planned.arrays is not None and planned.to_train == planned.runs:
        parts[0] += f" in {_count(planned.arrays, 'array')}"
    if planned.flops is not None and planned.parameters is not None:
        parts += [flops(planned.flops), f"{number(planned.parameters)} parameters in all"]
    return ", ".join(parts)


def _time(planned: Plan, devices: int, reports: int) -> str:
    if planned.estimated_seconds is None:
        return "unknown"
    seconds = planned.estimated_seconds + START + REPORT * reports
    known = duration(seconds)
    about = "" if known == BRIEF else "about "
    return f"{about}{known} on {_place(planned, devices)}, Ray's start and the report included"


def _place(planned: Plan, devices: int) -> str:
    """`2 cores (AMD EPYC)`, `one NVIDIA H100`."""
    if _on_cpu(planned):
        return f"{_count(devices, 'core')} {planned.device.removeprefix('cpu ')}"
    return f"one {planned.device}" if devices == 1 else f"{devices} GPUs ({planned.device})"


def _on_cpu(planned: Plan) -> bool:
    return planned.device.startswith("cpu ")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _level(level: Any) -> str:
    """As it stands in a search space."""
    return level if isinstance(level, str) else json.dumps(level)


def _scaled(count: int, units: Sequence[str]) -> str:
    amount, place = float(count), 0
    while amount >= 999.5 and place < len(units) - 1:
        amount, place = amount / 1000, place + 1
    return f"{_two_digits(amount) if place else count} {units[place]}"


def _halves(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 9.75 else f"{round(2 * amount) / 2:g}"


def _two_digits(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 9.95 else f"{amount:.1f}".removesuffix(".0")
