"""Kinds of pairs: the 20 x 20 block of each strong pair against the blocks that contacts, energies or charges
would leave.

Blocks are those of `store[id].couplings(i, j)`, centred and symmetrised. The reference is the mean of the largest
cluster of strong pairs of the store, so that it is typical of contacts only where the map is good. Cosines are between
the 400 numbers of two blocks. Which residue of a pair is called i is the order in the sequence and no chemistry, so
that a block is compared in both orientations at once: with patterns that are symmetric, as all of these are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from plmjac import plots
from plmjac.coevolution.amino_acid_energies import patterns
from plmjac.coevolution.linkage import average_linkage
from plmjac.config import Keys
from plmjac.evaluation.base import Inputs, Outcome, Store
from plmjac.evaluation.scoring import NoCouplings, Unscored, couplings_of, stored_proteins
from plmjac.evaluation.structures import Structures, touching
from plmjac.evaluation.tables import not_scored
from plmjac.jacobian import corrected, frobenius_norm
from plmjac.records import Atom
from plmjac.store import StoredProtein


class Settings(Keys):
    """The keys of conf/evaluation/fingerprints.yaml."""

    name: Literal["fingerprints"]
    pairs: PositiveFloat
    min_separation: PositiveInt
    strong: PositiveFloat
    cut: float = Field(ge=0, le=2)
    threshold: float = Field(ge=-1, le=1)
    modes: NonNegativeInt = Field(le=19)
    atom: Atom
    cutoff: PositiveFloat


MAX_STRONG = 1000
"""Strong pairs that are clustered, at most."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """The best pairs of one protein, strongest first, and their couplings."""

    protein: str
    sequence: str
    first: np.ndarray
    second: np.ndarray
    score: Float64[np.ndarray, " N"]
    couplings: Float32[np.ndarray, "N 20 20"]

    def __len__(self) -> int:
        return len(self.first)


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Compare the couplings of the best pairs of each store with the reference and with known patterns."""
    stores = inputs.of_kind("jacobian")
    tables, missing, figures = [], [], {}
    for store in stores:
        blocks, reasons = _blocks(store, settings)
        missing += reasons
        if not blocks:
            continue
        reference, cluster = reference_block(blocks, settings.strong, settings.cut)
        known = {"reference": reference, **patterns(settings.modes)}
        tables.append(_table(store, blocks, cluster, known, inputs.structures_if_any, settings))
        figures[f"fingerprints_{store.name}" if len(stores) > 1 else "fingerprints"] = _figure(known, store)
    if not tables:
        gone = pd.DataFrame(missing or [{"protein": "", "reason": "the stores hold no protein"}])
        return Outcome({}, {}, "\n".join(not_scored(gone.assign(score=np.nan), "score")), 0)
    table = pd.concat(tables, ignore_index=True)
    summary = _summary(table, settings.modes)
    unlike = table[~table["contact_like"].astype(bool)].reset_index(drop=True)
    metrics = {f"{row['store']}/contact-like": float(row["contact-like"]) for row in summary.to_dict("records")}
    return Outcome(
        {"fingerprints": table, "fingerprints_summary": summary, "not_contact_like": unlike},
        figures,
        _printed(summary, unlike, missing, settings),
        table["protein"].nunique(),
        metrics=metrics,
    )


def reference_block(
    blocks: list[Blocks], strong: float, cut: float
) -> tuple[Float64[np.ndarray, "20 20"], list[Float64[np.ndarray, " N"]]]:
    """The mean block of the largest cluster of strong pairs, symmetric and of norm 1; and the cluster of each pair.

    Clusters count from 1, the largest, which is the reference's; NaN for pairs that are not among the strong ones.
    Every block is brought to norm 1 first, so that a few very strong pairs are not the mean.
    """
    chosen = [(each, place) for each, part in enumerate(blocks) for place in range(_strong(part, strong))]
    if len(chosen) > MAX_STRONG:
        norms = [float(np.linalg.norm(blocks[each].couplings[place])) for each, place in chosen]
        chosen = [chosen[index] for index in sorted(np.argsort(-np.array(norms), kind="stable")[:MAX_STRONG])]
    units = np.stack([_unit(_symmetric(blocks[each].couplings[place])) for each, place in chosen])
    flat = units.reshape(len(units), -1)
    labels = average_linkage(1 - flat @ flat.T, cut)
    clusters = [np.full(len(part), np.nan) for part in blocks]
    for (each, place), label in zip(chosen, labels, strict=True):
        clusters[each][place] = label + 1
    return _unit(units[labels == 0].mean(axis=0)), clusters


def cosines(
    couplings: Float32[np.ndarray, "N 20 20"], known: Mapping[str, Float64[np.ndarray, "20 20"]]
) -> dict[str, Float64[np.ndarray, " N"]]:
    """The cosine of every block with every pattern; 0 for a block of zeros."""
    flat = couplings.reshape(len(couplings), -1).astype(np.float64)
    norms = np.linalg.norm(flat, axis=1)
    flat = flat / np.where(norms > 0, norms, 1)[:, None]
    return {name: flat @ _unit(pattern).ravel() for name, pattern in known.items()}


def _strong(part: Blocks, strong: float) -> int:
    return min(len(part), max(1, int(strong * len(part.sequence))))


def _symmetric(block: Float32[np.ndarray, "20 20"]) -> Float64[np.ndarray, "20 20"]:
    both: Float64[np.ndarray, "20 20"] = (block + block.T).astype(np.float64) / 2
    return both


def _unit(block: Float64[np.ndarray, "20 20"]) -> Float64[np.ndarray, "20 20"]:
    scaled: Float64[np.ndarray, "20 20"] = block / (float(np.linalg.norm(block)) or 1.0)
    return scaled


def _blocks(store: Store, settings: Settings) -> tuple[list[Blocks], list[dict[str, Any]]]:
    """The best pairs of every protein that keeps a whole Jacobian, and why the others have none."""
    blocks, missing = [], []
    for stored in stored_proteins(store):
        try:
            if isinstance(stored, Unscored):
                raise NoCouplings(stored.reason)
            blocks.append(_of_protein(stored, settings))
        except ValueError as error:
            missing.append({"store": store.name, "protein": stored.id, "reason": str(error)})
    return blocks, missing


def _of_protein(stored: StoredProtein, settings: Settings) -> Blocks:
    if len(stored) <= settings.min_separation:
        raise NoCouplings(f"no pair of its {len(stored)} residues is {settings.min_separation} apart")
    couplings = couplings_of(stored)
    scores = corrected(frobenius_norm(torch.from_numpy(couplings))).numpy().astype(np.float64)
    first, second = np.triu_indices(len(stored), k=settings.min_separation)
    best = np.argsort(-scores[first, second], kind="stable")[: max(1, int(settings.pairs * len(stored)))]
    i, j = first[best], second[best]
    return Blocks(stored.id, stored.sequence, i, j, scores[i, j], couplings[i, :, j, :])


def _table(
    store: Store,
    blocks: list[Blocks],
    clusters: list[Float64[np.ndarray, " N"]],
    known: Mapping[str, Float64[np.ndarray, "20 20"]],
    structures: Structures,
    settings: Settings,
) -> pd.DataFrame:
    """A row a pair: its place, its cluster, whether it touches (1, 0, NaN: unknown), its cosine with every pattern."""
    parts = []
    for each, cluster in zip(blocks, clusters, strict=True):
        found = cosines(each.couplings, known)
        others = [name for name in known if name != "reference"]
        names = np.array(others)[np.stack([found[name] for name in others]).argmax(axis=0)]
        columns = {
            "store": store.name,
            "model": store.model,
            "protein": each.protein,
            "i": each.first,
            "j": each.second,
            "residue_i": [each.sequence[i] for i in each.first],
            "residue_j": [each.sequence[j] for j in each.second],
            "score": each.score,
            "rank": np.arange(1, len(each) + 1),
            "cluster": cluster,
            "contact": touching(
                structures.find(store.opened[each.protein]), (each.first, each.second), settings.atom, settings.cutoff
            ),
            "contact_like": found["reference"] >= settings.threshold,
        }
        parts.append(pd.DataFrame({**columns, **found, "most like": names}))
    return pd.concat(parts, ignore_index=True)


def _summary(table: pd.DataFrame, modes: int) -> pd.DataFrame:
    """A row a store: how many pairs are contact-like, how many of these and of the others touch, mean cosines."""
    rows = []
    names = ["reference", *patterns(modes)]
    for (store, model), pairs in table.groupby(["store", "model"], sort=False):
        like = pairs["contact_like"].astype(bool)
        rows.append(
            {
                "store": store,
                "model": model,
                "proteins": pairs["protein"].nunique(),
                "pairs": len(pairs),
                "in reference": int((pairs["cluster"] == 1).sum()),
                "contact-like": like.mean(),
                "precision of these": pairs.loc[like, "contact"].mean(),
                "of the others": pairs.loc[~like, "contact"].mean(),
                **{f"cosine, {name}": pairs[name].mean() for name in names},
            }
        )
    return pd.DataFrame(rows)


def _figure(known: dict[str, Float64[np.ndarray, "20 20"]], store: Store) -> Callable[[], plots.Figure]:
    shown = {name: known[name] for name in ("reference", "Miyazawa-Jernigan", "charge", "hydrophobicity")}
    title = f"{store.name} ({store.model}): the mean block of its strong pairs, and patterns to compare it with"
    return lambda: plots.coupling_blocks(shown, (-1, -1), title)


def _printed(summary: pd.DataFrame, unlike: pd.DataFrame, missing: list[dict[str, Any]], settings: Settings) -> str:
    lines = [
        f"the best {settings.pairs:g} L pairs of each protein, |i-j| >= {settings.min_separation}; contact-like: "
        f"cosine of their couplings with the reference from {settings.threshold:g} on",
        f"contacts: {settings.atom} < {settings.cutoff:g} A",
        "",
        summary.set_index("store").T.to_string(float_format="{:.3f}".format),
    ]
    if len(unlike):
        shown = unlike.sort_values(["store", "rank"], kind="stable").head(20)
        columns = ["protein", "i", "j", "residue_i", "residue_j", "rank", "reference", "most like", "contact"]
        lines += ["", f"{len(unlike)} pairs are not contact-like (table not_contact_like); the strongest (from 0):"]
        lines.append(shown[columns].to_string(index=False, float_format="{:.2f}".format))
    lines += [f"not compared: {row['protein']} of {row['store']}: {row['reason']}" for row in missing[:20]]
    return "\n".join(lines)
