"""From a figure to a file, or to bytes; and the end of the figure, so that a run of many does not fill the memory."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure once for each path, in the format of its suffix, and let go of it."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    plt.close(figure)
