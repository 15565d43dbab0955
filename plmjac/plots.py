"""Figures from tables and arrays. The only place that imports matplotlib; nothing here computes or reads a store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: a run on a cluster has no screen

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plmjac.records import Contacts


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One protein of a figure: its contact map, its contacts, and a line to stand above it."""

    title: str
    scores: Float[np.ndarray, "L L"]
    contacts: Contacts


def contact_map(axes: Axes, scores: Float[np.ndarray, "L L"]) -> None:
    """A contact map in grey: white at its 50th percentile and below, black at its 99.5th."""
    low, high = np.quantile(scores, [0.5, 0.995])
    axes.imshow(scores, cmap="Greys", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")


def true_contacts(axes: Axes, contacts: Contacts, min_separation: int = 6) -> None:
    """Contacts of a structure in blue, residues that are not resolved as grey bands."""
    length = len(contacts.resolved)
    apart = np.abs(np.subtract.outer(np.arange(length), np.arange(length))) >= min_separation
    picture = np.ones((length, length, 3))
    picture[~contacts.resolved, :] = picture[:, ~contacts.resolved] = 0.88
    picture[contacts.pairs & apart] = (0.12, 0.35, 0.70)
    axes.imshow(picture, interpolation="nearest")


def contact_maps(panels: Sequence[MapPanel], title: str, columns: int = 5) -> Figure:
    """Each protein's contact map above its true contacts."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(2 * rows, columns, figsize=(2.6 * columns, 5.2 * rows), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        contact_map(above, panel.scores)
        true_contacts(below, panel.contacts)
        above.set_title(panel.title, fontsize=9)
        for axes, label in ((above, "predicted"), (below, "structure")):
            axes.set_axis_on()
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix, and let go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
