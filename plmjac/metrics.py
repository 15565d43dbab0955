"""How well a contact map ranks the pairs that touch: precision of the top L, L/2 and L/5.

Pairs are unordered, at least `min_separation` apart along the sequence, and both residues resolved; an unresolved
residue is out of the candidates and of the hits alike. Ties keep the order of the pairs (i, then j), so a constant map
scores like a fixed choice and not like luck.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int64

from plmjac.records import Contacts

RANGES: dict[str, tuple[int, int | None]] = {
    "all": (6, None),
    "short": (6, 12),
    "medium": (12, 24),
    "long": (24, None),
}
"""Separations |i - j| as half-open ranges: the field's short, medium and long, and everything from 6 on."""


def candidate_pairs(
    contacts: Contacts, min_separation: int = 6, max_separation: int | None = None
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Pairs i < j with min_separation <= j - i < max_separation whose residues are both resolved, in order."""
    first, second = np.triu_indices(len(contacts.resolved), k=max(1, min_separation))
    keep = contacts.resolved[first] & contacts.resolved[second]
    if max_separation is not None:
        keep &= second - first < max_separation
    return first[keep], second[keep]


def ranked_hits(
    scores: Float[np.ndarray, "L L"], contacts: Contacts, min_separation: int = 6, max_separation: int | None = None
) -> Bool[np.ndarray, " N"]:
    """For the candidate pairs from the highest score down: whether each is a contact."""
    first, second = candidate_pairs(contacts, min_separation, max_separation)
    order = np.argsort(-scores[first, second], kind="stable")
    hits: Bool[np.ndarray, " N"] = contacts.pairs[first, second][order]
    return hits


def precision_at(hits: Bool[np.ndarray, " N"], count: int) -> float:
    """The share of contacts among the first `count` ranked pairs, or among all of them if there are fewer.

    NaN where there is no pair to rank or no contact to find: then no number says anything about the map.
    """
    if len(hits) == 0 or not hits.any():
        return math.nan
    return float(hits[: max(1, count)].mean())


def chance(hits: Bool[np.ndarray, " N"]) -> float:
    """What a random ranking would score: the share of contacts among all candidates; NaN where there are none."""
    return float(hits.mean()) if len(hits) and hits.any() else math.nan


def reason_for_nan(hits: Bool[np.ndarray, " N"]) -> str:
    """Why a precision is NaN, in words; empty where it is a number."""
    if len(hits) == 0:
        return "no pair of resolved residues in this range"
    return "" if hits.any() else "the structure has no contact in this range"
