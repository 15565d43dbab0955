"""Intervals by simulation, sign flips against all signs, and what few proteins cannot say."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest

from plmjac.comparison import mean_interval, paired, sign_flip, summary, widened

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
DISTRIBUTIONS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "precisions, low": (lambda rng, shape: rng.beta(2, 5, shape), 2 / 7),
    "precisions, all or nothing": (lambda rng, shape: rng.beta(0.5, 0.5, shape), 0.5),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "heavy tails": (lambda rng, shape: rng.laplace(size=shape), 0.0),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("count", [8, 12, 30])
def test_intervals_cover_the_mean(name: str, count: int) -> None:
    """94 % of 2,000 intervals of 95 % or more, less two standard errors of the simulation (1 %)."""
    draw, mean = DISTRIBUTIONS[name]
    samples = draw(np.random.default_rng(count), (2000, count))
    bounds = np.array([mean_interval(sample, 400, 0) for sample in samples])
    assert ((bounds[:, 0] <= mean) & (mean <= bounds[:, 1])).mean() >= 0.93


@pytest.mark.parametrize("count", [8, 30])
def test_widened_percentiles_cover_a_ratio(count: int) -> None:
    """A ratio of two sums, as recovery curves are: the percentiles that `widened` asks for cover it."""
    rng = np.random.default_rng(count)
    below = rng.uniform(1, 4, (1500, count))
    above = below * rng.beta(3, 3, (1500, count))
    weights = rng.multinomial(count, np.full(count, 1 / count), 1000).astype(float)
    ratios = (above @ weights.T) / (below @ weights.T)
    level = widened(0.95, count)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], axis=1)
    assert ((low <= 0.5) & (high >= 0.5)).mean() >= 0.93
    assert np.isnan(widened(0.95, 5))


def test_the_interval_of_many_is_two_standard_errors() -> None:
    values = np.random.default_rng(2).normal(3.0, 1.0, 400)
    row = summary(pd.DataFrame({"g": "x", "m": values}), ["g"], ["m"], draws=4000, seed=0).iloc[0]
    error = values.std(ddof=1) / np.sqrt(400)
    assert row["mean"] == pytest.approx(values.mean()) and row["n"] == 400
    assert [row["low"], row["high"]] == pytest.approx(
        [row["mean"] - 1.966 * error, row["mean"] + 1.966 * error], abs=1e-3
    )


def all_signs(values: list[float]) -> tuple[float, float]:
    """Both p by going through all signs, in exact fractions of a thousandth."""
    whole = [round(1000 * value) for value in values]
    sums = [
        sum(sign * each for sign, each in zip(signs, whole, strict=True))
        for signs in product((1, -1), repeat=len(whole))
    ]
    observed = sum(whole)
    return np.mean([each >= observed for each in sums]), np.mean([abs(each) >= abs(observed) for each in sums])


@pytest.mark.parametrize("seed", range(12))
def test_sign_flips_are_exact_and_ties_are_ties(seed: int) -> None:
    """Differences of shares of few pairs are full of ties that differ by rounding alone."""
    rng = np.random.default_rng(seed)
    values = (rng.integers(-4, 5, int(rng.integers(6, 13))) / 10 + 0.3 - 0.1 - 0.2).round(3)
    noisy = values + 0.1 + 0.2 - 0.3
    assert sign_flip(noisy, 10, 0) == pytest.approx(all_signs(values.tolist()))


def test_random_signs_come_near_to_all_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(0.3, 1, 16)
    exact = sign_flip(values, 10, 0)
    monkeypatch.setattr("plmjac.comparison.EXACT", 8)
    assert sign_flip(values, 40_000, 0) == pytest.approx(exact, abs=0.01)
    assert min(sign_flip(np.full(30, 0.2), 999, 0)) == 1 / 1000


def test_p_of_a_null_is_uniform() -> None:
    """No more than 5 % (and the error of the simulation) of comparisons without a difference are below 0.05."""
    samples = np.random.default_rng(6).normal(size=(1500, 9))
    found = np.array([sign_flip(sample, 10, 0)[1] for sample in samples])
    assert (found <= 0.05).mean() <= 0.062


def test_methods_are_compared_on_the_proteins_of_both() -> None:
    difference = np.random.default_rng(3).normal(0.15, 1.0, 40)
    base = np.random.default_rng(4).random(40)
    names = [f"p{k}" for k in range(40)]
    parts = [
        pd.DataFrame({"g": "x", "method": "a", "protein": names, "m": base + difference}),
        pd.DataFrame({"g": "x", "method": "b", "protein": names[::-1], "m": base[::-1]}),
        pd.DataFrame({"g": "x", "method": "c", "protein": ["other"], "m": [1.0]}),
    ]
    found = paired(pd.concat(parts), ["g"], ["m"], draws=2000, seed=0).set_index(["first", "second"])
    row = found.loc[("a", "b")]
    assert (row["p_not_better"], row["p"]) == pytest.approx(sign_flip(difference, 2000, 0))
    assert (row["low"], row["high"]) == pytest.approx(mean_interval(difference, 2000, 0))
    assert (row["better"], row["worse"]) == ((difference > 0).sum(), (difference < 0).sum())
    assert found.loc[("a", "c"), "n"] == 0 and np.isnan(found.loc[("a", "c"), "p"])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_proteins_have_no_interval_and_no_p(count: int) -> None:
    values = np.linspace(0.1, 0.4, count)
    row = summary(
        pd.DataFrame({"g": ["x"] * (count + 1), "m": [*values, np.nan]}), ["g"], ["m"], draws=10, seed=0
    ).iloc[0]
    assert row["n"] == count and np.isnan([row["low"], row["high"]]).all()
    assert np.isnan(row["mean"]) if not count else row["mean"] == pytest.approx(values.mean())
    assert np.isnan(sign_flip(values, 10, 0)).all()


def test_equal_values_have_an_interval_of_themselves() -> None:
    assert mean_interval(np.full(7, 0.3), 100, 0) == pytest.approx((0.3, 0.3))
    low, high = mean_interval(np.array([0.0] * 6 + [1.0]), 100, 0)
    assert low < 1 / 7 < high < np.inf
