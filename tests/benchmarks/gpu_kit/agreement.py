"""Section `agreement`: whether the device trains to the accuracies that CPUs train to."""

import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from rates import RECIPE
from support.equivalence import equivalence

from gpu_kit.recorder import Recorder
from gpu_kit.scale import Scale
from sweep.common.host import cores
from sweep.data.splits import load
from sweep.space.runs import Run
from sweep.training.trainer import train

MARGIN = 0.5
"""Percentage points of accuracy that the means may differ by."""


def measure(recorder: Recorder, scale: Scale) -> None:
    """Mean accuracies on both, of the same pairs, and the verdict of two one-sided tests, by width."""
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        for width in scale.agreement_widths:
            with recorder.guard("agreement", None, width=width):
                _width(recorder, scale, pool, width)


def _width(recorder: Recorder, scale: Scale, pool: ProcessPoolExecutor, width: int) -> None:
    cell = dataclasses.replace(RECIPE, width=width, steps=scale.agreement_steps)
    runs = [dataclasses.replace(cell, seed=seed, bias=bias) for seed in range(scale.pairs) for bias in (True, False)]
    each = 2 * -(-scale.pairs // cores())
    parts = [pool.submit(accuracies, runs[start : start + each]) for start in range(0, len(runs), each)]
    there = accuracies(runs, scale.kind)
    here = np.concatenate([part.result(timeout=max(1.0, recorder.left)) for part in parts])
    found = equivalence(there - here, MARGIN)
    labels = {"width": width, "runs": found.n, "steps": scale.agreement_steps, "margin": MARGIN}
    for what, value, unit in [
        ("accuracy on the device", there.mean(), "%"),
        ("accuracy on CPUs", here.mean(), "%"),
        ("difference", found.mean, "points"),
        ("difference, low", found.low, "points"),
        ("difference, high", found.high, "points"),
        ("effect on the device", effect(there), "points"),
        ("effect on CPUs", effect(here), "points"),
        ("p", found.p, "probability"),
    ]:
        recorder.add(what, float(value), unit, **labels)
    recorder.add("equivalent", found.equivalent, None, **labels)


def accuracies(runs: list[Run], device: str = "cpu") -> NDArray[np.float64]:
    """Test accuracies of the runs, in percent."""
    outcomes = train(runs, load(runs[0].dataset), device=device)
    return 100 * np.array([outcome.test_accuracy for outcome in outcomes])


def effect(accuracies: NDArray[np.float64]) -> float:
    """Mean difference that the bias makes, of pairs in which the run with it comes first."""
    return float((accuracies[::2] - accuracies[1::2]).mean())


def _one_thread() -> None:
    torch.set_num_threads(1)
