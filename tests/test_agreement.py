"""Whole results, not steps: fused against alone, and against what somebody else measured. Minutes, so they are slow."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from scipy import stats

from sweep.data import Data, load
from sweep.runs import Run
from sweep.train import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def accuracy_alone(run: Run, data: Data) -> float:
    network = oracle.train(run, data, torch.float32).network
    return float(oracle.evaluate(run, data, network, data.test)[0].mean())


def test_final_accuracies_of_fused_runs_and_of_runs_alone_are_equivalent() -> None:
    runs = [
        Run(width=4, seed=seed, steps=300, weight_init="truncated_normal", input_scaling="centered")
        for seed in range(30)
    ]
    data = load("mnist5k")
    fused = np.array([outcome.test_accuracy for outcome in train(runs, data)])
    alone = np.array([accuracy_alone(run, data) for run in runs])
    difference = 100 * (fused - alone)
    if np.ptp(difference) == 0:
        assert abs(difference[0]) < 0.5
        return
    above = stats.ttest_1samp(difference, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(difference, 0.5, alternative="less").pvalue
    assert max(above, below) < 0.05


MEASURED_ELSEWHERE = {1: (8.0, 1.5), 2: (6.4, 1.4), 4: (1.2, 0.3), 8: (0.3, 0.1), 16: (0.1, 0.1)}
"""Effect and half-width of its 95 % interval by width: an independent implementation, 256 pairs, another split."""

SPACE = """
name: agreement
settings: {steps: 300, weight_init: truncated_normal, input_scaling: centered}
axes: {width: [1, 2, 4, 8, 16], seed: 256}
"""


def test_effects_agree_with_an_independent_implementation(tmp_path: Path) -> None:
    space = tmp_path / "agreement.yaml"
    space.write_text(SPACE)
    command = [sys.executable, "-m", "sweep", "launch", str(space), "--store", str(tmp_path / "results")]
    subprocess.run(command, check=True)
    verdict = json.loads((tmp_path / "results" / "reports" / "agreement" / "verdict.json").read_text())
    for cell in verdict["cells"]:
        effect, half = MEASURED_ELSEWHERE[cell["width"]]
        assert cell["pairs"] == 256
        assert cell["low"] <= effect + half and effect - half <= cell["high"], cell
