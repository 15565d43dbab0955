"""How many of the top-ranked pairs of each stored contact map touch in the structure.

Every contact map of every store is scored by every definition of a contact, in every range of separations; means come
with bootstrap intervals over proteins, and methods are compared on the proteins that they share. What could not be
scored is a row too, with NaN and the reason, so that no protein drops out of an average unseen.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from plmjac import plots
from plmjac.comparison import paired, summary
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.evaluation.contact_precision.report import (
    difference_lines,
    length_lines,
    mean_lines,
    missing_lines,
    protein_lines,
)
from plmjac.metrics import RANGES, chance, hits_in, ordered_hits_in, precision_at, precisions, ranking, reason_for_nan
from plmjac.records import Atom, Contacts, Protein
from plmjac.store import StoredProtein

MAPS = ("contacts", "contact_head", "attention", "representation")
"""Arrays of a store that are contact maps: of the Jacobian, the supervised head, attention, the hidden states."""

MAX_PANELS = 20

Range = Literal["all", "short", "medium", "long"]


class Settings(BaseModel):
    """The keys of conf/evaluation/contact_precision.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["contact_precision"]
    atom: tuple[Atom, ...] = Field(min_length=1)
    cutoff: tuple[PositiveFloat, ...] = Field(min_length=1)
    min_separation: PositiveInt
    range: Range
    lengths: tuple[PositiveInt, ...]
    bootstrap: PositiveInt
    seed: NonNegativeInt

    @field_validator("atom", "cutoff", "lengths", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int | float) else value

    @property
    def definitions(self) -> list[tuple[Atom, float]]:
        """Atom and cutoff in step, a single one with each of the others; EvaluationError where they do not fit."""
        size = max(len(self.atom), len(self.cutoff))
        if {len(self.atom), len(self.cutoff)} - {1, size}:
            raise EvaluationError(
                f"evaluation.atom has {len(self.atom)} values and evaluation.cutoff {len(self.cutoff)}; "
                "give as many of one as of the other, or one"
            )
        return list(zip(self.atom * (size // len(self.atom)), self.cutoff * (size // len(self.cutoff)), strict=True))

    @property
    def ranges(self) -> dict[str, tuple[int, int | None]]:
        """The ranges of separations, `all` from `min_separation` on."""
        return {**RANGES, "all": (self.min_separation, None)}


MEASURES = ["P@L", "P@L/2", "P@L/5"]
"""Of the full length."""

PARTS = {"P@L": 1, "P@L/2": 2, "P@L/5": 5}

COLUMNS = [
    "protein", "store", "model", "map", "atom", "cutoff", "range", "length", "resolved", "pairs", "contacts", *MEASURES,
    *(f"{measure} resolved" for measure in MEASURES), "P@L/2 ordered", "chance", "reason",
]  # fmt: skip

FRACTIONS: Float64[np.ndarray, " K"] = np.arange(1, 41) / 20
"""Where precision curves are read: the top 0.05 L pairs to the top 2 L."""

GROUP = ["method", "atom", "cutoff", "range"]


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Score every contact map of the stores against the structures."""
    stores = inputs.of_kind("jacobian")
    definitions, structures = settings.definitions, {protein.id: protein for protein in inputs.truth()}
    scored = [_store(store, structures, definitions, settings.ranges) for store in stores]
    table = pd.concat([each for each, _ in scored], ignore_index=True)
    curves = pd.concat([each for _, each in scored], ignore_index=True)
    rows = _named(table[table["map"].notna()], len(stores))
    means = _means(rows, settings)
    differences = paired(rows, GROUP[1:], MEASURES, draws=settings.bootstrap, seed=settings.seed)
    shown = _shown(rows, settings)
    mean_curves = _mean_curves(_named(curves, len(stores)))
    tables = {
        "contact_precision": table, "summary": means, "differences": differences, "precision_curves": mean_curves
    }  # fmt: skip
    drawn = next((store for store in stores if store.name in set(shown["store"])), None)
    figures = _figures(shown, mean_curves, drawn, structures, settings) if drawn else {}
    return Outcome(tables, figures, _printed(table, rows, means, differences, settings), metrics=_metrics(shown))


def contact_precision(
    store: Store,
    truth: Iterable[Protein],
    *,
    definitions: Sequence[tuple[Atom, float]] = (("cb", 8.0),),
    ranges: dict[str, tuple[int, int | None]] = RANGES,
) -> pd.DataFrame:
    """Score every contact map of every protein that is in the store, in the truth, or in both; one row each.

    COLUMNS says which columns. P@L, P@L/2 and P@L/5 are of the full length L; `resolved` behind one means L is the
    number of resolved residues. `P@L/2 ordered` counts (i, j) and (j, i) as two among the top L, as Zhang et al. (2024)
    do. `pairs` and `contacts` are the candidates and those among them that touch, `chance` their ratio.
    """
    return _store(store, {protein.id: protein for protein in truth}, definitions, ranges)[0]


def _store(
    store: Store,
    structures: dict[str, Protein],
    definitions: Sequence[tuple[Atom, float]],
    ranges: dict[str, tuple[int, int | None]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of one store, and the precision curves of its maps."""
    ids = [*store.opened, *(identifier for identifier in structures if identifier not in store.opened)]
    found: list[tuple[dict[str, Any], Float64[np.ndarray, " K"]]] = []
    for identifier in ids:
        found += _protein(store, structures.get(identifier), identifier, definitions, ranges)
    named = {"store": store.name, "model": store.model}
    rows = [{**named, **row} for row, _ in found]
    rows += [
        {**named, "protein": row.id, "reason": f"{row.status}: {row.reason}"}
        for row in store.opened.rows
        if row.status in ("failed", "skipped") and row.id not in ids
    ]
    labels = ["protein", "map", "atom", "cutoff", "range"]
    curves = [
        {**named, **{label: row[label] for label in labels}, **dict(zip(FRACTIONS, curve, strict=True))}
        for row, curve in found
        if len(curve)
    ]
    return (
        pd.DataFrame(rows, columns=COLUMNS),
        pd.DataFrame(curves, columns=["store", "model", *labels, *FRACTIONS]),
    )


Scored = Iterator[tuple[dict[str, Any], Float64[np.ndarray, " K"]]]
"""Rows of the table, each with its precision curve, which is empty where nothing was scored."""


def _protein(
    store: Store,
    truth: Protein | None,
    identifier: str,
    definitions: Sequence[tuple[Atom, float]],
    ranges: dict[str, tuple[int, int | None]],
) -> Scored:
    nothing = np.zeros(0)
    if identifier not in store.opened:
        yield {"protein": identifier, "reason": "not in the store"}, nothing
        return
    stored = store.opened[identifier]
    blank = {"protein": identifier, "length": len(stored)}
    maps = [name for name in MAPS if name in stored.names and stored.array(name).shape == (len(stored), len(stored))]
    if truth is None or truth.structure is None:
        yield {**blank, "reason": "no structure to compare with"}, nothing
    elif truth.sequence != stored.sequence:
        yield {**blank, "reason": "the structure has another sequence than the store"}, nothing
    elif not maps:
        yield {**blank, "reason": "the store keeps no contact map of it; run predict with keep=[contacts]"}, nothing
    else:
        known: list[tuple[Atom, float, Contacts]] = []
        for atom, cutoff in definitions:
            try:
                known.append((atom, cutoff, truth.structure.contacts(atom, cutoff)))
            except ValueError as error:
                yield {**blank, "atom": atom, "cutoff": cutoff, "reason": str(error)}, nothing
        for name in maps if known else []:
            yield from (({**blank, **row}, curve) for row, curve in _map(stored, name, known, ranges))


def _map(
    stored: StoredProtein,
    name: str,
    known: Sequence[tuple[Atom, float, Contacts]],
    ranges: dict[str, tuple[int, int | None]],
) -> Scored:
    """One map against each definition of a contact, in each range; it is sorted once for all of them."""
    ranked, length = ranking(stored.array(name).astype(np.float64)), len(stored)
    for atom, cutoff, contacts in known:
        for label, (low, high) in ranges.items():
            hits = hits_in(ranked, contacts, low, high)
            row = {
                "map": name,
                "atom": atom,
                "cutoff": cutoff,
                "range": label,
                **_scores(hits, length, int(contacts.resolved.sum())),
                "P@L/2 ordered": precision_at(ordered_hits_in(ranked, contacts, low, high), length),
            }
            yield row, precisions(hits, np.round(FRACTIONS * length).astype(np.int64))


def _scores(hits: Bool[np.ndarray, " N"], length: int, resolved: int) -> dict[str, Any]:
    return {
        "resolved": resolved,
        "pairs": len(hits),
        "contacts": int(hits.sum()),
        **{measure: precision_at(hits, length // part) for measure, part in PARTS.items()},
        **{f"{measure} resolved": precision_at(hits, resolved // part) for measure, part in PARTS.items()},
        "chance": chance(hits),
        "reason": reason_for_nan(hits),
    }


def _named(rows: pd.DataFrame, num_stores: int) -> pd.DataFrame:
    """With a column `method`: the map, and the store where there are several."""
    method = rows["map"] if num_stores == 1 else rows["store"] + " " + rows["map"]
    return rows.assign(method=method)


def _means(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Means with intervals over all proteins, and by length."""
    measures = [*MEASURES, *(f"{measure} resolved" for measure in MEASURES), "P@L/2 ordered", "chance"]
    parts = [rows.assign(lengths="all")]
    if settings.lengths:
        edges = sorted(settings.lengths)
        parts.append(rows.assign(lengths=[_bin(int(length), edges) for length in rows["length"]]))
    return summary(pd.concat(parts), [*GROUP, "lengths"], measures, draws=settings.bootstrap, seed=settings.seed)


def _bin(length: int, edges: Sequence[int]) -> str:
    """The half-open bin of a length, in words: "<100", "100-199", ">=400"."""
    below, above = [edge for edge in edges if edge <= length], [edge for edge in edges if edge > length]
    if not below:
        return f"<{above[0]}"
    return f"{below[-1]}-{above[0] - 1}" if above else f">={below[-1]}"


def _mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Mean precision at each share of L over the proteins that could be scored: one row a method and share."""
    long = curves.melt([*GROUP, "protein"], list(FRACTIONS), "pairs / L", "precision").dropna(subset="precision")
    grouped = long.groupby([*GROUP, "pairs / L"], sort=False)["precision"]
    return grouped.agg(precision="mean", n="size").reset_index()


def _shown(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The rows that have a score in the chosen range, by the first definition by which any has."""
    scored = rows[(rows["range"] == settings.range) & rows["P@L"].notna()]
    for atom, cutoff in settings.definitions:
        chosen = scored[(scored["atom"] == atom) & (scored["cutoff"] == cutoff)]
        if len(chosen):
            return chosen
    return scored


def _figures(
    shown: pd.DataFrame, curves: pd.DataFrame, store: Store, structures: dict[str, Protein], settings: Settings
) -> dict[str, Callable[[], plots.Figure]]:
    atom, cutoff = shown["atom"].iloc[0], float(shown["cutoff"].iloc[0])
    definition = _definition(atom, cutoff, settings)
    maps = f"{store.model}: contact map above, structure below ({definition}); yellow: not scored"
    scores = shown.pivot(index="protein", columns="method", values="P@L/2")[list(shown["method"].unique())]
    return {
        "contact_maps": lambda: plots.contact_maps(_panels(shown, store, structures), maps),
        "precision_curves": lambda: plots.precision_curves(_curves_of(_at(curves, atom, cutoff, settings)), definition),
        "per_protein": lambda: plots.paired_scores(scores, "P@L/2", definition),
    }


def _metrics(shown: pd.DataFrame) -> dict[str, float]:
    means = shown.groupby("method", sort=False)[MEASURES].mean()
    return {f"{method}/{measure}": float(means.loc[method, measure]) for method in means.index for measure in MEASURES}


def _curves_of(curves: pd.DataFrame) -> dict[str, plots.Curve]:
    return {
        str(method): (rows["pairs / L"].to_numpy(dtype=np.float64), rows["precision"].to_numpy(dtype=np.float64))
        for method, rows in curves.groupby("method", sort=False)
    }


def _panels(shown: pd.DataFrame, store: Store, structures: dict[str, Protein]) -> list[plots.MapPanel]:
    """The first map of the proteins of a store that has any, in their order."""
    here = shown[shown["store"] == store.name]
    rows = here[here["map"] == here["map"].iloc[0]].head(MAX_PANELS) if len(here) else here
    return [
        plots.MapPanel(
            f"{row['protein']}  P@L/2 {row['P@L/2']:.2f} ({row['chance']:.2f})",
            store.opened[row["protein"]].array(row["map"]),
            structure.contacts(row["atom"], row["cutoff"]),
        )
        for row in rows.to_dict("records")
        if (structure := structures[row["protein"]].structure) is not None
    ]


def _definition(atom: Atom, cutoff: float, settings: Settings) -> str:
    low, high = settings.ranges[settings.range]
    span = f"|i-j| >= {low}" if high is None else f"{low} <= |i-j| < {high}"
    return f"{atom} < {cutoff:g} A, {span}"


def _printed(
    table: pd.DataFrame, rows: pd.DataFrame, means: pd.DataFrame, differences: pd.DataFrame, settings: Settings
) -> str:
    """The means of the chosen range, by protein where there are few, the differences, and what is missing and why."""
    models = dict(zip(table["store"], table["model"], strict=True))
    lines = [
        "model " + (", ".join(f"{model} ({name})" for name, model in models.items()) if len(models) > 1 else
                    "".join(models.values())),
        "P@L: share of contacts among the L best pairs (L: residues); chance: among all pairs",
    ]  # fmt: skip
    measures = [*MEASURES, "P@L/2 ordered"] if settings.range == "long" else MEASURES  # as the paper counts
    for atom, cutoff in settings.definitions:
        here = _at(means, atom, cutoff, settings)
        lines += ["", f"contacts: {_definition(atom, cutoff, settings)}; mean and 95 % interval over n proteins"]
        lines += mean_lines(here[here["lengths"] == "all"], measures)
        lines += length_lines(here[(here["lengths"] != "all") & (here["measure"] == "P@L/2")])
        lines += difference_lines(_at(differences, atom, cutoff, settings))
    lines += protein_lines(_shown(rows, settings))
    lines += missing_lines(table, settings.range)
    return "\n".join(lines)


def _at(table: pd.DataFrame, atom: Atom, cutoff: float, settings: Settings) -> pd.DataFrame:
    return table[(table["atom"] == atom) & (table["cutoff"] == cutoff) & (table["range"] == settings.range)]
