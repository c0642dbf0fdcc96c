"""The question's claims, each a contrast of signed effects within every seed, judged by Student's t over seeds."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import variance
from analysis.judging import Floats
from analysis.record import FEWEST_PAIRS, Record
from analysis.seed_effects import SeedEffects, mean_interval

SLOPES: Final = ("width", "steps")
REFERENCES: Final = {
    "pooling": ("stride", "none"),
    "activation": ("relu",),
    "dropout": (0.0,),
}
"""The level that a setting's other levels are compared with: the first of these that the sweep has."""
Levels: TypeAlias = NDArray[np.object_]
WIDTH_OR_DEPTH: Final = "width_or_depth"
NEGATIVE_CONTROL: Final = "negative_control"
CONV_BIASES: Final = ("conv", "first_conv", "later_conv")


class Contrast(NamedTuple):
    """Weights over cells, 0 for cells that take no part; a seed's number is the weighted sum of its effects."""

    name: str
    weights: Floats
    expected: str
    """What bears the claim out: a number `below` 0, `above` 0, on either side of 0 (`differs`), or within the margin
    (`inside`)."""
    reference: Any = None
    """The level that the others are compared with, if any."""
    without_batch_norm: bool = False
    """Whether cells with batch norm were left out."""


def hypotheses(by_seed: SeedEffects, shared: Record, margin: float, confidence: float) -> list[Record]:
    """One record for each hypothesis that the sweep's axes can test.

    Keys: `name`, `reference` and `without_batch_norm` (as in `Contrast`), `cells` (how many take part), `estimate`,
    `low`, `high` (Student's interval over seeds at `confidence`), `seeds` (how many have every cell of the contrast),
    `verdict` (`supported`, `contradicted`, `undecided`); `wording.claims` has the words. `shared` holds the settings
    that all rows share, as far as they are known. Where batch norm varies, contrasts of other settings use only cells
    without it.
    """
    records = [_record(contrast, by_seed, margin, confidence) for contrast in _contrasts(by_seed, shared)]
    if {"width", "depth"} <= set(by_seed.names):
        estimate, pseudo = variance.difference(by_seed, "width", "depth")
        _, low, high = mean_interval(pseudo, confidence)
        # A share of variance is not a weighted sum of effects, yet every cell takes part in it.
        whole = Contrast(WIDTH_OR_DEPTH, np.ones(len(by_seed.levels)), "above")
        records.append(_judged(whole, (estimate, low, high), len(pseudo), 0.0))
    return records


def _contrasts(by_seed: SeedEffects, shared: Record) -> Iterator[Contrast]:
    levels, every = by_seed.levels, np.ones(len(by_seed.levels), bool)
    norm_varies = "batch_norm" in by_seed.names
    plain = ~levels["batch_norm"].to_numpy(dtype=bool) if norm_varies else every
    for name in SLOPES:
        if name in by_seed.names:
            yield Contrast(name, _weights(by_seed, (name,), plain, _slope), "below", without_batch_norm=norm_varies)
    if norm_varies:
        weights = _weights(by_seed, ("batch_norm",), every, lambda norm: _gap(~norm.astype(bool)))
        yield Contrast("batch_norm", weights, "above")
    control = negative_control(levels, shared)
    if control is not None and control.any():
        yield Contrast(NEGATIVE_CONTROL, control / control.sum(), "inside")
    yield from _input_mean(by_seed, plain, norm_varies)
    for name, references in REFERENCES.items():
        yield from _against_reference(by_seed, name, references, plain, norm_varies)
    if "bias_init" in by_seed.names and {"zeros", "original"} <= set(levels["bias_init"]):
        chosen = plain & levels["bias_init"].isin(["zeros", "original"]).to_numpy()
        weights = _weights(by_seed, ("bias_init",), chosen, lambda start: _gap(start == "original"))
        yield Contrast("bias_init", weights, "differs", "zeros", norm_varies)


def negative_control(levels: pd.DataFrame, shared: Record) -> NDArray[np.bool_] | None:
    """Whether batch norm cancels each cell's bias; None where a setting that decides it is unknown."""

    def column(name: str) -> pd.Series | None:
        if name in levels:
            return levels[name]
        return pd.Series(shared[name], index=levels.index) if name in shared else None

    norm, layers, start = column("batch_norm"), column("bias_layers"), column("bias_init")
    if norm is None or layers is None or start is None:
        return None
    cancels = norm.astype(bool) & layers.isin(CONV_BIASES) & (start == "zeros")
    return np.asarray(cancels, dtype=bool)


def _input_mean(by_seed: SeedEffects, plain: NDArray[np.bool_], norm_varies: bool) -> Iterator[Contrast]:
    """Effect of the first layer's bias on inputs not `standardized`, less that on others; less the later layers'."""
    levels = by_seed.levels
    if not {"bias_layers", "input_scaling"} <= set(by_seed.names) or "first_conv" not in set(levels["bias_layers"]):
        return
    off_zero = levels["input_scaling"] != "standardized"
    if off_zero.all() or not off_zero.any():
        return
    both = "later_conv" in set(levels["bias_layers"])
    chosen = plain & levels["bias_layers"].isin(["first_conv", "later_conv"] if both else ["first_conv"]).to_numpy()

    def interaction(layer: Levels, scaling: Levels) -> Floats:
        first, shifted = layer == "first_conv", scaling != "standardized"
        weights = np.zeros(len(layer))
        for layers, sign in ((first, 1), (~first, -1)) if both else ((first, 1),):
            for inputs, way in ((shifted, 1), (~shifted, -1)):
                members = layers & inputs
                if not members.any():
                    return np.zeros(len(layer))
                weights[members] = sign * way / members.sum()
        return weights

    weights = _weights(by_seed, ("bias_layers", "input_scaling"), chosen, interaction)
    yield Contrast("input_mean", weights, "above", "later_conv" if both else None, norm_varies)


def _against_reference(
    by_seed: SeedEffects, name: str, references: tuple[Any, ...], plain: NDArray[np.bool_], norm_varies: bool
) -> Iterator[Contrast]:
    reference = next((one for one in references if name in by_seed.names and one in set(by_seed.levels[name])), None)
    if reference is None:
        return
    weights = _weights(by_seed, (name,), plain, lambda levels: _gap(levels == reference))
    yield Contrast(name, weights, "above", reference, norm_varies)


def _weights(
    by_seed: SeedEffects, own: tuple[str, ...], chosen: NDArray[np.bool_], within: Callable[..., Floats]
) -> Floats:
    """The contrast averaged over groups of cells that differ only in `own`; `within` weights a group by its levels.

    Groups in which it cannot be taken (all weights 0) are left out.
    """
    weights, groups = np.zeros(len(by_seed.levels)), 0
    by = [name for name in by_seed.names if name not in own]
    places = np.flatnonzero(chosen)
    levels = [by_seed.levels[name].to_numpy(dtype=object) for name in own]
    number = np.asarray(by_seed.levels.iloc[places].groupby(by, dropna=False).ngroup()) if by else np.zeros(len(places))
    order = np.argsort(number, kind="stable")
    for part in np.split(places[order], np.flatnonzero(np.diff(number[order])) + 1):
        found = within(*(level[part] for level in levels))
        if found.any():
            weights[part] = found
            groups += 1
    return weights / max(groups, 1)


def _gap(inside: NDArray[np.bool_]) -> Floats:
    """Weights of the mean of those inside less the mean of the others; zeros where either is missing."""
    if inside.all() or not inside.any():
        return np.zeros(len(inside))
    return np.asarray(np.where(inside, 1 / inside.sum(), -1 / (~inside).sum()), dtype=np.float64)


def _slope(levels: Levels) -> Floats:
    """Weights of the least squares slope over the logarithm to base 2; zeros for a single level."""
    places: Floats = np.log2(levels.astype(np.float64))
    off = places - places.mean()
    squares = float((off**2).sum())
    return np.asarray(off / squares) if squares > 0 else np.zeros(len(off))


def _record(contrast: Contrast, by_seed: SeedEffects, margin: float, confidence: float) -> Record:
    part = contrast.weights != 0
    # Digits beyond the twelfth decimal are rounding, which would pass for a difference where there is no spread.
    values = (by_seed.complete(part) @ contrast.weights[part]).round(12) if part.any() else np.empty(0)
    interval = mean_interval(values, confidence)
    return _judged(contrast, interval, len(values), margin)


def _judged(contrast: Contrast, interval: tuple[float, float, float], seeds: int, margin: float) -> Record:
    estimate, low, high = (None if np.isnan(one) else float(one) for one in interval)
    verdict = "undecided"
    if seeds >= FEWEST_PAIRS and low is not None and high is not None:
        verdict = _verdict(contrast.expected, low, high, margin)
    return {
        "name": contrast.name,
        "reference": contrast.reference,
        "without_batch_norm": contrast.without_batch_norm,
        "cells": int(np.count_nonzero(contrast.weights)),
        "estimate": estimate,
        "low": low,
        "high": high,
        "seeds": seeds,
        "verdict": verdict,
    }


def _verdict(expected: str, low: float, high: float, margin: float) -> str:
    within = -margin < low and high < margin
    supported = {"below": high < 0, "above": low > 0, "differs": low > 0 or high < 0, "inside": within}[expected]
    outside = low > margin or high < -margin
    contradicted = {"below": low > 0, "above": high < 0, "differs": within, "inside": outside}[expected]
    return "supported" if supported else "contradicted" if contradicted else "undecided"
