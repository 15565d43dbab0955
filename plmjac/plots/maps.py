"""Contact maps as pictures: of many proteins, of one, of two structures in one map; and the couplings of a pair."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from plmjac.alphabet import AMINO_ACIDS
from plmjac.metrics import Pairs
from plmjac.records import Contacts


@dataclass(frozen=True, eq=False)
class MapPanel:
    """One protein of a figure: its contact map and contacts, a title, and where chains after the first begin."""

    title: str
    scores: Float[np.ndarray, "L L"]
    contacts: Contacts
    breaks: tuple[int, ...] = ()


MIN_SEPARATION = 6
"""Pairs nearer than this along the sequence always touch and are left out, here as in the scores."""


LEFT_OUT = (0.98, 0.95, 0.82)


def contact_map(axes: Axes, scores: Float[np.ndarray, "L L"]) -> None:
    """A contact map in grey: white at the median of what is shown and below, black at its 99.5th percentile.

    Pairs without a score (NaN) are yellow, as those that are too near.
    """
    apart = _separation(len(scores)) >= MIN_SEPARATION
    low, high = _levels(scores, apart)
    colors = plt.get_cmap("Greys").with_extremes(bad=LEFT_OUT)
    axes.imshow(np.where(apart, scores, np.nan), cmap=colors, vmin=low, vmax=high, interpolation="nearest")


def true_contacts(axes: Axes, contacts: Contacts) -> None:
    """Contacts of a structure in blue; residues that are not resolved, and the diagonal, in yellow."""
    length = len(contacts.resolved)
    picture = np.ones((length, length, 3))
    picture[contacts.pairs] = (0.12, 0.35, 0.70)
    picture[~contacts.resolved, :] = picture[:, ~contacts.resolved] = LEFT_OUT
    picture[_separation(length) < MIN_SEPARATION] = LEFT_OUT
    axes.imshow(picture, interpolation="nearest")


def contact_maps(panels: Sequence[MapPanel], title: str, columns: int = 5, width: float = 2.4) -> Figure:
    """Each protein's contact map above its true contacts; yellow is what is not scored.

    Red lines part the chains of a complex: what lies off the diagonal squares is between chains. `width` of a panel is
    in inches.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    size = (width * columns + 0.4, (2 * width + 0.15) * rows + 0.6)
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
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(4, integer=True))
            for start in panel.breaks:
                axes.axhline(start - 0.5, color="tab:red", linewidth=0.7)
                axes.axvline(start - 0.5, color="tab:red", linewidth=0.7)
            if column == 0:
                axes.set_ylabel(label, fontsize=9)
    figure.suptitle(textwrap.fill(title, 22 + int(11 * width) * columns), fontsize=11)
    return figure


def _levels(scores: Float[np.ndarray, "L L"], apart: Bool[np.ndarray, "L L"]) -> tuple[float, float]:
    """The scores that are white and black: median and 99.5th percentile of the pairs that are shown."""
    shown = scores[apart & np.isfinite(scores)]
    low, high = np.quantile(shown if len(shown) else np.zeros(1), [0.5, 0.995])
    return float(low), float(max(high, low + 1e-9))


def _separation(length: int) -> Int64[np.ndarray, "L L"]:
    return np.abs(np.subtract.outer(np.arange(length), np.arange(length)))


RIGHT, WRONG, UNKNOWN = "#1a7f37", "#d1242f", "#6e7781"


def protein_map(
    scores: Float[np.ndarray, "L L"],
    pairs: Pairs,
    touching: Float64[np.ndarray, " N"],
    *,
    contacts: Contacts | None = None,
    numbers: Sequence[str] | None = None,
    title: str = "",
    legend: str = "",
) -> Figure:
    """Scores above, below them the contacts in grey and the best pairs: in contact (1), not (0), unknown (NaN).

    `numbers` are residue numbers for the axes; without them residues are counted from 1. Yellow pairs are not scored.
    """
    figure, axes = plt.subplots(figsize=(6.4, 7.0), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr, call-arg]
    _background(axes, scores, contacts)
    kinds = [(RIGHT, "in contact", touching == 1), (WRONG, "not in contact", touching == 0),
             (UNKNOWN, "not known", np.isnan(touching))]  # fmt: skip
    size = max(4.0, min(30.0, 2500 / len(scores)))
    for color, label, chosen in kinds:
        if chosen.any():
            label = f"best {len(touching)} pairs: {label} ({int(chosen.sum())})"
            axes.scatter(pairs[0][chosen], pairs[1][chosen], s=size, color=color, label=label, linewidths=0)
    axes.plot([-0.5, len(scores) - 0.5], [-0.5, len(scores) - 0.5], color="0.7", linewidth=0.6)
    if numbers is not None:
        shown = list(numbers)
        form = FuncFormatter(lambda at, _: shown[round(at)] if 0 <= round(at) < len(shown) else "")
    else:
        form = FuncFormatter(lambda at, _: str(round(at) + 1) if 0 <= round(at) < len(scores) else "")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True))
        axis.set_major_formatter(form)
    name = "residue number" if numbers is not None else "residue, counted from 1"
    axes.set(xlabel=name, ylabel=name)
    axes.set_title(title, fontsize=11)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, title=legend, title_fontsize=8, ncols=3)
    return figure


def _background(axes: Axes, scores: Float[np.ndarray, "L L"], contacts: Contacts | None) -> None:
    """The map in grey above the diagonal, contacts in light grey below it; pairs without a score are yellow."""
    length = len(scores)
    apart = (_separation(length) >= MIN_SEPARATION) & ~np.isnan(scores)
    below = np.tri(length, k=-1, dtype=bool)
    low, high = _levels(scores, apart)
    grey = 1 - np.clip((scores - low) / (high - low), 0, 1)
    picture = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float64)
    picture[below] = 1.0
    if contacts is not None:
        picture[below & contacts.pairs] = 0.78
        hidden = ~np.outer(contacts.resolved, contacts.resolved)
        picture[below & hidden] = LEFT_OUT
    picture[~apart] = LEFT_OUT
    axes.imshow(picture, interpolation="nearest", extent=(-0.5, length - 0.5, length - 0.5, -0.5))


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
