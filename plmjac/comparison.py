"""Means over proteins with intervals, and paired comparisons of methods, for few proteins as for many.

Proteins are the sample, never pairs of residues: those of one protein are not independent. Every group of a table draws
with a generator of its own from the same seed, so that adding a store or a map to a comparison leaves all other numbers
as they were.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy.stats import norm, t

from plmjac.draws import generator

MIN_PROTEINS = 6
"""Fewer proteins have neither an interval nor a p: with five, no p of a sign-flip test is below 0.06."""

MOST_RESAMPLED = 100
"""Of more proteins than this the interval is Student's alone, which the resamples would not widen."""

EXACT = 20
"""Up to so many proteins a sign-flip test goes through all signs, above it through a random choice of them."""


def mean_interval(
    values: Float64[np.ndarray, " N"], draws: int, seed: int, coverage: float = 0.95
) -> tuple[float, float]:
    """The interval of a mean: on either side the wider one of Student's t and of the studentised bootstrap.

    Student's interval alone covers a skewed distribution too seldom, the percentile bootstrap any distribution (88 %
    for 95 % at eight values). NaN for fewer than MIN_PROTEINS values.
    """
    count = len(values)
    if count < MIN_PROTEINS:
        return np.nan, np.nan
    values = np.sort(values)  # the order of the proteins changes no number
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(count)
    tail = (1 - coverage) / 2
    below, above = np.array([1, -1]) * t.ppf(1 - tail, count - 1)
    if count <= MOST_RESAMPLED and error > 1e-12 * (1 + abs(mean)):
        weights = _weights(count, draws, seed)
        means = weights @ values
        spreads = np.sqrt(np.maximum(weights @ (values - mean) ** 2 - (means - mean) ** 2, 0) / (count - 1))
        known = spreads > 1e-6 * error
        low, high = np.quantile((means - mean)[known] / spreads[known], [tail, 1 - tail])
        below, above = max(below, high), min(above, low)
    return mean - below * error, mean - above * error


def sign_flip(differences: Float64[np.ndarray, " N"], draws: int, seed: int) -> tuple[float, float]:
    """One-sided (mean not above 0) and two-sided p of paired differences by the sign-flip test.

    Under the null each difference is as likely to have the other sign: p is the share of all choices of signs whose sum
    is as large as the one observed, exact up to 20 proteins, above it with `draws` random choices and the observed one.
    Sums that differ by rounding alone are equal. NaN for fewer than MIN_PROTEINS differences.
    """
    count = len(differences)
    if count < MIN_PROTEINS:
        return np.nan, np.nan
    differences = np.sort(differences)
    observed, slack = float(differences.sum()), 1e-9 * float(np.abs(differences).sum())
    if count <= EXACT:
        sums = differences[:1].astype(np.float64)  # its other sign mirrors all the others
        for difference in differences[1:]:
            sums = np.concatenate([sums + difference, sums - difference])
        larger = np.concatenate([sums, -sums]) >= observed - slack
        return float(larger.mean()), float((np.abs(sums) >= abs(observed) - slack).mean())
    source = generator(("sign flip", seed))
    signs = source.integers(2, size=(draws, count), dtype=np.int8)
    sums = observed - 2 * (signs @ differences)
    one, two = (sums >= observed - slack).sum(), (np.abs(sums) >= abs(observed) - slack).sum()
    return (1 + float(one)) / (1 + draws), (1 + float(two)) / (1 + draws)


def widened(coverage: float, count: int) -> float:
    """The coverage to ask of a percentile bootstrap of `count` proteins for it to cover `coverage`; NaN for too few.

    A bootstrap of n values has sqrt((n - 1) / n) of their spread and knows nothing of Student's t (Hesterberg 2015);
    what is left is made up for by a twentieth.
    """
    if count < MIN_PROTEINS:
        return float("nan")
    wide = t.ppf((1 + coverage) / 2, count - 1) * np.sqrt(count / (count - 1)) * (1 + 0.4 / count)
    return float(1 - 2 * norm.sf(wide))


@lru_cache(maxsize=16)
def _weights(count: int, draws: int, seed: int) -> Float64[np.ndarray, "B N"]:
    """The share of each of `count` values in each resample."""
    chosen = generator(("bootstrap", seed)).integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
    weights: Float64[np.ndarray, "B N"] = (
        np.bincount(chosen.ravel(), minlength=draws * count).reshape(draws, count) / count
    )
    return weights


def summary(
    table: pd.DataFrame, by: Sequence[str], measures: Sequence[str], *, draws: int, seed: int, coverage: float = 0.95
) -> pd.DataFrame:
    """Mean, interval and count of each measure in each group of `by`: one row a group and measure.

    Columns: those of `by`, measure, n, mean, low, high. Rows of the table with NaN in a measure are left out of it; a
    group with none left has n = 0 and NaN, and fewer than MIN_PROTEINS have no interval.
    """
    rows = []
    for labels, group in _groups(table, by):
        for measure in measures:
            values = _known(group[measure])
            low, high = mean_interval(values, draws, seed, coverage)
            mean = float(values.mean()) if len(values) else np.nan
            rows.append({**labels, "measure": measure, "n": len(values), "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*by, "measure", "n", "mean", "low", "high"])


def paired(
    table: pd.DataFrame,
    by: Sequence[str],
    measures: Sequence[str],
    *,
    method: str = "method",
    protein: str = "protein",
    draws: int,
    seed: int,
    coverage: float = 0.95,
) -> pd.DataFrame:
    """Every two methods of each group of `by` on the proteins that both have scored: first minus second.

    Columns: those of `by`, measure, first, second, n, difference, low, high, better (proteins on which the first is
    better), worse, p_not_better (one-sided) and p (two-sided) of the sign-flip test. Fewer than MIN_PROTEINS proteins
    have neither interval nor p.
    """
    rows = []
    for labels, group in _groups(table, by):
        wide = {name: rows.set_index(protein)[list(measures)] for name, rows in group.groupby(method, sort=False)}
        for first, second in combinations(wide, 2):
            both = wide[first] - wide[second]
            for measure in measures:
                values = _known(both[measure])
                slack = 1e-9 * (1 + np.abs(values).max(initial=0))
                low, high = mean_interval(values, draws, seed, coverage)
                one_sided, two_sided = sign_flip(values, draws, seed)
                found = {
                    "n": len(values),
                    "difference": float(values.mean()) if len(values) else np.nan,
                    "low": low,
                    "high": high,
                    "better": int((values > slack).sum()),
                    "worse": int((values < -slack).sum()),
                    "p_not_better": one_sided,
                    "p": two_sided,
                }
                rows.append({**labels, "measure": measure, "first": first, "second": second, **found})
    columns = ["first", "second", "n", "difference", "low", "high", "better", "worse", "p_not_better", "p"]
    return pd.DataFrame(rows, columns=[*by, "measure", *columns])


def _known(column: "pd.Series[float]") -> Float64[np.ndarray, " N"]:
    values = column.to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]


def _groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    for values, group in table.groupby(list(by), sort=False):
        yield dict(zip(by, values, strict=True)), group


def spearman(first: Float64[np.ndarray, " N"], second: Float64[np.ndarray, " N"]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN for fewer than two values or equal ones."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    ranks = [pd.Series(values).rank().to_numpy() for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
