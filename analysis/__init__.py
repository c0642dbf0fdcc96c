"""What the runs say: effects of matched pairs, verdicts, thresholds, a figure, a report; no torch, no ray."""

from analysis import effects, plots, report, tables, threshold, verdicts

__all__ = ["effects", "plots", "report", "tables", "threshold", "verdicts"]
