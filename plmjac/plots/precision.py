"""Precision of methods against each other: curves over the number of pairs, and each protein's score."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean precision of `pairs` x L pairs with its interval (NaN: none), and the mean chance of the same proteins."""

    pairs: Float64[np.ndarray, " K"]
    precision: Float64[np.ndarray, " K"]
    low: Float64[np.ndarray, " K"]
    high: Float64[np.ndarray, " K"]
    chance: Float64[np.ndarray, " K"]


MAX_SCATTERS = 9


def precision_curves(curves: Mapping[str, Curve], title: str) -> Figure:
    """Mean precision of the top pairs over their number, a line and a band a method; dashed: chance."""
    figure, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    chances: list[float] = []
    for name, curve in curves.items():
        (line,) = axes.plot(curve.pairs, curve.precision, label=name, linewidth=1.6)
        axes.fill_between(curve.pairs, curve.low, curve.high, color=line.get_color(), alpha=0.15, linewidth=0)
        chances += curve.chance.tolist()
    if chances:
        axes.axhline(float(np.nanmean(chances)), color="0.45", linewidth=1, linestyle="--", label="chance")
    axes.text(
        0.99, 0.01, "bands: 95 % intervals over proteins", transform=axes.transAxes, fontsize=7, color="0.4", ha="right"
    )
    axes.set(xlabel="pairs taken / L", ylabel="precision", xlim=(0, None), ylim=(0, None), title=title)
    for mark in (0.2, 0.5, 1.0):
        axes.axvline(mark, color="0.85", linewidth=0.8, zorder=0)
    axes.legend(frameon=False, fontsize=8)
    return figure


def paired_scores(scores: pd.DataFrame, measure: str, title: str) -> Figure:
    """Each method's distribution over proteins, then every two methods protein by protein.

    `scores` has a row a protein and a column a method; NaN is left out. Above the diagonal the second method is better.
    """
    pairs = list(combinations(scores.columns, 2))[:MAX_SCATTERS]
    columns = min(4, 1 + len(pairs))
    rows = -(-(1 + len(pairs)) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.6 * columns, 3.6 * rows), squeeze=False, layout="constrained")
    axes = list(grid.flat)
    _distributions(axes[0], scores, measure)
    for each, (first, second) in zip(axes[1:], pairs, strict=False):
        each.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
        each.scatter(scores[first], scores[second], s=14, alpha=0.7, linewidths=0)
        each.set(xlabel=f"{measure}: {first}", ylabel=second, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for each in axes[1 + len(pairs) :]:
        each.set_axis_off()
    figure.suptitle(f"{title}; {len(scores)} proteins", fontsize=11)
    return figure


def _distributions(axes: Axes, scores: pd.DataFrame, measure: str) -> None:
    """Quartiles as a box, every protein as a point beside its neighbours in rank, so that none hides another."""
    columns = [scores[name].dropna().to_numpy() for name in scores.columns]
    axes.boxplot(columns, widths=0.5, showfliers=False, medianprops={"color": "0.2"})
    for place, values in enumerate(columns, start=1):
        spread = 0.18 * np.cos(np.arange(len(values)) * 2.4)
        axes.scatter(place + spread, np.sort(values), s=8, alpha=0.5, linewidths=0)
    axes.set_xticks(
        range(1, len(columns) + 1), [str(name) for name in scores.columns], rotation=20, ha="right", fontsize=8
    )
    axes.set(ylabel=measure, ylim=(-0.02, 1.02))
