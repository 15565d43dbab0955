"""Couplings between amino acids: the 20 x 20 blocks of a pair, and how alike two methods' couplings are."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Float64
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plmjac.alphabet import AMINO_ACIDS


def coupling_blocks(blocks: Mapping[str, Float[np.ndarray, "20 20"]], native: tuple[int, int], title: str) -> Figure:
    """The block of one pair by each method, amino acid of i down and of j across; red: favoured together.

    Each has a scale of its own, symmetric about zero. A square marks the protein's own two, where both are amino acids.
    """
    figure, grid = plt.subplots(1, len(blocks), figsize=(4.6 * len(blocks), 4.3), squeeze=False, layout="constrained")
    for axes, (name, block) in zip(grid.flat, blocks.items(), strict=True):
        limit = float(np.abs(block).max()) or 1.0
        picture = axes.imshow(block, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_xticks(range(20), list(AMINO_ACIDS), fontsize=8)
        axes.set_yticks(range(20), list(AMINO_ACIDS), fontsize=8)
        axes.set(title=name, xlabel="amino acid at j", ylabel="amino acid at i")
        if min(native) >= 0:
            corner = (native[1] - 0.5, native[0] - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.4))
        figure.colorbar(picture, ax=axes, shrink=0.8)
    figure.suptitle(title, fontsize=11)
    return figure


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
