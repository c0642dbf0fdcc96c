"""What the runs say: effects of matched pairs, verdicts, thresholds, figures, a report page; no torch, no ray.

Figures and page alone load matplotlib and plotly: whoever wants numbers does not wait for them.
"""
