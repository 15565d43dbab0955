"""Cost and accuracy of fewer substitutions: mask-only and subset stores against full Jacobians of the same proteins.

One row for each protein and store: forwards, correlation with the full map, how many of its top pairs are found again,
and the loss of precision against the structure. What cannot be compared is a row with NaN and the reason.
"""

from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter

from plmjac import plots
from plmjac.alphabet import encode
from plmjac.comparison import summary
from plmjac.config import Keys
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import Unscored, stored_proteins
from plmjac.evaluation.structures import Labelled
from plmjac.evaluation.tables import lines_of, matched, not_scored, number, with_interval
from plmjac.metrics import RANGES, Range, precision_at, ranked_hits, reason_for_nan, scored_pairs
from plmjac.records import Atom
from plmjac.store import CorruptStoreError, StoredProtein
from plmjac.substitutions import Substitutions
from plmjac.workplan import forwards

MEASURES = ("pearson", "overlap", "P@L/2", "loss")
COLUMNS = ["store", "protein", "structure", "match", "length", "forwards", *MEASURES, "reason"]


class Settings(Keys):
    """The keys of conf/evaluation/approximations.yaml."""

    name: Literal["approximations"]
    atom: Atom
    cutoff: PositiveFloat
    range: Range
    bootstrap: PositiveInt
    seed: int = Field(ge=0)


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Compare every store with the one of all substitutions; its attributes say which that is."""
    reference, others = _reference(inputs.of_kind("jacobian"))
    rows: list[Row] = []
    for stored in stored_proteins(reference):
        if isinstance(stored, Unscored):
            rows.append({"store": reference.name, "protein": stored.id, "reason": stored.reason})
        else:
            found = inputs.structures.find(stored)
            rows += [_row(store, stored, found, settings) for store in (reference, *others)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    costs = _costs(table, (reference, *others), settings)
    return Outcome(
        tables={"approximations": table, "approximations_summary": costs},
        figures={"approximations": partial(plots.cost_curve, costs, _title(reference, settings))},
        text=_text(costs, table, reference, settings),
        scored=int(table.loc[table["store"] != reference.name, "pearson"].notna().sum()),
    )


def _reference(stores: tuple[Store, ...]) -> tuple[Store, tuple[Store, ...]]:
    full = [store for store in stores if _substitutions(store).name == "all"]
    if len(full) != 1 or len(stores) < 2:
        raise EvaluationError(
            "approximations compares stores with one of substitutions=all: give store=[FULL,MASK,SUBSET,...], "
            f"this is {len(full)} of substitutions=all among {len(stores)}"
        )
    for store in stores:
        if store.opened.attributes["model"] != full[0].opened.attributes["model"]:
            raise EvaluationError(f"{store.path} is of another model than {full[0].path}; compare stores of one model")
        if "contacts" not in store.opened.attributes["keep"]:
            raise EvaluationError(f"{store.path} has no contact maps; make it with contacts in keep")
    return full[0], tuple(store for store in stores if store is not full[0])


def _substitutions(store: Store) -> Substitutions:
    found: Substitutions = TypeAdapter(Substitutions).validate_python(store.opened.attributes["substitutions"])
    return found


def _row(store: Store, full: StoredProtein, found: Labelled | str, settings: Settings) -> Row:
    """A protein of the reference in one store; `found` is its structure or the reason why it has none."""
    row: Row = {"store": store.name, "protein": full.id, "length": len(full)}
    if isinstance(found, Labelled):
        row |= {"structure": found.match.structure, "match": str(found.match)}
    try:
        some = store.opened[full.id]
        if some.sequence != full.sequence:
            return {**row, "reason": f"another sequence in {store.name}"}
        row |= {
            "forwards": _forwards(some, _substitutions(store)),
            **_agreement(some.contacts, full.contacts, settings),
        }
        return row | _precision(some.contacts, full.contacts, found, settings)
    except KeyError:
        return {**row, "reason": f"not in {store.name}"}
    except CorruptStoreError as error:
        return {**row, "reason": str(error)}


def _forwards(protein: StoredProtein, substitutions: Substitutions) -> int:
    """Forwards that were made: a substitution that is the residue itself is not one of them."""
    tokens = encode(protein.sequence)
    letters = substitutions.letters(tokens, np.zeros((len(tokens), 20)))  # which ones are likely changes no number
    mutants = sum(int((letters != tokens[:, None])[rows.start : rows.stop].sum()) for rows, _ in protein.parts)
    return max(1, len(protein.windows)) + mutants


def _agreement(some: Float[np.ndarray, "L L"], full: Float[np.ndarray, "L L"], settings: Settings) -> dict[str, float]:
    """Pearson correlation of the pairs in range that both maps have, and the share of the full map's top L/2 that are
    top L/2 again."""
    low, high = RANGES[settings.range]
    first, second = scored_pairs(some + full, low)
    keep = second - first < (high or len(full))
    ours, theirs = (
        some[first[keep], second[keep]].astype(np.float64),
        full[first[keep], second[keep]].astype(np.float64),
    )
    if len(ours) < 2 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return {"pearson": np.nan, "overlap": np.nan}
    count = max(1, len(full) // 2)
    return {
        "pearson": float(np.corrcoef(ours, theirs)[0, 1]),
        "overlap": len(_top(ours, count) & _top(theirs, count)) / min(count, len(ours)),
    }


def _top(scores: Float64[np.ndarray, " N"], count: int) -> set[int]:
    return set(np.argsort(-scores, kind="stable")[:count].tolist())


def _precision(
    some: Float[np.ndarray, "L L"], full: Float[np.ndarray, "L L"], found: Labelled | str, settings: Settings
) -> Row:
    """P@L/2 of a map and what it loses to the full one; the reason where there is no structure."""
    if isinstance(found, str):
        return {"reason": found}
    try:
        contacts = found.contacts(settings.atom, settings.cutoff)
    except ValueError as error:
        return {"reason": str(error)}
    ours, theirs = (ranked_hits(scores, contacts, *RANGES[settings.range]) for scores in (some, full))
    mine, reference = (precision_at(hits, len(found) // 2) for hits in (ours, theirs))
    return {"P@L/2": mine, "loss": reference - mine, "reason": reason_for_nan(ours)}


def _costs(table: pd.DataFrame, stores: tuple[Store, ...], settings: Settings) -> pd.DataFrame:
    """One row a store: forwards a residue, how many times fewer that is, and each measure's mean with its interval.

    Means are over the proteins that a store has; the loss is paired, so its interval is that of the differences.
    """
    measured = summary(table, ["store"], MEASURES, draws=settings.bootstrap, seed=settings.seed)
    full = table[table["store"] == stores[0].name].set_index("protein")["forwards"]
    rows = []
    for store in stores:
        made = table[(table["store"] == store.name) & table["forwards"].notna()].set_index("protein")
        kind, total = _substitutions(store), made["forwards"].sum()
        row = {
            "store": store.name,
            "substitutions": _label(store),
            "proteins": len(made),
            "per_residue": kind.forwards_per_residue,
            "fewer": full[made.index].sum() / total if total else np.nan,
        }
        for found in measured[measured["store"] == store.name].to_dict("records"):
            name = found["measure"]
            row |= {str(name): found["mean"], f"{name}_low": found["low"], f"{name}_high": found["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def _label(store: Store) -> str:
    """The substitutions in a word or three; where the map was made the way of earlier stores, that as well."""
    told = dict(store.opened.attributes["substitutions"])
    earlier = told["name"] == "subset" and "symmetrized" not in told
    told.pop("symmetrized", None)
    return " ".join(str(value) for value in told.values()) + (" (norms symmetrized)" if earlier else "")


def _title(reference: Store, settings: Settings) -> str:
    return f"{reference.model}, {settings.range} pairs, {settings.atom} < {settings.cutoff:g} A"


def _text(costs: pd.DataFrame, table: pd.DataFrame, reference: Store, settings: Settings) -> str:
    residues = int(table[table["store"] == reference.name]["length"].sum())
    shown = [
        {
            "substitutions": row["substitutions"], "fewer": number(row["fewer"]),
            **{key: number(row[key]) for key in ("pearson", "overlap", "P@L/2")},
            "loss": with_interval(row["loss"], row["loss_low"], row["loss_high"]),
        }
        for row in costs.to_dict("records")
    ]  # fmt: skip
    missing = table[table["reason"].notna() & (table["reason"] != "")]
    return "\n".join(
        [
            f"{_title(reference, settings)}; {residues} residues, {forwards(residues):,} forwards for all",
            "fewer: times fewer forwards; pearson, overlap (of the top L/2): with the map of all substitutions;",
            "loss: of P@L/2 against the structure, mean over proteins and 95 % interval",
            *lines_of(shown),
            *matched(table),
            *not_scored(missing.assign(protein=missing["store"] + ": " + missing["protein"]), "P@L/2"),
        ]
    )
