"""Groups of like sequences in an alignment, so that a baseline can be computed on each part of a family.

k-means on one-hot rows: every sequence is in one group, groups are few and large enough for a covariance, unlike those
of density clustering (AF-Cluster's DBSCAN leaves most sequences out and makes hundreds of groups of ten).
"""

import numpy as np
from jaxtyping import Float32, Int8, Int64

from plmjac.coevolution.covariance import one_hot
from plmjac.draws import generator

MAX_ROUNDS = 100


def clusters(states: Int8[np.ndarray, "N C"], number: int, seed: int) -> Int64[np.ndarray, " N"]:
    """The group of each row, 0 to at most number - 1, the largest group first; the same seed gives the same groups.

    k-means++ with squared Euclidean distances between one-hot rows, that is twice the number of differing columns
    between two sequences. Raises ValueError for fewer than two groups or fewer different rows than groups.
    """
    if number < 2:
        raise ValueError(f"{number} clusters; give two or more")
    if len(np.unique(states, axis=0)) < number:
        raise ValueError(f"{number} clusters of {len(np.unique(states, axis=0))} different sequences")
    rows = one_hot(states).astype(np.float32)
    centres = _first_centres(rows, number, seed)
    labels = _nearest(rows, centres)
    for _ in range(MAX_ROUNDS):
        for group in np.unique(labels):
            centres[group] = rows[labels == group].mean(axis=0)
        before, labels = labels, _nearest(rows, centres)
        if np.array_equal(before, labels):
            break
    used, counts = np.unique(labels, return_counts=True)
    rank = np.empty(number, dtype=np.int64)
    rank[used[np.argsort(-counts, kind="stable")]] = np.arange(len(used))
    ranked: Int64[np.ndarray, " N"] = rank[labels]
    return ranked


def _first_centres(rows: Float32[np.ndarray, "N D"], number: int, seed: int) -> Float32[np.ndarray, "K D"]:
    """k-means++: each next centre is a row drawn with the chance of its squared distance to the nearest centre."""
    source = generator(("clusters", seed))
    chosen = [int(source.integers(len(rows)))]
    distance = _distances(rows, rows[chosen])[:, 0]
    while len(chosen) < number:
        chosen.append(int(source.choice(len(rows), p=distance / distance.sum())))
        distance = np.minimum(distance, _distances(rows, rows[chosen[-1:]])[:, 0])
    return rows[chosen].copy()


def _nearest(rows: Float32[np.ndarray, "N D"], centres: Float32[np.ndarray, "K D"]) -> Int64[np.ndarray, " N"]:
    nearest: Int64[np.ndarray, " N"] = _distances(rows, centres).argmin(axis=1)
    return nearest


def _distances(rows: Float32[np.ndarray, "N D"], centres: Float32[np.ndarray, "K D"]) -> np.ndarray:
    """Squared distances, in float64 and never negative."""
    product = rows.astype(np.float64) @ centres.astype(np.float64).T
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)[:, None] + (centres.astype(np.float64) ** 2).sum(axis=1)
    distances: np.ndarray = np.maximum(squares - 2 * product, 0)
    return distances
