"""Exposed surface of predicted structures: a summary of all pairs, and the surface along each chain."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Profile:
    """SAP along one pair of structures: positions in the full-length chain (from 1), prediction and full length."""

    title: str
    position: Int64[np.ndarray, " N"]
    predicted: Float64[np.ndarray, " N"]
    full_length: Float64[np.ndarray, " N"]


def surface_summary(table: pd.DataFrame, kept_rmsd: float) -> Figure:
    """Each pair's RMSD against the hydrophobic area that it gains, coloured by pLDDT where there is one.

    Needs the columns id, rmsd (A), hydrophobic_gain (A^2) and plddt. What lies left of the line kept its fold; what of
    it lies above zero shows more hydrophobic surface than the full-length protein does there.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    axes.axvline(kept_rmsd, color="0.6", linewidth=1, linestyle=":")
    axes.axhline(0.0, color="0.6", linewidth=1)
    known = table["plddt"].notna()
    axes.scatter(table["rmsd"][~known], table["hydrophobic_gain"][~known], color="0.5", label="no pLDDT")
    shown = axes.scatter(
        table["rmsd"][known],
        table["hydrophobic_gain"][known],
        c=table["plddt"][known],
        cmap="viridis",
        vmin=0,
        vmax=100,
    )
    if known.any():
        figure.colorbar(shown, ax=axes, label="mean pLDDT")
    for name, rmsd, gain in zip(table["id"], table["rmsd"], table["hydrophobic_gain"], strict=True):
        axes.annotate(str(name), (rmsd, gain), (4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("RMSD of the aligned region (Å)")
    axes.set_ylabel("hydrophobic surface gained (Å²)")
    axes.set_xlim(left=-0.1)
    axes.margins(0.12)
    return figure


def surface_profiles(profiles: Sequence[Profile]) -> Figure:
    """SAP of the aligned residues, prediction over full length; positive stretches are exposed hydrophobic patches."""
    figure, grid = plt.subplots(
        len(profiles), 1, figsize=(8.0, 1.9 * len(profiles) + 0.4), squeeze=False, layout="constrained"
    )
    for axes, profile in zip(grid.flat, profiles, strict=True):
        axes.axhline(0.0, color="0.7", linewidth=0.8)
        position = np.arange(profile.position[0], profile.position[-1] + 1)
        predicted, full = np.full((2, len(position)), np.nan)  # what is missing is a gap in the line
        predicted[profile.position - position[0]] = profile.predicted
        full[profile.position - position[0]] = profile.full_length
        bare = (predicted > full).tolist()
        axes.fill_between(position, full, predicted, where=bare, color="tab:red", alpha=0.25, linewidth=0)
        axes.plot(position, full, color="0.45", linewidth=1, label="full length")
        axes.plot(position, predicted, color="tab:red", linewidth=1, label="predicted")
        axes.set_title(profile.title, fontsize=9, loc="left")
        axes.set_ylabel("SAP")
    grid[0, 0].legend(fontsize=8, ncols=2, frameon=False, loc="upper right")
    grid[-1, 0].set_xlabel("position in the full-length chain")
    return figure
