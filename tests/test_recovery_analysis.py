"""Recovery curves against brute force, against what is known by construction, and against the authors' own numbers."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SHARED

from plmjac.recovery import (
    JumpRule,
    classify,
    counted,
    crossings,
    first_crossing,
    interval,
    minimal_segment,
    percentile,
    resamples,
    sign_test,
)

VALUES = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.45, 0.5, 0.55, 0.7, 0.9, 1.0, 1.2]), min_size=1, max_size=30)
CURVES = SHARED / "zhang2024" / "digitized_reference_curves.json"


def reference() -> dict[str, dict]:
    if not CURVES.exists():
        pytest.skip(f"the digitised curves are not here ({CURVES})")
    return json.loads(CURVES.read_text())


@settings(deadline=None, max_examples=200)
@given(VALUES, st.integers(1, 12), st.integers(0, 3))
def test_jumps_are_the_words_of_the_definition(y: list[float], window: int, exceptions: int) -> None:
    any_jump = stable = None
    for i in range(1, len(y)):
        if y[i] >= y[i - 1] + 0.5:
            any_jump = i if any_jump is None else any_jump
            low = 0
            for value in y[i : i + window]:
                if value < y[i] - 0.2:
                    low += 1
            if low <= exceptions and stable is None:
                stable = i
    found = classify(np.array(y), JumpRule(window=window, exceptions=exceptions))
    recoverable = max(y) > 0.5
    assert found.recoverable == recoverable and found.started_high == (y[0] > 0.5) and found.highest == max(y)
    assert found.first_recovered == next((i for i, value in enumerate(y) if value > 0.5), None)
    assert (found.jump, found.stable_jump) == ((any_jump, stable) if recoverable else (None, None))


def test_jumps_of_known_curves() -> None:
    step = np.r_[np.zeros(14), np.full(20, 0.8)]
    assert (classify(step).jump, classify(step).stable_jump) == (14, 14)
    spike = np.r_[np.zeros(5), 0.9, np.zeros(9), np.full(8, 0.7)]  # a jump that does not last, then one that does
    assert (classify(spike).jump, classify(spike).stable_jump) == (5, 15)
    slow = np.linspace(0, 1, 30)
    assert classify(slow).recoverable and classify(slow).jump is None
    assert not classify(np.array([0.0, 0.5])).recoverable  # 0.5 is not above 0.5
    assert classify(np.array([0.7])) == classify(np.array([0.7], dtype=np.float32).astype(float).round(6))
    assert classify(np.array([0.7])).jump is None  # one value of the flank: started high, and nothing to compare with


@pytest.mark.parametrize("seed", range(4))
def test_fractions_and_their_resamples_are_the_brute_force(seed: int) -> None:
    """Segments of different lengths in several proteins: what is above 0.5 over what there is, each resample."""
    generator = np.random.default_rng(seed)
    curves = [
        (p, generator.random(generator.integers(1, 9))) for p in range(5) for _ in range(generator.integers(0, 4))
    ]
    rows = [(p, f, float(value > 0.5)) for p, y in curves for f, value in enumerate(y)]
    protein, step, recovered = (np.array(column) for column in zip(*rows, strict=True))
    counts = counted(protein, step, recovered.astype(float), 5, 9)
    weights = resamples(list("abcde"), 7, seed)
    drawn = counts.resampled(weights)
    assert (weights.sum(1) == 5).all()
    for f in range(9):
        there = [value > 0.5 for _, y in curves for i, value in enumerate(y) if i == f]
        assert counts.segments[:, f].sum() == len(there)
        assert counts.fraction[f] == pytest.approx(np.mean(there) if there else math.nan, nan_ok=True)
        for b, weight in enumerate(weights):
            again = [y[f] > 0.5 for p, y in curves for _ in range(int(weight[p])) if f < len(y)]
            assert drawn[b, f] == pytest.approx(np.mean(again) if again else math.nan, nan_ok=True)


def test_resamples_depend_on_seed_and_proteins_alone() -> None:
    assert np.array_equal(resamples(["a", "b", "c"], 5, 0), resamples(["a", "b", "c"], 5, 0))
    assert not np.array_equal(resamples(["a", "b", "c"], 5, 0), resamples(["a", "b", "c"], 5, 1))
    assert not np.array_equal(resamples(["a", "b", "c"], 5, 0), resamples(["a", "b", "d"], 5, 0))


def test_intervals() -> None:
    samples = np.arange(1000.0)[:, None] * np.array([[1.0, 2.0, math.nan]])
    low, high = interval(samples, 0.9)
    assert low.tolist()[:2] == [49, 98] and high.tolist()[:2] == [949, 1898] and math.isnan(low[2])
    fractions = np.array([[0.1, 0.6, 0.4], [0.5, 0.5, 0.51], [0.0, 0.1, 0.2], [math.nan, math.nan, 0.9]])
    where = crossings(fractions, np.array([0.0, 10.0, 20.0]))
    assert where.tolist() == [10, 20, math.inf, 20]
    assert interval(where, 0.5).tolist() == [10, 20] and interval(where, 0.99)[1] == math.inf


def test_a_bootstrap_interval_covers() -> None:
    """Proteins that recover with probability 0.3: the 90 % interval holds 0.3 about nine times in ten."""
    generator, hits = np.random.default_rng(0), 0
    for trial in range(200):
        recovered = (generator.random((60, 1)) < 0.3).astype(float)
        protein = np.arange(60)
        counts = counted(protein, np.zeros(60, dtype=np.int64), recovered[:, 0], 60, 1)
        low, high = interval(counts.resampled(resamples([str(p) for p in protein], 300, trial)), 0.9)[:, 0]
        hits += low <= 0.3 <= high
    assert 0.82 <= hits / 200 <= 0.97


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_sign_test_is_the_binomial_test(wins: int, losses: int) -> None:
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected)


def test_sign_test_of_very_many() -> None:
    assert 0 < sign_test(5000, 4000) < 1e-20


def test_first_crossings_of_the_authors_curves() -> None:
    """25 / 49 / 53 for one segment and 41 / 78 / 81 for pairs over 100 apart, in the order of their legend."""
    expected = {"single": [25, 49, 53], "pair_gt100": [41, 78, 81]}
    curves = reference()
    for name, steps in expected.items():
        found = []
        for schedule in ("flank", "random", "random_no30"):
            points = {int(f): value for f, value in curves[name][schedule].items() if value is not None}
            fractions = np.array([points[f] for f in sorted(points)]) / 100
            index = first_crossing(fractions)
            assert index is not None
            found.append(sorted(points)[index])
        assert found == steps


def test_minimal_segments_are_the_authors_formula() -> None:
    """total = 22 + (m + 1) + (both + 1) with m the smaller side, or `both` itself; symmetric 2 (both + 1 + 11)."""
    for both, left, right, m in [(30, 12, 20, 12), (30, None, 20, 20), (30, 12, None, 12), (30, None, None, 30)]:
        found = minimal_segment(both, left, right, extra=1)
        assert found.asymmetric == 22 + (m + 1) + (both + 1) and found.symmetric == 2 * (both + 1 + 11)
        plain = minimal_segment(both, left, right)
        assert (found.asymmetric - plain.asymmetric, found.symmetric - plain.symmetric) == (2, 2)


def test_the_authors_percentile_lies_in_the_bin_of_the_one_they_print() -> None:
    histogram = reference()["minimum_segment_gt100_asym_hist"]
    low = np.repeat(np.array(histogram["bins_start"], dtype=float), histogram["counts"])
    assert len(low) == histogram["n"] == 103
    assert percentile(low) <= histogram["p90_printed"] < percentile(low) + 10
    assert percentile(np.array([5.0])) == 5 and math.isnan(percentile(np.zeros(0)))
    assert percentile(np.arange(11.0)) == 9 and percentile(np.arange(11.0)[::-1], 0.5) == 5
