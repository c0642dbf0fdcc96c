"""The question's claims in words: what each says, how it was measured, and what came out."""

from typing import Final

from analysis.hypotheses import NEGATIVE_CONTROL, WIDTH_OR_DEPTH
from analysis.record import FEWEST_PAIRS, Record
from analysis.wording.phrases import capital, percent

_CLAIMS: Final = {
    "width": (
        "wide networks do not need the bias: it helps less, the wider the network",
        "slope of the effect over log2 width",
        "points per doubling of the width",
    ),
    "steps": (
        "longer training hides the bias: it helps less, the longer the training",
        "slope of the effect over log2 steps",
        "points per doubling of the steps",
    ),
    "batch_norm": (
        "batch normalization makes the bias redundant: it helps more without",
        "effect without batch norm less effect with it",
        "points",
    ),
    NEGATIVE_CONTROL: (
        "negative control: with batch norm after the convolution, the bias cancels while training",
        "mean effect of the cells with batch norm, whose biases start at zero",
        "points",
    ),
    "input_mean": (
        "the first layer's need of a bias depends on the input's mean",
        "effect of the first layer's bias on inputs whose mean is not zero, less on standardized ones",
        "points",
    ),
    "pooling": (
        "pooling hides the bias: it helps more with pooling {}",
        "effect with pooling {} less mean effect of its other levels",
        "points",
    ),
    "activation": (
        "other activations hide the bias: it helps more with activation {}",
        "effect with activation {} less mean effect of its other levels",
        "points",
    ),
    "dropout": (
        "dropout hides the bias: it helps more with dropout {}",
        "effect with dropout {} less mean effect of its other levels",
        "points",
    ),
    "bias_init": (
        "starting biases at 1, as the question did, is a treatment of its own",
        "effect with bias_init original less effect with {}",
        "points",
    ),
    WIDTH_OR_DEPTH: (
        "width decides more than depth",
        "share of the variance of the cells' effects that width explains, less the share that depth explains",
        "share of variance",
    ),
}
"""By a hypothesis' name: the claim, its contrast and the contrast's unit; {} stands for the reference level."""


def claim(found: Record, margin: float, confidence: float) -> Record:
    """A record of `hypotheses` as in `verdict.json`: in words, with a `statement` and, if undecided, a `reason`."""
    words, contrast, unit = (text.format(found["reference"]) for text in _CLAIMS[found["name"]])
    if found["name"] == "input_mean" and found["reference"] is not None:
        contrast += ", less the same of the later layers' biases"
    if found["without_batch_norm"]:
        contrast += ", cells without batch norm"
    numbers = {key: found[key] for key in ("estimate", "low", "high", "seeds", "verdict")}
    record = {"name": found["name"], "claim": words, "contrast": contrast, "unit": unit, **numbers}
    reason = _reason(found, margin) if found["verdict"] == "undecided" else None
    return {**record, "statement": _statement(record, confidence), "reason": reason}


def _statement(record: Record, confidence: float) -> str:
    claim, estimate, low, high, seeds = (record[key] for key in ("claim", "estimate", "low", "high", "seeds"))
    if estimate is None:
        return f"{capital(claim)}: not measured."
    measured = f"{estimate:+.2f} {record['unit']}"
    if low is not None and high is not None:
        measured += f", {percent(confidence)} interval {low:+.2f} to {high:+.2f}"
    counted = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    return f"{capital(claim)}: {record['verdict']} ({record['contrast']}: {measured}; {counted})."


def _reason(found: Record, margin: float) -> str:
    if found["seeds"] == 0:
        if found["name"] == WIDTH_OR_DEPTH:
            return "the cells' effects differ by no more than their noise, or too few seeds have all cells"
        return "no seed has all cells of the contrast" if found["cells"] else "no cells that differ in it alone"
    if found["seeds"] < FEWEST_PAIRS:
        return f"fewer than {FEWEST_PAIRS} seeds have all cells of the contrast ({found['seeds']})"
    if found["name"] == NEGATIVE_CONTROL:
        return f"the interval lies neither inside nor outside {margin:g} points"
    return "the interval holds 0"
