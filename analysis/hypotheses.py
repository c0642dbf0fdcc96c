"""The claims that the question came with, each a contrast of signed effects within every seed, then t over seeds."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import variance
from analysis.effects import Record
from analysis.judging import FEWEST_PAIRS, Floats
from analysis.seed_effects import SeedEffects, mean_interval
from analysis.wording.phrases import capital, percent

SLOPES: Final = {
    "width": ("wide networks do not need the bias: it helps less, the wider the network", "per doubling of the width"),
    "steps": ("longer training hides the bias: it helps less, the longer the training", "per doubling of the steps"),
}
REFERENCES: Final = {
    "pooling": ("stride", "none"),
    "activation": ("relu",),
    "dropout": (0.0,),
}
"""The level, the first that is there, which a setting's other levels are compared with."""
Levels: TypeAlias = NDArray[np.object_]
WIDTH_OR_DEPTH: Final = "width_or_depth"
NEGATIVE_CONTROL: Final = "negative_control"
CONV_BIASES: Final = ("conv", "first_conv", "later_conv")


class Contrast(NamedTuple):
    """Weights over cells whose sum with a seed's effects is one number of that seed; 0 where a cell has no part."""

    name: str
    claim: str
    words: str
    unit: str
    weights: Floats
    expected: str
    """What bears the claim out: the number is `below` 0, `above` 0, off 0 on either side (`differs`), or within the
    margin (`inside`)."""


def hypotheses(by_seed: SeedEffects, shared: Record, margin: float, confidence: float) -> list[Record]:
    """One record for each hypothesis that the sweep's axes can speak to.

    Keys: `name`, `claim`, `contrast` (in words), `unit`, `estimate`, `low`, `high` (Student's interval over seeds at
    `confidence`), `seeds` (those that have every cell of the contrast), `verdict` (`supported`, `contradicted`,
    `undecided`), `statement`, `reason` (of an undecided one). `shared` holds the settings that all rows share, as far
    as they are known. Where batch norm varies, contrasts of other settings are taken without it.
    """
    records = [_record(contrast, by_seed, margin, confidence) for contrast in _contrasts(by_seed, shared)]
    if {"width", "depth"} <= set(by_seed.names):
        records.append(_width_or_depth(by_seed, confidence))
    return records


def _contrasts(by_seed: SeedEffects, shared: Record) -> Iterator[Contrast]:
    levels = by_seed.levels
    plain = ~levels["batch_norm"].to_numpy(dtype=bool) if "batch_norm" in by_seed.names else np.ones(len(levels), bool)
    aside = ", cells without batch norm" if "batch_norm" in by_seed.names else ""
    for name, (claim, unit) in SLOPES.items():
        if name in by_seed.names:
            weights = _weights(by_seed, (name,), plain, _slope)
            words = f"slope of the effect over log2 {name}{aside}"
            yield Contrast(name, claim, words, f"points {unit}", weights, "below")
    if "batch_norm" in by_seed.names:
        weights = _weights(by_seed, ("batch_norm",), np.ones(len(levels), bool), lambda norm: _gap(~norm.astype(bool)))
        claim = "batch normalization makes the bias redundant: it helps more without"
        words = "effect without batch norm less effect with it"
        yield Contrast("batch_norm", claim, words, "points", weights, "above")
    control = negative_control(by_seed.levels, shared)
    if control is not None and control.any():
        claim = "negative control: with batch norm after the convolution, the bias cancels while training"
        words = "mean effect of the cells with batch norm, whose biases start at zero"
        yield Contrast(NEGATIVE_CONTROL, claim, words, "points", control / control.sum(), "inside")
    yield from _input_mean(by_seed, plain, aside)
    for name, references in REFERENCES.items():
        yield from _hides(by_seed, name, references, plain, aside)
    if "bias_init" in by_seed.names and {"zeros", "original"} <= set(levels["bias_init"]):
        chosen = plain & levels["bias_init"].isin(["zeros", "original"]).to_numpy()
        weights = _weights(by_seed, ("bias_init",), chosen, lambda start: _gap(start == "original"))
        claim = "starting biases at 1, as the question did, is a treatment of its own"
        words = f"effect with bias_init original less effect with zeros{aside}"
        yield Contrast("bias_init", claim, words, "points", weights, "differs")


def negative_control(levels: pd.DataFrame, shared: Record) -> NDArray[np.bool_] | None:
    """Whether batch norm cancels the bias of each cell; None where it is not known how biases stand and start."""

    def column(name: str) -> pd.Series | None:
        if name in levels:
            return levels[name]
        return pd.Series(shared[name], index=levels.index) if name in shared else None

    norm, layers, start = column("batch_norm"), column("bias_layers"), column("bias_init")
    if norm is None or layers is None or start is None:
        return None
    cancels = norm.astype(bool) & layers.isin(CONV_BIASES) & (start == "zeros")
    return np.asarray(cancels, dtype=bool)


def _input_mean(by_seed: SeedEffects, plain: NDArray[np.bool_], aside: str) -> Iterator[Contrast]:
    """The first layer's bias beside an input whose mean is zero (`standardized`) or not; less the later layers'."""
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
    words = "effect of the first layer's bias on inputs whose mean is not zero, less on standardized ones"
    words += ", less the same of the later layers' biases" if both else ""
    claim = "the first layer's need of a bias depends on the input's mean"
    yield Contrast("input_mean", claim, words + aside, "points", weights, "above")


def _hides(
    by_seed: SeedEffects, name: str, references: tuple[Any, ...], plain: NDArray[np.bool_], aside: str
) -> Iterator[Contrast]:
    reference = next((one for one in references if name in by_seed.names and one in set(by_seed.levels[name])), None)
    if reference is None:
        return
    weights = _weights(by_seed, (name,), plain, lambda levels: _gap(levels == reference))
    others = {"pooling": "pooling hides the bias", "activation": "other activations hide the bias"}
    claim = f"{others.get(name, f'{name} hides the bias')}: it helps more with {name} {reference}"
    words = f"effect with {name} {reference} less mean effect of its other levels{aside}"
    yield Contrast(name, claim, words, "points", weights, "above")


def _weights(
    by_seed: SeedEffects, own: tuple[str, ...], chosen: NDArray[np.bool_], within: Callable[..., Floats]
) -> Floats:
    """`within` gives the weights of cells that differ in `own` alone, from their levels; all such groups are averaged.

    Groups where the contrast cannot be taken (all weights 0) have no part.
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
    """Mean of those inside less mean of the others; zeros where either is missing."""
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
    # What stands behind the twelfth decimal is rounding, and would be a difference where there is no spread.
    values = (by_seed.complete(part) @ contrast.weights[part]).round(12) if part.any() else np.empty(0)
    interval = mean_interval(values, confidence)
    return _judged(contrast, interval, len(values), margin, confidence)


def _width_or_depth(by_seed: SeedEffects, confidence: float) -> Record:
    claim = "width decides more than depth"
    words = "share of the variance of the cells' effects that width explains, less the share that depth explains"
    contrast = Contrast(WIDTH_OR_DEPTH, claim, words, "share of variance", np.empty(0), "above")
    estimate, pseudo = variance.difference(by_seed, "width", "depth")
    _, low, high = mean_interval(pseudo, confidence)
    return _judged(contrast, (estimate, low, high), len(pseudo), 0.0, confidence)


def _judged(
    contrast: Contrast, interval: tuple[float, float, float], seeds: int, margin: float, confidence: float
) -> Record:
    estimate, low, high = (None if np.isnan(one) else float(one) for one in interval)
    verdict = "undecided"
    if seeds >= FEWEST_PAIRS and low is not None and high is not None:
        verdict = _verdict(contrast.expected, low, high, margin)
    return {
        "name": contrast.name,
        "claim": contrast.claim,
        "contrast": contrast.words,
        "unit": contrast.unit,
        "estimate": estimate,
        "low": low,
        "high": high,
        "seeds": seeds,
        "verdict": verdict,
        "statement": _statement(contrast, estimate, low, high, seeds, verdict, confidence),
        "reason": _reason(contrast, seeds, margin) if verdict == "undecided" else None,
    }


def _verdict(expected: str, low: float, high: float, margin: float) -> str:
    within = -margin < low and high < margin
    supported = {"below": high < 0, "above": low > 0, "differs": low > 0 or high < 0, "inside": within}[expected]
    outside = low > margin or high < -margin
    contradicted = {"below": low > 0, "above": high < 0, "differs": within, "inside": outside}[expected]
    return "supported" if supported else "contradicted" if contradicted else "undecided"


def _reason(contrast: Contrast, seeds: int, margin: float) -> str:
    if seeds == 0:
        if contrast.name == WIDTH_OR_DEPTH:
            return "the cells' effects differ by no more than their noise, or too few seeds have all cells"
        return "no seed has all cells of the contrast" if contrast.weights.any() else "no cells that differ in it alone"
    if seeds < FEWEST_PAIRS:
        return f"fewer than {FEWEST_PAIRS} seeds have all cells of the contrast ({seeds})"
    if contrast.expected == "inside":
        return f"the interval lies neither inside nor outside {margin:g} points"
    return "the interval holds 0"


def _statement(
    contrast: Contrast, estimate: float | None, low: float | None, high: float | None,
    seeds: int, verdict: str, confidence: float,
) -> str:  # fmt: skip
    if estimate is None:
        return f"{capital(contrast.claim)}: not measured."
    measured = f"{estimate:+.2f} {contrast.unit}"
    if low is not None and high is not None:
        measured += f", {percent(confidence)} interval {low:+.2f} to {high:+.2f}"
    counted = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    return f"{capital(contrast.claim)}: {verdict} ({contrast.words}: {measured}; {counted})."
