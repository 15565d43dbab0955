"""Recovery of a segment's contacts as residues are unmasked, by schedule: the paper's curves from stores.

Reads recovery stores (`schedule=flanking|random|random_avoiding_30`), one or several side by side: schedules, models,
seeds. A fraction is of the segments that have a step at all, so its denominator shrinks with the step and is told with
it. runs.py reads, tables.py computes, presentation.py prints and draws; the definitions are in plmjac.recovery.
"""

import numpy as np
import pandas as pd

from plmjac.evaluation.base import Inputs, Outcome
from plmjac.evaluation.contact_recovery.presentation import figures_of, metrics_of, text_of
from plmjac.evaluation.contact_recovery.runs import CONTEXT, read_runs
from plmjac.evaluation.contact_recovery.tables import (
    Settings,
    by_direction,
    classified,
    compared,
    fractions,
    minimal_segments_of,
    partners,
    summary,
)
from plmjac.evaluation.tables import not_scored

READS_STRUCTURES = False

__all__ = ["Settings", "evaluate"]


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Compare the stores. Raises EvaluationError where one is of another kind."""
    runs = read_runs(inputs.of_kind("recovery"), settings.recovered)
    filled = [run for run in runs if run.num_segments]
    if not filled:
        missing = _stacked([run.missing.assign(store=run.store.name) for run in runs])
        text = "\n".join(
            [
                f"no segment in {', '.join(str(run.store.path) for run in runs)}; run predict with a lower "
                "segments.threshold or a smaller segments.size",
                *(not_scored(missing.assign(steps=np.nan), "steps") if len(missing) else []),
            ]
        )
        return Outcome({"segments": missing} if len(missing) else {}, {}, text, 0)
    segments = _stacked([classified(run, settings) for run in runs])
    tables = {
        "summary": pd.DataFrame([summary(run, segments, settings) for run in runs]),
        "curves": _stacked([fractions(run, settings) for run in filled]),
        "paired": pd.DataFrame([compared(*pair, settings) for pair in partners(filled, settings.reference)]),
        "minimal_segments": _stacked([minimal_segments_of(group, segments) for group in by_direction(filled)]),
        "segments": segments,
        "recovery": _stacked([run.contexts.assign(**run.names)[[*run.names, *CONTEXT]] for run in filled]),
    }
    return Outcome(
        {name: table for name, table in tables.items() if len(table)},
        figures_of(filled, tables, settings),
        text_of(runs, tables, settings),
        sum(run.num_segments for run in filled),
        metrics=metrics_of(runs, tables),
    )


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
