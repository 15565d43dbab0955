"""Ranking of the pairs that touch by a contact map: precision of the top L, L/2 and L/5.

Pairs are unordered, at least `min_separation` apart along the sequence, and both residues resolved; an unresolved
residue is out of the candidates and of the hits alike. Ties keep the order of the pairs (i, then j), so a constant map
scores like a fixed choice and not like luck.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from plmjac.records import Contacts

Range = Literal["all", "short", "medium", "long"]

RANGES: dict[str, tuple[int, int | None]] = {
    "all": (6, None),
    "short": (6, 12),
    "medium": (12, 24),
    "long": (24, None),
}
"""Separations |i - j| as half-open ranges: the field's short, medium and long, and everything from 6 on."""

Pairs = tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]
"""First and second residues of pairs, in step."""


def square(rows: Float[np.ndarray, "R L"], first: int) -> Float[np.ndarray, "L L"]:
    """A map of the rows from `first` on as one of all pairs, the same in both orders; NaN where neither has a row."""
    last = first + len(rows)
    scores: Float[np.ndarray, "L L"] = np.full((rows.shape[1], rows.shape[1]), np.nan, dtype=rows.dtype)
    scores[:, first:last] = rows.T
    scores[first:last] = rows
    return scores


def ranking(scores: Float[np.ndarray, "L L"]) -> Pairs:
    """All ordered pairs i != j with a score, from the highest down, row by row where scores are equal.

    A score that is NaN, of a pair that was not computed (windows, positions), is none: such pairs are never ranked.

    One sort serves every range and every definition of contacts, for a part of a stable order is the order of the part.
    """
    length = len(scores)
    first, second = np.nonzero(~np.eye(length, dtype=bool) & ~np.isnan(scores))
    order = np.argsort(-scores[first, second], kind="stable")
    return first[order], second[order]


def hits_in(ranked: Pairs, contacts: Contacts, low: int = 6, high: int | None = None) -> Bool[np.ndarray, " M"]:
    """Of a ranking, the pairs i < j with low <= j - i < high and both residues resolved: whether each is a contact."""
    first, second = ranked
    return _hits(first, second, contacts, second - first, low, high)


def ordered_hits_in(
    ranked: Pairs, contacts: Contacts, low: int = 24, high: int | None = None
) -> Bool[np.ndarray, " M"]:
    """As `hits_in`, with (i, j) and (j, i) as two pairs, which is how Zhang et al. (2024) count.

    Their "P@L" over these, |i - j| >= 24, is the precision of the top L / 2 pairs.
    """
    first, second = ranked
    return _hits(first, second, contacts, np.abs(second - first), low, high)


def _hits(
    first: Int64[np.ndarray, " N"],
    second: Int64[np.ndarray, " N"],
    contacts: Contacts,
    separation: Int64[np.ndarray, " N"],
    low: int,
    high: int | None,
) -> Bool[np.ndarray, " M"]:
    keep = contacts.resolved[first] & contacts.resolved[second] & (separation >= max(1, low))
    if high is not None:
        keep &= separation < high
    hits: Bool[np.ndarray, " M"] = contacts.pairs[first[keep], second[keep]]
    return hits


def ranked_hits(
    scores: Float[np.ndarray, "L L"], contacts: Contacts, min_separation: int = 6, max_separation: int | None = None
) -> Bool[np.ndarray, " N"]:
    """For the candidate pairs of a map from the highest score down: whether each is a contact."""
    return hits_in(ranking(scores), contacts, min_separation, max_separation)


def precision_at(hits: Bool[np.ndarray, " N"], count: int) -> float:
    """The share of contacts among the first `count` ranked pairs, or among all of them if there are fewer.

    NaN where there is no pair to rank or no contact to find: then no number says anything about the map.
    """
    if len(hits) == 0 or not hits.any():
        return math.nan
    return float(hits[: max(1, count)].mean())


def chance(hits: Bool[np.ndarray, " N"]) -> float:
    """Expected precision of a random ranking: the share of contacts among all candidates; NaN where there are none."""
    return float(hits.mean()) if len(hits) and hits.any() else math.nan


def precisions(hits: Bool[np.ndarray, " N"], counts: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    """`precision_at` for many counts at once: a precision curve."""
    if len(hits) == 0 or not hits.any():
        return np.full(len(counts), math.nan)
    taken = np.clip(counts, 1, len(hits))
    curve: Float64[np.ndarray, " K"] = np.cumsum(hits)[taken - 1] / taken
    return curve


PARTS = {"P@L": 1, "P@L/2": 2, "P@L/5": 5}
"""The usual precisions: of the top L pairs, of L / 2 and of L / 5."""


def scores_of(hits: Bool[np.ndarray, " N"], length: int) -> dict[str, int | float | str]:
    """The columns of a table for one ranking: pairs, contacts, the precisions of `PARTS`, chance, reason (for NaN)."""
    return {
        "pairs": len(hits),
        "contacts": int(hits.sum()),
        **{name: precision_at(hits, length // part) for name, part in PARTS.items()},
        "chance": chance(hits),
        "reason": reason_for_nan(hits),
    }


def in_words(low: int, high: int | None) -> str:
    """A half-open range of separations: "|i-j| >= 6", "6 <= |i-j| < 12"."""
    return f"|i-j| >= {low}" if high is None else f"{low} <= |i-j| < {high}"


def reason_for_nan(hits: Bool[np.ndarray, " N"]) -> str:
    """Reason why a precision is NaN; empty if it is a number."""
    if len(hits) == 0:
        return "no pair of resolved residues in this range"
    return "" if hits.any() else "the structure has no contact in this range"


def scored_pairs(scores: Float[np.ndarray, "L L"], min_separation: int = 6) -> Pairs:
    """The pairs i < j, at least `min_separation` apart, that a map has a score for, in order."""
    first, second = np.triu_indices(len(scores), k=max(1, min_separation))
    there = ~np.isnan(scores[first, second])
    return first[there], second[there]


def best_pairs(scores: Float[np.ndarray, "L L"], count: int, min_separation: int = 6) -> Pairs:
    """The pairs i < j, at least `min_separation` apart, from the highest score down; ties in the order of the pairs.

    Pairs without a score are none of them.
    """
    first, second = scored_pairs(scores, min_separation)
    order = np.argsort(-scores[first, second].astype(np.float64), kind="stable")[:count]
    return first[order], second[order]
