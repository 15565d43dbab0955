"""Recovery stores as tables: a row for each masked context, a row for each segment or the reason why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from plmjac.evaluation.base import Store

SEGMENT = ["protein", "start1", "stop1", "start2", "stop2"]
"""Columns that identify a segment across stores; half-open ranges counted from 0, a single window stands twice."""

CONTEXT = [*SEGMENT, "repeat", "step", "unmasked", "recovery", "recovered"]
"""`unmasked` counts the visible residues besides the segment; `recovered` is whether the recovery is above 0.5."""

OUTCOME = [*SEGMENT, "length", "outcome", "reason"]
"""`outcome`: why a segment's steps end. `reason`: why a segment or a protein has none, empty where it has."""


@dataclass(frozen=True, eq=False)
class Run:
    """One store: `contexts` with the columns CONTEXT, `outcomes` with the columns OUTCOME.

    `label` says in what it differs from the stores beside it, `panel` that part of it which is not schedule or seed.
    """

    store: Store
    label: str
    panel: str
    contexts: pd.DataFrame
    outcomes: pd.DataFrame

    @property
    def attributes(self) -> dict[str, Any]:
        """The store's attributes."""
        return self.store.opened.attributes

    @property
    def schedule(self) -> str:
        """The name of the schedule."""
        return str(self.attributes["schedule"]["name"])

    @property
    def direction(self) -> str:
        """Direction in which flanks grow; empty for a schedule without one."""
        return str(self.attributes["schedule"].get("direction", ""))

    @property
    def names(self) -> dict[str, Any]:
        """The columns that tell this run from others in every table."""
        seed = int(self.attributes["seed"])
        return {"store": self.store.name, "model": self.store.model, "schedule": self.schedule, "seed": seed}

    @cached_property
    def proteins(self) -> list[str]:
        """The proteins that have a segment with a step, in the store's order."""
        return list(dict.fromkeys(self.contexts["protein"]))

    @cached_property
    def num_segments(self) -> int:
        """Segments with at least one step."""
        return len(self.contexts[SEGMENT].drop_duplicates())

    @property
    def missing(self) -> pd.DataFrame:
        """The rows of `outcomes` for what could not be computed or had nothing to compute."""
        return self.outcomes[self.outcomes["reason"] != ""]


def read_runs(stores: Sequence[Store], recovered: float) -> list[Run]:
    """Every store as a run; `recovered` is the recovery above which a segment counts as recovered."""
    return [
        Run(store, label, panel, *_tables(store, recovered))
        for store, (label, panel) in zip(stores, labels(stores), strict=True)
    ]


def _tables(store: Store, recovered: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    contexts, outcomes = [pd.DataFrame(columns=CONTEXT)], [pd.DataFrame(columns=OUTCOME)]
    own = {row.id for row in store.opened.rows if not row.alias_of}
    reasons: list[dict[str, Any]] = []
    for identifier in store.opened:
        if identifier not in own:
            continue
        try:
            of_protein, segments = _protein(store, identifier, recovered)
        except (KeyError, ValueError) as error:  # damage is the end of this protein alone
            reasons.append({"protein": identifier, "reason": f"damaged: {error}"})
            continue
        contexts.append(of_protein)
        outcomes.append(segments)
    reasons += [
        {"protein": row.id, "reason": f"{row.status}: {row.reason}"}
        if row.status in ("failed", "skipped")
        else {"protein": row.id, "reason": "has the sequence of another protein, which counts for both"}
        for row in store.opened.rows
        if row.status in ("failed", "skipped") or (row.status == "done" and row.id not in own)
    ]
    outcomes.append(pd.DataFrame(reasons))
    return _stacked(contexts, CONTEXT), _stacked(outcomes, OUTCOME)


def _stacked(tables: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """One table of several; the first, which is empty, stands for none."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True).reindex(columns=columns) if filled else tables[0]


def _protein(store: Store, identifier: str, recovered: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The contexts of one protein, and its segments."""
    protein = store.opened[identifier]
    bounds: Int64[np.ndarray, "S 4"] = protein.array("segments").astype(np.int64)
    segment = protein.array("segment").astype(np.int64)
    windows = np.where(bounds[:, 0] == bounds[:, 2], 1, 2) * (bounds[:, 1] - bounds[:, 0])
    contexts = pd.DataFrame(bounds[segment], columns=SEGMENT[1:])
    contexts.insert(0, "protein", identifier)
    contexts["repeat"] = protein.array("repeat").astype(np.int64)
    contexts["step"] = protein.array("step").astype(np.int64)
    contexts["unmasked"] = protein.array("visible").sum(axis=1).astype(np.int64) - windows[segment]
    contexts["recovery"] = protein.array("recovery").astype(np.float64)
    contexts["recovered"] = contexts["recovery"] > recovered
    rows: list[dict[str, Any]] = [
        {**dict(zip(SEGMENT[1:], each, strict=True)), "outcome": outcome, "reason": ""}
        for each, outcome in zip(bounds.tolist(), protein.outcomes, strict=True)
    ]
    rows += [
        {**dict(zip(SEGMENT[1:], each, strict=True)), "reason": "no room for it in the protein"}
        for each in protein.left_out
    ]
    segments = pd.DataFrame(rows or [{"reason": "no segment was chosen in this protein"}])
    segments.insert(0, "protein", identifier)
    segments["length"] = len(protein)
    return contexts, segments


def labels(stores: Sequence[Store]) -> list[tuple[str, str]]:
    """For each store its label, the schedule and all in which the stores differ, and its panel.

    A distance other than the 30 of the schedule's name is always said.
    """
    facts = [_identity(store) for store in stores]
    keys = dict.fromkeys(key for fact in facts for key in fact if key != "schedule.name")
    values = {key: {fact[key] for fact in facts if key in fact} for key in keys}
    differing = [key for key in keys if len(values[key]) > 1 or (key == "schedule.distance" and values[key] != {"30"})]
    found = []
    for fact in facts:
        words = {key: _word(key, fact[key]) for key in differing if key in fact}
        panel = [word for key, word in words.items() if not key.startswith("schedule.") and key != "seed"]
        found.append((" ".join([fact["schedule.name"], *words.values()]), " ".join(panel)))
    names = [label for label, _ in found]
    return [
        (f"{label} ({store.name})" if names.count(label) > 1 else label, panel)
        for store, (label, panel) in zip(stores, found, strict=True)
    ]


def _identity(store: Store) -> dict[str, str]:
    """The run's identity as flat text; without the weights' digest, which goes with the model and its seed."""
    chosen = {key: store.opened.attributes.get(key) for key in ("model", "segments", "readout", "schedule", "seed")}
    flat: dict[str, str] = {}
    for group, value in chosen.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        flat |= {f"{group}.{key}".rstrip("."): str(each) for key, each in inner}
    return {key: value for key, value in flat.items() if key not in ("model.weights_sha256", "model.seed")}


def _word(key: str, value: str) -> str:
    plain = key in ("model.name", "segments.name", "readout", "schedule.direction")
    return value if plain else f"{key.split('.')[-1]}={value}"
