"""Precision against a brute force, and every case in which there is nothing to score."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plmjac.metrics import RANGES, chance, precision_at, ranked_hits, reason_for_nan
from plmjac.records import Contacts, Coordinates


def random_contacts(length: int, seed: int, density: float = 0.1) -> Contacts:
    generator = np.random.default_rng(seed)
    upper = np.triu(generator.random((length, length)) < density, 1)
    return Contacts(upper | upper.T, generator.random(length) < 0.9)


def brute_force(scores: np.ndarray, contacts: Contacts, low: int, high: int | None, count: int) -> float:
    length = len(scores)
    pairs = [
        (-scores[i, j], i, j)
        for i in range(length)
        for j in range(i + 1, length)
        if j - i >= low and (high is None or j - i < high) and contacts.resolved[i] and contacts.resolved[j]
    ]
    if not any(contacts.pairs[i, j] for _, i, j in pairs):
        return math.nan
    best = sorted(pairs)[: max(1, count)]
    return sum(bool(contacts.pairs[i, j]) for _, i, j in best) / len(best)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.integers(0, 10_000), st.sampled_from(list(RANGES.values())), st.integers(1, 5))
def test_precision_is_the_brute_force(length: int, seed: int, span: tuple[int, int | None], part: int) -> None:
    contacts = random_contacts(length, seed)
    scores = np.random.default_rng(seed + 1).integers(0, 8, (length, length)).astype(float)  # many ties
    ours = precision_at(ranked_hits(scores, contacts, *span), length // part)
    assert ours == pytest.approx(brute_force(scores, contacts, *span, length // part), nan_ok=True)


def test_the_truth_itself_is_perfect_and_its_opposite_worthless() -> None:
    contacts = random_contacts(40, 3)
    hits = ranked_hits(contacts.pairs.astype(float), contacts, 6)
    assert precision_at(hits, int(hits.sum())) == 1.0
    assert precision_at(ranked_hits(-contacts.pairs.astype(float), contacts, 6), 10) == 0.0
    assert chance(hits) == pytest.approx(hits.sum() / len(hits))


def test_ranges_partition_the_pairs() -> None:
    contacts = Contacts(np.zeros((50, 50), bool), np.ones(50, bool))
    sizes = {name: len(ranked_hits(np.zeros(contacts.pairs.shape), contacts, *span)) for name, span in RANGES.items()}
    assert sizes["all"] == sizes["short"] + sizes["medium"] + sizes["long"]


@pytest.mark.parametrize(
    ("length", "density", "resolved", "reason"),
    [(5, 0.5, True, "no pair"), (40, 0.0, True, "no contact"), (40, 0.5, False, "no pair")],
)
def test_nothing_to_score_is_nan_with_a_reason(length: int, density: float, resolved: bool, reason: str) -> None:
    contacts = Contacts(random_contacts(length, 1, density).pairs, np.full(length, resolved))
    hits = ranked_hits(np.zeros((length, length)), contacts, 6)
    assert math.isnan(precision_at(hits, 5)) and math.isnan(chance(hits))
    assert reason in reason_for_nan(hits)


def test_fewer_pairs_than_asked_for_are_all_taken() -> None:
    contacts = Contacts(np.ones((8, 8), bool), np.ones(8, bool))
    assert len(ranked_hits(np.zeros((8, 8)), contacts, 6)) == 3
    assert precision_at(ranked_hits(np.zeros((8, 8)), contacts, 6), 8) == 1.0


def test_contacts_from_coordinates() -> None:
    line = np.arange(6)[:, None] * np.array([[3.8, 0.0, 0.0]])
    beta = line.copy()
    beta[3] = np.nan
    contacts = Coordinates(line, beta).contacts("cb", 8.0)
    expected = np.array([[i != j and abs(i - j) <= 2 and 3 not in (i, j) for j in range(6)] for i in range(6)])
    assert np.array_equal(contacts.pairs, expected)
    assert contacts.resolved.tolist() == [True, True, True, False, True, True]
    assert Coordinates(line, beta).contacts("ca", 8.0).resolved.all()
