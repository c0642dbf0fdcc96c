"""What `analysis.hypotheses` and `variance` promise: contrasts within each seed, estimates with intervals."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.simulated import grid as product
from support.simulated import study

from analysis import effects, hypotheses, variance
from analysis.run_table import checked
from analysis.seed_effects import SeedEffects, seed_effects
from analysis.wording.claims import claim


def by_seed_of(rows: pd.DataFrame) -> SeedEffects:
    rows = checked(rows)
    return seed_effects(effects.matched(rows), effects.factors(rows))


def found(rows: pd.DataFrame, **shared: Any) -> dict[str, dict[str, Any]]:
    """By name, in the words that a report has for them."""
    judged = hypotheses.hypotheses(by_seed_of(rows), shared, 0.5, 0.95)
    return {one["name"]: claim(one, 0.5, 0.95) for one in judged}


def test_the_slope_is_that_of_a_regression_within_each_seed_then_t_over_seeds() -> None:
    rows = study(product(width=[1, 2, 8, 64]), 9, lambda cell: 3 - 0.4 * np.log2(cell["width"]), seed=3)
    one = found(rows)["width"]
    pairs = effects.pairs(rows)
    slopes = [stats.linregress(np.log2(part["width"]), part["effect"]).slope for _, part in pairs.groupby("seed")]
    interval = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    assert one["estimate"] == pytest.approx(np.mean(slopes), abs=1e-10)
    assert (one["low"], one["high"]) == pytest.approx((interval.low, interval.high), abs=1e-10)
    assert (one["seeds"], one["verdict"], one["reason"]) == (9, "supported", None)
    assert one["unit"] == "points per doubling of the width"
    assert "9 seeds" in one["statement"]


def test_what_all_cells_of_a_seed_share_does_not_widen_the_interval() -> None:
    rows = study(product(width=[1, 2, 4]), 12, lambda cell: 1 / cell["width"], seed=5)
    shifted = rows.copy()
    luck = np.random.default_rng(0).normal(0, 0.05, 12)
    shifted["test_accuracy"] += np.where(shifted["bias"], luck[shifted["seed"]], 0)
    plain, moved = found(rows)["width"], found(shifted)["width"]
    for key in ("estimate", "low", "high"):
        assert moved[key] == pytest.approx(plain[key], abs=1e-9)


@pytest.mark.parametrize(
    ("axes", "name", "effect", "estimate"),
    [
        ({"width": [1, 4]}, "width", lambda cell: 2.0 if cell["width"] == 1 else 0.0, -1.0),
        ({"steps": [100, 200, 400]}, "steps", lambda cell: 400 / cell["steps"], -1.5),
        ({"batch_norm": [False, True]}, "batch_norm", lambda cell: 0.0 if cell["batch_norm"] else 3.0, 3.0),
        ({"pooling": ["stride", "max", "none"]}, "pooling", lambda cell: 2.0 * (cell["pooling"] == "stride"), 2.0),
        ({"pooling": ["none", "max"]}, "pooling", lambda cell: 2.0 * (cell["pooling"] == "none"), 2.0),
        ({"activation": ["tanh", "relu"]}, "activation", lambda cell: 2.0 * (cell["activation"] == "relu"), 2.0),
        ({"dropout": [0.0, 0.2, 0.5]}, "dropout", lambda cell: 2.0 * (cell["dropout"] == 0), 2.0),
        ({"bias_init": ["zeros", "original"]}, "bias_init", lambda cell: -2.0 * (cell["bias_init"] == "original"), -2),
    ],
)
def test_each_claim_has_its_contrast_and_is_supported_where_it_was_planted(
    axes: dict[str, Any], name: str, effect: Any, estimate: float
) -> None:
    rows = study(product(**axes), 16, effect, noise=0.1, seed=1)
    one = found(rows)[name]
    assert one["estimate"] == pytest.approx(estimate, abs=0.1)
    assert one["low"] < one["estimate"] < one["high"]
    assert one["verdict"] == "supported"
    against = found(study(product(**axes), 16, lambda cell: -effect(cell), noise=0.1, seed=1))[name]
    assert against["verdict"] == ("supported" if name == "bias_init" else "contradicted")
    nothing = found(study(product(**axes), 16, lambda cell: 1.0, noise=0.1, seed=4))[name]
    assert nothing["verdict"] == ("contradicted" if name == "bias_init" else "undecided")
    assert (nothing["reason"] is None) == (name == "bias_init")


SCALINGS = ["standardized", "unit"]


def test_the_first_layer_is_compared_with_the_later_ones_over_the_inputs_mean() -> None:
    def effect(cell: dict[str, Any]) -> float:
        first = 3.0 if cell["bias_layers"] == "first_conv" else 1.0
        return first * (cell["input_scaling"] != "standardized")

    axes = {"bias_layers": ["first_conv", "later_conv"], "input_scaling": [*SCALINGS, "centered"]}
    one = found(study(product(**axes), 12, effect, noise=0.1))["input_mean"]
    assert (one["estimate"], one["verdict"]) == (pytest.approx(2, abs=0.2), "supported")
    axes["bias_layers"] = ["first_conv", "conv"]
    alone = found(study(product(**axes), 12, effect, noise=0.1))["input_mean"]
    assert alone["estimate"] == pytest.approx(3, abs=0.2)
    assert "later" not in alone["contrast"]


@pytest.mark.parametrize(
    "axes",
    [
        {"bias_layers": ["conv", "all"], "input_scaling": SCALINGS},
        {"bias_layers": ["first_conv", "conv"], "input_scaling": ["unit", "centered"]},
        {"input_scaling": SCALINGS},
        {"dropout": [0.1, 0.2]},
        {"activation": ["tanh", "gelu"]},
        {"bias_init": ["zeros", "uniform"]},
        {"kernel_size": [3, 5]},
        {"depth": [2, 4]},
    ],
)
def test_axes_that_cannot_speak_to_a_claim_say_nothing(axes: dict[str, Any]) -> None:
    assert found(study(product(**axes), 8)) == {}


def test_beside_batch_norm_contrasts_are_taken_without_it() -> None:
    rows = study(
        product(width=[1, 2], batch_norm=[False, True]), 8, lambda cell: (not cell["batch_norm"]) * 2 / cell["width"]
    )
    plain = found(rows[~rows["batch_norm"]])["width"]
    one = found(rows)["width"]
    assert one["estimate"] == pytest.approx(plain["estimate"], abs=1e-12)
    assert one["contrast"].endswith("cells without batch norm")


def test_a_seed_that_lacks_a_cell_has_no_part_and_other_seeds_are_not_mixed() -> None:
    rows = study(product(width=[1, 2, 4]), 10, lambda cell: 1 / cell["width"])
    gap = rows[~((rows["seed"] == 3) & (rows["width"] == 4))]
    assert found(gap)["width"]["seeds"] == 9
    assert found(gap)["width"]["estimate"] == found(rows[rows["seed"] != 3])["width"]["estimate"]
    apart = pd.concat([rows[rows["width"] == 1], rows[rows["width"] > 1].assign(seed=lambda part: part["seed"] + 10)])
    one = found(apart)["width"]
    assert [one[key] for key in ("estimate", "low", "high", "seeds")] == [None, None, None, 0]
    assert (one["verdict"], one["reason"]) == ("undecided", "no seed has all cells of the contrast")
    assert one["statement"].endswith("not measured.")


def test_an_axis_that_varies_only_where_it_is_left_out_says_so() -> None:
    cells = [{"width": 1, "batch_norm": False}, {"width": 1, "batch_norm": True}, {"width": 4, "batch_norm": True}]
    one = found(study(cells, 8))["width"]
    assert (one["seeds"], one["reason"]) == (0, "no cells that differ in it alone")


def test_fewer_than_six_seeds_are_undecided_with_their_interval() -> None:
    one = found(study(product(width=[1, 2]), 5, lambda cell: 9 / cell["width"]))["width"]
    assert (one["verdict"], one["seeds"]) == ("undecided", 5)
    assert one["high"] < 0
    assert one["reason"] == "fewer than 6 seeds have all cells of the contrast (5)"


def test_the_negative_control_is_supported_inside_the_margin_only() -> None:
    shared = {"bias_layers": "conv", "bias_init": "zeros"}
    cells = product(batch_norm=[False, True])
    for effect, verdict in ((0.0, "supported"), (2.0, "contradicted"), (0.5, "undecided")):
        rows = study(cells, 16, lambda cell, effect=effect: effect * cell["batch_norm"], seed=2)
        assert found(rows, **shared)["negative_control"]["verdict"] == verdict
        assert "negative_control" not in found(rows)
        assert "negative_control" not in found(rows, **shared | {"bias_init": "uniform"})


# Variance


def test_shares_are_those_planted_and_noise_has_none() -> None:
    planted = {"width": lambda cell: np.log2(cell["width"]), "depth": lambda cell: 0.5 * np.log2(cell["depth"])}
    cells = product(depth=[1, 2, 4], width=[1, 2, 4, 8])
    truth = {name: np.var([part(cell) for cell in cells]) for name, part in planted.items()}
    rows = study(cells, 200, lambda cell: sum(part(cell) for part in planted.values()), noise=3.0)
    shares = {one["factor"]: one["share"] for one in variance.shares(by_seed_of(rows))}
    assert list(shares) == ["depth", "width", "interactions"]
    for name, part in truth.items():
        assert shares[name] == pytest.approx(part / sum(truth.values()), abs=0.05)
    assert shares["interactions"] == pytest.approx(0, abs=0.08)


def test_subtracting_the_noise_is_unbiased() -> None:
    """Nothing planted: the estimates of one factor's variance scatter around 0, half of them below."""
    generator = np.random.default_rng(8)
    levels = pd.DataFrame(product(depth=[1, 2], width=[1, 2, 4]))
    grids = [SeedEffects(levels, generator.normal(size=(4, 6))) for _ in range(800)]
    estimates = [variance._between(grams["width"]) for one in grids if (grams := variance._grams(one))]
    assert abs(stats.ttest_1samp(estimates, 0).statistic) < 4


def test_sums_of_squares_are_those_of_type_two_where_the_grid_has_gaps() -> None:
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    cells = [cell for cell in product(depth=[1, 2, 4], width=[1, 2, 4, 8]) if cell != {"depth": 4, "width": 8}]
    levels, generator = pd.DataFrame(cells), np.random.default_rng(9)
    effects_ = generator.normal(size=(2, len(cells)))
    grams = variance._grams(SeedEffects(levels, effects_))
    assert grams is not None
    for seed in range(2):
        frame = levels.assign(effect=effects_[seed])
        table = sm.stats.anova_lm(ols("effect ~ C(depth) + C(width)", frame).fit(), typ=2)
        for name in ("depth", "width"):
            assert grams[name][seed, seed] == pytest.approx(table.loc[f"C({name})", "sum_sq"], abs=1e-10)


def test_a_full_grid_and_one_with_gaps_are_taken_apart_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    one = SeedEffects(
        pd.DataFrame(product(depth=[1, 2], width=[1, 2, 4])), np.random.default_rng(2).normal(size=(3, 6))
    )
    quick = variance._grams(one)
    monkeypatch.setattr(variance.np, "prod", lambda _: -1)
    slow = variance._grams(one)
    assert quick is not None and slow is not None
    for name in ("depth", "width"):
        assert quick[name] == pytest.approx(slow[name], abs=1e-12)


@pytest.mark.parametrize(("width", "depth", "verdict"), [(1.0, 0.2, "supported"), (0.2, 1.0, "contradicted")])
def test_width_is_compared_with_depth_by_their_shares(width: float, depth: float, verdict: str) -> None:
    def effect(cell: dict[str, Any]) -> float:
        return float(width * np.log2(cell["width"]) + depth * np.log2(cell["depth"]))

    one = found(study(product(depth=[1, 2, 4], width=[1, 2, 4]), 12, effect))["width_or_depth"]
    assert one["verdict"] == verdict
    assert one["low"] < one["estimate"] < one["high"]
    assert one["estimate"] == pytest.approx((width**2 - depth**2) / (width**2 + depth**2), abs=0.1)


def test_without_more_than_noise_there_are_no_shares() -> None:
    rows = study(product(depth=[1, 2], width=[1, 2]), 1)
    assert variance.shares(by_seed_of(rows)) == []
    one = found(rows)["width_or_depth"]
    assert (one["estimate"], one["verdict"], one["seeds"]) == (None, "undecided", 0)
    assert variance.shares(by_seed_of(study([{"width": 1}], 8))) == []
