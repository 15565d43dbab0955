"""One HTML file about a store: `python -m plmjac.report store=runs/pdb.zarr`. It opens without a network.

It shows the run, the evaluation that belongs to the kind of store, contact maps to click on, and every record's status.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, field_validator

from plmjac.config import DONE, Config, UsageError, parse, run

if TYPE_CHECKING:
    from plmjac.evaluation import Inputs

log = logging.getLogger("plmjac.report")

EVALUATION_OF = {"jacobian": "contact_precision", "recovery": "contact_recovery"}  # by kind of store


class ReportConfig(BaseModel):
    """The keys of conf/report.yaml; those of the evaluations are checked by their own schemas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: tuple[Path, ...] = Field(min_length=1)
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
    from plmjac.evaluation.inputs import inputs_of

    text = _page(inputs_of(settings.store, settings.dataset, settings.structures), settings)
    out = settings.out or Path(f"{settings.store[0].absolute()}-report.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"out={out} cannot be written: {error.strerror}") from error
    log.info("report: %s (%.1f MB, one file, opens in any browser)", out, len(text) / 1e6)
    return DONE


def _page(inputs: "Inputs", settings: ReportConfig) -> str:
    """The report as HTML. Raises UsageError where the stores are not of one kind that has a report."""
    from plmjac.evaluation import find
    from plmjac.page import page_of

    kinds = sorted({store.kind for store in inputs.stores})
    if len(kinds) != 1 or kinds[0] not in EVALUATION_OF:
        raise UsageError(f"a report is of stores of one kind, {' or '.join(EVALUATION_OF)}; these are {kinds}")
    if kinds[0] != "jacobian" and settings.ids is not None:
        raise UsageError(f"ids has no effect on a report of {kinds[0]} stores, which has no interactive view")
    chosen = parse(find(name := EVALUATION_OF[kinds[0]]).Settings, getattr(settings, name), name)
    return page_of(inputs, name, chosen, settings.ids, settings.max_proteins, int(settings.couplings_mb * 1e6))


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("report", report))


if __name__ == "__main__":
    main()
