"""Two structures in one map: their contacts in three colours below the diagonal, a map's best pairs above it."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool
from matplotlib.figure import Figure
from matplotlib.patches import Patch

BOTH, ONLY_A, ONLY_B = (0.45, 0.45, 0.45), (0.12, 0.35, 0.70), (0.85, 0.37, 0.01)
NEITHER = (0.90, 0.86, 0.72)


@dataclass(frozen=True, eq=False)
class ConformationPanel:
    """One map of a figure: a line to stand above it, and its best pairs."""

    title: str
    top: Bool[np.ndarray, "L L"]


def conformation_maps(
    panels: Sequence[ConformationPanel],
    classes: Sequence[Bool[np.ndarray, "L L"]],
    name_a: str,
    name_b: str,
    min_separation: int,
    columns: int = 4,
) -> Figure:
    """A panel for each map; `classes` are the contacts of both structures, of A alone, of B alone.

    Above the diagonal are the map's best pairs in the colour of their class, pale where they are in neither structure;
    below it all contacts of the structures.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.3 * columns, 3.5 * rows + 0.8), squeeze=False, layout="constrained"
    )
    length = len(classes[0])
    above = np.triu(np.ones((length, length), dtype=bool), k=min_separation)
    for axes, panel in zip(grid.flat, panels, strict=False):
        picture = np.ones((length, length, 3))
        picture[above & panel.top] = NEITHER
        for pairs, colour in zip(classes, (BOTH, ONLY_A, ONLY_B), strict=True):
            picture[pairs & ((above & panel.top) | above.T)] = colour
        axes.imshow(picture, interpolation="nearest")
        axes.plot([-0.5, length - 0.5], [-0.5, length - 0.5], color="0.8", linewidth=0.6)
        axes.set_title(panel.title, fontsize=8)
        axes.tick_params(labelsize=6, length=2)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    names = ("both", f"{name_a} alone", f"{name_b} alone", "neither")
    handles = [
        Patch(color=colour, label=name) for name, colour in zip(names, (BOTH, ONLY_A, ONLY_B, NEITHER), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle("Above: the best L pairs of a map; below: contacts of the structures", fontsize=10)
    return figure
