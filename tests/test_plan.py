import dataclasses
from pathlib import Path

import pytest

from sweep import plan
from sweep.networks.conv.native import costs
from sweep.networks.conv.shape import Shape
from sweep.plan import Array
from sweep.space.runs import Run, array_id, program, run_id
from sweep.space.search_space import SearchSpace, parse


def space(text: str) -> SearchSpace:
    return parse(text.encode(), Path("test.yaml"))


def shape(cell: Run) -> Shape:
    return Shape.of(cell, (1, 28, 28), 10)


def size_of(cell: Run, device: plan.DeviceKind = "cpu") -> int:
    return plan.array_size(cell, shape(cell), device)


def arrays(text: str, device: plan.DeviceKind = "cpu") -> list[Array]:
    return list(plan.arrays(space(text), device))


def several(*texts: str) -> list[SearchSpace]:
    return [space(f"{{name: s{number}, {text}}}") for number, text in enumerate(texts)]


WIDTHS = "axes: {width: [1, 16], batch_norm: [false, true], seed: %d}"


def test_every_run_of_the_grid_is_in_exactly_one_array_under_its_own_id() -> None:
    planned = arrays(WIDTHS % 40)
    ids = [each for array in planned for each in array.run_ids]
    assert len(ids) == len(set(ids)) == 2 * 2 * 40 * 2
    identity = "d3d0083f1c091e7c"
    for array in planned:
        assert array.run_ids == tuple(run_id(run, identity) for run in array.runs())
        assert array.array_id == array_id(array.run_ids)


def seeds_of(array: Array) -> list[int]:
    return sorted({run.seed for run in array.runs()})


def test_both_arms_of_a_pair_are_always_in_one_array() -> None:
    for text in (WIDTHS % 21, "axes: {learning_rate: [0.1, 0.2, 0.3], dropout: [0.1, 0.2], seed: 3}"):
        for array in arrays(text):
            arms: dict[Run, set[bool]] = {}
            for run in array.runs():
                arms.setdefault(dataclasses.replace(run, bias=True), set()).add(run.bias)
            assert all(found == {True, False} for found in arms.values())


def test_runs_of_one_array_share_their_program() -> None:
    axes = "learning_rate: [0.1, 0.2], dropout: [0, 0.1, 0.2], momentum: [0, 0.5, 0.9], weight_init: [he, uniform]"
    text = f"axes: {{{axes}, width: [1, 8], batch_norm: [false, true], seed: 2}}"
    planned = arrays(text)
    for array in planned:
        assert len({program(run) for run in array.runs()}) == 1
    of_run = [run for array in planned for run in array.runs()]
    assert len(of_run) == len(set(of_run)) == space(text).run_count() == 2 * 3 * 3 * 2 * 2 * 2 * 2 * 2


def test_cells_with_few_seeds_share_arrays_and_fill_the_device() -> None:
    rates = [i / 1000 for i in range(1, 201)]
    text = f"axes: {{width: [4], learning_rate: {rates}, weight_init: [he, uniform], seed: 1}}"
    planned = arrays(text)
    size = size_of(Run(width=4))
    assert max(map(len, planned)) <= size
    assert sum(map(len, planned)) == 800
    # What one more bit parts is between half full and full, give or take the luck of a hash.
    assert sum(map(len, planned)) / len(planned) > 0.4 * size


def test_a_cell_that_fills_half_a_device_is_joined_with_no_other() -> None:
    size = size_of(Run(width=4))
    planned = arrays(f"axes: {{width: [4], learning_rate: [0.1, 0.2], seed: {size // 4 + 1}}}")
    assert [len(array.parts) for array in planned] == [1, 1]


def test_another_cell_changes_one_array_at_most_of_those_that_cells_share() -> None:
    def shared(count: int) -> set[str]:
        rates = [i / 1000 for i in range(1, count + 1)]
        return {array.array_id for array in arrays(f"axes: {{width: [4], learning_rate: {rates}, seed: 1}}")}

    for count in range(20, 120):
        assert len(shared(count) - shared(count + 1)) <= 1


def test_a_pair_that_shares_weights_is_trained_together_or_not_at_all() -> None:
    [array] = arrays("{settings: {protocol: shared_weights, width: 4}, axes: {seed: 8}}")
    left = array.without(array.run_ids[:3])
    assert left is not None
    assert [(run.seed, run.bias) for run in left.runs()] == [(s, b) for s in range(1, 8) for b in (True, False)]
    assert left.run_ids == array.run_ids[2:]
    assert array.without(array.run_ids) is None


def test_adding_seeds_and_levels_leaves_whole_arrays_as_they_are() -> None:
    before = {array.array_id for array in arrays("axes: {width: [4, 16], seed: 32}")}
    after = {array.array_id for array in arrays("axes: {width: [2, 4, 16], seed: 96}")}
    assert before < after


def test_blocks_count_absolute_seed_numbers_not_positions_in_the_list() -> None:
    size = size_of(Run(width=4)) // 2
    seeds = list(range(size - 2, size + 2))
    blocks = [seeds_of(array) for array in arrays(f"axes: {{width: [4], seed: {seeds}}}")]
    assert blocks == [seeds[:2], seeds[2:]]


def test_arrays_are_no_larger_than_what_fills_the_device() -> None:
    for device in plan.SATURATION:
        for array in arrays("axes: {width: [1, 2, 4, 8, 16, 64], seed: 100}", device):
            assert len(array) <= size_of(array.cell, device)


@pytest.mark.parametrize("device", plan.SATURATION)
def test_every_width_that_a_search_space_allows_has_a_method_and_an_array_size(device: plan.DeviceKind) -> None:
    for width in (1, 2, 3, 16, 17, 1024):
        assert size_of(Run(width=width), device) >= 2
        assert plan.method(Run(width=width), device) in ("grouped", "im2col", "triton", "native")


@pytest.mark.parametrize("device", plan.SATURATION)
def test_an_array_is_bounded_by_memory_and_by_time(device: plan.DeviceKind) -> None:
    usual = size_of(Run(width=4), device)
    large = Run(width=4, depth=16, pooling="none", batch_size=2048)
    assert 2 <= size_of(large, device) < usual
    [array, *_] = arrays("{settings: {width: 4, depth: 16, pooling: none, batch_size: 2048}, axes: {seed: 64}}", device)
    assert array.cell == large and len(array) == size_of(large, device)
    assert array.bytes <= plan.MEMORY[device] or len(array) == 2
    assert 2 <= size_of(Run(width=4, steps=10**6), device) < usual
    assert size_of(Run(width=4, optimizer="adamw"), device) <= usual


NOT_NATIVE = {
    "wide": "width: [64, 1024]",
    "an activation": "activation: [gelu, tanh]",
    "a precision": "precision: [bfloat16]",
    "a tile larger than memory": "{depth: 12, width: 32, pooling: none, batch_size: 256}",
}


@pytest.mark.parametrize("reason", NOT_NATIVE)
def test_what_native_kernels_cannot_take_is_planned_as_on_any_cpu(reason: str) -> None:
    axes = NOT_NATIVE[reason]
    text = f"{{settings: {axes}}}" if axes.startswith("{") else f"axes: {{{axes}}}"
    assert (planned := arrays(text, "native")) == arrays(text, "cpu")
    assert {array.method for array in planned} == {"grouped"}


def test_an_array_has_one_method_and_those_of_native_kernels_have_the_same_runs_as_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(plan.SATURATION, "native", (plan.Saturation(32, "native", 64),))
    text = "axes: {width: [1, 4, 32, 64], activation: [relu, tanh], batch_norm: [false, true], seed: 40}"
    native, grouped = arrays(text, "native"), arrays(text, "cpu")
    ids = [sorted(run_id for array in planned for run_id in array.run_ids) for planned in (native, grouped)]
    assert ids[0] == ids[1]
    for array in native:
        cells = {(cell.width <= 32 and cell.activation == "relu") for cell, _ in array.parts}
        assert cells == {array.method == "native"}
        left = array.without(array.run_ids[:2])
        assert left is None or left.method == array.method
    assert plan.missing(native, {run_id for array in grouped for run_id in array.run_ids}) == []


def test_an_array_s_memory_is_that_of_its_method() -> None:
    [native], [grouped] = (arrays("axes: {width: [16], seed: 2}", device) for device in ("native", "cpu"))
    assert grouped.bytes == 4 * plan.array_bytes(grouped.cell, grouped.shape)
    assert native.bytes == costs.array_bytes(native.cell, native.shape, 4) != grouped.bytes


def test_what_is_missing_leaves_out_stored_arrays_and_reduces_partly_stored_ones() -> None:
    planned = arrays("axes: {width: [16], seed: 12}")
    stored = set(planned[0].run_ids) | set(planned[1].run_ids[:2])
    left = plan.missing(planned, stored)
    assert [array.run_ids for array in left] == [planned[1].run_ids[2:], *(a.run_ids for a in planned[2:])]
    assert left[0].array_id == array_id(left[0].run_ids) != planned[1].array_id
    assert left[0].runs() == planned[1].runs()[2:]
    assert plan.missing(planned, {each for array in planned for each in array.run_ids}) == []
    assert plan.missing(planned, set()) == planned


def test_what_is_missing_of_an_array_that_cells_share_keeps_each_run_with_its_id() -> None:
    [array] = arrays("axes: {width: [4], learning_rate: [0.1, 0.2, 0.3], seed: 2}")
    assert len(array.parts) == 3
    identity = "d3d0083f1c091e7c"
    done = {array.run_ids[0], *array.run_ids[4:8], array.run_ids[-1]}
    left = array.without(done)
    assert left is not None and set(left.run_ids) == set(array.run_ids) - done
    assert left.run_ids == tuple(run_id(run, identity) for run in left.runs())


def test_excluded_runs_are_in_no_array() -> None:
    text = "{axes: {width: [1, 2], seed: 4}, exclude: [{width: 2, seed: 3}]}"
    assert sorted(map(len, arrays(text))) == [6, 8]


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
        "import resource, sys; from pathlib import Path; from sweep import plan; from sweep.space import search_space\n"
        "arrays = list(plan.arrays(search_space.parse(sys.argv[1].encode(), Path('x.yaml')), 'cpu'))\n"
        "print(sum(len(a.run_ids) for a in arrays), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, check=True)
    runs, kibibytes = map(int, done.stdout.split())
    assert runs == 1_000_000
    assert kibibytes < 2_000_000


def test_several_search_spaces_are_one_plan_in_which_shared_runs_stand_once() -> None:
    spaces = several(
        "axes: {width: [1, 4], seed: 24}", "axes: {width: [4, 8], seed: 40}", "axes: {width: [4], seed: 3}"
    )
    alone, together = [set(plan.run_ids(each)) for each in spaces], plan.arrays_of_all(spaces, "cpu")
    planned = [run_id for array in together for run_id in array.run_ids]
    assert len(planned) == len(set(planned)) == 2 * (24 + 40 + 40)
    assert set(planned) == set.union(*alone) == set(plan.run_ids_of_all(spaces))
    assert plan.run_ids_of_all(spaces)[: 2 * 48] == plan.run_ids(spaces[0])
    assert plan.cell_count(spaces) == 3
    for array in together:
        assert array.array_id == array_id(array.run_ids)
        assert len({program(run) for run in array.runs()}) == 1


def test_a_pair_that_shares_weights_is_planned_once_and_whole() -> None:
    text = "settings: {protocol: shared_weights}, axes: {width: [2], seed: %s}"
    together = plan.arrays_of_all(several(text % "[0, 1]", text % "[1, 2]"), "cpu")
    members = [(run.seed, run.bias) for array in together for run in array.runs()]
    assert sorted(members) == [(seed, bias) for seed in (0, 1, 2) for bias in (False, True)]


def test_the_first_search_space_keeps_the_arrays_that_it_has_alone() -> None:
    first, second = several("axes: {width: [1, 4], seed: 24}", "axes: {width: [4, 8], seed: 40}")
    alone = list(plan.arrays(first, "cpu"))
    assert plan.arrays_of_all([first, second], "cpu")[: len(alone)] == alone
