"""The rows of a report: their settings come from the search space."""

from pathlib import Path

from sweep import plan
from sweep.commands.report import settings
from sweep.space.runs import Run
from sweep.space.search_space import parse


def test_settings_are_those_of_the_runs_in_the_order_of_their_ids() -> None:
    text = b"{axes: {width: [1, 2], train_examples: [null, 100], seed: 3}, exclude: [{width: 2, bias: true, seed: 1}]}"
    space = parse(text, Path("x.yaml"))
    table = settings(space)
    runs = [Run(**levels, bias=bias, seed=seed) for levels, members in space.grid() for bias, seed in members]
    assert len(table) == len(plan.run_ids(space)) == len(runs) == space.run_count()
    for name in ("width", "bias", "seed", "steps", "batch_norm"):
        assert table[name].tolist() == [getattr(run, name) for run in runs]
    assert table["train_examples"].isna().tolist() == [run.train_examples is None for run in runs]
