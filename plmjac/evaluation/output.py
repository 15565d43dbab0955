"""An evaluation's outcome as files: tables as parquet and csv, figures as png and svg, other files as they are."""

import logging
from collections.abc import Sequence
from pathlib import Path

from plmjac import plots
from plmjac.evaluation.base import EvaluationError, Outcome

log = logging.getLogger("plmjac.evaluate")


def write(outcome: Outcome, out: Path, caution: str = "") -> dict[str, Path]:
    """Write everything into a folder; returns the png of each figure. `caution` is a warning for every figure.

    Raises EvaluationError where the folder cannot be written.
    """
    try:
        return _write(outcome, out, caution)
    except OSError as error:
        raise EvaluationError(f"out={out} cannot be written: {error.strerror or error}") from error


def _write(outcome: Outcome, out: Path, caution: str) -> dict[str, Path]:
    out.mkdir(parents=True, exist_ok=True)
    for name, table in outcome.tables.items():
        table.to_parquet(out / f"{name}.parquet", index=False)
        table.to_csv(out / f"{name}.csv", index=False)
        log.info("table: %s and .csv", out / f"{name}.parquet")
    images = {}
    for name, draw in outcome.figures.items():
        images[name] = out / f"{name}.png"
        plots.save(plots.warned(draw(), caution), images[name], out / f"{name}.svg")
        log.info("figure: %s and .svg", images[name])
    for name, data in outcome.files.items():
        (out / name).write_bytes(data)
        log.info("file: %s", out / name)
    return images


def default_folder(stores: Sequence[Path], evaluation: str) -> Path:
    """Beside the first store and named after it; after all of several, or after the evaluation without one."""
    if not stores:
        return Path("runs") / f"{evaluation}-evaluation"
    first, *others = (path.absolute() for path in stores)
    if not others:
        return Path(f"{first}-evaluation")
    joined = "+".join(path.stem for path in (first, *others))
    short = joined if len(joined) <= 100 else f"{first.stem}+{len(others)}_more"
    return first.parent / f"{short}-evaluation"
