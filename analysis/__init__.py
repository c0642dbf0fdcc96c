"""What the runs say: effects of matched pairs, verdicts, thresholds, figures, a report page; no torch, no ray.

Only `figures` and `page` load matplotlib and plotly; numbers alone come without that wait.
"""
