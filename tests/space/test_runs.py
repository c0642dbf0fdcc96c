"""A run's identity: the same for ever and everywhere, and another for every setting that can change its result."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep.space.runs import CELL, DEFAULTS, IDENTITY, SETTINGS, Identities, Run, array_id, run_id, settings_of

ROOT = Path(__file__).parents[2]
MNIST = "d3d0083f1c091e7c"

PINNED = {
    "b66f3a18d52a5cbbafb3": Run(),
    "3c797bca24c67eb8edbf": Run(bias=False, width=64, batch_norm=True),
    "8df790875a11cd0a085b": Run(learning_rate=0.1, input_scaling="unit", seed=7),
}

OTHER_LEVELS: dict[str, Any] = {
    "bias": False,
    "bias_layers": "all",
    "depth": 3,
    "width": 17,
    "kernel_size": 3,
    "batch_norm": True,
    "activation": "tanh",
    "pooling": "max",
    "dropout": 0.5,
    "hidden": 0,
    "weight_init": "uniform",
    "bias_init": "original",
    "input_scaling": "unit",
    "dataset": "digits",
    "image_size": 8,
    "split": 1,
    "train_examples": 100,
    "optimizer": "adamw",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "batch_size": 32,
    "steps": 1000,
    "precision": "bfloat16",
    "protocol": "shared_weights",
    "seed": 1,
    "evaluate_every": 7,
}


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


# The same for ever


@pytest.mark.parametrize("pinned", PINNED)
def test_a_run_keeps_its_id_for_ever(pinned: str) -> None:
    assert run_id(PINNED[pinned], MNIST) == pinned


@pytest.mark.integration
@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_another_process_gives_the_same_ids(hash_seed: str) -> None:
    code = (
        "from sweep.space.runs import Run, run_id; "
        "runs = [Run(), Run(bias=False, width=64, batch_norm=True), "
        "Run(learning_rate=0.1, input_scaling='unit', seed=7)]; "
        "print(*(run_id(run, 'd3d0083f1c091e7c') for run in runs))"
    )
    assert python(code, PYTHONHASHSEED=hash_seed).split() == list(PINNED)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Run(learning_rate=1), Run(learning_rate=1.0)),
        (Run(momentum=0), Run(momentum=0.0)),
        (Run(weight_decay=-0.0), Run(weight_decay=0.0)),
        (Run(dropout=-0.0), Run(dropout=0)),
        (Run(learning_rate=0.1), Run(learning_rate=float("1e-1"))),
        (Run(), Run(**DEFAULTS)),
    ],
)
def test_one_setting_written_in_two_ways_is_one_run(one: Run, other: Run) -> None:
    assert run_id(one, MNIST) == run_id(other, MNIST) == run_id(one, MNIST)


def test_the_ids_of_a_cell_are_the_ids_of_its_runs() -> None:
    cell = Identities(Run(width=5, bias=False, seed=99), MNIST)
    for bias in (True, False):
        for seed in (0, 1, 10, 2**32 - 1):
            assert cell.run_id(bias, seed) == run_id(Run(width=5, bias=bias, seed=seed), MNIST)


# Another for every setting


def test_every_setting_has_another_level_to_be_tried_here() -> None:
    assert OTHER_LEVELS.keys() == set(SETTINGS)
    assert all(OTHER_LEVELS[name] != DEFAULTS[name] for name in SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_changes_the_id_but_those_that_change_nothing_or_the_pixels(setting: str) -> None:
    changed = dataclasses.replace(Run(), **{setting: OTHER_LEVELS[setting]})
    assert (run_id(changed, MNIST) == run_id(Run(), MNIST)) == (setting in ("evaluate_every", "image_size"))


def test_the_same_pixels_give_the_same_id_wherever_they_lie() -> None:
    one, other = Run(dataset="folder:/a"), Run(dataset="folder:/elsewhere/b")
    assert run_id(one, "0123456789abcdef") == run_id(other, "0123456789abcdef")
    assert run_id(one, "0123456789abcdef") != run_id(other, "fedcba9876543210")
    assert run_id(one, "0123456789abcdef") != run_id(Run(dataset="npz:/a"), "0123456789abcdef")


def test_no_two_of_many_runs_have_one_id() -> None:
    runs = [
        Run(bias=bias, seed=seed, depth=depth, width=width, steps=steps)
        for bias in (True, False)
        for seed in (0, 1, 11, 111)
        for depth in (1, 11)
        for width in (1, 11, 111)
        for steps in (1, 11, 111)
    ]
    assert len({run_id(run, MNIST) for run in runs}) == len(runs)


def test_other_data_and_another_trainer_give_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_id(Run(), "another fingerprint") != run_id(Run(), MNIST)
    before = run_id(Run(), MNIST)
    monkeypatch.setattr("sweep.space.runs.TRAINER_VERSION", 2)
    assert run_id(Run(), MNIST) != before


def test_a_level_that_is_not_finite_has_no_id() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_id(Run(weight_decay=float("nan")), MNIST)


def test_an_id_is_twenty_hexadecimal_digits() -> None:
    for name in (run_id(Run(seed=5), MNIST), array_id(["a", "b"])):
        assert len(name) == 20 and not set(name) - set("0123456789abcdef")


def test_an_array_s_id_does_not_depend_on_the_order_of_its_runs() -> None:
    ids = [run_id(Run(seed=seed), MNIST) for seed in range(5)]
    assert array_id(ids) == array_id(ids[::-1]) == array_id(iter(ids))
    assert array_id(ids) == "5ca19eee013debaf0e43"
    assert len({array_id(ids), array_id(ids[:4]), array_id(ids[1:]), array_id([])}) == 4
    assert array_id(["ab", "c"]) != array_id(["a", "bc"])


# The record


def test_the_identity_and_the_cell_leave_out_what_they_should() -> None:
    assert set(SETTINGS) - set(IDENTITY) == {"evaluate_every", "image_size"}
    assert set(IDENTITY) - set(CELL) == {"bias", "seed"}


def test_a_run_is_frozen_and_gives_back_its_settings() -> None:
    run = Run(**OTHER_LEVELS)
    assert settings_of(run) == OTHER_LEVELS and tuple(settings_of(run)) == SETTINGS
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.bias = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("steps", "every", "interval"), [(1001, None, 101), (1000, None, 100), (7, None, 1), (1, None, 1), (1001, 50, 50)]
)
def test_the_curve_has_about_ten_points_where_nothing_else_is_asked(
    steps: int, every: int | None, interval: int
) -> None:
    assert Run(steps=steps, evaluate_every=every).curve_interval == interval


@pytest.mark.integration
@pytest.mark.parametrize("module", ["sweep.space.runs", "sweep.space.search_space", "sweep.networks.conv.shape"])
def test_planning_imports_neither_torch_nor_ray(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'torchvision', 'ray'}} & set(sys.modules)))"
    assert python(code) == ""
