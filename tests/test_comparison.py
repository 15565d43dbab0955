"""Bootstrap means against draws made one by one, intervals against the normal law, and p where it is known."""

import numpy as np
import pandas as pd
import pytest

from plmjac.comparison import bootstrap_means, paired, summary
from plmjac.draws import generator


def test_means_are_those_of_rows_drawn_one_by_one() -> None:
    values = np.random.default_rng(0).random((7, 3))
    values[[1, 4], 2] = np.nan
    means = bootstrap_means(values, 20, seed=5)
    for columns, rows in (([0, 1], values[:, :2]), ([2], values[~np.isnan(values[:, 2]), 2:])):
        source = generator(("bootstrap", 5))
        chosen = source.integers(len(rows), size=(20, len(rows)))
        expected = [[np.mean([rows[k, c] for k in draw]) for c in range(rows.shape[1])] for draw in chosen]
        np.testing.assert_allclose(means[:, columns], expected)


def test_blocks_are_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((9, 2))
    whole = bootstrap_means(values, 50, seed=0)
    monkeypatch.setattr("plmjac.comparison._BLOCK", 20)
    np.testing.assert_array_equal(bootstrap_means(values, 50, seed=0), whole)


def test_the_interval_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(2).normal(3.0, 1.0, 400)
    row = summary(pd.DataFrame({"g": "x", "m": values}), ["g"], ["m"], draws=4000, seed=0).iloc[0]
    error = values.std(ddof=1) / np.sqrt(400)
    assert row["mean"] == pytest.approx(values.mean()) and row["n"] == 400
    assert [row["low"], row["high"]] == pytest.approx(
        [row["mean"] - 1.96 * error, row["mean"] + 1.96 * error], abs=0.01
    )


def test_p_of_a_difference_is_that_of_the_normal_law() -> None:
    from scipy.stats import norm

    difference = np.random.default_rng(3).normal(0.15, 1.0, 300)
    base = np.random.default_rng(4).random(300)
    names = [f"p{k}" for k in range(300)]
    table = pd.concat(
        [
            pd.DataFrame({"g": "x", "method": "a", "protein": names, "m": base + difference}),
            pd.DataFrame({"g": "x", "method": "b", "protein": names[::-1], "m": base[::-1]}),
            pd.DataFrame({"g": "x", "method": "c", "protein": ["other"], "m": [1.0]}),
        ]
    )
    found = paired(table, ["g"], ["m"], draws=20_000, seed=0).set_index(["first", "second"])
    row = found.loc[("a", "b")]
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(300))
    assert row["p"] == pytest.approx(2 * norm.sf(z), rel=0.25) and row["p_not_better"] == pytest.approx(row["p"] / 2)
    assert (row["better"], row["worse"]) == ((difference > 0).sum(), (difference < 0).sum())
    assert found.loc[("a", "c"), "n"] == 0 and np.isnan(found.loc[("a", "c"), "p"])


def test_nothing_scored_is_nan() -> None:
    row = summary(pd.DataFrame({"g": ["x"], "m": [np.nan]}), ["g"], ["m"], draws=10, seed=0).iloc[0]
    assert row["n"] == 0 and np.isnan([row["mean"], row["low"], row["high"]]).all()


def test_one_protein_has_no_interval_and_no_p() -> None:
    """Resampled it is itself, which would look like certainty."""
    rows = pd.DataFrame({"g": "x", "method": ["a", "b"], "protein": "p", "m": [0.4, 0.1]})
    row = summary(rows[:1], ["g"], ["m"], draws=10, seed=0).iloc[0]
    assert row["n"] == 1 and row["mean"] == 0.4 and np.isnan([row["low"], row["high"]]).all()
    row = paired(rows, ["g"], ["m"], draws=10, seed=0).iloc[0]
    assert row["difference"] == pytest.approx(0.3) and np.isnan([row["low"], row["high"], row["p"]]).all()
