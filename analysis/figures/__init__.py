"""The figures of a report: which a sweep has, each in a module of its own; matplotlib, SVG and PNG."""

from analysis.figures import arms, dots, effect, grid, shares, style

__all__ = ["arms", "dots", "effect", "grid", "shares", "style"]
