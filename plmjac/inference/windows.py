"""Windows of one protein: their state between blocks of rows, and joining their arrays to those of the protein."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from plmjac.jacobian import Reduction
from plmjac.records import WorkItem


@dataclass(eq=False)
class Window:
    """Residues start <= i < stop of a protein: wild-type tokens and readouts, and the contact map being built.

    Most proteins have a single window, the whole sequence.
    """

    start: int
    stop: int
    rows: tuple[int, int]
    """The residues first <= i < last of the protein that are mutated in the window."""
    tokens: Int64[Tensor, " W"]
    indices: Int64[Tensor, " W"] | None
    compared: dict[str, Tensor]
    reduction: Reduction | None = None
    strength: Float[Tensor, "R W"] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def num_rows(self) -> int:
        """Number of residues that are mutated in the window."""
        return self.rows[1] - self.rows[0]

    def rows_in(self, item: WorkItem) -> tuple[int, int]:
        """The rows first <= i < last of a block that belong to the window; none if first >= last."""
        return max(item.start, self.rows[0]), min(item.stop, self.rows[1])

    def place(self, item: WorkItem) -> tuple[slice, slice]:
        """Rows and columns of the window in an array of the computed rows of the protein."""
        first = item.rows[0]
        return slice(self.rows[0] - first, self.rows[1] - first), slice(self.start, self.stop)


@dataclass(eq=False)
class ProteinState:
    """State shared by the blocks of one protein: letters, windows, and the maps of finished windows."""

    key: str
    letters: Int64[Tensor, "L A"]
    windows: list[Window]
    maps: dict[str, list[Tensor]] = field(default_factory=dict)
    couplings: dict[str, Tensor] = field(default_factory=dict)
    kept: float = field(default_factory=time.monotonic)
    """Time at which a block was last saved to disk, or the protein begun."""


def array_of_protein(
    parts: Sequence[Tensor], windows: Sequence[tuple[int, int]], axes: Sequence[str], length: int
) -> Tensor:
    """Join arrays of windows along their axes L (residues of the window) to the array of the protein."""
    shape = [length if axis == "L" else size for axis, size in zip(axes, parts[0].shape, strict=True)]
    places = [tuple(slice(*window) if axis == "L" else slice(None) for axis in axes) for window in windows]
    return joined(parts, places, shape)


def joined_rows(item: WorkItem, parts: list[tuple[Window, list[Tensor]]]) -> Tensor:
    """Join the rows of windows to the rows of a block (R, A, L, 20)."""
    places = []
    for window, _ in parts:
        first, last = window.rows_in(item)
        rows = slice(first - item.start, last - item.start)
        places.append((rows, slice(None), slice(window.start, window.stop), slice(None)))
    blocks = [of_window[0] for _, of_window in parts]
    shape = (item.stop - item.start, blocks[0].shape[1], len(item.sequence), blocks[0].shape[3])
    return joined(blocks, places, shape)


def joined(parts: Sequence[Tensor], places: Sequence[tuple[slice, ...]], shape: Sequence[int]) -> Tensor:
    """Put arrays of windows in their places in an array of this shape: their mean where they overlap, NaN elsewhere.

    A single array that fills the shape is returned as it is.
    """
    if len(parts) == 1 and parts[0].shape == torch.Size(shape):
        return parts[0]
    total = parts[0].new_zeros(shape)
    every = [all(place[axis] == slice(None) for place in places) for axis in range(len(shape))]
    count = parts[0].new_zeros([1 if whole else size for whole, size in zip(every, shape, strict=True)])
    for part, place in zip(parts, places, strict=True):
        total[place] += part
        count[place] += 1
    return total.div_(count.clamp(min=1)).masked_fill_(count == 0, torch.nan)
