"""One HTML file about a store: `python -m plmjac.report store=runs/pdb.zarr`. It opens without a network.

What was run and what became of each record, the tables and figures of the evaluation that belongs to the kind of
store, and contact maps to click on. Computes nothing of its own: the numbers are those of `plmjac.evaluate`.
"""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, field_validator

from plmjac.config import DONE, Config, UsageError, parse, run
from plmjac.evaluate import inputs_of

if TYPE_CHECKING:
    from plmjac.evaluation import Inputs, Outcome, Store
    from plmjac.page import ExplorerProtein, Section
    from plmjac.records import Contacts, Protein

log = logging.getLogger("plmjac.report")

EVALUATION_OF = {"jacobian": "contact_precision", "recovery": "contact_recovery"}
"""Which evaluation tells what a store of a kind is worth."""


class ReportConfig(BaseModel):
    """The keys of conf/report.yaml; the settings of the evaluations are checked by the evaluations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: tuple[Path, ...]
    out: Path | None
    ids: tuple[str, ...] | None
    max_proteins: PositiveInt
    couplings_mb: NonNegativeFloat
    contact_precision: dict[str, Any]
    contact_recovery: dict[str, Any]
    dataset: dict[str, Any] | None = None

    @field_validator("store", "ids", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value


def report(config: Config) -> int:
    """Write the report of one or several stores of a kind and return the exit code."""
    settings = parse(ReportConfig, config)
    from plmjac.datasets import InputError
    from plmjac.evaluation import EvaluationError
    from plmjac.store import StoreError

    try:
        inputs = inputs_of(settings.store, settings.dataset)
        if not inputs.stores:
            raise UsageError("store is needed: give store=FOLDER")
        text = _page(inputs, settings, config)
    except (StoreError, InputError, EvaluationError) as error:
        raise UsageError(str(error)) from error
    out = settings.out or Path(f"{settings.store[0].absolute()}-report.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"out={out} cannot be written: {error.strerror}") from error
    log.info("report: %s (%.1f MB, one file, opens in any browser)", out, len(text) / 1e6)
    return DONE


def _page(inputs: "Inputs", settings: ReportConfig, config: Config) -> str:
    from plmjac.page import write_page

    first = inputs.stores[0]
    kinds = {store.kind for store in inputs.stores}
    if len(kinds) > 1 or first.kind not in EVALUATION_OF:
        raise UsageError(f"a report is of stores of one kind, {' or '.join(EVALUATION_OF)}; these are {sorted(kinds)}")
    if first.kind != "jacobian" and settings.ids is not None:
        raise UsageError(f"ids has no effect on a report of {first.kind} stores, which has no interactive view")
    sections = [_what_was_run(store, len(inputs.stores)) for store in inputs.stores]
    script = ""
    if first.kind == "jacobian":
        view, script = _explorer(inputs, settings)
        sections.append(view)
    sections += _evaluation(EVALUATION_OF[first.kind], inputs, config)
    sections.append(_records(inputs))
    names = ", ".join(store.name for store in inputs.stores)
    lead = f"{first.model}, {_count(len(first.opened), 'protein')}" + (" and more" if len(inputs.stores) > 1 else "")
    version = first.opened.attributes.get("versions", {}).get("plmjac", "")
    return write_page(f"plmjac: {names}", lead, sections, script=script, footer=f"Stores written by plmjac {version}.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _what_was_run(store: "Store", stores: int) -> "Section":
    """The facts that determine the numbers, then all of the recorded configuration, folded."""
    from plmjac.page import Section, folded, printed, terms

    attributes = store.opened.attributes
    apart = ("config", "versions", "run")
    facts: dict[str, object] = {"store": store.path.absolute()}
    for key, value in attributes.items():
        if key not in apart:
            facts[key] = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else _plain(value)
    for key in ("run", "versions"):
        facts[key] = ", ".join(f"{name} {value}" for name, value in attributes.get(key, {}).items())
    body = terms(facts) + folded("the configuration, resolved", printed(json.dumps(attributes.get("config"), indent=2)))
    title = "What was run" if stores == 1 else f"What was run: {store.name}"
    return Section(f"run-{store.name}", title, body)


def _plain(value: object) -> object:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else value


def _records(inputs: "Inputs") -> "Section":
    """What became of each record of the input, and the reason of each that was not computed."""
    import pandas as pd

    from plmjac.page import Section, note, table

    body = ""
    for store in inputs.stores:
        rows = store.opened.rows
        counts = Counter(row.status for row in rows)
        told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        body += note(f"{store.name}: {_count(len(rows), 'record')}: {told}", warning=bool(counts["failed"]))
        others = [row for row in rows if row.status != "done" or row.reason]
        if others:
            columns = ["id", "length", "status", "reason", "source"]
            body += table(pd.DataFrame([{name: getattr(row, name) for name in columns} for row in others]))
    return Section("records", "Records", body)


def _evaluation(name: str, inputs: "Inputs", config: Config) -> "Iterator[Section]":
    """The tables and figures of an evaluation; where it cannot be made, the reason in its place."""
    from plmjac.evaluation import EvaluationError, find
    from plmjac.page import Section, figure, folded, note, printed, table

    evaluation = find(name)
    title = name.replace("_", " ").capitalize()
    settings = parse(evaluation.Settings, config[name], name)
    try:
        outcome: Outcome = evaluation.evaluate(inputs, settings)
    except (EvaluationError, OSError, ValueError) as error:
        yield Section(name, title, note(f"not evaluated: {error}", warning=True))
        return
    figures = "".join(figure(draw(), f"{name}-{label}") for label, draw in outcome.figures.items())
    tables = "".join(folded(f"table: {label.replace('_', ' ')}", table(rows)) for label, rows in outcome.tables.items())
    yield Section(name, title, printed(outcome.text) + figures + tables)


def _explorer(inputs: "Inputs", settings: ReportConfig) -> "tuple[Section, str]":
    from plmjac.evaluation.contact_precision import MAPS
    from plmjac.page import Section, explorer, note

    store = inputs.stores[0]
    chosen = list(settings.ids or list(store.opened)[: settings.max_proteins])
    if unknown := [name for name in chosen if name not in store.opened]:
        raise UsageError(f"ids={unknown} are not in {store.path}")
    if not chosen or not set(MAPS) & set(store.opened[chosen[0]].names):
        reason = "the store keeps no contact maps" if chosen else "the store holds no protein yet"
        return Section("maps", "Contact maps", note(reason)), ""
    truth = _truth(inputs, set(chosen))
    budget = int(settings.couplings_mb * 1e6 / len(chosen))
    html, script = explorer([_explored(store, name, truth.get(name), budget) for name in chosen])
    left = len(store.opened) - len(chosen)
    more = note(f"{left} more proteins are in the store; choose with ids=[...] or max_proteins=N") if left else ""
    return Section("maps", "Contact maps and couplings", html + more), script


def _truth(inputs: "Inputs", wanted: set[str]) -> "dict[str, Protein]":
    """The proteins of the truth by id, as far as there is one; a report without structures is a report all the same."""
    from plmjac.datasets import InputError
    from plmjac.evaluation import EvaluationError

    try:
        return {protein.id: protein for protein in inputs.truth() if protein.id in wanted}
    except (EvaluationError, InputError, OSError) as error:
        log.warning("no structures: %s", error)
        return {}


def _explored(store: "Store", name: str, protein: "Protein | None", budget: int) -> "ExplorerProtein":
    from plmjac.evaluation.contact_precision import MAPS
    from plmjac.page import MIN_SEPARATION, ExplorerProtein

    stored = store.opened[name]
    maps = {key: stored.array(key) for key in MAPS if key in stored.names}
    contacts = _contacts(protein, stored.sequence)
    summary = (
        ""
        if contacts is None
        else f"{int(np.triu(contacts.pairs, MIN_SEPARATION).sum())} pairs of |i-j| >= {MIN_SEPARATION} in contact."
    )
    couplings = _couplings(stored, maps, budget) if budget and "jacobian" in stored.names else None
    return ExplorerProtein(name, stored.sequence, maps, summary, contacts, couplings)


def _contacts(protein: "Protein | None", sequence: str) -> "Contacts | None":
    """Contacts by C-beta below 8 A, or by whatever definition the structure has."""
    if protein is None or protein.structure is None or protein.sequence != sequence:
        return None
    for atom, cutoff in (("cb", 8.0), ("ca", 8.0), ("ca", 10.0)):
        try:
            return protein.structure.contacts(atom, cutoff)  # type: ignore[arg-type]
        except ValueError:
            continue
    return None


def _couplings(stored: Any, maps: dict[str, Any], budget: int) -> Any:
    """The couplings of the pairs that fit, centred and symmetrised; none where not every amino acid was substituted."""
    import torch

    from plmjac.jacobian import center, contact_map, symmetrize
    from plmjac.page import couplings_of

    jacobian = torch.from_numpy(stored.jacobian.astype(np.float32))
    if jacobian.shape[1] != jacobian.shape[3]:
        return None
    tensor = symmetrize(center(jacobian))
    scores = maps["contacts"] if "contacts" in maps else contact_map(jacobian).numpy()
    return couplings_of(tensor.numpy(), scores, budget)


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("report", report, added_groups=["dataset"]))


if __name__ == "__main__":
    main()
