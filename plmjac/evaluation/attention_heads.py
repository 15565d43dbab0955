"""Attention heads of a model that find contacts: each is scored on proteins with known structures, and the best K
are written to a file that predict can use.

Heads are scored by P@L/2 and ranked by its mean over the proteins (Thorstenson, arXiv 2606.21876). The table and the
figure say how the mean map of the K best does for several K. On the proteins that the heads were chosen on this is too
good; name those in `select` to have it for the others, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from pydantic import Field, PositiveFloat, PositiveInt

from plmjac import plots
from plmjac.attention import HeadChoice
from plmjac.config import Keys
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import labelled, scored
from plmjac.evaluation.structures import Labelled
from plmjac.evaluation.tables import lines_of, matched, not_scored, number
from plmjac.metrics import RANGES, Range, hits_in, in_words, precision_at, ranked_hits, ranking, reason_for_nan
from plmjac.records import Atom, Contacts

FILE = "attention_heads.json"
MEASURE = "P@L/2"
CHOSEN, HELD_OUT = "chosen on", "held out"

PAIRED = ["structure", "match"]

TABLES = {
    "attention_heads": ["rank", "layer", "head", MEASURE],
    "attention_heads_by_protein": ["protein", "length", *PAIRED, "set", "layer", "head", MEASURE, "reason"],
    "attention_sweep": ["set", "map", "k", "n", MEASURE],
    "attention_sweep_by_protein": ["protein", "set", "map", "k", MEASURE],
}
"""The columns of each table. `set` is "chosen on" or "held out"; `k` heads were averaged, 0 for other maps; `n`
proteins are in the mean."""


class Settings(Keys):
    """The keys of conf/evaluation/attention_heads.yaml."""

    name: Literal["attention_heads"]
    k: PositiveInt
    sweep: tuple[PositiveInt, ...] = Field(min_length=1)
    select: PositiveInt | tuple[str, ...] | None
    atom: Atom
    cutoff: PositiveFloat
    range: Range


@dataclass(frozen=True, eq=False)
class ScoredProtein:
    """A protein, the contacts that it is judged by, and the precision of every head."""

    labelled: Labelled
    contacts: Contacts
    precision: Float64[np.ndarray, "layers heads"]

    @property
    def id(self) -> str:
        """Its id in the store."""
        return self.labelled.id

    def __len__(self) -> int:
        return len(self.labelled)


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Rank the heads of the model that filled the store."""
    store = _only(inputs.of_kind("jacobian"))
    found = [*scored(labelled(store, inputs.structures), lambda protein: [_score(protein, settings)])]
    proteins: list[ScoredProtein] = [row["scored"] for row in found if "scored" in row]
    missing = pd.DataFrame([row for row in found if "scored" not in row], columns=TABLES["attention_heads_by_protein"])
    if not proteins:
        return Outcome({"attention_heads_by_protein": missing}, {}, "\n".join(not_scored(missing, MEASURE)), 0)
    chosen_on = _selected(proteins, settings)
    mean = np.mean([protein.precision for protein in proteins if protein.id in chosen_on], axis=0)
    order = best_heads(mean)
    if settings.k > len(order):
        raise EvaluationError(f"evaluation.k={settings.k}, and {store.model} has {len(order)} heads")
    choice = HeadChoice(
        model=store.model,
        weights_sha256=str(store.opened.attributes["model"]["weights_sha256"]),
        heads=tuple(order[: settings.k]),
        scores=tuple(float(mean[head]) for head in order[: settings.k]),
        proteins=tuple(sorted(chosen_on)),
        settings={"measure": MEASURE, "range": settings.range, "atom": settings.atom, "cutoff": settings.cutoff},
    )
    rows = [row for protein in proteins for row in _sweep(protein, order, chosen_on, settings)]
    by_protein = pd.DataFrame(rows, columns=TABLES["attention_sweep_by_protein"])
    sweep = by_protein.groupby(["set", "map", "k"], sort=False)[MEASURE].agg(["count", "mean"]).reset_index()
    sweep = sweep.rename(columns={"count": "n", "mean": MEASURE})[TABLES["attention_sweep"]]
    ranked = [(rank, *head, mean[head]) for rank, head in enumerate(order, start=1)]
    tables = {
        "attention_heads": pd.DataFrame(ranked, columns=TABLES["attention_heads"]),
        "attention_heads_by_protein": pd.DataFrame(
            [*(row for protein in proteins for row in _heads(protein, chosen_on)), *missing.to_dict("records")],
            columns=TABLES["attention_heads_by_protein"],
        ),
        "attention_sweep": sweep,
        "attention_sweep_by_protein": by_protein,
    }
    figures = {"attention_heads": lambda: _figure(mean, sweep, store, settings)}
    metrics = {f"{row['set']}/{row['map']}{row['k'] or ''}/{MEASURE}": row[MEASURE] for row in sweep.to_dict("records")}
    text = _printed(choice, sweep, tables["attention_heads_by_protein"], store, settings)
    return Outcome(tables, figures, text, len(proteins), files={FILE: choice.to_json()}, metrics=metrics)


def head_precision(
    scores: Float[np.ndarray, "layers heads L L"], contacts: Contacts, low: int, high: int | None
) -> Float64[np.ndarray, "layers heads"]:
    """P@L/2 of every head's map over the pairs with low <= |i - j| < high; all NaN where there is no contact."""
    length = len(contacts.resolved)
    return np.array(
        [
            [precision_at(ranked_hits(head.astype(np.float32), contacts, low, high), length // 2) for head in layer]
            for layer in scores
        ]
    )


def best_heads(mean: Float64[np.ndarray, "layers heads"]) -> list[tuple[int, int]]:
    """All heads as (layer, head), the best first; ties keep the order of layers and heads."""
    order = np.argsort(-mean.ravel(), kind="stable")
    return [(int(number // mean.shape[1]), int(number % mean.shape[1])) for number in order]


def spread_over_lengths(lengths: Sequence[tuple[int, str]], count: int) -> list[str]:
    """`count` ids evenly over the proteins sorted by (length, id), the shortest and the longest among them."""
    ordered = [identifier for _, identifier in sorted(lengths)]
    if count >= len(ordered):
        return ordered
    last = len(ordered) - 1
    return [ordered[round(number * last / max(1, count - 1))] for number in range(count)]


def _only(stores: tuple[Store, ...]) -> Store:
    if len(stores) > 1:
        raise EvaluationError("heads are chosen from one store, for they mean nothing in another model; name one")
    if "attention_heads" not in stores[0].opened.attributes["keep"]:
        raise EvaluationError(
            f"{stores[0].path} does not keep the maps of single heads; make a store of a few proteins with known "
            "structures with `python -m plmjac.predict ... keep=attention_heads substitutions=none`"
        )
    return stores[0]


def _score(protein: Labelled, settings: Settings) -> Row:
    """The precision of every head on a protein, or the reason why it has none."""
    contacts = protein.contacts(settings.atom, settings.cutoff)
    low, high = RANGES[settings.range]
    maps = protein.stored.array("attention_heads")
    # Every head has the same pairs: all, or those that stand in one window.
    if reason := reason_for_nan(ranked_hits(maps[0, 0].astype(np.float32), contacts, low, high)):
        return {"reason": reason}
    return {"scored": ScoredProtein(protein, contacts, head_precision(maps, contacts, low, high))}


def _selected(proteins: Sequence[ScoredProtein], settings: Settings) -> set[str]:
    """Ids of the proteins that heads are chosen on."""
    ids = {protein.id for protein in proteins}
    if settings.select is None:
        return ids
    if isinstance(settings.select, int):
        return set(spread_over_lengths([(len(protein), protein.id) for protein in proteins], settings.select))
    if unknown := sorted(set(settings.select) - ids):
        raise EvaluationError(f"evaluation.select: no protein {', '.join(unknown)} with a structure in the store")
    return set(settings.select)


def _set(protein: ScoredProtein, chosen_on: set[str]) -> str:
    return CHOSEN if protein.id in chosen_on else HELD_OUT


def _heads(protein: ScoredProtein, chosen_on: set[str]) -> Iterator[Row]:
    match = protein.labelled.match
    row = {
        "protein": protein.id, "length": len(protein), "structure": match.structure, "match": str(match),
        "set": _set(protein, chosen_on), "reason": "",
    }  # fmt: skip
    for (layer, head), value in np.ndenumerate(protein.precision):
        yield {**row, "layer": layer, "head": head, MEASURE: value}


def _sweep(
    protein: ScoredProtein, order: Sequence[tuple[int, int]], chosen_on: set[str], settings: Settings
) -> Iterator[Row]:
    """P@L/2 of the mean of the best K heads for each K, and of the protein's other maps."""
    stored = protein.labelled.stored
    maps = stored.array("attention_heads")
    best = np.array([maps[head] for head in order[: max(settings.sweep)]], dtype=np.float32)
    scored = [("attention", k, best[:k].mean(axis=0)) for k in sorted(set(settings.sweep)) if k <= len(order)]
    scored += [(name, 0, protein.labelled.array(name)) for name in protein.labelled.maps if name != "attention"]
    low, high = RANGES[settings.range]
    for name, k, scores in scored:
        hits = hits_in(ranking(scores), protein.contacts, low, high)
        row = {"protein": protein.id, "set": _set(protein, chosen_on), "map": name, "k": k}
        yield {**row, MEASURE: precision_at(hits, len(protein) // 2)}


def _figure(
    mean: Float64[np.ndarray, "layers heads"], sweep: pd.DataFrame, store: Store, settings: Settings
) -> plots.Figure:
    curves = {
        f"attention, {name}": (rows["k"].tolist(), rows[MEASURE].tolist())
        for name, rows in sweep[sweep["map"] == "attention"].groupby("set", sort=False)
    }
    others = sweep[sweep["map"] != "attention"]
    lines = {f"{row['map']}, {row['set']}": float(row[MEASURE]) for row in others.to_dict("records")}
    return plots.attention_heads(mean, curves, lines, MEASURE, f"{store.model}: {_definition(settings)}")


def _definition(settings: Settings) -> str:
    return f"{settings.atom} < {settings.cutoff:g} A, {in_words(*RANGES[settings.range])}"


def _printed(choice: HeadChoice, sweep: pd.DataFrame, table: pd.DataFrame, store: Store, settings: Settings) -> str:
    heads = ", ".join(f"{at}.{head} {score:.3f}" for (at, head), score in zip(choice.heads, choice.scores, strict=True))
    lines = [
        f"model {store.model}; contacts: {_definition(settings)}; heads chosen on {len(choice.proteins)} proteins",
        f"the best {len(choice.heads)} heads (layer.head from 0, {MEASURE}): {heads}",
        f"\n{MEASURE} of the mean of the best k heads (of the proteins that they were chosen on it is too good)",
        *lines_of(sweep.assign(**{MEASURE: [number(each) for each in sweep[MEASURE]]}).to_dict("records")),
        f"\nuse them: python -m plmjac.predict ... model={store.model} keep=[contacts,attention] heads={FILE}",
    ]
    return "\n".join([*lines, *matched(table), *not_scored(table, MEASURE)])
