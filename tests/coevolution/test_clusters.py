"""Groups of sequences: planted families are found, the order and the seed are fixed."""

import numpy as np
import pytest

from plmjac.coevolution.clusters import clusters


def _planted(sizes: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Families around random centres of 40 columns, a tenth of the columns changed; rows in random order."""
    source = np.random.default_rng(seed)
    truth = source.permutation(np.repeat(np.arange(len(sizes)), sizes))
    states = source.integers(0, 20, (len(sizes), 40))[truth]
    changed = source.random(states.shape) < 0.1
    states[changed] = source.integers(0, 20, int(changed.sum()))
    return states.astype(np.int8), truth


def test_planted_families_are_found_largest_first() -> None:
    states, truth = _planted((50, 120, 80))
    found = clusters(states, 3, seed=0)
    assert np.bincount(found).tolist() == [120, 80, 50]
    assert (found == np.array([2, 0, 1])[truth]).all()


def test_the_same_seed_gives_the_same_groups() -> None:
    states = np.random.default_rng(1).integers(0, 21, (200, 30)).astype(np.int8)
    first = clusters(states, 5, seed=3)
    assert (first == clusters(states, 5, seed=3)).all()
    sizes = np.bincount(first)
    assert sizes.sum() == 200
    assert (np.diff(sizes) <= 0).all()


def test_more_clusters_than_sequences_are_refused() -> None:
    states = np.zeros((10, 5), dtype=np.int8)
    with pytest.raises(ValueError, match="2 clusters of 1 different"):
        clusters(states, 2, seed=0)
    with pytest.raises(ValueError, match="two or more"):
        clusters(states, 1, seed=0)
