"""Energies and patterns: published properties of the table, signs and centring of the patterns, UPGMA as SciPy's."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution.amino_acid_energies import charge, hydropathy, miyazawa_jernigan, patterns
from plmjac.coevolution.linkage import average_linkage


def test_the_energies_are_the_published_ones() -> None:
    """Some entries, and what Li, Tang and Wingreen (1997) found: two eigenvalues, near -22.5 and 18.7, dominate."""
    energies = miyazawa_jernigan()
    assert (energies == energies.T).all()
    assert energies.shape == (20, 20)
    of = {(a, b): energies[AMINO_ACIDS.index(a), AMINO_ACIDS.index(b)] for a in AMINO_ACIDS for b in AMINO_ACIDS}
    assert (of["C", "C"], of["L", "L"], of["K", "K"], of["K", "D"]) == (-5.44, -7.37, -0.12, -1.68)
    assert (of["F", "M"], of["V", "I"], of["G", "A"]) == (-6.56, -6.05, -2.31)
    values = np.linalg.eigvalsh(energies - energies.mean())
    assert values[[0, -1]] == pytest.approx([-22.5, 18.7], abs=0.1)
    assert np.abs(values[1:-1]).max() < 2.5


def test_scales() -> None:
    scale = dict(zip(AMINO_ACIDS, hydropathy(), strict=True))
    assert (scale["I"], scale["R"], scale["G"]) == (4.5, -4.5, -0.4)
    assert {letter for letter, value in zip(AMINO_ACIDS, charge(), strict=True) if value > 0} == {"K", "R"}
    assert {letter for letter, value in zip(AMINO_ACIDS, charge(), strict=True) if value < 0} == {"D", "E"}


def test_patterns_are_centred_symmetric_and_of_the_right_sign() -> None:
    found = patterns(modes=19)
    for pattern in found.values():
        np.testing.assert_allclose(pattern, pattern.T, atol=1e-12)
        np.testing.assert_allclose(pattern.sum(axis=0), 0, atol=1e-9)
    total = sum(pattern for name, pattern in found.items() if name.startswith("mode"))
    np.testing.assert_allclose(total, found["Miyazawa-Jernigan"], atol=1e-9)  # the 20th mode of a centred matrix is 0
    k, d, v, i = (AMINO_ACIDS.index(letter) for letter in "KDVI")
    for name in ("Miyazawa-Jernigan", "charge"):
        assert found[name][k, d] > 0 > found[name][k, k]
    assert found["hydrophobicity"][v, i] > 0 > found["hydrophobicity"][v, d]


@pytest.mark.parametrize("seed", range(4))
def test_average_linkage_is_scipys(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(60, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    for cut in (0.3, 0.8, 1.5, 3.0):
        ours = average_linkage(distances, cut)
        theirs = fcluster(linkage(squareform(distances, checks=False), "average"), cut, "distance")
        assert ((ours[:, None] == ours) == (theirs[:, None] == theirs)).all()
        assert (np.diff(np.bincount(ours)) <= 0).all()
    assert average_linkage(np.zeros((1, 1)), 1.0).tolist() == [0]
