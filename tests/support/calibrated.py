"""How often the analysis is wrong: simulated sweeps with planted effects, judged by the report's own code.

Rates of wrong verdicts and ends come with the bound that they must keep, or with none if they are only measured.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.hypotheses import hypotheses
from analysis.judging import pairs_to_settle
from analysis.seed_effects import SeedEffects
from analysis.study import analyse

MARGIN, CONFIDENCE, ALPHA = 0.5, 0.95, 0.05
AXES, PAIRS = 2_000, 12
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
SPREAD = 0.4
STEEP = (3.0, 3.0, 0.5, 0.0, 0.0, 0.0, 0.0)
"""Both ends reach the level on the margin in almost every axis, so that an end is wrong as often as it can be."""
GENTLE = (1.5, 0.9, 0.7, 0.5, 0.4, 0.2, 0.0)
PLATEAU = (3.0, 3.0, 0.5, 0.5, 0.5, 0.0, 0.0)
"""Levels on the margin: taking the last level that passes, not the last before a failure, is wrong more often."""
DECLARED = {"margin": MARGIN, "confidence": CONFIDENCE}

Numbers = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Numbers]


class Rate(NamedTuple):
    """`times` of `of`; `least` says that the bound is a lower one."""

    scenario: str
    what: str
    times: int
    of: int
    bound: float | None = None
    least: bool = False

    @property
    def holds(self) -> bool:
        """Whether a binomial test sees no breach; at 1e-4, as there are a hundred of these."""
        if self.bound is None:
            return True
        side = "less" if self.least else "greater"
        return bool(stats.binomtest(self.times, self.of, self.bound, alternative=side).pvalue > 1e-4)


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    return generator.normal(0, SPREAD, shape)


def _t3(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    return SPREAD / 3**0.5 * generator.standard_t(3, shape)


def _mixture(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    """Two bumps: pairs of either kind, 0.35 points to each side."""
    return generator.choice([-0.35, 0.35], shape) + generator.normal(0, 0.2, shape)


def _unequal(generator: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    """A spread that falls with the level, from 0.8 points to 0.2."""
    return generator.normal(0, 1, shape) * np.linspace(0.8, 0.2, shape[1])[:, None]


NOISES: dict[str, Noise] = {"normal": _normal, "t3": _t3, "mixture": _mixture, "unequal variances": _unequal}


def rows(effects: Numbers, *, missing: bool = False, pictures: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Runs whose pairs have these effects `[axes, levels, pairs]` in points; one split per axis, one width per level.

    With `missing`, every second pair beyond the sixth lacks one arm or the other; with `pictures`, accuracies are
    counts over that many.
    """
    generator = np.random.default_rng(seed)
    split, level, pair = (place.ravel() for place in np.indices(effects.shape))
    without = 0.5 + generator.normal(0, 0.01, effects.size)
    arms = []
    for bias, accuracy in ((True, np.clip(without + effects.ravel() / 100, 0, 1)), (False, without)):
        told = accuracy if pictures is None else np.round(accuracy * pictures) / pictures
        table = {"split": split, "width": np.array(WIDTHS)[level], "seed": pair, "bias": bias, "test_accuracy": told}
        kept = (pair < 6) | (pair % 2 == 0) | (bool(bias) == (pair % 4 == 1)) if missing else pair >= 0
        arms.append(pd.DataFrame(table)[kept])
    return pd.concat(arms, ignore_index=True)


def drawn(profile: tuple[float, ...], noise: Noise, sign: int, seed: int, pairs: int = PAIRS) -> Numbers:
    """Effects `[AXES, levels, pairs]`."""
    generator = np.random.default_rng(seed)
    return sign * np.array(profile)[:, None] + noise(generator, (AXES, len(profile), pairs))


def of_ends(verdict: dict[str, Any], profile: tuple[float, ...], suffix: str = "") -> list[tuple[bool, bool]]:
    """For each axis whether `matters_up_to` and `equivalent_from` are wrong."""
    matter = [width for width, effect in zip(WIDTHS, profile, strict=False) if effect > MARGIN]
    equal = [width for width, effect in zip(WIDTHS, profile, strict=False) if effect < MARGIN]
    return [
        (
            (one[f"matters_up_to{suffix}"] or 0) > max(matter, default=0),
            (one[f"equivalent_from{suffix}"] or 10**9) < min(equal, default=10**9),
        )
        for one in verdict["thresholds"]
    ]


def of_cells(scenario: str, verdict: dict[str, Any], profile: tuple[float, ...]) -> Iterator[Rate]:
    """Wrong verdicts by planted effect: inside or on the margin, and on it or outside."""
    truth = dict(zip(WIDTHS, profile, strict=False))
    for effect in sorted(set(profile)):
        cells = [cell for cell in verdict["cells"] if truth[cell["width"]] == effect]
        for wrong, applies in (("matters", effect <= MARGIN), ("equivalent", effect >= MARGIN)):
            if applies:
                times = sum(cell["verdict"] == wrong for cell in cells)
                yield Rate(scenario, f"{wrong} at an effect of {effect:g}", times, len(cells), ALPHA)


def one_axis(scenario: str, effects: Numbers, profile: tuple[float, ...], **how: Any) -> Iterator[Rate]:
    """Wrong cells, wrong ends, and how often there is an end at all."""
    verdict = analyse(rows(effects, **how), name="simulated", declared=DECLARED)
    yield from of_cells(scenario, verdict, profile)
    ends = of_ends(verdict, profile)
    yield Rate(scenario, "matters_up_to wrong", sum(up for up, _ in ends), len(ends), ALPHA)
    yield Rate(scenario, "equivalent_from wrong", sum(down for _, down in ends), len(ends), ALPHA)
    yield Rate(scenario, "either end wrong", sum(up or down for up, down in ends), len(ends), ALPHA)
    given = sum(
        one["matters_up_to"] is not None and one["equivalent_from"] is not None for one in verdict["thresholds"]
    )
    yield Rate(scenario, "both ends given", given, len(ends))


def axes() -> Iterator[Rate]:
    """Every noise, both directions, a steep and a gentle profile; then pairs that are missing, and counted pictures."""
    number = 0
    for sign, direction in ((1, "helps"), (-1, "hurts")):
        for profile, kind in ((STEEP, "steep"), (GENTLE, "gentle")):
            for name, noise in NOISES.items():
                number += 1
                yield from one_axis(f"{name}, {kind}, {direction}", drawn(profile, noise, sign, number), profile)
            for name, how in (("missing halves", {"missing": True}), ("1,000 pictures", {"pictures": 1000})):
                number += 1
                effects = drawn(profile, _normal, sign, number)
                yield from one_axis(f"{name}, {kind}, {direction}", effects, profile, **how)
        yield from one_axis(f"normal, plateau, {direction}", drawn(PLATEAU, _normal, sign, 50 + sign), PLATEAU)
    effects = drawn(STEEP, _normal, 1, 99, pairs=24)
    yield from one_axis("normal, steep, helps, 24 pairs", effects, STEEP)


def families() -> Iterator[Rate]:
    """Claims over five axes at once: any familywise end, or any familywise verdict, that is wrong."""
    effects, size = drawn(STEEP, _normal, 1, 7), 5
    truth = dict(zip(WIDTHS, STEEP, strict=True))
    ends = cells = plain = 0
    for start in range(0, AXES, size):
        verdict = analyse(rows(effects[start : start + size]), name="simulated", declared=DECLARED)
        ends += any(up or down for up, down in of_ends(verdict, STEEP, "_familywise"))
        plain += any(up or down for up, down in of_ends(verdict, STEEP))
        said = {(truth[cell["width"]], cell["verdict_familywise"]) for cell in verdict["cells"]}
        cells += any(
            (word == "matters" and effect <= MARGIN) or (word == "equivalent" and effect >= MARGIN)
            for effect, word in said
        )
    scenario, count = f"families of {size} axes", AXES // size
    yield Rate(scenario, "any familywise end wrong", ends, count, ALPHA)
    yield Rate(scenario, "any verdict_familywise wrong", cells, count, ALPHA)
    yield Rate(scenario, "any unadjusted end wrong", plain, count)


def looks() -> Iterator[Rate]:
    """Two looks, at half of the pairs and at all: declared, and as if each were the only one."""
    effects = drawn(STEEP, _normal, 1, 8, pairs=16)
    for declared, bound in ((2, ALPHA), (1, None)):
        wrong = np.zeros((2, AXES), dtype=bool)
        for pairs in (8, 16):
            options = DECLARED | {"looks": declared}
            verdict = analyse(rows(effects[:, :, :pairs]), name="simulated", declared=options, looks_taken=pairs // 8)
            wrong |= np.array(of_ends(verdict, STEEP)).T
        scenario = f"two looks, {declared} declared"
        yield Rate(scenario, "either end wrong in either look", int(wrong.any(axis=0).sum()), AXES, bound)


def power() -> Iterator[Rate]:
    """With the pairs that were planned from the true mean and spread, 80 % of cells are settled."""
    for effect in (0.0, 0.2, 0.8, -0.8):
        (size,) = pairs_to_settle(np.array([effect]), np.array([SPREAD]), MARGIN, CONFIDENCE)
        effects = effect + _normal(np.random.default_rng(11), (AXES, 1, int(size)))
        verdict = analyse(rows(effects), name="simulated", declared=DECLARED)
        right = "equivalent" if abs(effect) < MARGIN else "matters"
        times = sum(cell["verdict"] == right for cell in verdict["cells"])
        yield Rate("power", f"{right} at {effect:+g}, {int(size)} pairs as planned", times, AXES, 0.8, least=True)


def collapse() -> Iterator[Rate]:
    """2 % of the runs of one arm lose 40 points, so that the true effect is 0.8: nobody sees what was not sampled."""
    for pairs in (12, 48, 192):
        generator = np.random.default_rng(12)
        lost = 40 * (generator.random((AXES, 1, pairs)) < 0.02)
        effects = lost + _normal(generator, (AXES, 1, pairs))
        verdict = analyse(rows(effects), name="simulated", declared=DECLARED)
        for wrong in ("equivalent", "undecided", "matters"):
            times = sum(cell["verdict"] == wrong for cell in verdict["cells"])
            yield Rate(f"rare collapse, {pairs} pairs", f"{wrong} at a true effect of 0.8", times, AXES)
        sensitive = sum(cell["sensitive"] is True for cell in verdict["cells"])
        yield Rate(f"rare collapse, {pairs} pairs", "marked sensitive", sensitive, AXES)


def tuned() -> Iterator[Rate]:
    """Nothing planted, but one arm has five rates to choose from and the other one.

    Where all rates are equally good, the choice itself is noise that the pairs of a cell share: intervals are then too
    narrow, which is measured. Where one rate is better than the others, as in practice, they hold.
    """
    for gap, kind in ((0.0, "equal rates"), (3.0, "one rate better")):
        generator, rates = np.random.default_rng(13), 5
        arms = []
        for bias, count in ((True, rates), (False, 1)):
            axis, rate, seed = (place.ravel() for place in np.indices((AXES, count, PAIRS)))
            accuracy = 0.5 + generator.normal(0, 0.01, len(axis)) - gap / 100 * (rate > 0)
            validation = accuracy + generator.normal(0, 0.005, len(axis))
            table = {"split": axis, "learning_rate": 0.1 * (rate + 1), "seed": seed, "bias": bias}
            arms.append(pd.DataFrame(table | {"test_accuracy": accuracy, "validation_accuracy": validation}))
        together = pd.concat(arms, ignore_index=True)
        verdict = analyse(together, name="simulated", declared=DECLARED | {"tune": ["learning_rate"]})
        found = np.array([cell["effect"] for cell in verdict["tuned_cells"]])
        scenario, off = f"tuned, nothing planted, {kind}", stats.ttest_1samp(found, 0.0).pvalue
        yield Rate(scenario, f"mean effect {found.mean():+.3f} points is off 0", int(off < 1e-4), 1, 0.0)
        times = sum(cell["detected"] for cell in verdict["tuned_cells"])
        yield Rate(scenario, "interval excludes 0", times, AXES, ALPHA if gap else None)


def contrasts() -> Iterator[Rate]:
    """Intervals of hypotheses that miss what was planted: the slope over width, and width's share less depth's."""
    generator = np.random.default_rng(14)
    levels = pd.DataFrame([{"depth": depth, "width": width} for depth in (1, 2, 4) for width in (1, 2, 4, 8)])
    truth = -0.4 * np.log2(levels["width"]).to_numpy() + 0.2 * np.log2(levels["depth"]).to_numpy()
    by_width, by_depth = (
        float(((levels.assign(t=truth).groupby(name)["t"].transform("mean") - truth.mean()) ** 2).sum())
        for name in ("width", "depth")
    )
    share = (by_width - by_depth) / float(((truth - truth.mean()) ** 2).sum())
    planted = {"width": -0.4, "width_or_depth": share}
    missed = dict.fromkeys(planted, 0)
    for _ in range(AXES):
        common = generator.normal(0, 0.3, (PAIRS, 1))  # cells of one seed move together
        grid = SeedEffects(levels, truth + common + generator.normal(0, SPREAD, (PAIRS, len(levels))))
        for one in hypotheses(grid, {}, MARGIN, CONFIDENCE):
            missed[one["name"]] += not one["low"] <= planted[one["name"]] <= one["high"]
    yield Rate("hypotheses", "interval misses the slope over width", missed["width"], AXES, ALPHA)
    yield Rate("hypotheses", "interval misses the difference of shares", missed["width_or_depth"], AXES)


PARTS: dict[str, Callable[[], Iterator[Rate]]] = {
    "axes": axes,
    "families": families,
    "looks": looks,
    "power": power,
    "collapse": collapse,
    "tuned": tuned,
    "contrasts": contrasts,
}
