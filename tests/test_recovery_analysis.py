"""Recovery curves against brute force, against what is known by construction, and against the authors' own numbers."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SHARED

from plmjac.recovery import (
    JumpRule,
    classify,
    first_crossing,
    minimal_segment,
    percentile,
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
