"""The demonstration's seconds: both plans' runs are the same, all are trained, and each counts where it belongs."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import demonstration

from sweep.networks.conv.native.library import is_here
from sweep.space.search_space import load

pytestmark = pytest.mark.usefixtures("one_thread")


def test_both_plans_train_the_same_runs_and_those_of_a_shape_follow_each_other() -> None:
    jobs = demonstration.jobs(load(demonstration.DEMONSTRATION))
    ids = {
        kind: sorted(run_id for job in jobs if job.kind == kind for run_id in job.array.run_ids)
        for kind in ("native", "cpu")
    }
    assert ids["native"] == ids["cpu"] and len(ids["cpu"]) == 640
    assert {job.array.method for job in jobs if job.kind == "native"} == {"native"}
    assert {job.array.method for job in jobs if job.kind == "cpu"} == {"grouped"}
    cells = [job.cell for job in jobs]
    assert cells == sorted(cells) and len(set(cells)) == 10


def test_seconds_are_added_by_plan_and_cell() -> None:
    one, other = (1, False), (2, True)
    found = [("native", one, 1.0), ("cpu", one, 8.0), ("native", one, 2.0), ("native", other, 4.0), ("cpu", other, 6.0)]
    seconds = demonstration.added(demonstration.Trained(*each) for each in found)
    assert demonstration.of_cell(seconds, one) == (3.0, 8.0)
    assert demonstration.of_cell(seconds, None) == (7.0, 14.0)
    assert demonstration.summary([(3.0, 8.0), (1.0, 4.0), (2.0, 4.0)]) == ["2.00", "4.00", "0.375"]


@pytest.mark.skipif(not is_here(), reason="no compiler, and no build for this CPU")
def test_an_array_is_trained_to_its_end(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("name: space\nsettings: {dataset: mnist5k, steps: 3}\naxes: {width: [1], seed: 2}")
    for job in demonstration.jobs(load(space)):
        trained = demonstration.trained(job)
        assert trained.seconds > 0 and (trained.kind, trained.cell) == (job.kind, (1, False))
