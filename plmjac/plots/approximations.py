"""Precision lost over forwards saved: one point an approximation, with the interval of its mean."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from plmjac.plots.files import plain_ticks

PANELS = {
    "pearson": "correlation with the full map",
    "overlap": "top L/2 pairs found again",
    "loss": "loss of P@L/2",
}


def cost_curve(costs: pd.DataFrame, title: str) -> Figure:
    """A panel a measure over how many times fewer forwards were made, logarithmic.

    `costs` has a row an approximation: substitutions (its label), fewer, and each measure's mean, `_low` and `_high`.
    """
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4.4 * len(PANELS), 4.0), layout="constrained")
    for panel, (name, label) in zip(axes, PANELS.items(), strict=True):
        for place, (_, row) in enumerate(costs.iterrows()):
            spread = [[max(0.0, row[name] - row[f"{name}_low"])], [max(0.0, row[f"{name}_high"] - row[name])]]
            panel.errorbar(
                row["fewer"], row[name], yerr=spread, fmt="o", markersize=5, capsize=3, color=f"C{place % 10}",
                label=row["substitutions"],
            )  # fmt: skip
        panel.set(xscale="log", xlabel="times fewer forwards", ylabel=label)
        plain_ticks(panel.xaxis)
        if name == "loss":
            panel.axhline(0, color="0.85", linewidth=0.8, zorder=0)
        else:
            panel.set_ylim(None, 1.02)
        panel.axvline(5, color="0.85", linewidth=0.8, zorder=0)
    axes[-1].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure
