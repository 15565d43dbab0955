"""An evaluation's outcome as files: tables as parquet and csv, figures as png and svg, other files as they are."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

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
        without_formulas(table).to_csv(out / f"{name}.csv", index=False)
        log.info("table: %s and .csv", out / f"{name}.parquet")
    images = {}
    for name, draw in outcome.figures.items():
        images[name] = out / f"{name}.png"
        plots.save(plots.warned(draw(), caution), images[name], out / f"{name}.svg")
        log.info("figure: %s and .svg", images[name])
    for key, draw in outcome.pictures.items():
        plots.save(plots.warned(draw(), caution), out / "proteins" / f"{key}.png")
    if outcome.pictures:
        number = len(outcome.pictures)
        said = f"one for each of {number} proteins" if number > 1 else "of one protein"
        log.info("pictures: %s, %s", out / "proteins", said)
    for name, data in outcome.files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    if outcome.files:
        first = out / next(iter(outcome.files))
        log.info("file: %s%s", first, f" and {len(outcome.files) - 1} more" if len(outcome.files) > 1 else "")
    return images


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each text that a spreadsheet would take for a formula (`=cmd`)."""
    shown = table.copy()
    for name in shown.columns:
        if not pd.api.types.is_numeric_dtype(shown[name].dtype):  # pandas 3 has texts as str, not object
            shown[name] = shown[name].map(_literal)
    return shown


def _literal(value: object) -> object:
    is_formula = (
        isinstance(value, str) and value[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"[+-]?\d+\w?", value)
    )
    return f"'{value}" if is_formula else value


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
