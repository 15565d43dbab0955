"""Contacts between the chains of a complex: how many of the best-ranked pairs of two chains touch.

Only the block of two chains is ranked, each pair of residues once; linkers and unresolved residues are never scored. A
stored map carries the average product correction of the whole sequence, linkers included; where the Jacobian is kept,
`contacts, block APC` is its map once more with the correction of the block alone. Two copies of one chain cannot be
told apart by a model of sequences: what it sees between them may be a contact within either.
"""

from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from pydantic import PositiveFloat

from plmjac import plots
from plmjac.config import Keys
from plmjac.evaluation.base import Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import labelled, scored
from plmjac.evaluation.structures import Labelled, Structures
from plmjac.evaluation.tables import lines_of, matched, not_scored, number
from plmjac.jacobian import Reduction
from plmjac.metrics import chance, precision_at
from plmjac.records import Atom, Chains, Contacts

BLOCK_APC = "contacts, block APC"
MEASURES = ["P@K", "P@10", "P@L/5", "P@L/10"]
MAX_PANELS = 20

COLUMNS = [
    "protein", "store", "model", "structure", "match", "map", "chains", "length1", "length2", "same_sequence",
    "resolved1", "resolved2", "K", *MEASURES, "chance", "reason",
]  # fmt: skip
"""K is the number of contacts between the two chains, L the sum of their lengths, `chance` K among all pairs; `chains`
are counted from 1 in the order of the complex, lengths are in residues."""


class Settings(Keys):
    """The keys of conf/evaluation/interchain.yaml."""

    name: Literal["interchain"]
    atom: Atom
    cutoff: PositiveFloat


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Score every map of every complex in the stores against the structures."""
    stores, structures = inputs.of_kind("jacobian"), inputs.structures
    score = partial(_protein, settings=settings)
    rows = [row for store in stores for row in scored(labelled(store, structures), score, store)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    panels = _panels(table, stores, structures, settings)
    contacts = f"{settings.atom} < {settings.cutoff:g} A"
    title = f"maps above, structures below ({contacts}); lines: where chains begin; yellow: not scored"
    figures = {"interchain_maps": lambda: plots.contact_maps(panels, title, columns=4, width=3.6)} if panels else {}
    metrics = {
        f"{name}/{measure}": float(rows[measure].mean())
        for name, rows in table.groupby("map", sort=False)
        for measure in MEASURES
    }
    text, count = _printed(table, contacts), int(table["P@K"].notna().sum())
    return Outcome({"interchain": table}, figures, text, count, metrics=metrics)


def interchain_hits(
    scores: Float[np.ndarray, "L L"], contacts: Contacts, first: tuple[int, int], second: tuple[int, int]
) -> Bool[np.ndarray, " N"]:
    """For the resolved pairs (i in `first`, j in `second`) from the highest score down: whether each is a contact.

    Spans are half-open. Ties keep the order of the pairs, i then j; pairs without a score (NaN) are left out.
    """
    rows, columns = slice(*first), slice(*second)
    known = np.outer(contacts.resolved[rows], contacts.resolved[columns]) & ~np.isnan(scores[rows, columns])
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


def _protein(protein: Labelled, settings: Settings) -> Iterator[Row]:
    """The rows of one complex: each map, each two of its chains."""
    chains = protein.stored.chains
    if chains is None or len(chains.spans) < 2:
        yield {"reason": "a single chain; complexes are computed with +dataset=complex"}
    elif not protein.maps:
        yield {"reason": "the store keeps no contact map of it; run predict with keep=[contacts]"}
    else:
        yield from _scored(protein, chains, protein.contacts(settings.atom, settings.cutoff))


def _scored(protein: Labelled, chains: Chains, contacts: Contacts) -> Iterator[Row]:
    sequence = protein.stored.sequence
    for name, scores in _maps(protein):
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
                "same_sequence": sequence[slice(*first)] == sequence[slice(*second)],
                "resolved1": int(contacts.resolved[slice(*first)].sum()),
                "resolved2": int(contacts.resolved[slice(*second)].sum()),
                "K": int(hits.sum()),
                "P@K": precision_at(hits, int(hits.sum())),
                "P@10": precision_at(hits, 10),
                "P@L/5": precision_at(hits, size // 5),
                "P@L/10": precision_at(hits, size // 10),
                "chance": chance(hits),
                "reason": _reason(hits, all(contacts.resolved[slice(*span)].any() for span in (first, second))),
            }


def _maps(protein: Labelled) -> Iterator[tuple[str, Float[np.ndarray, "L L"]]]:
    """The stored maps; and the norms of a whole Jacobian's couplings, to be corrected block by block."""
    for name in protein.maps:
        yield name, protein.array(name)
    if "jacobian" in protein.stored.names and not protein.stored.partly:
        jacobian = torch.from_numpy(protein.stored.completed)
        reduction = Reduction(jacobian)
        reduction.add(0, jacobian)
        yield BLOCK_APC, reduction.norms().numpy()


def _reason(hits: Bool[np.ndarray, " N"], is_resolved: bool) -> str:
    if len(hits) == 0:
        return "no pair of these chains was computed" if is_resolved else "a chain without resolved residues"
    return "" if hits.any() else "no contact between these chains"


def _panels(
    table: pd.DataFrame, stores: tuple[Store, ...], structures: Structures, settings: Settings
) -> list[plots.MapPanel]:
    """One for each complex: the first of its maps, with the best P@K of its pairs of chains in the title."""
    panels = []
    for store in stores:
        mine = table[(table["store"] == store.name) & table["P@K"].notna()]
        for identifier, rows in mine.groupby("protein", sort=False):
            found = structures.find(store.opened[str(identifier)])
            assert isinstance(found, Labelled) and found.stored.chains is not None
            shown = rows[rows["map"] == rows["map"].iloc[0]]
            best = shown.loc[shown["P@K"].idxmax()]
            title = f"{identifier}  P@K {best['P@K']:.2f} (K {best['K']:.0f}, chance {best['chance']:.3f})"
            scores, contacts = found.array(best["map"]), found.contacts(settings.atom, settings.cutoff)
            panels.append(plots.MapPanel(title, scores, contacts, found.stored.chains.breaks))
    return panels[:MAX_PANELS]


def _printed(table: pd.DataFrame, contacts: str) -> str:
    """Each pair of chains with contacts, the means of each map, and what was not scored."""
    lines = [
        f"contacts between chains: {contacts}; P@K: share of contacts among the K best pairs of two chains that have K",
        "L: residues of both chains; chance: K among all resolved pairs; APC of the whole sequence unless of the block",
    ]
    known = table[table["P@K"].notna()]
    for (store, name), rows in known.groupby(["store", "map"], sort=False):
        shown = [
            {**{key: row[key] for key in ("protein", "chains")}, "K": int(row["K"]),
             **{key: number(row[key]) for key in (*MEASURES, "chance")}}
            for row in rows.to_dict("records")
        ]  # fmt: skip
        means = {key: number(rows[key].mean()) for key in (*MEASURES, "chance")}
        lines += [f"\n{name} ({store})", *lines_of([*shown, {"protein": f"mean of {len(rows)}", **means}])]
    if known["same_sequence"].any():
        lines.append("\nsome pairs are copies of one chain, whose contacts within and between chains look the same")
    pairs = [f" chains {each}" if isinstance(each, str) else "" for each in table["chains"]]
    lines += [*matched(table), *not_scored(table.assign(protein=table["protein"] + pairs), "P@K")]
    return "\n".join(lines)
