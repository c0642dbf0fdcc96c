"""What the plan counts for native arrays, from shapes alone, is no less than what they take."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training.test_trainer import COLOUR, GREY, runs_of, shapes

from sweep.networks.conv.native import costs, engine
from sweep.networks.conv.native.library import library
from sweep.networks.conv.shape import Shape
from sweep.space.runs import Run
from sweep.training.native_array import NativeArray
from sweep.training.trainer import Trainer

if library() is None:
    pytest.skip("no compiler, and no build for this CPU", allow_module_level=True)

RUNS = st.builds(
    Run,
    depth=st.integers(1, 16),
    width=st.integers(1, 40),
    kernel_size=st.sampled_from([1, 3, 5, 7, 9, 15]),
    batch_norm=st.booleans(),
    pooling=st.sampled_from(["none", "stride", "max", "average"]),
    dropout=st.sampled_from([0.0, 0.5]),
    hidden=st.sampled_from([0, 1, 5, 64, 300]),
    batch_size=st.sampled_from([1, 2, 16, 500]),
    momentum=st.sampled_from([0.0, 0.9]),
    optimizer=st.sampled_from(["sgd", "adamw"]),
)
PICTURES = st.sampled_from([(1, 28, 28), (3, 32, 32), (1, 4, 4), (1, 9, 40), (2, 40, 9)])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(RUNS, PICTURES, st.sampled_from([2, 10, 37]))
def test_working_memory_is_within_what_the_plan_counts(run: Run, picture: tuple[int, int, int], classes: int) -> None:
    shape, kernels = Shape.of(run, picture, classes), library()
    assert kernels and kernels.lanes <= costs.LANES
    needed = kernels.scratch_bytes(engine.network(shape, run.batch_size))
    kept = costs.array_bytes(run, shape, 2 * costs.LANES) - costs.array_bytes(run, shape, costs.LANES)
    assert needed <= costs.array_bytes(run, shape, costs.LANES) - kept


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.data())
def test_parameters_and_moments_with_their_copies_are_within_what_the_plan_counts(draw: st.DataObject) -> None:
    common = draw.draw(shapes()) | {"activation": "relu"}
    size = draw.draw(st.sampled_from([1, 16, 20]))
    runs = draw.draw(st.lists(runs_of(common), min_size=size, max_size=size))
    trainer = Trainer(runs, draw.draw(st.sampled_from([GREY, COLOUR])), method="native")
    array = trainer.array_step
    assert isinstance(array, NativeArray)
    kept = costs.COPIES * sum(tiles.tensor.nbytes for tiles in array.tensors.values())
    tile = costs.array_bytes(runs[0], trainer.shape, 2 * costs.LANES)
    tile -= costs.array_bytes(runs[0], trainer.shape, costs.LANES)
    assert kept <= tile * -(-len(runs) // costs.LANES)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(RUNS, PICTURES, st.sampled_from([2**22, 2**26, 2**30]))
def test_the_most_runs_that_fit_are_whole_tiles_and_one_more_would_not_fit(
    run: Run, picture: tuple[int, int, int], memory: int
) -> None:
    shape = Shape.of(run, picture, 10)
    most = costs.most_runs(run, shape, memory)
    assert most % costs.LANES == 0
    assert most == 0 or costs.array_bytes(run, shape, most) <= memory
    assert costs.array_bytes(run, shape, most + 1) > memory
