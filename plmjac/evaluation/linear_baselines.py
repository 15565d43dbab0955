"""Inverse covariance, partial correlation and a Markov random field of each protein's family beside the store's maps.

An alignment speaks of the residues in its columns only. All maps of a protein, the store's included, are therefore
scored on these residues, L is their number, and a pair with a residue outside them is no candidate; nor is one that a
map of the stores lacks (windows, positions), for the baselines neither. What could not be computed is a row with NaN
and the reason. Each baseline map is kept on disk as soon as it is there, so that a run that
was killed goes on where it was, and a second store is scored in seconds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from tqdm import tqdm

from plmjac import plots
from plmjac.coevolution import AlignmentOfProtein, Query, load_alignment_for, read_queries
from plmjac.coevolution.baselines import GB, Limits, Method, baseline_map, effective_sequences
from plmjac.comparison import paired, summary
from plmjac.config import Keys
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import labelled, scored
from plmjac.evaluation.structures import NO_STRUCTURE, Labelled, Structures
from plmjac.evaluation.tables import MAX_LISTED, lines_of, matched, means_by, not_scored, number
from plmjac.metrics import PARTS, RANGES, Range, hits_in, in_words, ranking, scores_of
from plmjac.records import Atom, Contacts, Structure
from plmjac.store import CorruptStoreError


class Settings(Keys):
    """The keys of conf/evaluation/linear_baselines.yaml."""

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
    range: Range
    bootstrap: PositiveInt
    seed: NonNegativeInt


MEASURES = list(PARTS)

COLUMNS = [
    "protein", "store", "model", "structure", "match", "method", "atom", "cutoff", "range", "residues", "length",
    "resolved", "pairs", "contacts", *MEASURES, "chance", "reason", "sequences", "neff", "identity", "query",
    "precision", "seconds",
]  # fmt: skip
"""`residues` is the length of the sequence, `length` the number of its residues in the alignment's columns, which is
the L of P@L; `resolved` counts those that the structure shows. `sequences` and `neff` are of the alignment, `identity`
is that of its query to the sequence. `method` is a baseline or a map of the store. `seconds` is the time of the map
when it was computed, maybe by an earlier run."""


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Score the baselines of every protein of the stores (without one, of the dataset) and the maps of the stores."""
    stores = inputs.of_kind("jacobian") if inputs.stores else ()
    if not settings.alignments.exists():
        raise EvaluationError(f"evaluation.alignments={settings.alignments} does not exist; give a folder or a file")
    try:
        table = linear_baselines(stores, inputs.structures, settings)
    except OSError as error:  # files that are read end as rows with a reason; what is left is the folder of kept maps
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
        len(shown.dropna(how="all")),
        metrics=metrics,
    )


def linear_baselines(stores: Sequence[Store], structures: Structures, settings: Settings) -> pd.DataFrame:
    """One row for each protein, method and range of separations; COLUMNS says which columns."""
    queries = read_queries(settings.queries) if settings.queries else None
    rows: list[Row] = []
    found: dict[tuple[str, str], list[tuple[Row, Labelled]]] = {}  # one protein in several stores: its baselines once
    for store in stores:
        for row in scored(labelled(store, structures), lambda protein: [{"labelled": protein}], store):
            protein = row.pop("labelled", None)
            if protein is None:
                rows.append({**row, "residues": row.pop("length")})
            else:
                found.setdefault((protein.id, protein.stored.sequence), []).append((row, protein))
    jobs: list[tuple[str, str, Structure | None, list[tuple[Row, Labelled]]]]
    jobs = [(*key, held[0][1].structure, held) for key, held in found.items()]
    if not stores:
        jobs = [(protein.id, protein.sequence, protein.structure, []) for protein in structures]
    for identifier, sequence, structure, held in tqdm(jobs, "baselines", unit="protein", leave=False, disable=None):
        first = {key: held[0][0][key] for key in ("structure", "match")} if held else {}
        row = {"protein": identifier, **first, "atom": settings.atom, "cutoff": settings.cutoff}
        row["residues"] = len(sequence)
        try:
            rows += _protein(row, sequence, structure, held, queries, settings)
        except (MemoryError, ValueError) as error:
            rows.append({**row, "reason": str(error) or "not enough memory"})
    return pd.DataFrame(rows, columns=COLUMNS)


def _protein(
    row: Row,
    sequence: str,
    structure: Structure | None,
    held: Sequence[tuple[Row, Labelled]],
    queries: dict[str, Query] | None,
    settings: Settings,
) -> list[Row]:
    """The rows of one protein. Raises ValueError with the reason where nothing can be scored."""
    if structure is None:
        raise ValueError(NO_STRUCTURE)
    alignment = load_alignment_for(
        settings.alignments, row["protein"], sequence, queries=queries, max_sequences=settings.max_sequences
    )
    contacts = structure.contacts(settings.atom, settings.cutoff)
    row = {
        **row, "length": len(alignment.positions), "sequences": len(alignment.states), "identity": alignment.identity,
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
    rows, there = [], ~np.eye(len(sequence), dtype=bool)
    maps = [(named, *each) for named, protein in held for each in _maps(protein)]
    for *_, scores in maps:
        there &= ~np.isnan(scores) if isinstance(scores, np.ndarray) else True
    for named, name, scores in maps:
        facts = {**row, "store": named["store"], "model": named["model"], "method": name}
        if isinstance(scores, str):
            rows.append({**facts, "reason": scores})
        else:
            each = _scores(np.where(there, scores, np.nan), known, len(alignment.positions))
            rows += [{**facts, **of_range} for of_range in each]
    for method in settings.methods:
        rows += _baseline(method, alignment, known, there, row, settings)
    return rows


def _maps(protein: Labelled) -> Iterator[tuple[str, Float[np.ndarray, "L L"] | str]]:
    """The maps that a store keeps of a protein; in the place of a damaged one the reason."""
    for name in protein.maps:
        try:
            yield name, protein.array(name)
        except CorruptStoreError as error:
            yield name, str(error)


def _baseline(
    method: Method,
    alignment: AlignmentOfProtein,
    contacts: Contacts,
    there: Bool[np.ndarray, "L L"],
    row: Row,
    settings: Settings,
) -> list[Row]:
    """The rows of one baseline of one protein; a single one with the reason where it cannot be computed.

    `there` are the pairs that are scored.
    """
    limits = Limits(settings.memory_limit * GB, settings.iterations)
    try:
        made = baseline_map(method, alignment.states, limits, settings.maps)
    except ValueError as error:
        return [{**row, "method": method, "reason": str(error)}]
    scores = np.where(there, spread(made.contacts, alignment, len(contacts.resolved)), np.nan)
    facts = {**row, "method": method, "precision": made.precision, "seconds": made.seconds}
    return [{**facts, **each} for each in _scores(scores, contacts, len(alignment.positions))]


def spread(contacts: Float[np.ndarray, "C C"], alignment: AlignmentOfProtein, length: int) -> Float[np.ndarray, "L L"]:
    """A map between columns as one between all residues of the protein, NaN outside the columns."""
    scores: Float[np.ndarray, "L L"] = np.full((length, length), np.nan, dtype=contacts.dtype)
    scores[np.ix_(alignment.positions, alignment.positions)] = contacts
    return scores


def _scores(scores: Float[np.ndarray, "L L"], contacts: Contacts, length: int) -> Iterator[Row]:
    """The precisions of one map in every range."""
    ranked = ranking(scores.astype(np.float64))
    for label, (low, high) in RANGES.items():
        yield {"range": label, **scores_of(hits_in(ranked, contacts, low, high), length)}


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a map; their method with the store before it where there are several stores."""
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
    return f"{settings.atom} < {settings.cutoff:g} A, {in_words(*RANGES[settings.range])}"


def _printed(table: pd.DataFrame, shown: pd.DataFrame, means: pd.DataFrame, settings: Settings) -> str:
    """P@L/2 of every method and protein, the means of all scores, and why something is missing."""
    lines = [
        f"contacts: {_definition(settings)}, both residues in the columns of the alignment",
        "P@L: share of contacts among the L best pairs (L: residues in the columns)",
    ]
    if 0 < len(shown) <= MAX_LISTED:
        facts = table.drop_duplicates("protein").set_index("protein")[["length", "sequences", "neff", "identity"]]
        forms = {"length": ".0f", "sequences": ".0f", "neff": ".0f", "identity": ".2f"}
        listed = facts.join(shown, how="inner")
        for name in listed.columns:
            listed[name] = [number(value, forms.get(name, ".3f")) for value in listed[name]]
        lines += ["", "P@L/2", *lines_of(listed.reset_index().to_dict("records"))]
    found = means[(means["range"] == settings.range) & (means["n"] > 0)]
    if len(found):
        lines += ["", "mean and 95 % interval over n proteins", *means_by(found, "method", MEASURES)]
    here = table[table["range"].isna() | (table["range"] == settings.range)]
    named = here["protein"] + [f" ({each})" if isinstance(each, str) else "" for each in here["method"]]
    return "\n".join([*lines, *matched(table), *not_scored(here.assign(protein=named), "P@L")])
