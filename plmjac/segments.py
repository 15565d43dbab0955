"""Segments of a protein whose contacts are watched: single windows, pairs of windows, or those of a list.

Each way of choosing is a settings object with the paper's thresholds as keys (Zhang et al. 2024; docs/method.md). What
it chooses from is the contact map of the full sequence, P0, and for pairs the secondary structure. Pure: files are read
elsewhere. The authors' own random draws had no seed and cannot be repeated; `list` takes their choices as they are.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from plmjac.draws import Key, shuffled
from plmjac.records import Segment

ListKind = Literal["single", "pairs", "close_pairs"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The grounds for choosing segments of one protein; each way of choosing uses one or two of them."""

    length: int
    contacts: Float[np.ndarray, "L L"] | None = None
    secondary_structure: str | None = None
    listed: Any = None


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Single(_Choice):
    """Windows of `size` residues whose diagonal block of P0, all of it, sums to more than `threshold` (paper, 4a)."""

    name: Literal["single"]
    size: PositiveInt
    margin: NonNegativeInt
    threshold: NonNegativeFloat
    per_protein: PositiveInt | None

    def possible(self, length: int, listed: Any) -> list[Segment]:
        """The windows in the middle of the protein, which have room for the most steps."""
        return _central([diagonal(int(start), self.size) for start in self._starts(length)], self.per_protein, length)

    def choose(self, evidence: Evidence, key: Key) -> list[Segment]:
        """Windows with more than `margin` residues on each side, drawn at random."""
        starts = self._starts(evidence.length)
        sums = _block_sums(_contacts(evidence), self.size)
        chosen = _some(starts[sums[starts, starts] > self.threshold], self.per_protein, key)
        return [diagonal(start, self.size) for start in chosen.tolist()]

    def _starts(self, length: int) -> Int64[np.ndarray, " N"]:
        return np.arange(self.margin + 1, length - self.size - self.margin, dtype=np.int64)


class Pairs(_Choice):
    """Windows around the centres of two strands or helices, in contact with each other (paper, 4b).

    A centre is (start + stop) // 2 of a run; the separation of two is more than `min_separation` and at most
    `max_separation`.
    """

    name: Literal["pairs"]
    size: PositiveInt
    min_separation: NonNegativeInt
    max_separation: PositiveInt | None
    min_strand: PositiveInt
    min_helix: PositiveInt
    margin: NonNegativeInt
    threshold: NonNegativeFloat
    per_protein: PositiveInt | None
    secondary_structure: str | None

    def possible(self, length: int, listed: Any) -> list[Segment]:
        """Pairs as close as may be, in the middle of the protein; one a residue where their number is not limited."""
        apart = max(self.min_separation + 1, self.size)
        first = self.size // 2 + self.margin + 1
        last = length - 2 - self.margin - (self.size - self.size // 2 - 1) - apart
        pairs = [pair_around(center, center + apart, self.size) for center in range(first, last + 1)]
        return _central(pairs, self.per_protein, length)

    def choose(self, evidence: Evidence, key: Key) -> list[Segment]:
        """Pairs with more than `margin` residues outside them, drawn at random."""
        if evidence.secondary_structure is None:
            raise ValueError(
                "segments=pairs needs its secondary structure: use a dataset with backbone coordinates (pdb), or "
                "segments.secondary_structure=FILE.json with a string of H, E and - for each protein"
            )
        pairs = self.candidates(evidence.secondary_structure, evidence.length)
        contacts = _contacts(evidence)
        touching = [pair for pair in pairs if _block_sum(contacts, pair) > self.threshold]
        picked = _some(np.arange(len(touching), dtype=np.int64), self.per_protein, key)
        return [touching[number] for number in picked.tolist()]

    def candidates(self, secondary_structure: str, length: int) -> list[Segment]:
        """Every pair of the right separation with room around it, in contact or not, in order."""
        if len(secondary_structure) != length:
            raise ValueError(
                f"a secondary structure of {len(secondary_structure)} letters for {length} residues; one a residue"
            )
        centers = self.centers(secondary_structure)
        widest = self.max_separation or length
        pairs = [
            pair_around(first, second, self.size)
            for first in centers
            for second in centers
            if self.min_separation < second - first <= widest and second - first >= self.size
        ]
        return [pair for pair in pairs if min(pair.start1, length - pair.stop2 - 1) > self.margin]

    def centers(self, secondary_structure: str) -> list[int]:
        """The middle of every strand (E) and helix (H) that is long enough."""
        runs = re.finditer("E+|H+", secondary_structure)
        least = {"E": self.min_strand, "H": self.min_helix}
        return [(run.start() + run.end()) // 2 for run in runs if len(run[0]) >= least[run[0][0]]]


class ClosePairs(_Choice):
    """Two windows with `gap` residues between them, in contact with each other (paper's revision, 4c)."""

    name: Literal["close_pairs"]
    size: PositiveInt
    gap: NonNegativeInt
    margin: NonNegativeInt
    threshold: NonNegativeFloat
    per_protein: PositiveInt | None

    def possible(self, length: int, listed: Any) -> list[Segment]:
        """The pairs in the middle of the protein, which have room for the most steps."""
        pairs = [close_pair(int(start), self.size, self.gap) for start in self._starts(length)]
        return _central(pairs, self.per_protein, length)

    def _starts(self, length: int) -> Int64[np.ndarray, " N"]:
        return np.arange(self.margin + 1, length - 2 * self.size - self.gap - 1 - self.margin, dtype=np.int64)

    def choose(self, evidence: Evidence, key: Key) -> list[Segment]:
        """Pairs with more than `margin` residues outside them, far from one another."""
        starts = self._starts(evidence.length)
        sums = _block_sums(_contacts(evidence), self.size)
        touching = starts[sums[starts, starts + self.size + self.gap] > self.threshold]
        return [close_pair(start, self.size, self.gap) for start in _spread(touching, self.per_protein, key).tolist()]


class Listed(_Choice):
    """The segments of a JSON file: for each protein the starts of windows (single, close_pairs) or pairs of centres."""

    name: Literal["list"]
    path: str
    kind: ListKind
    size: PositiveInt | None
    gap: NonNegativeInt | None

    @model_validator(mode="after")
    def _gap_of_close_pairs(self) -> "Listed":
        if self.gap is not None and self.kind != "close_pairs":
            raise ValueError(f"gap has no effect with kind={self.kind}; it is the distance of close_pairs")
        return self

    def possible(self, length: int, listed: Any) -> list[Segment]:
        """The segments in the list for a protein, exactly."""
        return self._segments(listed)

    def choose(self, evidence: Evidence, key: Key) -> list[Segment]:
        """The segments in the list for this protein, in its order; none where it is not listed."""
        return self._segments(evidence.listed)

    def _segments(self, listed: Any) -> list[Segment]:
        make = self._maker()
        segments = []
        if not isinstance(listed, list | None):
            raise ValueError(f"{self.path}: {listed!r} is no list of segments; write [{listed!r}] for a single one")
        for entry in listed or []:
            numbers = entry if isinstance(entry, list) else [entry]
            expected = 2 if self.kind == "pairs" else 1
            if len(numbers) != expected or not all(type(number) is int for number in numbers):
                what = "[centre, centre]" if self.kind == "pairs" else "the start of a window"
                raise ValueError(f"{self.path}: {entry!r} is not {what}, which kind={self.kind} expects")
            segments.append(make(*numbers))
        return segments

    def _maker(self) -> Callable[..., Segment]:
        size = self.size or (22 if self.kind == "single" else 11)
        gap = 5 if self.gap is None else self.gap
        makers: dict[ListKind, Callable[..., Segment]] = {
            "single": lambda start: diagonal(start, size),
            "pairs": lambda first, second: pair_around(min(first, second), max(first, second), size),
            "close_pairs": lambda start: close_pair(start, size, gap),
        }
        return makers[self.kind]


AnySegments = Single | Pairs | ClosePairs | Listed
"""The ways of choosing segments, told apart by `name`."""


def diagonal(start: int, size: int) -> Segment:
    """A single window."""
    return Segment(start, start + size, start, start + size)


def pair_around(first: int, second: int, size: int) -> Segment:
    """Windows around two centres."""
    start1, start2 = first - size // 2, second - size // 2
    return Segment(start1, start1 + size, start2, start2 + size)


def close_pair(start: int, size: int, gap: int) -> Segment:
    """Two windows with `gap` residues between them."""
    return Segment(start, start + size, start + size + gap, start + 2 * size + gap)


def recoveries(
    reference: Float[np.ndarray, "S W W"], blocks: Float[np.ndarray, "N W W"], segment: Int32[np.ndarray, " N"]
) -> Float32[np.ndarray, " N"]:
    """R = sum(P0 Pm) / sum(P0 P0) over each context's block, summed in float64 (Zhang et al. 2024).

    Raises ValueError where a segment has no contacts at all in the full sequence.
    """
    expected = reference.astype(np.float64)
    norms = (expected**2).sum(axis=(1, 2))
    if not norms.all():
        raise ValueError("the full sequence's contact map is zero all over a segment: there is nothing to recover")
    overlap = (expected[segment] * blocks).sum(axis=(1, 2))
    return np.asarray(overlap / norms[segment], dtype=np.float32)


def _central(segments: list[Segment], number: int | None, length: int) -> list[Segment]:
    """So many of the segments nearest to the middle of the protein."""
    return sorted(segments, key=lambda segment: abs(segment.start1 + segment.stop2 - length))[:number]


def _contacts(evidence: Evidence) -> Float64[np.ndarray, "L L"]:
    if evidence.contacts is None:
        raise ValueError("segments are chosen by the contact head, which this model does not have; use segments=list")
    return evidence.contacts.astype(np.float64)


def _block_sums(contacts: Float64[np.ndarray, "L L"], size: int) -> Float64[np.ndarray, "P P"]:
    """The sum of every size x size block by its upper left corner, from sums over whole rectangles."""
    if len(contacts) < size:
        return np.zeros((0, 0))
    corner = np.pad(contacts, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums: Float64[np.ndarray, "P P"] = (
        corner[size:, size:] - corner[:-size, size:] - corner[size:, :-size] + corner[:-size, :-size]
    )
    return sums


def _block_sum(contacts: Float64[np.ndarray, "L L"], segment: Segment) -> float:
    return float(contacts[segment.start1 : segment.stop1, segment.start2 : segment.stop2].sum())


def _some(values: Int64[np.ndarray, " N"], number: int | None, key: Key) -> Int64[np.ndarray, " K"]:
    """At most so many of the values, drawn at random, in their order."""
    return np.sort(shuffled(values, (*key, "segments"))[:number])


def _spread(starts: Int64[np.ndarray, " N"], number: int | None, key: Key) -> Int64[np.ndarray, " K"]:
    """At most so many starts far from one another: one at random, then each time the farthest from those taken."""
    if len(starts) == 0:
        return starts
    taken = shuffled(starts, (*key, "segments"))[:1].tolist()
    while len(taken) < min(len(starts), number or len(starts)):
        distances = np.abs(starts[:, None] - np.array(taken)[None, :]).min(axis=1)
        taken.append(int(starts[distances.argmax()]))
    return np.sort(np.array(taken, dtype=np.int64))
