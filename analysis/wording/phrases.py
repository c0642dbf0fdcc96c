"""How settings, levels and confidence are said in sentences, labels and tables."""

from collections.abc import Mapping, Sequence
from typing import Any


def describe(settings: Mapping[str, Any]) -> str:
    """Settings in words, batch norm first: `without batch norm, depth 2, steps 1001`; empty for none."""
    names = sorted(settings, key=lambda name: name != "batch_norm")
    return ", ".join(_setting(name, settings[name]) for name in names)


def levels(axis: str, values: Sequence[Any]) -> str:
    """Levels of an axis in words: `width 8`, `widths 8, 16 and 32`."""
    if len(values) == 1:
        return f"{axis} {values[0]}"
    return f"{axis}s {', '.join(map(str, values[:-1]))} and {values[-1]}"


def percent(confidence: float) -> str:
    return f"{100 * confidence:g} %"


def signed(points: float, digits: int = 2) -> str:
    """An effect with its sign, never -0.00."""
    return f"{round(points, digits) + 0.0:+.{digits}f}"


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _setting(name: str, value: Any) -> str:
    if name == "batch_norm":
        return "with batch norm" if value else "without batch norm"
    words = name.replace("_", " ")
    return f"{words} {'all' if value is None else value}"
