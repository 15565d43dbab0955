"""Contact maps of complexes, with a line where each chain begins."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from plmjac.plots.maps import contact_map, true_contacts
from plmjac.records import Contacts


@dataclass(frozen=True, eq=False)
class ComplexPanel:
    """One complex of a figure: its map, its contacts, where chains after the first begin, and a line to stand above."""

    title: str
    scores: Float[np.ndarray, "L L"]
    contacts: Contacts
    breaks: tuple[int, ...]


def complex_maps(panels: Sequence[ComplexPanel], title: str, columns: int = 4) -> Figure:
    """Each complex's contact map above its true contacts; what lies off the diagonal squares is between chains."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    size = (3.6 * columns + 0.4, 7.4 * rows + 0.6)
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
            for start in panel.breaks:
                axes.axhline(start - 0.5, color="tab:red", linewidth=0.7)
                axes.axvline(start - 0.5, color="tab:red", linewidth=0.7)
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
    figure.suptitle(textwrap.fill(title, 22 + 40 * columns), fontsize=10)
    return figure
