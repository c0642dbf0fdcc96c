"""Converts the values in files to bytes, by one rule for all pictures of a data set, and notes what was done."""

import dataclasses
import itertools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sweep.data.formats.decoding import Raw

WHITE: Final = 255
BACKGROUNDS: Final = {WHITE: "white", 0: "black", 128: "grey"}
"""Backgrounds for transparent pictures; the one that hides fewest of them is chosen, ties in this order."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """The background of transparent pictures, and the values of black and white, for all pictures of a data set.

    Of integers of more than 8 bits, the upper 8 of `bits` are kept, unless some are negative: these, and floats, are
    scaled linearly, with black and white at the values in `integers` and `floats`.
    """

    background: int = WHITE
    bits: int = 16
    alpha_bits: int = 16
    integers: tuple[int, int] | None = None
    floats: tuple[float, float] = (0.0, 1.0)


class Seen:
    """Properties of the pictures of a data set, collected while they are read."""

    def __init__(self) -> None:
        self.integers: list[tuple[int, int]] = []
        self.floats: list[tuple[float, float]] = []
        self.most_alpha = 0
        self.turned = self.frames = 0
        self.transparent = 0
        self.blank = dict.fromkeys(BACKGROUNDS, 0)

    def rule(self) -> Rule:
        """The rule for reading all these pictures."""
        least, most = _span(self.integers)
        return Rule(
            background=min(BACKGROUNDS, key=self.blank.__getitem__),
            bits=_bits(most) if self.integers else Rule.bits,
            alpha_bits=_bits(self.most_alpha) if self.most_alpha else Rule.alpha_bits,
            integers=(int(least), int(most)) if least < 0 else None,
            floats=_black_and_white(*_span(self.floats)) if self.floats else Rule.floats,
        )

    def notes(self) -> list[str]:
        """What the user should know."""
        rule, found = self.rule(), []
        if self.transparent:
            chosen = rule.background
            better = itertools.takewhile(lambda each: each != chosen, BACKGROUNDS)
            hidden = [f"{self.blank[each]:,} of them show nothing on {BACKGROUNDS[each]}" for each in better]
            why = f", since {' and '.join(hidden)}" if hidden else ""
            left = f"; {self.blank[chosen]:,} of them show nothing" if self.blank[chosen] else ""
            pictures = counted(self.transparent, "transparent picture")
            found.append(f"{pictures} laid on {BACKGROUNDS[chosen]}{why}{left}")
        if self.integers:
            how = f"the upper 8 of {rule.bits} bits are kept" if rule.bits > 8 else "the lowest 8 bits are kept"
            least, most = _span(self.integers)
            if rule.integers:
                how = f"{least:,} is black, {most:,} white"
            pictures = counted(len(self.integers), "picture")
            found.append(f"{pictures} of more than 8 bits per value: the highest is {most:,}, so {how}")
        if self.floats:
            black, white = rule.floats
            found.append(f"{counted(len(self.floats), 'picture')} of floats: {black:g} is black, {white:g} white")
        if self.turned:
            found.append(f"{counted(self.turned, 'picture')} turned upright, as EXIF says")
        if self.frames:
            found.append(f"{counted(self.frames, 'file')} with several pictures (animations, pages): the first is read")
        return found


def as_bytes(raw: Raw, rule: Rule, seen: Seen) -> NDArray[np.uint8]:
    """The picture `[height, width, 1 or 3]` by the rule; adds its properties to `seen`."""
    seen.turned += raw.turned
    seen.frames += raw.frames
    match raw.values.dtype.kind:
        case "i":
            seen.integers.append((int(raw.values.min()), int(raw.values.max())))
            values = _spread(raw.values, rule.integers) if rule.integers else _shifted(raw.values, rule.bits)
        case "f":
            seen.floats.append((float(raw.values.min()), float(raw.values.max())))
            values = _spread(raw.values, rule.floats)
        case _:
            values = raw.values
    if raw.inverted:
        values = 255 - values
    if raw.alpha is None:
        return values
    alpha = raw.alpha
    if alpha.dtype != np.uint8:
        seen.most_alpha = max(seen.most_alpha, int(alpha.max()))
        alpha = _shifted(alpha, rule.alpha_bits)
    if alpha.min() == 255:
        return values
    composed = {background: _composed(values, alpha, background) for background in BACKGROUNDS}
    seen.transparent += 1
    for background, picture in composed.items():
        seen.blank[background] += _blank(picture)
    return composed[rule.background]


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun, in the singular or plural."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _span(spans: list[tuple[int, int]] | list[tuple[float, float]]) -> tuple[float, float]:
    return min((least for least, _ in spans), default=0), max((most for _, most in spans), default=0)


def _bits(most: float) -> int:
    """The fewest bits, from 8 on, that hold a value."""
    return max(8, int(most).bit_length())


def _black_and_white(least: float, most: float) -> tuple[float, float]:
    """0 to 1 or 0 to 255 if all floats are in that range; otherwise their lowest and highest value."""
    for white in (1.0, 255.0):
        if 0 <= least and most <= white:
            return 0.0, white
    return least, most


def _shifted(values: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    return (values >> (bits - 8)).clip(0, 255).astype(np.uint8)


def _spread(values: NDArray[np.int64] | NDArray[np.float32], span: tuple[float, float]) -> NDArray[np.uint8]:
    black, white = span
    scaled = (values.astype(np.float64) - black) * (255 / ((white - black) or 1))
    spread: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return spread


def _composed(values: NDArray[np.uint8], alpha: NDArray[np.uint8], background: int) -> NDArray[np.uint8]:
    share = alpha[..., None].astype(np.uint32)
    composed: NDArray[np.uint8] = ((values * share + background * (255 - share) + 127) // 255).astype(np.uint8)
    return composed


def _blank(picture: NDArray[np.uint8]) -> bool:
    """Whether all pixels are of one colour."""
    return bool((picture == picture[:1, :1]).all())
