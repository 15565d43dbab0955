"""Scores as curves and points: precision, attention heads, approximations, capacity, false discovery, relatives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plmjac.plots.files import plain_ticks


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
        # The interval of a mean may reach beyond what a share can be.
        low, high = np.clip(curve.low, 0, 1), np.clip(curve.high, 0, 1)
        axes.fill_between(curve.pairs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
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


def correlations(lines: Mapping[str, Float64[np.ndarray, "S 4"]], paper: Mapping[str, Sequence[float]]) -> Figure:
    """Mean Spearman over the cut-off with its interval; `lines` hold cut-off, mean, low, high. The paper's in grey."""
    figure, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    for size, values in paper.items():
        axes.plot(range(len(values)), values, color="0.75", linewidth=1, zorder=0)
        axes.annotate(f"paper, {size}", (len(values) - 1, values[-1]), fontsize=7, color="0.5", va="bottom", ha="right")
    for name, points in lines.items():
        (line,) = axes.plot(points[:, 0], points[:, 1], marker="o", markersize=4, label=name)
        axes.fill_between(points[:, 0], points[:, 2], points[:, 3], color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axes.set(xlabel="cut-off on the couplings of the inverse covariance / sigma", ylabel="mean Spearman correlation")
    axes.legend(frameon=False, fontsize=8)
    return figure


def attention_heads(
    scores: Float[np.ndarray, "layers heads"],
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    lines: Mapping[str, float],
    measure: str,
    title: str,
) -> Figure:
    """Each head's score as a picture, and beside it the score of the best K heads together, a curve for each set.

    `lines` are scores of other maps of the same proteins, drawn across.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    image = left.imshow(scores, aspect="auto", origin="lower", cmap="viridis", interpolation="nearest")
    left.set_xlabel("head")
    left.set_ylabel("layer")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_title(f"{measure} of each head", fontsize=10)
    figure.colorbar(image, ax=left)
    for name, (sizes, values) in curves.items():
        right.plot(sizes, values, marker="o", label=name)
    for number, (name, value) in enumerate(lines.items()):
        right.axhline(value, linestyle="--", color=f"C{len(curves) + number}", label=name)
    right.set_xscale("log")
    ticks = sorted({size for sizes, _ in curves.values() for size in sizes})
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    right.set_xlabel("K heads averaged")
    right.set_ylabel(measure)
    right.set_ylim(bottom=0)
    right.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


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


Points = tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]
"""Lengths and counts."""


def capacity_estimates(
    estimates: Mapping[str, float], points: Mapping[str, Points], contacts_per_position: float
) -> Figure:
    """Estimates on a logarithmic scale; beside them each protein's pairs above noise, where there are any.

    Lines show all pairs, L (L - 1) / 2, and the sparse estimate's, L times half of `contacts_per_position`.
    """
    figure, grid = plt.subplots(
        1, 2 if points else 1, figsize=(9.5 if points else 5.5, 4.0), squeeze=False, layout="constrained"
    )
    axes = grid[0, 0]
    names = list(estimates)
    shown = [max(value, 1.0) for value in estimates.values()]
    axes.barh(range(len(names)), shown, color="0.6")
    for place, value in enumerate(estimates.values()):
        axes.annotate(f" {value:.3g}", (shown[place], place), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="parameters", xlim=(min(shown) / 3, max(shown) * 20))
    plain_ticks(axes.xaxis)
    if points:
        _by_length(grid[0, 1], points, contacts_per_position)
    return figure


def _by_length(axes: Axes, points: Mapping[str, Points], contacts_per_position: float) -> None:
    lengths = np.concatenate([length for length, _ in points.values()])
    line = np.linspace(lengths.min(), lengths.max(), 50)
    axes.plot(line, line * (line - 1) / 2, color="0.7", label="all pairs")
    axes.plot(line, line * contacts_per_position / 2, color="0.7", linestyle="--", label="sparse estimate")
    for name, (length, count) in points.items():
        axes.scatter(length, count, s=12, alpha=0.7, linewidths=0, label=name)
    axes.set(xlabel="length", ylabel="pairs above noise")
    axes.set_yscale("symlog", linthresh=10)
    plain_ticks(axes.yaxis)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


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
