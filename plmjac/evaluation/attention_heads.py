"""Which attention heads of a model find contacts: each is scored on proteins with known structures, and the best K
are written to a file that predict can use.

Heads are scored by P@L/2 and ranked by its mean over the proteins (Thorstenson, arXiv 2606.21876). The table and the
figure say how the mean map of the K best does for several K. On the proteins that the heads were chosen on this is too
good; name those in `select` to have it for the others, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from plmjac import plots
from plmjac.attention import HeadChoice
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.metrics import RANGES, hits_in, precision_at, ranked_hits, ranking, reason_for_nan
from plmjac.records import Atom, Contacts, Protein
from plmjac.store import StoredProtein

FILE = "attention_heads.json"
MEASURE = "P@L/2"
CHOSEN, HELD_OUT = "chosen on", "held out"
OTHER_MAPS = ("contacts", "contact_head")

TABLES = {
    "attention_heads": ["rank", "layer", "head", MEASURE],
    "attention_heads_by_protein": ["protein", "length", "set", "layer", "head", MEASURE, "reason"],
    "attention_sweep": ["set", "map", "k", "n", MEASURE],
    "attention_sweep_by_protein": ["protein", "set", "map", "k", MEASURE],
}
"""The columns of each table. `set` is "chosen on" or "held out"; `k` heads were averaged, 0 for other maps; `n`
proteins are in the mean."""


class Settings(BaseModel):
    """The keys of conf/evaluation/attention_heads.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["attention_heads"]
    k: PositiveInt
    sweep: tuple[PositiveInt, ...] = Field(min_length=1)
    select: PositiveInt | tuple[str, ...] | None
    atom: Atom
    cutoff: PositiveFloat
    range: Literal["all", "short", "medium", "long"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """A protein with the scores of all heads and the contacts that it is judged by."""

    stored: StoredProtein
    contacts: Contacts
    precision: Float64[np.ndarray, "layers heads"]

    def __len__(self) -> int:
        return len(self.stored)


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Rank the heads of the model that filled the store. Raises EvaluationError where no protein can be scored."""
    store = _only(inputs.of_kind("jacobian"))
    labelled, missing = _labelled(store, {protein.id: protein for protein in inputs.truth()}, settings)
    if not labelled:
        first = f": {missing[0]['protein']}: {missing[0]['reason']}" if missing else ""
        raise EvaluationError(f"{store.path}: no protein to choose heads by{first}")
    chosen_on = _selected(labelled, settings)
    mean = np.mean([protein.precision for protein in labelled if protein.stored.id in chosen_on], axis=0)
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
    rows = [row for protein in labelled for row in _sweep(protein, order, chosen_on, settings)]
    by_protein = pd.DataFrame(rows, columns=TABLES["attention_sweep_by_protein"])
    sweep = by_protein.groupby(["set", "map", "k"], sort=False)[MEASURE].agg(["size", "mean"]).reset_index()
    sweep = sweep.rename(columns={"size": "n", "mean": MEASURE})[TABLES["attention_sweep"]]
    ranked = [(rank, *head, mean[head]) for rank, head in enumerate(order, start=1)]
    tables = {
        "attention_heads": pd.DataFrame(ranked, columns=TABLES["attention_heads"]),
        "attention_heads_by_protein": pd.DataFrame(
            [*(row for protein in labelled for row in _heads(protein, chosen_on)), *missing],
            columns=TABLES["attention_heads_by_protein"],
        ),
        "attention_sweep": sweep,
        "attention_sweep_by_protein": by_protein,
    }
    figures = {"attention_heads": lambda: _figure(mean, sweep, store, settings)}
    metrics = {f"{row['set']}/{row['map']}{row['k'] or ''}/{MEASURE}": row[MEASURE] for row in sweep.to_dict("records")}
    text = _printed(choice, sweep, missing, store, settings)
    return Outcome(tables, figures, text, files={FILE: choice.to_json()}, metrics=metrics)


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


def _labelled(
    store: Store, truth: dict[str, Protein], settings: Settings
) -> tuple[list[Labelled], list[dict[str, Any]]]:
    """The proteins that can be scored, and a row with the reason for each that cannot."""
    found, missing = [], []
    for identifier in [*store.opened, *(name for name in truth if name not in store.opened)]:
        result = _score(store, truth.get(identifier), identifier, settings)
        if isinstance(result, Labelled):
            found.append(result)
        else:
            missing.append({"protein": identifier, "reason": result})
    return found, missing


def _score(store: Store, truth: Protein | None, identifier: str, settings: Settings) -> Labelled | str:
    """A protein with its heads' scores, or why it has none."""
    if identifier not in store.opened:
        return "not in the store"
    stored = store.opened[identifier]
    if truth is None or truth.structure is None:
        return "no structure to compare with"
    if truth.sequence != stored.sequence:
        return "the structure has another sequence than the store"
    try:
        contacts = truth.structure.contacts(settings.atom, settings.cutoff)
    except ValueError as error:
        return str(error)
    low, high = RANGES[settings.range]
    any_map = np.zeros((len(stored), len(stored)))
    if reason := reason_for_nan(ranked_hits(any_map, contacts, low, high)):
        return reason
    return Labelled(stored, contacts, head_precision(stored.array("attention_heads"), contacts, low, high))


def _selected(labelled: Sequence[Labelled], settings: Settings) -> set[str]:
    """Ids of the proteins that heads are chosen on."""
    ids = {protein.stored.id for protein in labelled}
    if settings.select is None:
        return ids
    if isinstance(settings.select, int):
        return set(spread_over_lengths([(len(protein), protein.stored.id) for protein in labelled], settings.select))
    if unknown := sorted(set(settings.select) - ids):
        raise EvaluationError(f"evaluation.select: no protein {', '.join(unknown)} with a structure in the store")
    return set(settings.select)


def _set(protein: Labelled, chosen_on: set[str]) -> str:
    return CHOSEN if protein.stored.id in chosen_on else HELD_OUT


def _heads(protein: Labelled, chosen_on: set[str]) -> Iterator[dict[str, Any]]:
    for (layer, head), value in np.ndenumerate(protein.precision):
        yield {
            "protein": protein.stored.id, "length": len(protein), "set": _set(protein, chosen_on), "layer": layer,
            "head": head, MEASURE: value, "reason": "",
        }  # fmt: skip


def _sweep(
    protein: Labelled, order: Sequence[tuple[int, int]], chosen_on: set[str], settings: Settings
) -> Iterator[dict[str, Any]]:
    """P@L/2 of the mean of the best K heads for each K, and of the protein's other maps."""
    maps = protein.stored.array("attention_heads")
    best = np.array([maps[head] for head in order[: max(settings.sweep)]], dtype=np.float32)
    scored = [("attention", k, best[:k].mean(axis=0)) for k in sorted(set(settings.sweep)) if k <= len(order)]
    scored += [(name, 0, protein.stored.array(name)) for name in OTHER_MAPS if name in protein.stored.names]
    low, high = RANGES[settings.range]
    for name, k, scores in scored:
        hits = hits_in(ranking(scores), protein.contacts, low, high)
        row = {"protein": protein.stored.id, "set": _set(protein, chosen_on), "map": name, "k": k}
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
    low, high = RANGES[settings.range]
    span = f"|i-j| >= {low}" if high is None else f"{low} <= |i-j| < {high}"
    return f"{settings.atom} < {settings.cutoff:g} A, {span}"


def _printed(
    choice: HeadChoice, sweep: pd.DataFrame, missing: list[dict[str, Any]], store: Store, settings: Settings
) -> str:
    heads = ", ".join(f"{at}.{head} {score:.3f}" for (at, head), score in zip(choice.heads, choice.scores, strict=True))
    lines = [
        f"model {store.model}; contacts: {_definition(settings)}; heads chosen on {len(choice.proteins)} proteins",
        f"the best {len(choice.heads)} heads (layer.head from 0, {MEASURE}): {heads}",
        f"\n{MEASURE} of the mean of the best k heads (of the proteins that they were chosen on it is too good)",
        sweep.to_string(index=False, float_format=lambda x: f"{x:.3f}"),
        f"\nuse them: python -m plmjac.predict ... model={store.model} keep=[contacts,attention] heads={FILE}",
    ]
    lines += [f"not scored: {row['protein']}: {row['reason']}" for row in missing]
    return "\n".join(lines)
