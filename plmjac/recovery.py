"""Recovery curves: the part of the contacts recovered by number of residues, jumps, and the smallest segment.

A curve is the recovery R of one segment's contacts at growing steps of a schedule; R = sum(P0 Pm) / sum(P0 P0) over the
segment's block, P0 the contact map of the full sequence and Pm of the masked one. Definitions are those of Zhang et al.
(PNAS 2024) as their notebooks have them. Pure arrays: no store, no table, no figure. Without a model of censoring: the
denominator of a fraction shrinks where segments run out of residues, and is returned with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from plmjac.draws import generator

RECOVERED = 0.5
"""A segment counts as recovered where R is strictly above this."""


@dataclass(frozen=True)
class JumpRule:
    """Rule for a jump of a curve: it rises by `height` or more from one step to the next.

    The jump is stable where of the `window` values from it on at most `exceptions` lie more than `drop` below it.
    """

    height: float = 0.5
    drop: float = 0.2
    window: int = 10
    exceptions: int = 2


@dataclass(frozen=True)
class CurveClass:
    """The class of a curve. `jump` and `stable_jump` are indices into the curve: the first jump of each kind, or None.

    Only a recoverable curve (`highest` above the threshold somewhere) has jumps.
    """

    highest: float
    recoverable: bool
    started_high: bool
    first_recovered: int | None
    jump: int | None
    stable_jump: int | None


def classify(
    recovery: Float[np.ndarray, " F"], rule: JumpRule = JumpRule(), recovered: float = RECOVERED
) -> CurveClass:
    """Classify one curve of at least one value, its steps in order (Zhang et al., notebook 14)."""
    above = np.flatnonzero(recovery > recovered)
    recoverable = len(above) > 0
    found = jumps(recovery, rule) if recoverable else []
    stable = [index for index in found if is_stable(recovery, index, rule)]
    return CurveClass(
        highest=float(recovery.max()),
        recoverable=recoverable,
        started_high=bool(recovery[0] > recovered),
        first_recovered=int(above[0]) if recoverable else None,
        jump=found[0] if found else None,
        stable_jump=stable[0] if stable else None,
    )


def jumps(recovery: Float[np.ndarray, " F"], rule: JumpRule = JumpRule()) -> list[int]:
    """Every index i >= 1 with recovery[i] >= recovery[i - 1] + height."""
    values = recovery.astype(np.float64)
    return [int(index) + 1 for index in np.flatnonzero(values[1:] >= values[:-1] + rule.height)]


def is_stable(recovery: Float[np.ndarray, " F"], index: int, rule: JumpRule = JumpRule()) -> bool:
    """True where the height reached at `index` is kept; a curve that ends inside the window is judged up to its end."""
    values = recovery[index : index + rule.window].astype(np.float64)
    return int((values < values[0] - rule.drop).sum()) <= rule.exceptions


def first_crossing(fractions: Float[np.ndarray, " F"], level: float = 0.5) -> int | None:
    """The first index at which a fraction is strictly above the level; None if it never is. NaN never is."""
    above = np.flatnonzero(fractions > level)
    return int(above[0]) if len(above) else None


@dataclass(frozen=True, eq=False)
class Counts:
    """Recovered segments and segments there are, for each protein and step: the numerator and the denominator.

    With repeats of a random schedule a segment counts as recovered by the share of its repeats that are.
    """

    recovered: Float[np.ndarray, "P F"]
    segments: Float[np.ndarray, "P F"]

    @property
    def fraction(self) -> Float[np.ndarray, " F"]:
        """The share recovered among the segments that have the step; NaN where none has."""
        return _ratio(self.recovered.sum(0), self.segments.sum(0))

    def resampled(self, weights: Float[np.ndarray, "B P"]) -> Float[np.ndarray, "B F"]:
        """The same share in each resample of the proteins."""
        return _ratio(weights @ self.recovered, weights @ self.segments)


def resamples(proteins: Sequence[str], draws: int, seed: int) -> Float[np.ndarray, "B P"]:
    """The count of each protein in each of `draws` bootstrap resamples of them.

    Proteins and not segments are drawn: segments of one protein are not independent. The generator is keyed by the seed
    and the proteins' names, so that curves over the same proteins are resampled alike, whatever else is computed.
    """
    count = len(proteins)
    drawn = generator((seed, "bootstrap", *proteins))
    return drawn.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def interval(samples: Float[np.ndarray, "B *F"], coverage: float = 0.95) -> Float[np.ndarray, "2 *F"]:
    """The central interval of bootstrap samples along the first axis, by percentiles that are samples themselves.

    Nothing is interpolated, so infinity (a level that a resample never crosses) stays what it is. NaN samples are left
    out; NaN where there are no others.
    """
    tail = (1 - coverage) / 2
    known = ~np.isnan(samples).all(axis=0)
    filled = np.where(known, samples, 0.0)
    bounds = np.nanquantile(filled, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return np.where(known, bounds, np.nan)


def crossings(
    fractions: Float[np.ndarray, "B F"], positions: Float[np.ndarray, " F"], level: float = 0.5
) -> Float[np.ndarray, " B"]:
    """The position at which each resample's fraction is first above the level; infinity where it never is."""
    above = fractions > level
    return np.where(above.any(axis=1), positions[above.argmax(axis=1)], np.inf)


@dataclass(frozen=True)
class MinimalSegment:
    """Residues that are enough for a stable jump: the windows, and flanks grown on both sides alike, or unlike."""

    symmetric: int
    asymmetric: int


def minimal_segment(both: int, left: int | None, right: int | None, window: int = 22, extra: int = 0) -> MinimalSegment:
    """The minimal segment of a pair from its stable jumps, each as the length of the flank at the jump.

    `both`: flanks on both sides; `left`, `right`: the flank of that side alone, the other kept at the length `both`;
    None where there is no stable jump, and if both are None the one side counts as `both`. `window`: residues of the
    segment. Zhang et al. (notebook 15) add `extra=1` residue a side to lengths that are already those of the jump.
    """
    one_side = min((length for length in (left, right) if length is not None), default=both)
    return MinimalSegment(window + 2 * (both + extra), window + (one_side + extra) + (both + extra))


def percentile(values: Float[np.ndarray, " N"], share: float = 0.9) -> float:
    """The value at index int(share (N - 1)) of the sorted list, as the authors take it; NaN of an empty one."""
    return float(np.sort(values)[int(share * (len(values) - 1))]) if len(values) else math.nan


def counted(
    protein: Int64[np.ndarray, " N"],
    step: Int64[np.ndarray, " N"],
    recovered: Float[np.ndarray, " N"],
    num_proteins: int,
    num_steps: int,
) -> Counts:
    """Add up rows of one segment at one step: the index of its protein and of its step, and the share recovered."""
    cell = protein * num_steps + step
    shape, size = (num_proteins, num_steps), num_proteins * num_steps
    return Counts(
        np.bincount(cell, weights=recovered, minlength=size).astype(np.float64).reshape(shape),
        np.bincount(cell, minlength=size).astype(np.float64).reshape(shape),
    )


def _ratio(above: Float[np.ndarray, "*S"], below: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    ratio: Float[np.ndarray, "*S"] = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return ratio
