"""Contact recovery as pictures: the fraction recovered by schedule, single segments one by one, minimal segments."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

COLORS = {"flanking": "#0b3c8c", "random": "#d8730b", "random_avoiding_30": "#1b8a6b"}
OTHER_COLORS = ("#7b3294", "#666666", "#a6761d")
LINES = ("-", "--", "-.", ":")

FEW = 10
"""A curve is drawn thin while it covers fewer segments than this."""


@dataclass(frozen=True, eq=False)
class FractionCurve:
    """One schedule of the figure: the fraction recovered by unmasked residues, its interval, and how many there are.

    `half` is the number of residues at which half of the segments are recovered, NaN where they never are.
    """

    label: str
    schedule: str
    panel: str
    unmasked: Float[np.ndarray, " F"]
    recovered: Float[np.ndarray, " F"]
    low: Float[np.ndarray, " F"]
    high: Float[np.ndarray, " F"]
    segments: Float[np.ndarray, " F"]
    half: float


@dataclass(frozen=True, eq=False)
class SegmentCurve:
    """The recovery of one segment under one schedule; NaN parts its repeats."""

    label: str
    schedule: str
    unmasked: Float[np.ndarray, " F"]
    recovery: Float[np.ndarray, " F"]


@dataclass(frozen=True, eq=False)
class SegmentPanel:
    """One segment of a figure: a line to stand above it, and its curves."""

    title: str
    curves: tuple[SegmentCurve, ...]


def fraction_curves(curves: Sequence[FractionCurve], recovered: float, coverage: float) -> Figure:
    """The fraction recovered by schedule with its interval, and below it the segments that it is a fraction of."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    size = (max(5.2, 4.2 * len(panels) + 0.6), 4.6)
    figure, grid = plt.subplots(
        2,
        len(panels),
        figsize=size,
        squeeze=False,
        sharex="col",
        sharey="row",
        height_ratios=(4, 1),
        layout="constrained",
    )
    for column, panel in enumerate(panels):
        above, below = grid[0, column], grid[1, column]
        chosen = [curve for curve in curves if curve.panel == panel]
        for curve, (color, line) in zip(chosen, _styles([curve.schedule for curve in chosen]), strict=True):
            _fraction(above, curve, color, line)
            below.plot(curve.unmasked, curve.segments, color=color, linestyle=line, linewidth=1.2)
        _frame(above, below, panel)
        above.legend(fontsize=8, frameon=False, loc="best")
    grid[0, 0].set_ylabel(f"segments recovered (R > {recovered:g})", fontsize=9)
    grid[1, 0].set_ylabel("segments", fontsize=9)
    note = f"bands: {coverage:.0%} of bootstraps over proteins; thin: under {FEW} segments left; below: the denominator"
    figure.supxlabel(note, fontsize=7, color="#555555")
    return figure


def _fraction(axes: Axes, curve: FractionCurve, color: str, line: str) -> None:
    axes.fill_between(curve.unmasked, curve.low, curve.high, color=color, alpha=0.13, linewidth=0)
    reached = "" if np.isnan(curve.half) else f", half at {curve.half:g}"
    many = np.where(curve.segments >= FEW, curve.recovered, np.nan)
    axes.plot(curve.unmasked, curve.recovered, color=color, linestyle=line, linewidth=0.7)
    axes.plot(curve.unmasked, many, color=color, linestyle=line, linewidth=2, label=f"{curve.label}{reached}")
    if not np.isnan(curve.half):
        axes.plot([curve.half], [0.5], marker="o", markersize=5, color=color, markeredgecolor="white", zorder=5)


def _frame(above: Axes, below: Axes, panel: str) -> None:
    above.axhline(0.5, color="#999999", linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    above.set_ylim(-0.02, 1.02)
    above.yaxis.set_major_formatter(PercentFormatter(1.0))
    above.set_title(panel, fontsize=10)
    below.set_ylim(bottom=0)
    below.set_xlim(left=0)
    below.set_xlabel("unmasked residues besides the segment", fontsize=9)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in (above, below):
        _plain(axes)


def segment_curves(panels: Sequence[SegmentPanel], recovered: float, columns: int = 4) -> Figure:
    """Recovery of single segments by unmasked residues, a panel each, all schedules in it."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    size = (2.5 * columns + 0.5, 1.8 * rows + 0.9)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    handles: dict[str, Line2D] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        for curve, (color, line) in zip(panel.curves, _styles([curve.schedule for curve in panel.curves]), strict=True):
            (drawn,) = axes.plot(curve.unmasked, curve.recovery, color=color, linestyle=line, linewidth=1.3)
            handles.setdefault(curve.label, drawn)
        axes.axhline(recovered, color="#999999", linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.set_title(panel.title, fontsize=8)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _plain(axes)
    figure.legend(list(handles.values()), list(handles), fontsize=8, frameon=False, loc="outside upper center", ncols=3)
    figure.supxlabel("unmasked residues besides the segment", fontsize=9)
    figure.supylabel("recovery R", fontsize=9)
    return figure


def minimal_segments(residues: Float[np.ndarray, " N"], percentile: float, start: float) -> Figure:
    """Visible residues at a stable jump: bins of 10 from `start`, and the 90th percentile."""
    figure, axes = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    edges = np.arange(start, max(residues.max(), start) + 11, 10).tolist()
    axes.hist(residues, bins=edges, color=COLORS["flanking"], edgecolor="white", linewidth=0.8)
    axes.axvline(percentile, color=COLORS["random"], linewidth=1.5)
    axes.text(percentile, 1.01, f" 90 % need {percentile:g} or fewer", fontsize=8, transform=axes.get_xaxis_transform())
    axes.set_xlabel("visible residues at the first stable jump, the segment included", fontsize=9)
    axes.set_ylabel(f"segments (n = {len(residues)})", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)
    return figure


def _styles(schedules: Sequence[str]) -> list[tuple[str, str]]:
    """A colour for each schedule, and for its second, third, ... curve other strokes."""
    others = [name for name in dict.fromkeys(schedules) if name not in COLORS]
    colors = {**COLORS, **{name: OTHER_COLORS[number % len(OTHER_COLORS)] for number, name in enumerate(others)}}
    return [
        (colors[name], LINES[list(schedules[:number]).count(name) % len(LINES)])
        for number, name in enumerate(schedules)
    ]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, length=3)
