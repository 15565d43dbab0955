"""Correlation of a model's couplings with those of the protein's family (figure 4E of Zhang et al. 2024), and any pair.

Over the top L pairs of the inverse covariance's contact map (i < j, no smallest separation), the Spearman correlation
of the centred, symmetrised Jacobian with the couplings of the inverse covariance that are larger than a multiple of
their root mean square. Both count a positive coupling as found together, so the sign matters, unlike in contact maps.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from plmjac import plots
from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution import Query, inverse_covariance, load_alignment_for, read_queries
from plmjac.coevolution.covariance import coupling_map, memory_needed
from plmjac.comparison import spearman, summary
from plmjac.config import Keys
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import NoCouplings, couplings_of, scored, stored_proteins
from plmjac.evaluation.tables import lines_of, not_scored, with_interval
from plmjac.store import StoredProtein

READS_STRUCTURES = False

PAPER = {"8M": (0.075, 0.174, 0.214, 0.229, 0.229), "35M": (0.110, 0.264, 0.328, 0.356, 0.360),
         "150M": (0.134, 0.325, 0.404, 0.435, 0.439), "3B": (0.130, 0.332, 0.419, 0.452, 0.456)}  # fmt: skip
"""Means of the paper over 1,431 proteins at cut-offs 0, 1, 2, 3, 4 (read off the figure, +- 0.003), by ESM-2's size."""

GB = 1e9


class Settings(Keys):
    """The keys of conf/evaluation/coupling_correlation.yaml."""

    name: Literal["coupling_correlation"]
    alignments: Path
    queries: Path | None
    max_sequences: PositiveInt | None
    min_identity: float = Field(ge=0, le=1)
    memory_limit: PositiveFloat
    sigmas: tuple[NonNegativeFloat, ...] = Field(min_length=1)
    protein: str | None
    pair: tuple[NonNegativeInt, NonNegativeInt] | None
    bootstrap: PositiveInt
    seed: NonNegativeInt


COLUMNS = [
    "protein", "store", "model", "length", "columns", "sequences", "identity", "sigma", "couplings", "spearman",
    "reason",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Couplings:
    """Both tensors of one protein, between those residues (`positions`) that are columns of its alignment."""

    positions: Int64[np.ndarray, " C"]
    jacobian: Float[np.ndarray, "C 20 C 20"]
    covariance: Float[np.ndarray, "C 20 C 20"]
    facts: Mapping[str, Any]


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Correlate the Jacobians of each store with the inverse covariance of each protein's alignment."""
    stores = inputs.of_kind("jacobian")
    if not settings.alignments.exists():
        raise EvaluationError(f"evaluation.alignments={settings.alignments} does not exist; give a folder or a file")
    if settings.protein is not None and settings.pair is None:
        raise EvaluationError("evaluation.protein has no effect without evaluation.pair=[I,J], the pair of it to show")
    queries = read_queries(settings.queries) if settings.queries else None
    score = partial(_rows, queries=queries, settings=settings)
    rows = [row for store in stores for row in scored(stored_proteins(store), score, store)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    compared = table.dropna(subset="sigma")
    means = summary(compared, ["store", "model", "sigma"], ["spearman"], draws=settings.bootstrap, seed=settings.seed)
    tables, figures = {"coupling_correlation": table, "coupling_correlation_summary": means}, _curves(means)
    text = [_printed(table, means, settings)]
    if settings.pair is not None:
        blocks, name, draw = _pair(stores, queries, settings.pair, settings)
        tables["pair"], figures["pair"] = blocks, draw
        text.append(f"\n20 x 20 couplings of {name}: table pair, figure pair")
    metrics = {f"{row['store']}/spearman at {row['sigma']:g} sigma": row["mean"] for row in means.to_dict("records")}
    return Outcome(tables, figures, "\n".join(text), int(table["spearman"].notna().sum()), metrics=metrics)


def correlation(
    jacobian: Float[np.ndarray, "C 20 C 20"], covariance: Float[np.ndarray, "C 20 C 20"], sigma: float
) -> tuple[float, int]:
    """Spearman's rho over the couplings above `sigma` of the top C pairs, and how many couplings these are.

    NaN where fewer than two are above, or all are equal. Source: Zhang et al. 2024, figure 4E.
    """
    ours, theirs = _top(jacobian, covariance)
    above = np.abs(theirs) > sigma * np.sqrt(np.mean(theirs**2))
    return spearman(ours[above], theirs[above]), int(above.sum())


def _top(
    jacobian: Float[np.ndarray, "C 20 C 20"], covariance: Float[np.ndarray, "C 20 C 20"]
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """The couplings of the top C pairs of the covariance's contact map, in step."""
    first, second = np.triu_indices(len(covariance), 1)
    scores = coupling_map(covariance)[first, second]
    best = np.argsort(-scores, kind="stable")[: len(covariance)]
    i, j = first[best], second[best]
    return tuple(each[i, :, j, :].astype(np.float64).ravel() for each in (jacobian, covariance))  # type: ignore[return-value]


def _rows(stored: StoredProtein, queries: dict[str, Query] | None, settings: Settings) -> Iterator[Row]:
    both = _couplings(stored, queries, settings)
    for sigma in settings.sigmas:
        rho, count = correlation(both.jacobian, both.covariance, sigma)
        reason = "" if np.isfinite(rho) else f"{count} couplings above {sigma:g} sigma"
        yield {**both.facts, "sigma": sigma, "couplings": count, "spearman": rho, "reason": reason}


def _couplings(stored: StoredProtein, queries: dict[str, Query] | None, settings: Settings) -> Couplings:
    """Raises ValueError where there is no Jacobian of all 20 substitutions, or no alignment that fits."""
    whole = couplings_of(stored)
    alignment = load_alignment_for(
        settings.alignments, stored.id, stored.sequence, queries=queries, max_sequences=settings.max_sequences
    )
    if alignment.identity < settings.min_identity:
        raise NoCouplings(
            f"{alignment.path.name}: {alignment.identity:.0%} of the residues of {alignment.query!r} are the "
            f"protein's, below evaluation.min_identity={settings.min_identity:g}"
        )
    columns = len(alignment.positions)
    fitting = [each for each in (np.float64, np.float32) if memory_needed(columns, each) <= settings.memory_limit * GB]
    if not fitting:
        needed = memory_needed(columns, np.float32) / GB
        raise NoCouplings(f"{columns} columns need {needed:.1f} GB, above evaluation.memory_limit")
    place = alignment.positions
    facts = {"columns": columns, "sequences": len(alignment.states), "identity": alignment.identity}
    covariance = inverse_covariance(alignment.states, dtype=fitting[0])
    return Couplings(place, whole[place][:, :, place], covariance, facts)


def _pair(
    stores: tuple[Store, ...], queries: dict[str, Query] | None, pair: tuple[int, int], settings: Settings
) -> tuple[pd.DataFrame, str, Callable[[], plots.Figure]]:
    """Both 20 x 20 blocks of one pair of the protein that is named, or the first; from the first store that has it."""
    there = {identifier: store for store in reversed(stores) for identifier in store.opened}
    identifier = settings.protein or next(iter(stores[0].opened), "")
    if identifier not in there:
        raise EvaluationError(f"evaluation.protein={identifier} is in none of the stores")
    try:
        stored = there[identifier].opened[identifier]
        both = _couplings(stored, queries, settings)
    except ValueError as error:
        raise EvaluationError(f"evaluation.pair: {identifier}: {error}") from None
    place = {int(position): column for column, position in enumerate(both.positions)}
    if pair[0] == pair[1] or not set(pair) <= set(place):
        raise EvaluationError(
            f"evaluation.pair={list(pair)}: two different residues of {identifier} that are columns of its alignment "
            f"are needed, counted from 0; the columns hold {min(place)} to {max(place)}"
        )
    i, j = (place[position] for position in pair)
    blocks = {"jacobian": both.jacobian[i, :, j, :], "inverse covariance": both.covariance[i, :, j, :]}
    name = f"{identifier} {stored.sequence[pair[0]]}{pair[0]} and {stored.sequence[pair[1]]}{pair[1]} (from 0)"
    letters = [(a, b) for a in AMINO_ACIDS for b in AMINO_ACIDS]
    table = pd.DataFrame(letters, columns=["first", "second"]).assign(
        protein=identifier, i=pair[0], j=pair[1], **{key: block.ravel() for key, block in blocks.items()}
    )
    native = tuple(AMINO_ACIDS.find(stored.sequence[position]) for position in pair)
    return table, name, lambda: plots.coupling_blocks(blocks, (native[0], native[1]), name)


def _curves(means: pd.DataFrame) -> dict[str, Callable[[], plots.Figure]]:
    lines = {
        f"{store} ({model})": rows[["sigma", "mean", "low", "high"]].to_numpy(dtype=np.float64)
        for (store, model), rows in means.dropna(subset="mean").groupby(["store", "model"], sort=False)
    }
    return {"coupling_correlation": lambda: plots.correlations(lines, PAPER)} if lines else {}


def _printed(table: pd.DataFrame, means: pd.DataFrame, settings: Settings) -> str:
    sigmas = [f"{sigma:g}" for sigma in settings.sigmas]
    lines: list[Row] = []
    for store, rows in means.groupby("store", sort=False):
        of = [with_interval(row["mean"], row["low"], row["high"]) for row in rows.to_dict("records")]
        lines.append({"": store, "n": int(rows["n"].max()), **dict(zip(sigmas, of, strict=True))})
    if set(settings.sigmas) <= {0.0, 1.0, 2.0, 3.0, 4.0}:
        for size, values in PAPER.items():
            of = [f"{values[int(sigma)]:.3f}" for sigma in settings.sigmas]
            lines.append({"": f"paper, ESM-2 {size}", "n": 1431, **dict(zip(sigmas, of, strict=True))})
    return "\n".join(
        [
            "Spearman of Jacobian and inverse covariance over the top L pairs, couplings above a multiple of their",
            "root mean square (sigma); mean over n proteins and its 95 % interval",
            *lines_of(lines),
            *not_scored(table, "spearman"),
        ]
    )
