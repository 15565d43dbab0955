"""Parameters that couplings take: estimates as bars, and pairs above noise against the length of proteins."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plmjac.plots.files import plain_ticks

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
