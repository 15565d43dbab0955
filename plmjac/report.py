"""One HTML file about a store: `python -m plmjac.report store=runs/pdb.zarr`. It opens without a network.

It shows what was run, the evaluation that belongs to the kind of store, contact maps to click on, and the status of
every record. The numbers are those of `plmjac.evaluate`.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, field_validator

from plmjac.config import DONE, Config, UsageError, parse, run

if TYPE_CHECKING:
    from plmjac.evaluation import Inputs

log = logging.getLogger("plmjac.report")

EVALUATION_OF = {"jacobian": "contact_precision", "recovery": "contact_recovery"}
"""The evaluation that a report of a kind of store shows."""


class ReportConfig(BaseModel):
    """The keys of conf/report.yaml; those of the evaluations are checked by their own schemas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: tuple[Path, ...]
    out: Path | None
    structures: Path | None
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
    from plmjac.evaluation.inputs import inputs_of
    from plmjac.store import StoreError

    try:
        inputs = inputs_of(settings.store, settings.dataset, settings.structures)
        if not inputs.stores:
            raise UsageError("store is needed: give store=FOLDER")
        text = _page(inputs, settings)
    except (StoreError, InputError, EvaluationError) as error:
        raise UsageError(str(error)) from error
    out = settings.out or Path(f"{settings.store[0].absolute()}-report.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"out={out} cannot be written: {error.strerror}") from error
    log.info("report: %s (%.1f MB, one file, opens in any browser)", out, len(text) / 1e6)
    return DONE


def _page(inputs: "Inputs", settings: ReportConfig) -> str:
    from plmjac.evaluation import find
    from plmjac.page import count, evaluation_section, maps_section, records_section, run_section, write_page

    stores, first = inputs.stores, inputs.stores[0]
    kinds = {store.kind for store in stores}
    if len(kinds) > 1 or first.kind not in EVALUATION_OF:
        raise UsageError(f"a report is of stores of one kind, {' or '.join(EVALUATION_OF)}; these are {sorted(kinds)}")
    if first.kind != "jacobian" and settings.ids is not None:
        raise UsageError(f"ids has no effect on a report of {first.kind} stores, which has no interactive view")
    name = EVALUATION_OF[first.kind]
    chosen = parse(find(name).Settings, getattr(settings, name), name)
    sections = [run_section(each, "What was run" + (f": {each.name}" if len(stores) > 1 else "")) for each in stores]
    script = ""
    if first.kind == "jacobian":
        view, script = maps_section(inputs, settings.ids, settings.max_proteins, int(settings.couplings_mb * 1e6))
        sections.append(view)
    sections += [evaluation_section(name, inputs, chosen), records_section(stores)]
    lead = f"{first.model}, {count(len(first.opened), 'protein')}" + (" and more" if len(stores) > 1 else "")
    versions = first.opened.attributes.get("versions") or {}
    title = f"plmjac: {', '.join(store.name for store in stores)}"
    return write_page(title, lead, sections, script, f"Stores written by plmjac {versions.get('plmjac', '')}.")


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("report", report, added_groups=["dataset"]))


if __name__ == "__main__":
    main()
