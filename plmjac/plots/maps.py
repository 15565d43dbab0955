"""Contact maps as pictures: the scores of a map above, the contacts of a structure below."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plmjac.records import Contacts


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One protein of a figure: its contact map, its contacts, and a line to stand above it."""

    title: str
    scores: Float[np.ndarray, "L L"]
    contacts: Contacts


MIN_SEPARATION = 6
"""Pairs nearer than this along the sequence always touch and are left out, here as in the scores."""


LEFT_OUT = (0.98, 0.95, 0.82)


def contact_map(axes: Axes, scores: Float[np.ndarray, "L L"]) -> None:
    """A contact map in grey: white at the median of what is shown and below, black at its 99.5th percentile.

    Pairs without a score (NaN) are yellow, as those that are too near.
    """
    apart = (_separation(len(scores)) >= MIN_SEPARATION) & ~np.isnan(scores)
    shown = scores[apart] if apart.any() else np.zeros(1)
    low, high = np.quantile(shown, [0.5, 0.995])
    picture = np.where(apart, scores, np.nan)
    axes.imshow(
        picture,
        cmap=plt.get_cmap("Greys").with_extremes(bad=LEFT_OUT),
        vmin=low,
        vmax=max(high, low + 1e-9),
        interpolation="nearest",
    )


def true_contacts(axes: Axes, contacts: Contacts) -> None:
    """Contacts of a structure in blue; residues that are not resolved, and the diagonal, in yellow."""
    length = len(contacts.resolved)
    picture = np.ones((length, length, 3))
    picture[contacts.pairs] = (0.12, 0.35, 0.70)
    picture[~contacts.resolved, :] = picture[:, ~contacts.resolved] = LEFT_OUT
    picture[_separation(length) < MIN_SEPARATION] = LEFT_OUT
    axes.imshow(picture, interpolation="nearest")


def contact_maps(panels: Sequence[MapPanel], title: str, columns: int = 5) -> Figure:
    """Each protein's contact map above its true contacts; yellow is what is not scored."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    size = (2.4 * columns + 0.4, 4.9 * rows + 0.6)
    figure, grid = plt.subplots(2 * rows, columns, figsize=size, squeeze=False, layout="constrained")
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
            axes.tick_params(labelsize=6, length=2)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def _separation(length: int) -> Int64[np.ndarray, "L L"]:
    return np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
