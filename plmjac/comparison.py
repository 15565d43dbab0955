"""Means of many proteins with what they are worth: bootstrap intervals, and paired differences between methods.

Proteins are resampled, never pairs of residues: those of one protein are not independent. Percentile intervals, no
correction of bias. Every group of a table draws with a generator of its own from the same seed, so that adding a store
or a map to a comparison leaves all other numbers as they were.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float64

from plmjac.draws import generator

_BLOCK = 2_000_000
"""Draws to hold at a time."""


def bootstrap_means(values: Float64[np.ndarray, "N K"], draws: int, seed: int) -> Float64[np.ndarray, "B K"]:
    """Means of each column over its rows drawn with replacement, `draws` times; NaN rows of a column are not its rows.

    Columns that have the same rows see the same draws. NaN for a column without rows.
    """
    means = np.full((draws, values.shape[1]), np.nan)
    patterns, pattern_of = np.unique(np.isfinite(values), axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        columns = np.flatnonzero(pattern_of.ravel() == number)
        if rows.any():
            means[:, columns] = _means(values[np.ix_(rows, columns)], draws, seed)
    return means


def _means(values: Float64[np.ndarray, "N K"], draws: int, seed: int) -> Float64[np.ndarray, "B K"]:
    count, source = len(values), generator(("bootstrap", seed))
    step = max(1, _BLOCK // count)
    means = np.empty((draws, values.shape[1]))
    for start in range(0, draws, step):
        some = min(step, draws - start)
        chosen = source.integers(count, size=(some, count)) + count * np.arange(some)[:, None]
        times = np.bincount(chosen.ravel(), minlength=some * count).reshape(some, count)
        means[start : start + some] = times @ values / count
    return means


def summary(
    table: pd.DataFrame, by: Sequence[str], measures: Sequence[str], *, draws: int, seed: int, coverage: float = 0.95
) -> pd.DataFrame:
    """Mean, interval and count of each measure in each group of `by`: one row a group and measure.

    Columns: those of `by`, measure, n, mean, low, high. Rows of the table with NaN in a measure are left out of it; a
    group with none left has n = 0 and NaN, and one protein has no interval.
    """
    rows = []
    for labels, group in _groups(table, by):
        values = group[list(measures)].to_numpy(dtype=np.float64)
        means = bootstrap_means(values, draws, seed)
        for column, measure in enumerate(measures):
            scored = values[np.isfinite(values[:, column]), column]
            rows.append({**labels, "measure": measure, **_of_means(scored, means[:, column], coverage, "mean")})
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
    better), worse, p_not_better (share of resamples whose difference is <= 0, the one-sided p of Thorstenson 2026), p
    (two-sided: twice the smaller of the shares <= 0 and >= 0, at least 1 / (draws + 1)). A single protein says nothing
    of others: its interval and p are NaN.
    """
    rows = []
    for labels, group in _groups(table, by):
        wide = {name: rows.set_index(protein)[list(measures)] for name, rows in group.groupby(method, sort=False)}
        for first, second in combinations(wide, 2):
            values = (wide[first] - wide[second]).to_numpy(dtype=np.float64)
            means = bootstrap_means(values, draws, seed)
            for column, measure in enumerate(measures):
                scored = values[np.isfinite(values[:, column]), column]
                found = {
                    **_of_means(scored, means[:, column], coverage, "difference"),
                    "better": int((scored > 0).sum()),
                    "worse": int((scored < 0).sum()),
                    **_p_values(means[:, column] if len(scored) > 1 else np.full(1, np.nan)),
                }
                rows.append({**labels, "measure": measure, "first": first, "second": second, **found})
    columns = ["first", "second", "n", "difference", "low", "high", "better", "worse", "p_not_better", "p"]
    return pd.DataFrame(rows, columns=[*by, "measure", *columns])


def _of_means(
    scored: Float64[np.ndarray, " N"], means: Float64[np.ndarray, " B"], coverage: float, name: str
) -> dict[str, float | int]:
    if len(scored) == 0:
        return {"n": 0, name: np.nan, "low": np.nan, "high": np.nan}
    if len(scored) == 1:  # resampled it is always itself
        return {"n": 1, name: float(scored.mean()), "low": np.nan, "high": np.nan}
    low, high = np.quantile(means, [(1 - coverage) / 2, (1 + coverage) / 2])
    return {"n": len(scored), name: float(scored.mean()), "low": float(low), "high": float(high)}


def _p_values(means: Float64[np.ndarray, " B"]) -> dict[str, float | int]:
    if np.isnan(means).all():
        return {"p_not_better": np.nan, "p": np.nan}
    below, above = float((means <= 0).mean()), float((means >= 0).mean())
    return {"p_not_better": below, "p": min(1.0, max(2 * min(below, above), 1 / (len(means) + 1)))}


def _groups(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    for values, group in table.groupby(list(by), sort=False):
        yield dict(zip(by, values, strict=True)), group


def spearman(first: Float64[np.ndarray, " N"], second: Float64[np.ndarray, " N"]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN for fewer than two values or equal ones."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    ranks = [pd.Series(values).rank().to_numpy() for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
