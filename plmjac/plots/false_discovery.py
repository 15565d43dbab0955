"""The false discovery rate of the best pairs, beside the share of them that a structure contradicts."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from plmjac.plots.files import plain_ticks


def false_discovery(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """A colour a store: its mean rate at each rank, and dashed the share of the pairs up to there without contact.

    The tables have the columns rank, fdr and contact (NaN where no structure is known).
    """
    figure, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    for name, curve in curves.items():
        (line,) = axes.plot(curve["rank"], curve["fdr"], label=f"{name}: false discovery rate", linewidth=1.6)
        if curve["contact"].notna().any():
            without = 1 - curve["contact"].expanding().mean()
            axes.plot(
                curve["rank"], without, color=line.get_color(), linestyle="--", linewidth=1, label=f"{name}: no contact"
            )
    axes.set(xlabel="rank of the pair", ylabel="share", ylim=(-0.02, 1.02), xscale="log")
    plain_ticks(axes.xaxis)
    axes.legend(frameon=False, fontsize=8)
    return figure
