"""Writes figures to files, and closes each, so that a run of many does not fill the memory."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter

plt.rcParams["text.parse_math"] = False  # ids and names of files hold dollar signs


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure once for each path, in the format of its suffix, and close it."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    plt.close(figure)


def warned(figure: Figure, warning: str) -> Figure:
    """The figure with a warning in red above it; as it is where there is none."""
    if warning:
        text = textwrap.fill(warning, max(40, int(figure.get_figwidth() * 15)))
        lines = text.count("\n") + 1
        height = figure.get_figheight() + 0.19 * lines + 0.1
        figure.set_figheight(height)
        engine = figure.get_layout_engine()
        if isinstance(engine, ConstrainedLayoutEngine):
            engine.set(rect=(0, 0, 1, 1 - (0.19 * lines + 0.1) / height))
        figure.text(0.01, 1 - 0.06 / height, text, color="#b3261e", fontsize=9, va="top", ha="left")
    return figure


def plain_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as numbers; matplotlib's own are formulas, which are switched off here."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
