"""Two structures of one sequence: does a contact map hold the contacts of A, of B, or only those of both?

Pairs that are resolved in both structures are in one of four classes: contacts of both, of A alone, of B alone, and
none. Every map of the stores, and every baseline on the family's alignment or on a cluster of its sequences, is asked
for precision and recall of each class among its top L/2, L and 2 L pairs and for the class's mean score.

The null deals the contacts of one structure alone out to A and B at random, as many to each as there are: it keeps the
map and asks whether the map prefers a structure. Contacts come in strips (two strands side by side), so that pairs are
not independent and p is too small rather than too large.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from plmjac import plots
from plmjac.coevolution import AlignmentOfProtein, load_alignment_for
from plmjac.coevolution.alignment import match
from plmjac.coevolution.baselines import GB, Limits, Method, baseline_map, effective_sequences
from plmjac.coevolution.clusters import clusters
from plmjac.config import Keys
from plmjac.draws import generator
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.evaluation.scoring import Unscored, stored_proteins
from plmjac.evaluation.structures import PlacedStructure
from plmjac.evaluation.tables import number
from plmjac.files import nearest
from plmjac.metrics import ranking
from plmjac.readouts import maps
from plmjac.records import Atom, Contacts, Protein, Structure
from plmjac.store import CorruptStoreError


class Settings(Keys):
    """The keys of conf/evaluation/conformations.yaml."""

    name: Literal["conformations"]
    a: str
    b: str
    alignment: Path | None
    methods: tuple[Method, ...]
    clusters: NonNegativeInt
    min_sequences: int = Field(ge=2)
    max_sequences: PositiveInt | None
    min_identity: float = Field(ge=0, le=1)
    memory_limit: PositiveFloat
    iterations: PositiveInt
    maps: Path | None
    atom: Atom
    cutoff: PositiveFloat
    min_separation: PositiveInt
    shuffles: PositiveInt
    seed: NonNegativeInt


CLASSES = ("both", "only A", "only B")

NONE, BOTH, ONLY_A, ONLY_B = 0, 1, 2, 3
"""Labels of pairs."""

TOPS = {"L/2": 0.5, "L": 1.0, "2L": 2.0}

COLUMNS = [
    "store", "model", "protein", "map", "part", "sequences", "neff", "top", "class", "contacts", "hits", "precision",
    "recall", "mean score", "null low", "null high", "p", "p of score", "reason",
]  # fmt: skip
"""`precision` is the class's share of the top pairs, `recall` the share of the class among them; `mean score` is in
standard deviations from the mean of all pairs. `null low` and `null high` hold 95 % of the recalls under the null, `p`
is two-sided for them, `p of score` for the difference of the mean scores of the two classes."""


@dataclass(frozen=True, eq=False)
class Conformations:
    """Two structures on the residues of A: the pairs i < j to rank, in order, and the class of each."""

    sequence: str
    first: Int64[np.ndarray, " N"]
    second: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]

    def pairs(self, label: int) -> Bool[np.ndarray, "L L"]:
        """The pairs of a class as a symmetric map."""
        chosen: Bool[np.ndarray, "L L"] = np.zeros((len(self.sequence), len(self.sequence)), dtype=bool)
        chosen[self.first[self.label == label], self.second[self.label == label]] = True
        both: Bool[np.ndarray, "L L"] = chosen | chosen.T
        return both


@dataclass(frozen=True, eq=False)
class Candidate:
    """A map on the residues of A, NaN where it says nothing, and what the table says of its origin."""

    title: str
    facts: dict[str, Any]
    scores: Float[np.ndarray, "L L"]


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Score every map and baseline on the contacts of A, of B and of both."""
    stores = inputs.of_kind("jacobian") if inputs.stores else ()
    if not stores and settings.alignment is None:
        raise EvaluationError(
            "nothing to score: give store=FOLDER, or evaluation.alignment=FILE for baselines, or both"
        )
    protein_a, both = two_structures({protein.id: protein for protein in inputs.structures}, settings)
    rows: list[dict[str, Any]] = []
    scored: list[Candidate] = []
    for candidate in [*_stored(stores, both.sequence, settings), *_baselines(protein_a, settings)]:
        if isinstance(candidate, Candidate):
            scored.append(candidate)
            rows += class_scores(candidate.scores, both, candidate.facts, settings.shuffles, settings.seed)
        else:
            rows.append(candidate)
    table = pd.DataFrame(rows, columns=COLUMNS)
    figures: dict[str, Callable[[], plots.Figure]] = {}
    if scored:
        figures["conformations"] = lambda: _figure(scored, both, settings)
    found = table[(table["top"] == "L") & (table["class"] != "both")]
    metrics = {
        f"{row['map']} {row['part']}/{row['class']}/recall": float(row["recall"]) for row in found.to_dict("records")
    }
    text = _printed(table, both, settings)
    return Outcome({"conformations": table}, figures, text, len(scored), metrics=metrics)


def two_structures(structures: dict[str, Protein], settings: Settings) -> tuple[Protein, Conformations]:
    """A, and the contacts of both structures on its residues. Raises EvaluationError where they cannot be compared."""
    a, b = (_structure(structures, key, name) for key, name in (("a", settings.a), ("b", settings.b)))
    of_a, of_b = match(a.sequence, b.sequence)
    _check_identity(a.sequence, of_a, b.sequence, of_b, f"evaluation.b={b.id}", settings)
    columns = np.full(len(a), -1, dtype=np.int64)
    columns[of_a] = of_b
    known_a = _contacts(a.id, a.structure, settings)
    moved = _contacts(b.id, b.structure and PlacedStructure(b.structure, columns), settings)
    first, second = np.triu_indices(len(a), k=settings.min_separation)
    resolved = known_a.resolved & moved.resolved
    keep = resolved[first] & resolved[second]
    first, second = first[keep], second[keep]
    in_a, in_b = known_a.pairs[first, second], moved.pairs[first, second]
    label = np.select([in_a & in_b, in_a, in_b], [BOTH, ONLY_A, ONLY_B], NONE).astype(np.int64)
    if not (label != NONE).any():
        raise EvaluationError(f"{a.id} and {b.id} have no contact among residues that both resolve")
    return a, Conformations(a.sequence, first, second, label)


def class_scores(
    scores: Float[np.ndarray, "L L"], both: Conformations, facts: dict[str, Any], shuffles: int, seed: int
) -> Iterator[dict[str, Any]]:
    """One row for each class and number of top pairs; COLUMNS says which columns.

    Pairs without a score (NaN) are ranked last and never among the top.
    """
    values = scores[both.first, both.second].astype(np.float64)
    known = np.isfinite(values)
    if not known.any():
        yield {**facts, "reason": "the map has no score for any pair that both structures resolve"}
        return
    spread = float(values[known].std()) or 1.0
    standard = (values - values[known].mean()) / spread
    place = _places(scores, both)
    exclusive = np.flatnonzero(both.label >= ONLY_A)
    dealt = _dealt(len(exclusive), int((both.label == ONLY_A).sum()), shuffles, seed)
    p_score = _p_of_difference(standard[exclusive], both.label[exclusive] == ONLY_A, dealt)
    for top, part in TOPS.items():
        count = max(1, int(part * len(both.sequence)))
        is_top = (place < count) & known
        for label, name in zip((BOTH, ONLY_A, ONLY_B), CLASSES, strict=True):
            members = both.label == label
            hits = int((is_top & members).sum())
            row = {
                **facts,
                "top": top,
                "class": name,
                "contacts": int(members.sum()),
                "hits": hits,
                "precision": hits / max(1, int(is_top.sum())),
                "recall": hits / members.sum() if members.any() else np.nan,
                "mean score": float(standard[members & known].mean()) if (members & known).any() else np.nan,
                "reason": "" if members.any() else "the structures have no such contact",
            }
            if label != BOTH and members.any():
                own = dealt if label == ONLY_A else ~dealt
                null = own @ is_top[exclusive].astype(np.float64)
                low, high = np.quantile(null, [0.025, 0.975]) / members.sum()
                p = _two_sided(null, float(hits))
                row |= {"null low": float(low), "null high": float(high), "p": p, "p of score": p_score}
            yield row


def _places(scores: Float[np.ndarray, "L L"], both: Conformations) -> Int64[np.ndarray, " N"]:
    """The rank of each pair to rank, from 0, as `plmjac.metrics.ranking` orders them."""
    length = len(both.sequence)
    order = np.full((length, length), length * length, dtype=np.int64)
    first, second = ranking(np.where(np.isfinite(scores), scores, -np.inf).astype(np.float64))
    order[first, second] = np.arange(len(first))
    overall = order[both.first, both.second]
    place = np.empty(len(overall), dtype=np.int64)
    place[np.argsort(overall)] = np.arange(len(overall))
    return place


def _dealt(number: int, of_a: int, shuffles: int, seed: int) -> Bool[np.ndarray, "S N"]:
    """Mask, for each shuffle, of the `of_a` out of `number` contacts that are assigned to A."""
    order = generator(("conformations", seed)).random((shuffles, number)).argsort(axis=1)
    dealt: Bool[np.ndarray, "S N"] = order < of_a
    return dealt


def _p_of_difference(
    standard: Float64[np.ndarray, " N"], is_a: Bool[np.ndarray, " N"], dealt: Bool[np.ndarray, "S N"]
) -> float:
    """Two-sided p of the difference between the mean scores of A's contacts and B's; NaN without both classes."""
    known = np.isfinite(standard)
    if not (is_a & known).any() or not (~is_a & known).any():
        return float("nan")
    values = np.where(known, standard, 0.0)
    of_a = np.vstack([is_a, dealt]) & known
    of_b = ~np.vstack([is_a, dealt]) & known
    seen, *null = (of_a @ values) / np.maximum(of_a.sum(axis=1), 1) - (of_b @ values) / np.maximum(of_b.sum(axis=1), 1)
    return _two_sided(np.array(null), float(seen))


def _two_sided(null: Float64[np.ndarray, " S"], seen: float) -> float:
    """Twice the smaller share of the null on either side of what was seen, itself counted as one of the null."""
    below, above = int((null <= seen).sum()), int((null >= seen).sum())
    return min(1.0, 2 * (1 + min(below, above)) / (1 + len(null)))


def _structure(structures: dict[str, Protein], key: str, name: str) -> Protein:
    if name not in structures:
        raise EvaluationError(
            f"evaluation.{key}={name}: the dataset has no such record; {nearest(name, structures, 20)}"
        )
    if structures[name].structure is None:
        raise EvaluationError(f"evaluation.{key}={name} has no structure; name a dataset with structures, +dataset=pdb")
    return structures[name]


def _contacts(name: str, structure: Structure | None, settings: Settings) -> Contacts:
    assert structure is not None
    try:
        return structure.contacts(settings.atom, settings.cutoff)
    except ValueError as error:
        raise EvaluationError(f"{name}: {error}") from None


def _check_identity(
    a: str, of_a: Int64[np.ndarray, " N"], other: str, of_other: Int64[np.ndarray, " N"], name: str, settings: Settings
) -> None:
    same = sum(a[i] == other[j] for i, j in zip(of_a, of_other, strict=True))
    if same < settings.min_identity * len(other):
        raise EvaluationError(
            f"{name}: {same} of its {len(other)} residues are those of {settings.a}, below "
            f"evaluation.min_identity={settings.min_identity:g}"
        )


def _stored(stores: tuple[Store, ...], sequence: str, settings: Settings) -> Iterator[Candidate | dict[str, Any]]:
    """Every map of the proteins in the stores that have the sequence of A, or nearly."""
    for store in stores:
        blank = {"store": store.name, "model": store.model, "part": "sequence"}
        fits = False
        for stored in stored_proteins(store):
            if isinstance(stored, Unscored):
                continue
            of_a, of_stored = match(sequence, stored.sequence)
            same = sum(sequence[i] == stored.sequence[j] for i, j in zip(of_a, of_stored, strict=True))
            if same < settings.min_identity * max(len(sequence), len(stored.sequence)):
                continue
            fits = True
            for name in (each for each in maps() if each in stored.names):
                facts = {**blank, "protein": stored.id, "map": name}
                try:
                    between = stored.array(name)[np.ix_(of_stored, of_stored)]
                except CorruptStoreError as error:
                    yield {**facts, "reason": str(error)}
                    continue
                scores = np.full((len(sequence), len(sequence)), np.nan)
                scores[np.ix_(of_a, of_a)] = between
                yield Candidate(f"{store.model}, {name} of {stored.id}", facts, scores)
        if not fits:
            reason = f"no protein of the store has {settings.min_identity:.0%} of the residues of {settings.a}"
            yield {**blank, "reason": reason}


def _baselines(a: Protein, settings: Settings) -> Iterator[Candidate | dict[str, Any]]:
    """Every baseline on the whole alignment, then on its clusters, the largest first."""
    if settings.alignment is None:
        return
    try:
        alignment = load_alignment_for(settings.alignment, a.id, a.sequence, max_sequences=settings.max_sequences)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    if alignment.identity < settings.min_identity:
        raise EvaluationError(
            f"{alignment.path.name}: {alignment.identity:.0%} of the residues of its first row are those of {a.id}, "
            f"below evaluation.min_identity={settings.min_identity:g}"
        )
    yield from _of_part("family", alignment, np.ones(len(alignment.states), dtype=bool), a, settings)
    if settings.clusters:
        try:
            group = clusters(alignment.states, settings.clusters, settings.seed)
        except ValueError as error:
            raise EvaluationError(f"evaluation.clusters={settings.clusters}: {error}") from None
        for number in range(int(group.max()) + 1):
            holds_query = " (of A)" if group[0] == number else ""
            yield from _of_part(f"cluster {number + 1}{holds_query}", alignment, group == number, a, settings)


def _of_part(
    part: str, alignment: AlignmentOfProtein, rows: Bool[np.ndarray, " N"], a: Protein, settings: Settings
) -> Iterator[Candidate | dict[str, Any]]:
    states, limits = alignment.states[rows], Limits(settings.memory_limit * GB, settings.iterations)
    facts: dict[str, Any] = {"part": part, "sequences": len(states), "protein": a.id}
    if len(states) < settings.min_sequences:
        yield {**facts, "reason": f"{len(states)} sequences, below evaluation.min_sequences={settings.min_sequences}"}
        return
    facts["neff"] = effective_sequences(states, settings.maps)
    for method in settings.methods:
        try:
            contacts = baseline_map(method, states, limits, settings.maps).contacts
        except ValueError as error:
            yield {**facts, "map": method, "reason": str(error)}
            continue
        scores = np.full((len(a), len(a)), np.nan)
        scores[np.ix_(alignment.positions, alignment.positions)] = contacts
        yield Candidate(f"{method}, {part}, {len(states):,} sequences", {**facts, "map": method}, scores)


def _figure(scored: list[Candidate], both: Conformations, settings: Settings) -> plots.Figure:
    classes = [both.pairs(label) for label in (BOTH, ONLY_A, ONLY_B)]
    panels = [plots.ConformationPanel(each.title, _top_pairs(each.scores, both)) for each in scored]
    return plots.conformation_maps(panels, classes, settings.a, settings.b, settings.min_separation)


def _top_pairs(scores: Float[np.ndarray, "L L"], both: Conformations) -> Bool[np.ndarray, "L L"]:
    """The best L pairs of a map, symmetric."""
    best = (_places(scores, both) < len(both.sequence)) & np.isfinite(scores[both.first, both.second])
    chosen: Bool[np.ndarray, "L L"] = np.zeros(scores.shape, dtype=bool)
    chosen[both.first[best], both.second[best]] = True
    both_ways: Bool[np.ndarray, "L L"] = chosen | chosen.T
    return both_ways


def _printed(table: pd.DataFrame, both: Conformations, settings: Settings) -> str:
    """Recall of each class among the top L pairs, a line a map, and what could not be scored."""
    counts = {
        name: int((both.label == label).sum()) for label, name in zip((BOTH, ONLY_A, ONLY_B), CLASSES, strict=True)
    }
    lines = [
        f"A = {settings.a}, B = {settings.b}; contacts {settings.atom} < {settings.cutoff:g} A, "
        f"|i-j| >= {settings.min_separation}: " + ", ".join(f"{name} {count}" for name, count in counts.items()),
        f"of the top L = {len(both.sequence)} pairs: recall of each class (95 % of the null in brackets), precision of "
        "all three, mean scores in standard deviations, p that the map prefers neither structure",
        "",
    ]
    found = table[table["top"] == "L"]
    shown = []
    for _, rows in found.groupby(["store", "protein", "map", "part"], sort=False, dropna=False):
        by_class = {row["class"]: row for row in rows.to_dict("records")}
        line = {"map": by_class["both"]["map"], "of": by_class["both"]["part"]}
        if line["of"] == "sequence":
            line["of"] = by_class["both"]["protein"]
        line["sequences"] = "" if pd.isna(by_class["both"]["sequences"]) else f"{int(by_class['both']['sequences']):,}"
        line["precision"] = f"{sum(row['precision'] for row in by_class.values()):.2f}"
        line["both"] = number(by_class["both"]["recall"], ".2f")
        for name in CLASSES[1:]:
            row = by_class[name]
            told = f"{row['recall']:.2f} [{row['null low']:.2f}, {row['null high']:.2f}]"
            line[name] = "-" if pd.isna(row["recall"]) else told
        line["scores"] = " / ".join(number(by_class[name]["mean score"], ".1f") for name in CLASSES)
        line["p"] = number(by_class["only A"]["p"], ".3g")
        line["p of score"] = number(by_class["only A"]["p of score"], ".3g")
        shown.append(line)
    if shown:
        lines.append(pd.DataFrame(shown).to_string(index=False))
    for row in table[table["top"].isna()].to_dict("records"):
        origin = " ".join(str(row[key]) for key in ("store", "map", "part") if not pd.isna(row[key]))
        lines.append(f"not scored: {origin}: {row['reason']}")
    return "\n".join(lines)
