"""The contact map of one protein: scores above the diagonal, the structure and the best pairs below."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from plmjac.metrics import Pairs
from plmjac.plots.maps import LEFT_OUT, MIN_SEPARATION
from plmjac.records import Contacts

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
    first, second = np.indices(scores.shape)
    apart = (np.abs(first - second) >= MIN_SEPARATION) & ~np.isnan(scores)
    shown = scores[apart] if apart.any() else np.zeros(1)
    low, high = np.quantile(shown, [0.5, 0.995])
    grey = 1 - np.clip((scores - low) / max(float(high - low), 1e-9), 0, 1)
    picture = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float64)
    below = first > second
    picture[below] = 1.0
    if contacts is not None:
        picture[below & contacts.pairs] = 0.78
        hidden = ~np.outer(contacts.resolved, contacts.resolved)
        picture[below & hidden] = LEFT_OUT
    picture[~apart] = LEFT_OUT
    axes.imshow(picture, interpolation="nearest", extent=(-0.5, length - 0.5, length - 0.5, -0.5))
