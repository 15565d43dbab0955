"""Contacts between the chains of a complex: how many of the best-ranked pairs of two chains touch.

Only the block of two chains is ranked, each pair of residues once; linkers and unresolved residues are never scored. A
stored map carries the average product correction of the whole sequence, linkers included; where the Jacobian is kept,
`contacts, block APC` is its map once more with the correction of the block alone. Two copies of one chain cannot be
told apart by a model of sequences: what it sees between them may be a contact within either.
"""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, PositiveFloat

from plmjac import plots
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.jacobian import Reduction
from plmjac.metrics import chance, precision_at
from plmjac.records import Atom, Chains, Contacts, Protein
from plmjac.store import StoredProtein

MAPS = ("contacts", "contact_head", "attention", "representation")
BLOCK_APC = "contacts, block APC"
MEASURES = ["P@K", "P@10", "P@L/5", "P@L/10"]
MAX_PANELS = 20

COLUMNS = [
    "protein", "store", "model", "map", "chains", "length1", "length2", "same_sequence", "resolved1", "resolved2", "K",
    *MEASURES, "chance", "reason",
]  # fmt: skip
"""K is the number of contacts between the two chains, L the sum of their lengths, `chance` K among all pairs; `chains`
are counted from 1 in the order of the complex, lengths are in residues."""


class Settings(BaseModel):
    """The keys of conf/evaluation/interchain.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["interchain"]
    atom: Atom
    cutoff: PositiveFloat


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Score every map of every complex in the stores against the structures. Raises EvaluationError for none at all."""
    stores = inputs.of_kind("jacobian")
    if not any(row.chains for store in stores for row in store.opened.rows):
        paths = ", ".join(str(store.path) for store in stores)
        raise EvaluationError(f"{paths}: no complex in it; compute some with +dataset=complex")
    truth = {protein.id: protein for protein in inputs.truth()}
    rows = [row for store in stores for row in _store(store, truth, settings)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    panels = _panels(table, stores, truth, settings)
    contacts = f"{settings.atom} < {settings.cutoff:g} A"
    title = f"maps above, structures below ({contacts}); lines: where chains begin; yellow: not scored"
    figures = {"interchain_maps": lambda: plots.complex_maps(panels, title)} if panels else {}
    metrics = {
        f"{name}/{measure}": float(rows[measure].mean())
        for name, rows in table.groupby("map", sort=False)
        for measure in MEASURES
    }
    return Outcome({"interchain": table}, figures, _printed(table, contacts), metrics=metrics)


def interchain_hits(
    scores: Float[np.ndarray, "L L"], contacts: Contacts, first: tuple[int, int], second: tuple[int, int]
) -> Bool[np.ndarray, " N"]:
    """For the resolved pairs (i in `first`, j in `second`) from the highest score down: whether each is a contact.

    Spans are half-open. Ties keep the order of the pairs, i then j.
    """
    rows, columns = slice(*first), slice(*second)
    known = np.outer(contacts.resolved[rows], contacts.resolved[columns])
    order = np.argsort(-scores[rows, columns][known], kind="stable")
    hits: Bool[np.ndarray, " N"] = contacts.pairs[rows, columns][known][order]
    return hits


def block_apc(norms: Float[np.ndarray, "M N"]) -> Float[np.ndarray, "M N"]:
    """The average product correction of a block by its own means: F_ij - F_i. F_.j / F_.. (zeros where F is zero)."""
    wide = norms.astype(np.float64)
    total = wide.sum()
    expected = np.outer(wide.sum(axis=1), wide.sum(axis=0)) / total if total else np.zeros_like(wide)
    corrected: Float[np.ndarray, "M N"] = wide - expected
    return corrected


def _store(store: Store, truth: dict[str, Protein], settings: Settings) -> Iterator[dict[str, Any]]:
    named = {"store": store.name, "model": store.model}
    ids = [*store.opened, *(name for name in truth if name not in store.opened and truth[name].chains)]
    for identifier in ids:
        for row in _protein(store, truth.get(identifier), identifier, settings):
            yield {"protein": identifier, **named, **row}
    for missing in store.opened.rows:
        if missing.status in ("failed", "skipped") and missing.id not in ids:
            yield {"protein": missing.id, **named, "reason": f"{missing.status}: {missing.reason}"}


def _protein(store: Store, truth: Protein | None, identifier: str, settings: Settings) -> Iterator[dict[str, Any]]:
    if identifier not in store.opened:
        yield {"reason": "not in the store"}
        return
    stored = store.opened[identifier]
    if stored.chains is None or len(stored.chains.spans) < 2:
        yield {"reason": "a single chain"}
    elif truth is None or truth.structure is None:
        yield {"reason": "no structure to compare with"}
    elif truth.sequence != stored.sequence or truth.chains is None or truth.chains.spans != stored.chains.spans:
        yield {"reason": "the structure has another sequence, or other chains, than the store"}
    elif not set(MAPS) & set(stored.names):
        yield {"reason": "the store keeps no contact map of it; run predict with keep=[contacts]"}
    else:
        try:
            contacts = truth.structure.contacts(settings.atom, settings.cutoff)
        except ValueError as error:
            yield {"reason": str(error)}
            return
        yield from _scored(stored, stored.chains, contacts)


def _scored(stored: StoredProtein, chains: Chains, contacts: Contacts) -> Iterator[dict[str, Any]]:
    for name, scores in _maps(stored):
        for (one, first), (two, second) in combinations(enumerate(chains.spans, start=1), 2):
            ranked = scores
            if name == BLOCK_APC:
                ranked = np.zeros_like(scores)
                rows, columns = slice(*first), slice(*second)
                ranked[rows, columns] = block_apc(scores[rows, columns])
            hits = interchain_hits(ranked, contacts, first, second)
            size = first[1] - first[0] + second[1] - second[0]
            yield {
                "map": name,
                "chains": f"{one}-{two}",
                "length1": first[1] - first[0],
                "length2": second[1] - second[0],
                "same_sequence": stored.sequence[slice(*first)] == stored.sequence[slice(*second)],
                "resolved1": int(contacts.resolved[slice(*first)].sum()),
                "resolved2": int(contacts.resolved[slice(*second)].sum()),
                "K": int(hits.sum()),
                "P@K": precision_at(hits, int(hits.sum())),
                "P@10": precision_at(hits, 10),
                "P@L/5": precision_at(hits, size // 5),
                "P@L/10": precision_at(hits, size // 10),
                "chance": chance(hits),
                "reason": _reason(hits),
            }


def _maps(stored: StoredProtein) -> Iterator[tuple[str, Float[np.ndarray, "L L"]]]:
    """The stored maps; and the norms of the Jacobian's couplings, to be corrected block by block."""
    for name in MAPS:
        if name in stored.names:
            yield name, stored.array(name)
    if "jacobian" in stored.names:
        jacobian = torch.from_numpy(stored.completed)
        reduction = Reduction(jacobian)
        reduction.add(0, jacobian)
        yield BLOCK_APC, reduction.norms().numpy()


def _reason(hits: Bool[np.ndarray, " N"]) -> str:
    if len(hits) == 0:
        return "a chain without resolved residues"
    return "" if hits.any() else "no contact between these chains"


def _panels(
    table: pd.DataFrame, stores: tuple[Store, ...], truth: dict[str, Protein], settings: Settings
) -> list[plots.ComplexPanel]:
    """One for each complex: the first of its maps, with the best P@K of its pairs of chains in the title."""
    panels = []
    for store in stores:
        mine = table[(table["store"] == store.name) & table["P@K"].notna()]
        for identifier, rows in mine.groupby("protein", sort=False):
            stored, structure = store.opened[str(identifier)], truth[str(identifier)].structure
            assert structure is not None and stored.chains is not None
            shown = rows[rows["map"] == rows["map"].iloc[0]]
            best = shown.loc[shown["P@K"].idxmax()]
            title = f"{identifier}  P@K {best['P@K']:.2f} (K {best['K']:.0f}, chance {best['chance']:.3f})"
            scores, contacts = stored.array(best["map"]), structure.contacts(settings.atom, settings.cutoff)
            panels.append(plots.ComplexPanel(title, scores, contacts, stored.chains.breaks))
    return panels[:MAX_PANELS]


def _printed(table: pd.DataFrame, contacts: str) -> str:
    """Each pair of chains with contacts, the means of each map, and what was not scored."""
    lines = [
        f"contacts between chains: {contacts}; P@K: share of contacts among the K best pairs of two chains that have K",
        "L: residues of both chains; chance: K among all resolved pairs; APC of the whole sequence unless of the block",
    ]
    scored = table[table["P@K"].notna()]
    columns = ["protein", "chains", "K", *MEASURES, "chance"]
    for (store, name), rows in scored.groupby(["store", "map"], sort=False):
        mean = pd.DataFrame([{"protein": f"mean of {len(rows)}", **rows[[*MEASURES, "chance"]].mean()}])
        shown = pd.concat([rows[columns], mean], ignore_index=True)
        shown["K"] = ["" if math.isnan(k) else f"{k:.0f}" for k in shown["K"].astype(float)]
        text = shown.to_string(index=False, float_format=lambda x: f"{x:.3f}", na_rep="")
        lines += [f"\n{name} ({store})", text]
    if scored["same_sequence"].any():
        lines.append("\nsome pairs are copies of one chain, whose contacts within and between chains look the same")
    missing = table[table["P@K"].isna()].drop_duplicates(["protein", "store", "chains", "reason"])
    for row in missing.itertuples():
        pair = f" chains {row.chains}" if isinstance(row.chains, str) else ""
        lines.append(f"not scored: {row.protein}{pair}: {row.reason}")
    return "\n".join(lines)
