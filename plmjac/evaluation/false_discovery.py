"""An empirical false discovery rate for every pair: how often do null sequences give the model such a score?

The null maps of a protein are those of the same id in the stores of null datasets (shuffled or relabelled, any number
of seeds) under the same model. With n pairs in the map and m in all its null maps together, the rate at a score s is

    (1 + null pairs >= s) / (1 + m)  *  n / (pairs >= s)

made monotone, at most 1: the expected share of pairs that are as good as noise among those that score s or more, one
null pair added so that it is not promised too little (as in target-decoy competition; Barber and Candes 2015). It is
below r at best after about 1 / r pairs, if no null map reaches them. Where structures are known, the share of pairs
that do not touch is beside it: it can be higher, for couplings that are real need not be contacts.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from pydantic import Field, PositiveFloat, PositiveInt

from plmjac import plots
from plmjac.config import Keys
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import Unscored, stored_proteins
from plmjac.evaluation.structures import Labelled, touching
from plmjac.metrics import scored_pairs
from plmjac.records import Atom
from plmjac.store import CorruptStoreError, StoredProtein


class Settings(Keys):
    """The keys of conf/evaluation/false_discovery.yaml."""

    name: Literal["false_discovery"]
    map: str
    min_separation: PositiveInt
    pairs: PositiveFloat
    rates: tuple[float, ...] = Field(min_length=1)
    atom: Atom
    cutoff: PositiveFloat


COLUMNS = ["store", "model", "protein", "i", "j", "residue_i", "residue_j", "score", "rank", "fdr", "contact"]
"""Residues are counted from 0, `rank` from 1; `contact` is 1, 0, or NaN where no structure is known."""

PROTEIN_COLUMNS = ["store", "model", "protein", "length", "nulls", "pairs", "median fdr of L/2", "reason"]

RATE_COLUMNS = ["store", "model", "rate", "proteins", "pairs / L", "known", "no contact"]
"""At each rate: proteins, listed pairs per residue, how many of them a structure knows, the share that do not touch."""


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Give every pair of each store its false discovery rate, by the null stores of its model."""
    plain, null = apart(inputs.of_kind("jacobian"))
    if not plain or not null:
        raise EvaluationError(
            "one store of proteins and one or more of their null sequences are needed, store=[A.zarr,A_shuffle0.zarr]; "
            "make the second by predict with +experiment=null_shuffle"
        )
    pairs, proteins = [pd.DataFrame(columns=COLUMNS)], []
    for store in plain:
        nulls = [each for each in null if each.model == store.model]
        if not nulls:
            raise EvaluationError(f"{store.path}: none of the null stores is of its model, {store.model}")
        for stored in stored_proteins(store):
            row: Row = {"store": store.name, "model": store.model, "protein": stored.id}
            try:
                if isinstance(stored, Unscored):
                    raise CorruptStoreError(stored.reason)
                listed, facts = _protein(row, nulls, stored, inputs.structures_if_any.find(stored), settings)
                pairs += [listed] if len(listed) else []
                proteins.append({**row, "length": len(stored), **facts})
            except CorruptStoreError as error:
                proteins.append({**row, "reason": str(error)})
    table = pd.concat(pairs[1:] or pairs, ignore_index=True)
    by_protein = pd.DataFrame(proteins, columns=PROTEIN_COLUMNS)
    rates = _rates(table, by_protein, settings.rates)
    metrics = {
        f"{row['store']}/pairs per L at {row['rate']:g}": float(row["pairs / L"]) for row in rates.to_dict("records")
    }
    drawn = _curves(table)
    return Outcome(
        {"false_discovery": table, "false_discovery_proteins": by_protein, "false_discovery_rates": rates},
        {"false_discovery": lambda: plots.false_discovery(drawn)} if drawn else {},
        _printed(by_protein, rates, null, settings),
        int((by_protein["reason"] == "").sum()),
        metrics=metrics,
    )


def control_of(store: Store) -> str:
    """Null model of a store (shuffle, relabel); empty for a store of the proteins themselves."""
    return str(store.recorded.get("dataset", {}).get("control") or "")


def apart(stores: Sequence[Store]) -> tuple[list[Store], list[Store]]:
    """The stores of proteins themselves, and those of null sequences."""
    return [store for store in stores if not control_of(store)], [store for store in stores if control_of(store)]


def null_maps(stored: StoredProtein, nulls: Sequence[Store], name: str) -> list[Float64[np.ndarray, "L L"]]:
    """The maps `name` of a protein's null sequences, of stores of its model. Raises CorruptStoreError."""
    there = [each.opened[stored.id] for each in nulls if stored.id in each.opened]
    return [each.array(name).astype(np.float64) for each in there if name in each.names and len(each) == len(stored)]


def rate_map(
    scores: Float[np.ndarray, "L L"], nulls: Sequence[Float[np.ndarray, "L L"]], min_separation: int
) -> Float64[np.ndarray, "L L"]:
    """The false discovery rate of each pair i < j of a map by its null maps; NaN nearer than `min_separation`.

    NaN, too, for pairs without a score; those of the null maps do not count.
    """
    first, second = scored_pairs(scores, min_separation)
    rates: Float64[np.ndarray, "L L"] = np.full(scores.shape, np.nan)
    if len(first) and nulls:
        null = np.concatenate([each[scored_pairs(each, min_separation)] for each in nulls])
        rates[first, second] = false_discovery_rates(scores[first, second].astype(np.float64), null)
    return rates


def false_discovery_rates(
    scores: Float64[np.ndarray, " N"], null: Float64[np.ndarray, " M"]
) -> Float64[np.ndarray, " N"]:
    """The rate of each score by the null's: the smallest that any threshold at or below the score has, at most 1."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    as_good = len(null) - np.searchsorted(np.sort(null), ranked, side="left")
    at_or_above = np.searchsorted(-ranked, -ranked, side="right")
    rate = np.minimum((1 + as_good) / (1 + len(null)) * len(scores) / at_or_above, 1.0)
    smallest: Float64[np.ndarray, " N"] = np.empty(len(scores))
    smallest[order] = np.minimum.accumulate(rate[::-1])[::-1]
    return smallest


def _protein(
    row: Row, nulls: Sequence[Store], stored: StoredProtein, structure: Labelled | str, settings: Settings
) -> tuple[pd.DataFrame, Row]:
    """The best pairs of one protein with their rates, and its row among the proteins."""
    nothing = pd.DataFrame(columns=COLUMNS)
    if settings.map not in stored.names:
        return nothing, {"reason": f"the store keeps no {settings.map} of it"}
    there = null_maps(stored, nulls, settings.map)
    if not there:
        return nothing, {"nulls": 0, "reason": f"no null store has a map of it ({settings.map}, same length)"}
    whole = stored.array(settings.map).astype(np.float64)
    first, second = scored_pairs(whole, settings.min_separation)
    if not len(first):
        return nothing, {"nulls": len(there), "reason": "no pair of residues that far apart"}
    scores, rate = whole[first, second], rate_map(whole, there, settings.min_separation)[first, second]
    order = np.argsort(-scores, kind="stable")
    best = order[: max(1, round(settings.pairs * len(stored)))]
    listed = pd.DataFrame(
        {
            **row,
            "i": first[best],
            "j": second[best],
            "residue_i": [stored.sequence[i] for i in first[best]],
            "residue_j": [stored.sequence[j] for j in second[best]],
            "score": scores[best],
            "rank": np.arange(1, len(best) + 1),
            "fdr": rate[best],
            "contact": touching(structure, (first[best], second[best]), settings.atom, settings.cutoff),
        },
        columns=COLUMNS,
    )
    half = float(np.median(rate[order[: max(1, len(stored) // 2)]]))
    return listed, {"nulls": len(there), "pairs": len(first), "median fdr of L/2": half, "reason": ""}


def _rates(table: pd.DataFrame, proteins: pd.DataFrame, rates: Sequence[float]) -> pd.DataFrame:
    """Pairs found at each rate, and the share of them that a structure contradicts."""
    rows = []
    for (store, model), scored in proteins[proteins["reason"] == ""].groupby(["store", "model"], sort=False):
        here = table[table["store"] == store]
        for rate in rates:
            found = here[here["fdr"] <= rate]
            known = found["contact"].dropna()
            rows.append(
                {
                    "store": store,
                    "model": model,
                    "rate": rate,
                    "proteins": len(scored),
                    "pairs / L": len(found) / scored["length"].sum(),
                    "known": len(known),
                    "no contact": 1 - known.mean() if len(known) else np.nan,
                }
            )
    return pd.DataFrame(rows, columns=RATE_COLUMNS)


def _curves(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """For each store and rank (as a share of L it differs from protein to protein): the mean rate and contradiction."""
    return {
        str(store): rows.groupby("rank")[["fdr", "contact"]].mean().reset_index()
        for store, rows in table.groupby("store", sort=False)
    }


def _printed(proteins: pd.DataFrame, rates: pd.DataFrame, null: Sequence[Store], settings: Settings) -> str:
    lines = [
        f"{settings.map}, |i-j| >= {settings.min_separation}; null: "
        + ", ".join(f"{store.name} ({control_of(store)}, {store.model})" for store in null),
        "pairs / L: of the listed pairs, at this false discovery rate or below; no contact: share of them that do not "
        f"touch in the structure ({settings.atom} < {settings.cutoff:g} A), where it is known",
        "",
        rates.to_string(index=False, float_format="{:.3f}".format, na_rep="-")
        if len(rates)
        else "nothing could be scored",
    ]
    scored = proteins[proteins["reason"] == ""]
    if 0 < len(scored) <= 30:
        shown = scored[["store", "protein", "length", "nulls", "median fdr of L/2"]]
        lines += ["", shown.to_string(index=False, float_format="{:.3f}".format)]
    for row in proteins[proteins["reason"] != ""].to_dict("records"):
        lines.append(f"not scored: {row['protein']} of {row['store']}: {row['reason']}")
    return "\n".join(lines)
