"""Relatives of one protein: the precision of each one's map against its identity, and of the mean of many."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from plmjac.plots.files import plain_ticks


def relatives(table: pd.DataFrame, means: pd.DataFrame, measure: str) -> Figure:
    """Left a point for each relative, right the mean map of k of them with 95 % of the random choices shaded.

    `table` has the columns store, identity, chance and the measure; `means` store, relatives, and the measure's mean,
    low and high.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 4), layout="constrained", sharey=True)
    for store, rows in table.groupby("store", sort=False):
        left.scatter(rows["identity"], rows[measure], s=16, alpha=0.8, linewidths=0, label=str(store))
    left.axhline(table["chance"].mean(), color="0.7", linewidth=0.9, linestyle="--", zorder=0)
    left.set(xlabel="identity to the reference", ylabel=measure, xlim=(0, 1.03), ylim=(0, None))
    for store, rows in means.groupby("store", sort=False):
        (line,) = right.plot(rows["relatives"], rows[f"{measure} mean"], marker="o", markersize=4, label=str(store))
        right.fill_between(
            rows["relatives"], rows[f"{measure} low"], rows[f"{measure} high"], color=line.get_color(), alpha=0.15,
            linewidth=0,
        )  # fmt: skip
    right.set_xscale("log", base=2)
    plain_ticks(right.xaxis)
    right.set(xlabel="relatives in the mean map")
    right.legend(frameon=False, fontsize=8)
    return figure
