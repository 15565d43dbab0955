"""The sections of a report: what was run, contact maps to click on, an evaluation, the records."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pydantic import BaseModel

from plmjac.evaluation import find
from plmjac.evaluation.base import EvaluationError, Inputs, Store
from plmjac.evaluation.false_discovery import apart, null_maps, rate_map
from plmjac.evaluation.structures import Labelled, Structures
from plmjac.files import UsageError
from plmjac.jacobian import center, contact_map, symmetrize
from plmjac.metrics import best_pairs
from plmjac.page.document import Section, anchor_of, figure, folded, note, printed, table, terms, write_page
from plmjac.page.explorer import MIN_SEPARATION, Couplings, ExplorerProtein, couplings_of, explorer
from plmjac.plots import warned
from plmjac.readouts import maps
from plmjac.records import Contacts
from plmjac.store import CorruptStoreError, StoredProtein

DEFINITIONS = (("cb", 8.0), ("ca", 8.0), ("ca", 10.0))
"""Contacts are drawn by the first of these that the structure knows."""


@dataclass(frozen=True)
class View:
    """The interactive view of maps: its proteins are `ids`, or the first `most`; and the bytes of their couplings."""

    ids: Sequence[str] | None
    most: int
    couplings_bytes: int


def count(number: int, noun: str) -> str:
    """`1 protein`, `2 proteins`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def page_of(inputs: Inputs, evaluation: str, settings: BaseModel, view: View | None) -> str:
    """The report of stores of one kind."""
    stores, first = inputs.stores, inputs.stores[0]
    sections = [Section("caution", "Caution", note(inputs.caution, warning=True))] if inputs.caution else []
    sections += [run_section(each, "What was run" + (f": {each.name}" if len(stores) > 1 else "")) for each in stores]
    script = ""
    if view is not None:
        section, script = maps_section(inputs, view)
        sections.append(section)
    sections += [evaluation_section(evaluation, inputs, settings), records_section(stores)]
    lead = f"{first.model}, {count(len(first.opened), 'protein')}" + (" and more" if len(stores) > 1 else "")
    versions = first.opened.attributes.get("versions") or {}
    title = f"plmjac: {', '.join(store.name for store in stores)}"
    return write_page(title, lead, sections, script, f"Stores written by plmjac {versions.get('plmjac', '')}.")


def run_section(store: Store, title: str) -> Section:
    """The attributes that determine a store's numbers, then the whole recorded configuration, folded."""
    attributes = store.opened.attributes
    facts: dict[str, object] = {"store": store.path.absolute()}
    facts |= {key: _plain(value) for key, value in attributes.items() if key not in ("config", "versions", "run")}
    facts |= {key: _plain(attributes.get(key, {})) for key in ("run", "versions")}
    body = terms(facts) + folded("the configuration, resolved", printed(json.dumps(attributes.get("config"), indent=2)))
    return Section(anchor_of(f"run-{store.name}"), title, body)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def records_section(stores: Sequence[Store]) -> Section:
    """The status of each record of the input, and the reason of each that was not computed."""
    body = ""
    columns = ["id", "length", "status", "reason", "source"]
    for store in stores:
        rows = store.opened.rows
        counts = Counter(row.status for row in rows)
        told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        body += note(f"{store.name}: {count(len(rows), 'record')}: {told}", warning=bool(counts["failed"]))
        others = [row for row in rows if row.status != "done" or row.reason]
        if others:
            body += table(pd.DataFrame([{name: getattr(row, name) for name in columns} for row in others]), most=None)
    return Section("records", "Records", body)


def evaluation_section(name: str, inputs: Inputs, settings: BaseModel) -> Section:
    """The text, figures and tables of an evaluation; where it cannot be made, the reason in its place."""
    title = name.replace("_", " ").capitalize()
    try:
        outcome = find(name).evaluate(inputs, settings)
    except (UsageError, OSError) as error:
        return Section(name, title, note(f"not evaluated: {error}", warning=True))
    figures = "".join(
        figure(warned(draw(), inputs.caution), f"{name}-{label}") for label, draw in outcome.figures.items()
    )
    tables = "".join(folded(f"table: {label.replace('_', ' ')}", table(rows)) for label, rows in outcome.tables.items())
    return Section(name, title, printed(outcome.text) + figures + tables)


def maps_section(inputs: Inputs, view: View) -> tuple[Section, str]:
    """The interactive view of the first store's maps, and its script. Raises EvaluationError for unknown ids."""
    store, nulls, title = inputs.stores[0], apart(inputs.stores)[1], "Contact maps and couplings"
    nulls = [each for each in nulls if each is not store and each.model == store.model]
    there = list(store.opened)
    chosen = list(view.ids or there[: view.most])
    if unknown := sorted(set(chosen) - set(there)):
        raise EvaluationError(f"ids={unknown} are not in {store.path}")
    if not chosen:
        return Section("maps", title, note("the store holds no protein yet")), ""
    body = ""
    proteins: list[ExplorerProtein] = []
    for name in chosen:
        try:
            stored = store.opened[name]
            proteins += _explored(stored, nulls, inputs.structures_if_any, view.couplings_bytes // len(chosen))
        except CorruptStoreError as error:
            body += note(f"{name}: {error}", warning=True)
    if not proteins:
        return Section("maps", title, body or note("the store keeps no contact maps")), ""
    html, script = explorer(proteins)
    left = len(there) - len(chosen)
    more = note(f"{left} more proteins are in the store; choose with ids=[...] or max_proteins=N") if left else ""
    return Section("maps", title, html + body + more), script


def _explored(
    stored: StoredProtein, nulls: Sequence[Store], structures: Structures, budget: int
) -> Iterator[ExplorerProtein]:
    """The protein as the view needs it; nothing where the store keeps no map of it."""
    kept = {name: stored.array(name) for name in maps() if name in stored.names}
    if not kept:
        return
    found = structures.find(stored)
    contacts, summary = _contacts(found) if isinstance(found, Labelled) else (None, "")
    couplings = (
        _couplings(stored, kept, budget) if budget and "jacobian" in stored.names and not stored.partly else None
    )
    numbers = getattr(stored, "residue_numbers", None)
    trace = None
    if isinstance(found, Labelled):
        numbers, trace = numbers or found.residue_numbers, found.positions("ca")
    rates = {name: _rates(scores, null_maps(stored, nulls, name)) for name, scores in kept.items()}
    yield ExplorerProtein(stored.id, stored.sequence, kept, summary, contacts, couplings, numbers, trace, rates)


def _rates(scores: Float[np.ndarray, "L L"], nulls: Sequence[Float[np.ndarray, "L L"]]) -> list[float]:
    """The false discovery rates of the best L pairs by these null maps; empty without any."""
    pairs = best_pairs(scores, len(scores), MIN_SEPARATION)
    return [float(f"{rate:.4g}") for rate in rate_map(scores, nulls, MIN_SEPARATION)[pairs]] if nulls else []


def _contacts(found: Labelled) -> tuple[Contacts | None, str]:
    """Contacts by the first definition that the structure knows, and a sentence about them."""
    for atom, cutoff in DEFINITIONS:
        try:
            contacts = found.contacts(atom, cutoff)  # type: ignore[arg-type]
        except ValueError:
            continue
        pairs = int(np.triu(contacts.pairs, MIN_SEPARATION).sum())
        by = "" if str(found.match) == "id" else f" Structure {found.match.structure}, found by {found.match}."
        return contacts, f"{pairs} pairs of |i-j| >= {MIN_SEPARATION} in contact ({atom} < {cutoff:g} A).{by}"
    return None, ""


def _couplings(stored: StoredProtein, kept: dict[str, Any], budget: int) -> Couplings | None:
    """The couplings of the pairs that fit, centred and symmetrised; none where not every amino acid was substituted."""
    jacobian = torch.from_numpy(stored.jacobian.astype(np.float32))
    if jacobian.shape[1] != jacobian.shape[3]:
        return None
    scores = kept["contacts"] if "contacts" in kept else contact_map(jacobian).numpy()
    return couplings_of(symmetrize(center(jacobian)).numpy(), scores, budget)
