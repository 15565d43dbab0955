"""One HTML file about a store: `python -m plmjac.report store=runs/pdb.zarr`. It opens without a network.

It shows the run, the evaluation that belongs to the kind of store, contact maps to click on, and every record's status.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from plmjac.config import DONE, Config, Keys, UsageError, parse, run
from plmjac.evaluation import find

log = logging.getLogger("plmjac.report")

REPORT_OF = {"jacobian": ("contact_precision", True), "recovery": ("contact_recovery", False)}
"""By kind of store: the evaluation that is shown, and whether there is an interactive view of contact maps."""


class ReportConfig(Keys):
    """The keys of conf/report.yaml; those of the evaluations are checked by their own schemas."""

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
    from plmjac.evaluation.inputs import inputs_of  # noqa: PLC0415 - pandas, Zarr, matplotlib, 3 s
    from plmjac.page import View, page_of  # noqa: PLC0415 - torch, 2 s

    inputs = inputs_of(settings.store, settings.dataset, settings.structures)
    name, has_view = _report_of({store.kind for store in inputs.stores}, settings)
    view = View(settings.ids, settings.max_proteins, int(settings.couplings_mb * 1e6)) if has_view else None
    text = page_of(inputs, name, parse(find(name).Settings, getattr(settings, name), name), view)
    out = settings.out or Path(f"{settings.store[0].absolute()}-report.html")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"out={out} cannot be written: {error.strerror}") from error
    log.info("report: %s (%.1f MB, one file, opens in any browser)", out, len(text) / 1e6)
    return DONE


def _report_of(kinds: set[str], settings: ReportConfig) -> tuple[str, bool]:
    """The row of `REPORT_OF`. Raises UsageError where the stores are not of one kind that has a report."""
    kind, *others = sorted(kinds)
    if others or kind not in REPORT_OF:
        raise UsageError(f"a report is of stores of one kind, {' or '.join(REPORT_OF)}; these are {sorted(kinds)}")
    name, has_view = REPORT_OF[kind]
    if not has_view and settings.ids is not None:
        raise UsageError(f"ids has no effect on a report of {kind} stores, which has no interactive view")
    return name, has_view


def main() -> None:
    """The entry point; ends the process with its exit code."""
    sys.exit(run("report", report))


if __name__ == "__main__":
    main()
