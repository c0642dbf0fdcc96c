"""What the runs say: effects of matched pairs, verdicts, thresholds, figures, a report page; no torch, no ray."""

from analysis import effects, plots, report, tables, threshold, verdicts

__all__ = ["effects", "plots", "report", "tables", "threshold", "verdicts"]
