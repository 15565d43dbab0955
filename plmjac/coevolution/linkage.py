"""Average-linkage clustering of a matrix of distances (UPGMA), for up to some thousand items.

Merges the two nearest clusters again and again, the distance of two clusters being the mean over all pairs of their
members. O(N^2) memory and O(N^3) time with a vectorised inner step; no dendrogram is kept.
"""

import numpy as np
from jaxtyping import Float64, Int64


def average_linkage(distances: Float64[np.ndarray, "N N"], cut: float) -> Int64[np.ndarray, " N"]:
    """The cluster of each item, merged while the nearest two are at most `cut` apart; 0 is the largest cluster.

    Clusters of one size are in the order of their first items.
    """
    number = len(distances)
    between = distances.astype(np.float64)
    np.fill_diagonal(between, np.inf)
    sizes = np.ones(number)
    label = np.arange(number)
    nearest = between.argmin(axis=1) if number else np.arange(0)
    for _ in range(number - 1):
        best = between[np.arange(number), nearest]
        first = int(best.argmin())
        if best[first] > cut:
            break
        kept, gone = sorted((first, int(nearest[first])))
        merged = (sizes[kept] * between[kept] + sizes[gone] * between[gone]) / (sizes[kept] + sizes[gone])
        merged[[kept, gone]] = np.inf
        between[kept], between[:, kept] = merged, merged
        between[gone], between[:, gone] = np.inf, np.inf
        sizes[kept] += sizes[gone]
        label[label == gone] = kept
        stale = np.flatnonzero((nearest == kept) | (nearest == gone))
        nearest[stale] = between[stale].argmin(axis=1)
        nearest[kept] = between[kept].argmin()
        closer = between[:, kept] < between[np.arange(number), nearest]
        nearest[closer] = kept
    names, members = np.unique(label, return_inverse=True)
    order = np.argsort(-np.bincount(members, minlength=len(names)), kind="stable")
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    clusters: Int64[np.ndarray, " N"] = rank[members.ravel()]
    return clusters
