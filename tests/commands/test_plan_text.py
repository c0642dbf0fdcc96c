"""A plan in words: the grid, what is to be trained, sizes and times as people say them."""

import dataclasses
import re
from pathlib import Path

import pytest

from sweep.commands import plan_text
from sweep.commands.plan import Plan
from sweep.space.search_space import SearchSpace, parse

PLAN = Plan("width", 640, 10, 48, 0, 640, 14_102_912, 2_470_039_142_400, 42.7, "cpu (AMD EPYC)")
UNKNOWN = Plan("cifar", 12, 2, None, None, 12, None, None, None, "cpu (AMD EPYC)")
WIDTH = "{settings: {steps: 300}, axes: {width: [1, 2, 4, 8, 16], batch_norm: [false, true], seed: 32}}"


def space(text: str, name: str = "width") -> SearchSpace:
    return parse(text.encode(), Path(f"{name}.yaml"))


def said(planned: Plan, *spaces: SearchSpace, devices: int = 2, load: float = 0.0) -> list[str]:
    """What stands below the grids."""
    found = list(plan_text.lines(spaces or [space(WIDTH)], planned, devices, load))
    return found[len(found) - found[::-1].index("") :]


def test_a_plan_shows_its_grid_what_is_to_train_and_the_time() -> None:
    assert list(plan_text.lines([space(WIDTH)], PLAN, 2, 0.1)) == [
        "width: 10 cells of 32 pairs, 640 runs",
        "  bias        true, false",
        "  width       1, 2, 4, 8, 16",
        "  batch_norm  false, true",
        "  seed        0 to 31",
        "  fixed       dataset mnist5k, steps 300",
        "",
        "In the store: none of 640 runs.",
        "To train: 640 runs in 48 arrays, 2.5 TFLOP, 14 million parameters in all.",
        "Time: about 50 s on 2 cores (AMD EPYC), Ray's start and the report included.",
    ]


def test_what_is_fixed_shows_where_it_is_not_the_default_and_the_data_set_always() -> None:
    text = "{settings: {depth: 2, width: 4, train_examples: 250}, axes: {bias: [true], hidden: [0], seed: [7]}}"
    assert list(plan_text.grid(space(text))) == [
        "width: 1 cell of 1 run, 1 run",
        "  fixed  width 4, hidden 0, dataset mnist5k, train_examples 250, seed 7",
    ]


def test_what_is_left_out_is_said_and_counted() -> None:
    text = "{axes: {width: [1, 2], seed: 3}, exclude: [{width: 2, seed: [1, 2]}, {width: 1, bias: true, seed: 0}]}"
    assert list(plan_text.grid(space(text))) == [
        "width: 2 cells of 1 to 2 pairs, 7 runs",
        "  bias     true, false",
        "  width    1, 2",
        "  seed     0, 1, 2",
        "  fixed    dataset mnist5k",
        "  without  width 2 and seed 1, 2",
        "  without  bias true and width 1 and seed 0",
    ]


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ([1, 2, 4], "1, 2, 4"),
        (list(range(5, 40)), "5 to 39"),
        ([False, True], "false, true"),
        ([None, 250], "null, 250"),
        ([0.1, 0.05], "0.1, 0.05"),
        (["relu", "gelu"], "relu, gelu"),
        ([2**power for power in range(10)], "1, 2, 4, … 512 (10 levels)"),
        ([1, 2, 3, 5], "1, 2, 3, 5"),
    ],
    ids=str,
)
def test_levels_are_shortened_where_they_are_many(levels: list[object], shown: str) -> None:
    assert plan_text.in_short(levels) == shown


def test_where_everything_is_in_the_store_nothing_is_said_of_time() -> None:
    done = dataclasses.replace(PLAN, in_store=640, to_train=0, parameters=0, flops=0, estimated_seconds=0.0)
    assert said(done, load=5) == ["In the store: all 640 runs.", "To train: nothing."]


def test_where_a_part_is_in_the_store_what_is_left_is_counted() -> None:
    part = dataclasses.replace(PLAN, in_store=600, to_train=40, parameters=1_234_567, flops=95 * 10**12)
    assert said(part)[:2] == [
        "In the store: 600 of 640 runs.",
        "To train: 40 runs, 95 TFLOP, 1.2 million parameters in all.",
    ]


def test_what_is_unknown_without_the_pictures_is_said() -> None:
    assert said(UNKNOWN) == [
        "In the store: unknown without the pictures.",
        "To train: at most 12 runs.",
        "Time: unknown.",
    ]
    shapes = dataclasses.replace(UNKNOWN, arrays=2, parameters=5000, flops=10**9)
    assert said(shapes)[1] == "To train: at most 12 runs in 2 arrays, 1 GFLOP, 5 thousand parameters in all."


def test_several_search_spaces_are_shown_one_by_one_and_together() -> None:
    both = [space(WIDTH), space("{axes: {width: [4, 8], seed: 32}}", "other")]
    planned = dataclasses.replace(PLAN, runs=704, cells=11, to_train=704)
    text = list(plan_text.lines(both, planned, 2, 0.0))
    assert [line.split(":")[0] for line in text if re.match(r"\w+: \d+ cells", line)] == ["width", "other", "Together"]
    assert said(planned, *both)[0] == "Together: 11 cells, 704 runs; 64 runs that search spaces share count once."
    unknown = dataclasses.replace(UNKNOWN, runs=None, cells=None, to_train=None)
    assert said(unknown, *both)[:2] == ["In the store: unknown without the pictures.", "To train: at most 768 runs."]


@pytest.mark.parametrize(
    ("device", "devices", "place"),
    [
        ("cpu (AMD EPYC)", 1, "1 core (AMD EPYC)"),
        ("NVIDIA H100", 1, "one NVIDIA H100"),
        ("NVIDIA H100", 8, "8 GPUs (NVIDIA H100)"),
    ],
)
def test_the_place_is_named(device: str, devices: int, place: str) -> None:
    planned = dataclasses.replace(PLAN, device=device, estimated_seconds=7200.0)
    assert said(planned, devices=devices)[-1] == f"Time: about 2 h on {place}, Ray's start and the report included."


def test_busy_cores_are_told_where_arrays_train_on_cores() -> None:
    assert said(PLAN, load=0.8)[-1] == "Other programs use these cores, too; while they do, it takes 1.8 times as long."
    assert said(PLAN, load=0.3)[-1].startswith("Time: ")
    assert said(dataclasses.replace(PLAN, device="NVIDIA H100"), load=0.8)[-1].startswith("Time: ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "a few seconds"),
        (38.7, "40 s"),
        (62.7, "1 min"),
        (89, "1.5 min"),
        (780, "13 min"),
        (5000, "83 min"),
        (7000, "2 h"),
        (9000, "2.5 h"),
        (47 * 3600, "47 h"),
        (49 * 86400, "49 days"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, words: str) -> None:
    assert plan_text.duration(seconds) == words


def test_large_numbers_are_said_in_words() -> None:
    assert [plan_text.number(count) for count in (1, 999, 1000, 476_448, 999_600, 1_250_000, 89 * 10**9)] == [
        *("1", "999", "1 thousand", "476 thousand", "1 million", "1.2 million", "89 billion"),
    ]
    assert [plan_text.flops(count) for count in (5, 39_625_113_600, 95 * 10**12, 345 * 10**15)] == [
        *("5 FLOP", "40 GFLOP", "95 TFLOP", "345 PFLOP"),
    ]
