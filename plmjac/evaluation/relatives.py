"""One structure and many of its relatives: which of them show its contacts to the model, and what their mean shows.

The maps of relatives are carried to the residues of the reference by the columns of the alignment that they share.
Residues that a relative has not got are no candidates when it is judged. Maps are brought to mean 0 and standard
deviation 1 before they are averaged, and a pair that only some of the relatives have is averaged over those.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from plmjac import plots
from plmjac.alphabet import clean
from plmjac.coevolution.alignment import match
from plmjac.config import Keys
from plmjac.datasets.alignment import AlignedRow, identity_and_coverage, read_aligned
from plmjac.draws import generator
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import Unscored, stored_proteins
from plmjac.evaluation.structures import PlacedStructure
from plmjac.evaluation.tables import not_scored
from plmjac.files import nearest, shorten
from plmjac.metrics import PARTS, RANGES, Range, hits_in, in_words, ranking, scores_of
from plmjac.records import Atom, Contacts, Protein
from plmjac.store import CorruptStoreError


class Settings(Keys):
    """The keys of conf/evaluation/relatives.yaml."""

    name: Literal["relatives"]
    alignment: Path
    structure: str | None
    map: str
    min_identity: float = Field(ge=0, le=1)
    atom: Atom
    cutoff: PositiveFloat
    range: Range
    draws: PositiveInt
    seed: NonNegativeInt


COLUMNS = [
    "store", "model", "protein", "identity", "coverage", "length", "pairs", "contacts", *PARTS, "chance", "r", "reason"
]  # fmt: skip
"""`identity` and `coverage` are to the reference's row, `r` is the correlation of the map with the reference's own."""

MEAN_COLUMNS = [
    "store",
    "model",
    "relatives",
    "draws",
    *(f"{part} {word}" for part in PARTS for word in ("mean", "low", "high")),
]


class Reference:
    """The first row of the alignment on its structure: contacts of the row's residues that the structure resolves."""

    def __init__(self, rows: Sequence[AlignedRow], protein: Protein, settings: Settings) -> None:
        assert protein.structure is not None
        self.row = rows[0]
        self.columns = np.flatnonzero([letter != "-" for letter in self.row.columns])
        of_row, of_structure = match(self.row.residues, protein.sequence)
        same = sum(self.row.residues[i] == protein.sequence[j] for i, j in zip(of_row, of_structure, strict=True))
        if same < settings.min_identity * len(self.row.residues):
            raise EvaluationError(
                f"{self.row.id}: {same} of its {len(self.row.residues)} residues are those of {protein.id}, below "
                f"evaluation.min_identity={settings.min_identity:g}"
            )
        columns = np.full(len(self.row.residues), -1, dtype=np.int64)
        columns[of_row] = of_structure
        try:
            self.contacts = PlacedStructure(protein.structure, columns).contacts(settings.atom, settings.cutoff)
        except ValueError as error:
            raise EvaluationError(f"{protein.id}: {error}") from None

    def __len__(self) -> int:
        return len(self.row.residues)

    def carried(self, scores: Float64[np.ndarray, "M M"], row: AlignedRow) -> Float64[np.ndarray, "L L"]:
        """A relative's map between the reference's residues, NaN where the relative has none."""
        places: Int64[np.ndarray, " L"] = np.array(row.places)[self.columns]
        has = np.flatnonzero(places >= 0)
        moved: Float64[np.ndarray, "L L"] = np.full((len(self), len(self)), np.nan)
        moved[np.ix_(has, has)] = scores[np.ix_(places[has], places[has])]
        return moved

    def scores(self, scores: Float64[np.ndarray, "L L"], separations: str) -> dict[str, Any]:
        """The precisions of a map among the pairs that it has; L is the length of the reference."""
        there = np.isfinite(scores).any(axis=0)
        known = Contacts(self.contacts.pairs, self.contacts.resolved & there)
        return scores_of(hits_in(ranking(scores), known, *RANGES[separations]), len(self))


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Judge every relative's map by the reference's structure, and the means of random choices of them."""
    stores = inputs.of_kind("jacobian")
    protein = _structure({each.id: each for each in inputs.structures if each.structure is not None}, settings)
    try:
        rows = read_aligned(settings.alignment)
    except ValueError as error:
        raise EvaluationError(str(error)) from None
    reference = Reference(rows, protein, settings)
    by_sequence: dict[str, AlignedRow] = {}
    for row in rows:
        by_sequence.setdefault(row.residues.replace("J", "X"), row)
    table, means = [], []
    for store in stores:
        maps, found = _relatives(store, by_sequence, reference, settings)
        table += found
        means += _means(store, maps, reference, settings)
    scored, averaged = pd.DataFrame(table, columns=COLUMNS), pd.DataFrame(means, columns=MEAN_COLUMNS)
    if not scored["P@L"].notna().any():
        return Outcome(
            {"relatives": scored}, {}, "\n".join(not_scored(scored, "P@L")) or "the stores hold no protein", 0
        )
    metrics = {
        f"{row['store']}/mean of {row['relatives']}/P@L/2": float(row["P@L/2 mean"])
        for row in averaged.to_dict("records")
    }
    return Outcome(
        {"relatives": scored, "relatives_mean": averaged},
        {"relatives": lambda: plots.relatives(scored, averaged, "P@L/2")},
        _printed(scored, averaged, reference, protein, settings),
        int(scored["P@L"].notna().sum()),
        metrics=metrics,
    )


def _structure(structures: dict[str, Protein], settings: Settings) -> Protein:
    if settings.structure is None and len(structures) == 1:
        return next(iter(structures.values()))
    if not structures:
        raise EvaluationError("the dataset has no structure; name one that has, +dataset=pdb dataset.path=...")
    if settings.structure is None:
        raise EvaluationError(f"which structure? evaluation.structure=ID, one of {shorten(structures, 20)}")
    if settings.structure not in structures:
        raise EvaluationError(
            f"evaluation.structure={settings.structure}: the dataset has no such structure; "
            f"{nearest(settings.structure, structures, 20)}"
        )
    return structures[settings.structure]


def _relatives(
    store: Store, by_sequence: dict[str, AlignedRow], reference: Reference, settings: Settings
) -> tuple[dict[str, Float64[np.ndarray, "L L"]], list[dict[str, Any]]]:
    """The carried map of every relative in a store, the reference's first where it is there; and a row for each."""
    maps: dict[str, Float64[np.ndarray, "L L"]] = {}
    rows: list[dict[str, Any]] = []
    own: Float64[np.ndarray, "L L"] | None = None
    first = clean(reference.row.residues)[0]
    items = sorted(stored_proteins(store), key=lambda each: isinstance(each, Unscored) or each.sequence != first)
    for stored in items:
        row: Row = {"store": store.name, "model": store.model, "protein": stored.id}
        if isinstance(stored, Unscored):
            rows.append({**row, "length": stored.length, "reason": stored.reason})
            continue
        row["length"] = len(stored)
        aligned = by_sequence.get(stored.sequence)
        if aligned is None:
            rows.append({**row, "reason": f"its sequence is no row of {settings.alignment.name}"})
            continue
        if settings.map not in stored.names:
            reason = f"the store keeps no {settings.map} of it; run predict with keep=[{settings.map}]"
            rows.append({**row, "reason": reason})
            continue
        try:
            carried = reference.carried(stored.array(settings.map).astype(np.float64), aligned)
        except CorruptStoreError as error:
            rows.append({**row, "reason": str(error)})
            continue
        identity, coverage = identity_and_coverage(reference.row.columns, aligned.columns)
        if aligned is reference.row:
            own = carried
        facts = {"identity": identity, "coverage": coverage, "r": _correlation(own, carried)}
        rows.append({**row, **facts, **reference.scores(carried, settings.range)})
        maps[stored.id] = _standardised(carried)
    return maps, rows


def _standardised(scores: Float64[np.ndarray, "L L"]) -> Float64[np.ndarray, "L L"]:
    """Mean 0 and standard deviation 1 over all pairs i != j that there are."""
    apart = np.isfinite(scores) & ~np.eye(len(scores), dtype=bool)
    values = scores[apart]
    spread = float(values.std()) if len(values) else 0.0
    moved: Float64[np.ndarray, "L L"] = (scores - (values.mean() if len(values) else 0.0)) / (spread or 1.0)
    return moved


def _correlation(own: Float64[np.ndarray, "L L"] | None, carried: Float64[np.ndarray, "L L"]) -> float:
    """Pearson's r over the pairs |i - j| >= 6 that both have; NaN without the reference's own map."""
    if own is None:
        return float("nan")
    first, second = np.triu_indices(len(carried), k=RANGES["all"][0])
    a, b = own[first, second], carried[first, second]
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 2 or np.ptp(a[known]) == 0 or np.ptp(b[known]) == 0:
        return float("nan")
    return float(np.corrcoef(a[known], b[known])[0, 1])


def mean_map(maps: Sequence[Float64[np.ndarray, "L L"]]) -> Float64[np.ndarray, "L L"]:
    """The mean over those that have a pair; NaN where none has."""
    stack = np.stack(maps)
    known = np.isfinite(stack)
    count = known.sum(axis=0)
    total = np.where(known, stack, 0.0).sum(axis=0)
    mean: Float64[np.ndarray, "L L"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _means(
    store: Store, maps: dict[str, Float64[np.ndarray, "L L"]], reference: Reference, settings: Settings
) -> list[dict[str, Any]]:
    """Precision of the mean of k maps for k = 1, 2, 4, ... and all: mean and 95 % interval over random choices."""
    values = list(maps.values())
    rows = []
    for count in _counts(len(values)):
        repeats = 1 if count == len(values) else settings.draws
        found = []
        for repeat in range(repeats):
            chosen = generator(("mean of relatives", settings.seed, count, repeat)).permutation(len(values))[:count]
            found.append(reference.scores(mean_map([values[each] for each in chosen]), settings.range))
        row: dict[str, Any] = {"store": store.name, "model": store.model, "relatives": count, "draws": repeats}
        for name in PARTS:
            drawn = np.array([each[name] for each in found])
            low, high = np.quantile(drawn, [0.025, 0.975]) if repeats > 1 else (np.nan, np.nan)
            row |= {f"{name} mean": float(drawn.mean()), f"{name} low": float(low), f"{name} high": float(high)}
        rows.append(row)
    return rows


def _counts(number: int) -> list[int]:
    """1, 2, 4, ... below the number, and the number itself."""
    return [2**power for power in range(20) if 2**power < number] + ([number] if number else [])


def _printed(
    table: pd.DataFrame, means: pd.DataFrame, reference: Reference, protein: Protein, settings: Settings
) -> str:
    scored = table[table["P@L"].notna()]
    lines = [
        f"reference {reference.row.id} of {settings.alignment.name} ({len(reference)} residues) on {protein.id}; "
        f"contacts {settings.atom} < {settings.cutoff:g} A, {in_words(*RANGES[settings.range])}; "
        f"chance {scored['chance'].mean():.3f}",
        "r: correlation of a relative's map with the reference's own",
        "",
    ]
    tenth = (10 * scored["identity"] + 1e-9).astype(int)
    bins = tenth.map(lambda each: "1" if each >= 10 else f"{each / 10:g} to {(each + 1) / 10:g}")
    grouped = scored.groupby(["store", bins], sort=True)
    by_identity = grouped[["P@L", "P@L/2", "P@L/5", "r"]].mean().assign(n=grouped.size()).reset_index()
    lines.append(by_identity.to_string(index=False, float_format="{:.3f}".format))
    lines += ["", "mean map of random choices of relatives, 95 % of the choices in brackets"]
    for row in means.to_dict("records"):
        numbers = [
            f"{name} {row[f'{name} mean']:.3f}"
            + ("" if row["draws"] == 1 else f" [{row[f'{name} low']:.3f}, {row[f'{name} high']:.3f}]")
            for name in PARTS
        ]
        lines.append(f"  {row['store']}, {row['relatives']:>3} of them: {'  '.join(numbers)}")
    return "\n".join([*lines, *not_scored(table, "P@L")])
