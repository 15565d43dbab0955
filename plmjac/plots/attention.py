"""Precision of attention heads: every head of a model, and the mean of the best K of them."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def attention_heads(
    scores: Float[np.ndarray, "layers heads"],
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    lines: Mapping[str, float],
    measure: str,
    title: str,
) -> Figure:
    """Each head's score as a picture, and beside it the score of the best K heads together, a curve for each set.

    `lines` are scores of other maps of the same proteins, drawn across.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    image = left.imshow(scores, aspect="auto", origin="lower", cmap="viridis", interpolation="nearest")
    left.set_xlabel("head")
    left.set_ylabel("layer")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_title(f"{measure} of each head", fontsize=10)
    figure.colorbar(image, ax=left)
    for name, (sizes, values) in curves.items():
        right.plot(sizes, values, marker="o", label=name)
    for number, (name, value) in enumerate(lines.items()):
        right.axhline(value, linestyle="--", color=f"C{len(curves) + number}", label=name)
    right.set_xscale("log")
    ticks = sorted({size for sizes, _ in curves.values() for size in sizes})
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    right.set_xlabel("K heads averaged")
    right.set_ylabel(measure)
    right.set_ylim(bottom=0)
    right.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure
