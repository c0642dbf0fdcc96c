import itertools
from pathlib import Path

import pytest

from sweep import plan
from sweep.plan import Array
from sweep.runs import array_id, run_id
from sweep.search_space import SearchSpace, parse


def space(text: str) -> SearchSpace:
    return parse(text.encode(), Path("test.yaml"))


def arrays(text: str, device: plan.DeviceKind = "cpu") -> list[Array]:
    return list(plan.arrays(space(text), device))


WIDTHS = "axes: {width: [1, 16], batch_norm: [false, true], seed: %d}"


def test_every_run_of_the_grid_is_in_exactly_one_array_under_its_own_id() -> None:
    planned = arrays(WIDTHS % 40)
    ids = [each for array in planned for each in array.run_ids]
    assert len(ids) == len(set(ids)) == 2 * 2 * 40 * 2
    identity = plan.data.identity("mnist5k")
    for array in planned:
        assert array.run_ids == tuple(run_id(run, identity) for run in array.runs())
        assert array.array_id == array_id(array.run_ids)


def test_both_arms_of_a_pair_are_always_in_one_array() -> None:
    for array in arrays(WIDTHS % 21):
        arms = {seed: {bias for bias, s in array.members if s == seed} for _, seed in array.members}
        assert set(map(frozenset, arms.values())) == {frozenset({True, False})}


def test_runs_of_one_array_share_every_setting_but_bias_and_seed() -> None:
    cells = {(array.cell.width, array.cell.batch_norm) for array in arrays(WIDTHS % 8)}
    assert cells == set(itertools.product([1, 16], [False, True]))


def test_adding_seeds_and_levels_leaves_whole_arrays_as_they_are() -> None:
    before = {array.array_id for array in arrays("axes: {width: [4, 16], seed: 32}")}
    after = {array.array_id for array in arrays("axes: {width: [2, 4, 16], seed: 96}")}
    assert before < after


def test_blocks_count_absolute_seed_numbers_not_positions_in_the_list() -> None:
    size = plan.array_size(4, "cpu") // 2
    seeds = list(range(size - 2, size + 2))
    blocks = [sorted({seed for _, seed in a.members}) for a in arrays(f"axes: {{width: [4], seed: {seeds}}}")]
    assert blocks == [seeds[:2], seeds[2:]]


def test_arrays_are_no_larger_than_what_fills_the_device() -> None:
    for device in plan.SATURATION:
        for array in arrays("axes: {width: [1, 2, 4, 8, 16, 64], seed: 100}", device):
            assert len(array.members) <= plan.array_size(array.cell.width, device)


@pytest.mark.parametrize("device", plan.SATURATION)
def test_every_width_that_a_search_space_allows_has_an_array_size(device: plan.DeviceKind) -> None:
    assert all(plan.array_size(width, device) >= 2 for width in (1, 2, 3, 16, 17, 1024))


def test_what_is_missing_leaves_out_stored_arrays_and_reduces_partly_stored_ones() -> None:
    planned = arrays("axes: {width: [16], seed: 12}")
    stored = set(planned[0].run_ids) | set(planned[1].run_ids[:2])
    left = plan.missing(planned, stored)
    assert [array.run_ids for array in left] == [planned[1].run_ids[2:], *(a.run_ids for a in planned[2:])]
    assert left[0].array_id == array_id(left[0].run_ids) != planned[1].array_id
    assert left[0].runs() == planned[1].runs()[2:]
    assert plan.missing(planned, {each for array in planned for each in array.run_ids}) == []
    assert plan.missing(planned, set()) == planned


def test_excluded_runs_are_in_no_array() -> None:
    text = "{axes: {width: [1, 2], seed: 4}, exclude: [{width: 2, seed: 3}]}"
    assert sorted(len(array.members) for array in arrays(text)) == [6, 8]


def test_how_often_the_curve_is_drawn_changes_no_run_and_no_array() -> None:
    often = arrays("{settings: {evaluate_every: 7}, axes: {seed: 4}}")
    assert [a.array_id for a in often] == [a.array_id for a in arrays("axes: {seed: 4}")]
    assert often[0].cell.evaluate_every == 7


def test_work_grows_with_runs_steps_and_width() -> None:
    def work(text: str) -> int:
        return arrays(text)[0].work

    assert work("{settings: {width: 16}, axes: {seed: 2}}") > work("{settings: {width: 16}}")
    assert work("settings: {width: 64}") > work("settings: {width: 16}") > work("settings: {width: 16, steps: 300}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "axes: {width: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], batch_norm: [false, true], learning_rate: [0.01, 0.02, 0.05,"
        " 0.1, 0.2], seed: 5000}",
        f"axes: {{width: {list(range(1, 101))}, learning_rate: {[i / 500 for i in range(1, 501)]}, seed: 10}}",
    ],
    ids=["many seeds", "many cells"],
)
def test_a_million_runs_are_planned_in_two_gigabytes(text: str) -> None:
    import subprocess
    import sys

    program = (
        "import resource, sys; from pathlib import Path; from sweep import plan, search_space\n"
        "arrays = list(plan.arrays(search_space.parse(sys.argv[1].encode(), Path('x.yaml')), 'cpu'))\n"
        "print(sum(len(a.run_ids) for a in arrays), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, check=True)
    runs, kibibytes = map(int, done.stdout.split())
    assert runs == 1_000_000
    assert kibibytes < 2_000_000
