"""What the page says of the cells, pairs and curves that it does not show one by one."""

from collections.abc import Sequence


def grouped(cells: int, groups: int, over: Sequence[str], joined: str | None, size: int) -> str:
    """Says that groups of cells are shown: means over these factors, `size` neighbouring levels of `joined` in one."""
    mean = f" over {', '.join(over)}" if over else ""
    levels = f" Neighbouring levels of {joined} are joined, {size} at a time, and shown at the first of them."
    return (
        f"This sweep has {cells:,} cells, more than a person reads: the charts and the table of this page show "
        f"{groups:,} groups of them, each a mean{mean}, with the range of its cells' effects in place of an "
        f"interval.{levels if joined else ''} Every cell with its interval is in verdict.json."
    )


def no_dots(pairs: int) -> str:
    """Says that pairs are not drawn."""
    return f"The {pairs:,} pairs are too many dots for this page: effects.parquet has every one."


def first_curves(shown: int) -> str:
    """Says that not all cells' learning curves are drawn."""
    return f"Learning curves of the first {shown} cells alone are shown; curves/ has the others."


def first_thresholds(shown: int, of: int) -> str:
    """Says that not all thresholds are drawn against the margin."""
    return f"Of {of:,} thresholds against the margin, the first {shown} are shown."


def first_tuned(shown: int, of: int) -> str:
    """Says that not all tuned cells are listed."""
    return f"Of {of:,} tuned cells, the first {shown:,} are shown; verdict.json has the others."
