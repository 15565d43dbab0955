"""Inverse covariance, partial correlation and a Markov random field of each protein's family beside the store's maps.

An alignment speaks of the residues in its columns only. All maps of a protein, the store's included, are therefore
scored on these residues, L is their number, and a pair with a residue outside them is no candidate. What could not be
computed is a row with NaN and the reason. Each baseline map is kept on disk as soon as it is there, so that a run that
was killed goes on where it was, and a second store is scored in seconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from tqdm import tqdm

from plmjac import plots
from plmjac.coevolution import AlignmentOfProtein, Query, load_alignment_for, read_queries
from plmjac.coevolution.baselines import GB, Limits, baseline_map, effective_sequences
from plmjac.comparison import paired, summary
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.metrics import RANGES, chance, hits_in, precision_at, ranking, reason_for_nan
from plmjac.records import Atom, Contacts, Protein

Method = Literal["inverse_covariance", "partial_correlation", "mrf"]


class Settings(BaseModel):
    """The keys of conf/evaluation/linear_baselines.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["linear_baselines"]
    alignments: Path
    queries: Path | None
    methods: tuple[Method, ...] = Field(min_length=1)
    max_sequences: PositiveInt | None
    min_identity: float = Field(ge=0, le=1)
    memory_limit: PositiveFloat
    iterations: PositiveInt
    maps: Path | None
    atom: Atom
    cutoff: PositiveFloat
    range: Literal["all", "short", "medium", "long"]
    bootstrap: PositiveInt
    seed: NonNegativeInt


PARTS = {"P@L": 1, "P@L/2": 2, "P@L/5": 5}

MEASURES = list(PARTS)

COLUMNS = [
    "protein", "store", "model", "method", "atom", "cutoff", "range", "residues", "length", "resolved", "pairs",
    "contacts", *MEASURES, "chance", "reason", "sequences", "neff", "identity", "query", "precision", "seconds",
]  # fmt: skip

STORED = {
    "contacts": "jacobian",
    "contact_head": "contact_head",
    "attention": "attention",
    "representation": "representation",
}
"""What the contact maps of a store are called in the table."""

MAX_LISTED = 60
"""More proteins than this are not listed one by one on the screen; the table has them all."""


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Score the baselines of every protein of the stores (without one, of the dataset) and the maps of the stores."""
    stores = inputs.of_kind("jacobian") if inputs.stores else ()
    if not settings.alignments.exists():
        raise EvaluationError(f"evaluation.alignments={settings.alignments} does not exist; give a folder or a file")
    try:
        table = linear_baselines(stores, list(inputs.truth()), settings)
    except OSError as error:  # files that are read are told as rows; what is left is the folder of kept maps
        raise EvaluationError(f"evaluation.maps={settings.maps} cannot be written: {error.strerror}") from error
    rows = _named(table)
    means = summary(rows, ["method", "range"], [*MEASURES, "chance"], draws=settings.bootstrap, seed=settings.seed)
    differences = paired(rows, ["range"], MEASURES, draws=settings.bootstrap, seed=settings.seed)
    shown = wide(table, settings.range, "P@L/2")
    figures = {}
    if shown.notna().any(axis=None):
        figures["linear_baselines"] = lambda: plots.paired_scores(shown, "P@L/2", _definition(settings))
    found = means[means["range"] == settings.range]
    metrics = {f"{row['method']}/{row['measure']}": float(row["mean"]) for row in found.to_dict("records")}
    return Outcome(
        {
            "linear_baselines": table,
            "linear_baselines_summary": means,
            "linear_baselines_differences": differences,
        },
        figures,
        _printed(table, shown, means, settings),
        metrics=metrics,
    )


Row = dict[str, Any]
"""A row of the table, COLUMNS that are missing NaN."""


def linear_baselines(stores: Sequence[Store], truth: Iterable[Protein], settings: Settings) -> pd.DataFrame:
    """One row for each protein, method and range of separations; COLUMNS says which columns.

    `residues` is the length of the sequence, `length` the number of its residues in the alignment's columns, which is
    the L of P@L; `resolved` counts those that the structure shows. `sequences` and `neff` are of the alignment,
    `identity` is that of its query to the sequence. `seconds` is the time of the map when it was computed, maybe by an
    earlier run.
    """
    structures = {protein.id: protein for protein in truth}
    ids = list(dict.fromkeys(identifier for store in stores for identifier in store.opened)) or list(structures)
    queries = read_queries(settings.queries) if settings.queries else None
    rows: list[Row] = []
    for identifier in tqdm(ids, desc="baselines", unit="protein", leave=False, disable=None):
        rows += _protein(identifier, stores, structures.get(identifier), queries, settings)
    if stores:
        rows += [
            {"protein": identifier, "reason": "not in the store"} for identifier in structures if identifier not in ids
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _protein(
    identifier: str,
    stores: Sequence[Store],
    truth: Protein | None,
    queries: dict[str, Query] | None,
    settings: Settings,
) -> list[Row]:
    """The rows of one protein; a single one with the reason where nothing can be scored."""
    sequences = {store.opened[identifier].sequence for store in stores if identifier in store.opened}
    sequence = min(sequences) if sequences else truth.sequence if truth else ""
    row: Row = {"protein": identifier, "atom": settings.atom, "cutoff": settings.cutoff, "residues": len(sequence)}
    if truth is None or truth.structure is None:
        return [{**row, "reason": "no structure to compare with"}]
    if sequences - {truth.sequence}:
        return [{**row, "reason": "the structure has another sequence than the store"}]
    try:
        alignment = load_alignment_for(
            settings.alignments, identifier, sequence, queries=queries, max_sequences=settings.max_sequences
        )
        contacts = truth.structure.contacts(settings.atom, settings.cutoff)
    except ValueError as error:
        return [{**row, "reason": str(error)}]
    row |= {
        "length": len(alignment.positions), "sequences": len(alignment.states), "identity": alignment.identity,
        "query": alignment.query,
    }  # fmt: skip
    if alignment.identity < settings.min_identity:
        reason = (
            f"{alignment.path.name}: {alignment.identity:.0%} of the residues of {alignment.query!r} are the "
            f"protein's, below evaluation.min_identity={settings.min_identity:g}"
        )
        return [{**row, "reason": reason}]
    inside = np.zeros(len(sequence), dtype=bool)
    inside[alignment.positions] = True
    known = Contacts(contacts.pairs, contacts.resolved & inside)
    row |= {"neff": effective_sequences(alignment.states, settings.maps), "resolved": int(known.resolved.sum())}
    rows = []
    for store in stores:
        if identifier in store.opened:
            rows += _stored(store, identifier, known, len(alignment.positions), row)
    for method in settings.methods:
        rows += _baseline(method, alignment, known, row, settings)
    return rows


def _baseline(
    method: Method, alignment: AlignmentOfProtein, contacts: Contacts, row: Row, settings: Settings
) -> list[Row]:
    """The rows of one baseline of one protein; a single one with the reason where it cannot be computed."""
    limits = Limits(settings.memory_limit * GB, settings.iterations)
    try:
        made = baseline_map(method, alignment.states, limits, settings.maps)
    except ValueError as error:
        return [{**row, "method": method, "reason": str(error)}]
    scores = spread(made.contacts, alignment, len(contacts.resolved))
    facts = {**row, "method": method, "precision": made.precision, "seconds": made.seconds}
    return [{**facts, **each} for each in _scores(scores, contacts, len(alignment.positions))]


def _stored(store: Store, identifier: str, contacts: Contacts, length: int, row: Row) -> list[Row]:
    """The rows of a store's maps of one protein."""
    stored = store.opened[identifier]
    rows = []
    for name, method in STORED.items():
        if name in stored.names and stored.array(name).shape == contacts.pairs.shape:
            facts = {**row, "store": store.name, "model": store.model, "method": method}
            rows += [{**facts, **scores} for scores in _scores(stored.array(name), contacts, length)]
    return rows


def spread(contacts: Float[np.ndarray, "C C"], alignment: AlignmentOfProtein, length: int) -> Float[np.ndarray, "L L"]:
    """A map between columns as one between all residues of the protein, NaN outside the columns."""
    scores: Float[np.ndarray, "L L"] = np.full((length, length), np.nan, dtype=contacts.dtype)
    scores[np.ix_(alignment.positions, alignment.positions)] = contacts
    return scores


def _scores(scores: Float[np.ndarray, "L L"], contacts: Contacts, length: int) -> Iterator[Row]:
    """The precisions of one map in every range."""
    ranked = ranking(scores.astype(np.float64))
    for label, (low, high) in RANGES.items():
        hits = hits_in(ranked, contacts, low, high)
        yield {
            "range": label,
            "pairs": len(hits),
            "contacts": int(hits.sum()),
            **{measure: precision_at(hits, length // part) for measure, part in PARTS.items()},
            "chance": chance(hits),
            "reason": reason_for_nan(hits),
        }


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a map; their method with the store behind it where there are several stores."""
    rows = table[table["method"].notna() & table["range"].notna()]
    if rows["store"].nunique() > 1:
        stored = rows["store"].notna()
        rows = rows.assign(method=rows["method"].where(~stored, rows["store"] + " " + rows["method"]))
    return rows


def wide(table: pd.DataFrame, separation: str, measure: str) -> pd.DataFrame:
    """One row a protein and one column a method, NaN where there is no score."""
    rows = _named(table)
    rows = rows[rows["range"] == separation]
    names = list(rows["method"].unique())
    proteins = list(rows["protein"].unique())
    return rows.pivot(index="protein", columns="method", values=measure).loc[proteins, names]


def _definition(settings: Settings) -> str:
    low, high = RANGES[settings.range]
    span = f"|i-j| >= {low}" if high is None else f"{low} <= |i-j| < {high}"
    return f"{settings.atom} < {settings.cutoff:g} A, {span}"


def _printed(table: pd.DataFrame, shown: pd.DataFrame, means: pd.DataFrame, settings: Settings) -> str:
    """P@L/2 of every method and protein, the means of all scores, and why something is missing."""
    lines = [
        f"contacts: {_definition(settings)}, both residues in the columns of the alignment",
        "P@L: share of contacts among the L best pairs (L: residues in the columns)",
    ]
    if 0 < len(shown) <= MAX_LISTED:
        facts = table.drop_duplicates("protein").set_index("protein")[["length", "sequences", "neff", "identity"]]
        rows = facts.join(shown, how="inner").astype({"length": int, "sequences": int}).reset_index()
        formats = {"neff": "{:.0f}".format, "identity": "{:.2f}".format}
        lines += ["", "P@L/2", rows.to_string(index=False, float_format="{:.3f}".format, formatters=formats)]
    found = means[(means["range"] == settings.range) & (means["n"] > 0)]
    if len(found):
        lines += ["", "mean and 95 % interval over n proteins"]
        lines.append(_means(found))
    missing = table[~table["reason"].isin(["", None]) & (table["range"].isna() | (table["range"] == settings.range))]
    for row in missing.to_dict("records"):
        method = "" if pd.isna(row["method"]) else f", {row['method']}"
        lines.append(f"not scored: {row['protein']}{method}: {row['reason']}")
    return "\n".join(lines)


def _means(found: pd.DataFrame) -> str:
    """A line a method, a column a measure: mean and interval."""
    lines: dict[str, Row] = {}
    for row in found.to_dict("records"):
        line = lines.setdefault(row["method"], {"method": row["method"], "n": row["n"]})
        line[row["measure"]] = f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    return pd.DataFrame(list(lines.values())).to_string(index=False)
