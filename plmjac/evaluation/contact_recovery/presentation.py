"""The tables of contact_recovery as text, figures and metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmjac.evaluation.contact_recovery.runs import SEGMENT, Run
from plmjac.evaluation.contact_recovery.tables import Settings
from plmjac.evaluation.tables import number, with_interval
from plmjac.plots import Figure, warned
from plmjac.plots.recovery import (
    FractionCurve,
    SegmentCurve,
    SegmentPanel,
    fraction_curves,
    minimal_segments,
    segment_curves,
)
from plmjac.recovery import percentile

SHOWN_STEPS = 8
"""Steps of a curve that are printed; all are in the table."""


def text_of(runs: Sequence[Run], tables: Mapping[str, pd.DataFrame], settings: Settings) -> str:
    """The printed text: curves in brief with their denominators, kinds of curves, comparisons, and what is missing."""
    attributes = runs[0].attributes
    lines = [
        f"recovered: R > {settings.recovered:g}; intervals: {settings.coverage:.0%} of {settings.resamples} resamples "
        "of the proteins",
        f"model {', '.join(sorted({run.store.model for run in runs}))}; segments {attributes['segments']['name']}; "
        f"readout {attributes['readout']}",
    ]
    lines += ["", *_curves_in_brief(runs, tables["curves"])]
    lines += ["", *_kinds(tables["summary"], settings), *flat(tables["summary"])]
    if len(tables["paired"]):
        lines += ["", *(_comparison(row) for _, row in tables["paired"].iterrows())]
    if len(tables["minimal_segments"]):
        lines += ["", *_minimal(tables["minimal_segments"])]
    missing = [_missing(run) for run in runs if len(run.missing)]
    return "\n".join([*lines, *(["", *missing] if missing else [])])


def _curves_in_brief(runs: Sequence[Run], curves: pd.DataFrame) -> list[str]:
    lines = ["share recovered (of so many segments) at unmasked residues:"]
    for run in runs:
        curve = curves[curves["store"] == run.store.name]
        if curve.empty:
            continue
        chosen = curve.iloc[np.unique(np.linspace(0, len(curve) - 1, SHOWN_STEPS).round().astype(int))]
        cells = [f"{row.unmasked:g}: {row.recovered:.0%} ({row.segments})" for row in chosen.itertuples()]
        lines.append(f"  {run.label}  " + "  ".join(cells))
    return lines


def _kinds(summary: pd.DataFrame, settings: Settings) -> list[str]:
    shown = summary[["label", "proteins", "segments", "curves", "low", "recoverable", "jump", "stable", "started_high"]]
    values = summary[["half_unmasked", "half_low", "half_high"]].to_numpy(dtype=np.float64)
    half = ["never" if np.isnan(at) else with_interval(at, low, high, "g") for at, low, high in values]
    return [
        f"half: unmasked residues at which half are recovered; low: R never above {settings.recovered:g}; "
        f"jump: R rises by {settings.jump.height:g} at one step",
        shown.assign(half=half).to_string(index=False),
    ]


def flat(summary: pd.DataFrame) -> list[str]:
    """A warning where most segments of a run need nothing but themselves: there is nothing to come back."""
    high = summary[summary["started_high"] > summary["curves"] / 2]
    columns = high[["label", "started_high", "curves"]].itertuples(index=False)
    runs = ", ".join(f"{label} ({started} of {curves})" for label, started, curves in columns)
    return [
        f"recovered with nothing but the segment shown: {runs}; either that needs no context, or what the model reads "
        "out hardly depends on the sequence"
    ] * bool(runs)


def _comparison(row: "pd.Series[Any]") -> str:
    head = f"{row['first']} against {row['second']}"
    if row["reason"]:
        return f"{head}: {row['reason']}"
    left_out = f"; only in the first {row['only_first']}, only in the second {row['only_second']}"
    return (
        f"{head}, {row['segments']} segments of {row['proteins']} proteins in both{left_out}:\n"
        f"  share recovered {with_interval(row['difference'], row['low'], row['high'], '+.3f')}, averaged over steps; "
        f"better in {row['better']} proteins, worse in {row['worse']}, sign-flip test p = {number(row['p'], '.2g')}\n"
        f"  {_ratio(row)}"
    )


def _ratio(row: "pd.Series[Any]") -> str:
    """The residues to half recovered of two runs, in words where one of them never comes so far."""
    first, second = row["half_first"], row["half_second"]
    if np.isinf(first) and np.isinf(second):
        return "neither recovers half of these segments, so there is no ratio of residues"
    if np.isinf(first) or np.isinf(second):
        name, other = (row["first"], row["second"]) if np.isinf(second) else (row["second"], row["first"])
        return f"half recovered at {min(first, second):g} residues by {name}, never by {other}"
    ratio = with_interval(row["ratio"], row["ratio_low"], row["ratio_high"], ".2f")
    return f"residues to half recovered {first:g} against {second:g}: ratio {'-' if np.isnan(row['ratio']) else ratio}"


def _minimal(minimal: pd.DataFrame) -> list[str]:
    lines = []
    for name, rows in minimal.groupby("store", sort=False):
        values = rows["fewest"].to_numpy(dtype=np.float64)
        lines.append(
            f"minimal segment ({name}, {len(rows)} with a stable jump): median {np.median(values):g} visible residues, "
            f"90 % {percentile(values):g} or fewer"
        )
        if rows["zhang2024"].notna().any():
            lines[-1] += f" (by the paper's formula {percentile(rows['zhang2024'].to_numpy(dtype=np.float64)):g})"
    return lines


def _missing(run: Run) -> str:
    reasons = run.missing["reason"].value_counts()
    listed = "\n".join(f"    {count} x {reason}" for reason, count in reasons.head(8).items())
    more = f"\n    and {len(reasons) - 8} other reasons" if len(reasons) > 8 else ""
    return f"  not scored in {run.store.name}:\n{listed}{more}"


def figures_of(
    runs: Sequence[Run], tables: Mapping[str, pd.DataFrame], settings: Settings
) -> dict[str, Callable[[], Figure]]:
    """The figure of the paper, single segments, minimal segments where there are any; no name is that of a table."""
    curves = [_fraction_curve(run, tables) for run in runs]
    warning = " ".join(flat(tables["summary"]))
    figures: dict[str, Callable[[], Figure]] = {
        "recovery_curves": lambda: warned(fraction_curves(curves, settings.recovered, settings.coverage), warning)
    }
    if panels := _segment_panels(runs, settings.panels):
        figures["recovery_of_segments"] = lambda: warned(segment_curves(panels, settings.recovered), warning)
    if len(minimal := tables["minimal_segments"]):
        values = minimal["fewest"].to_numpy(dtype=np.float64)
        window = float((minimal["symmetric"] - 2 * minimal["both"]).min())
        figures["minimal_segments_histogram"] = lambda: warned(
            minimal_segments(values, percentile(values), window), warning
        )
    return figures


def _fraction_curve(run: Run, tables: Mapping[str, pd.DataFrame]) -> FractionCurve:
    curves, summary = tables["curves"], tables["summary"]
    curve = curves[curves["store"] == run.store.name]
    half = summary.loc[summary["store"] == run.store.name, "half_unmasked"].iloc[0]
    columns = ("unmasked", "recovered", "low", "high", "segments")
    values = {name: curve[name].to_numpy(dtype=np.float64) for name in columns}
    label = run.label.replace(f" {run.panel}", "") if run.panel else run.label
    return FractionCurve(label, run.schedule, run.panel, half=float(half), **values)


def _segment_panels(runs: Sequence[Run], count: int) -> list[SegmentPanel]:
    """Segments to draw: those in most stores first, and one of each protein before a second of any."""
    stores = pd.concat([run.contexts[SEGMENT].drop_duplicates() for run in runs]).value_counts(sort=False)
    listed = stores.rename("stores").reset_index()
    listed["turn"] = listed.groupby("protein").cumcount()
    chosen = listed.sort_values(["stores", "turn"], ascending=[False, True], kind="stable").head(count)
    rows = {run.store.name: dict(list(run.contexts.groupby(SEGMENT, sort=False))) for run in runs}
    return [
        SegmentPanel(
            _title(key),
            tuple(_segment_curve(run, rows[run.store.name][key]) for run in runs if key in rows[run.store.name]),
        )
        for key in chosen[SEGMENT].itertuples(index=False, name=None)
    ]


def _title(key: tuple[str, int, int, int, int]) -> str:
    """The protein and the residues of the segment, counted from 1, both ends included."""
    protein, start1, stop1, start2, stop2 = key
    second = "" if start1 == start2 else f", {start2 + 1}-{stop2}"
    return f"{protein} {start1 + 1}-{stop1}{second}"


def _segment_curve(run: Run, rows: pd.DataFrame) -> SegmentCurve:
    unmasked, recovery = [], []
    for _, repeat in rows.sort_values("step", kind="stable").groupby("repeat"):
        unmasked += [*repeat["unmasked"].to_numpy(dtype=np.float64), np.nan]
        recovery += [*repeat["recovery"].to_numpy(dtype=np.float64), np.nan]
    return SegmentCurve(run.label, run.schedule, np.array(unmasked), np.array(recovery))


def metrics_of(runs: Sequence[Run], tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """The few numbers to compare runs by, each under the label of its run."""
    metrics: dict[str, float] = {}
    for row in tables["summary"].to_dict("records"):
        share = row["jump"] / row["recoverable"] if row["recoverable"] else float("nan")
        metrics |= {
            f"{row['label']}/half_unmasked": float(row["half_unmasked"]),
            f"{row['label']}/segments": float(row["segments"]),
            f"{row['label']}/recoverable": float(row["recoverable"]),
            f"{row['label']}/jump_share": float(share),
        }
    for row in tables["paired"].to_dict("records"):
        if not row.get("reason"):
            metrics[f"{row['first']} against {row['second']}/difference"] = float(row["difference"])
            metrics[f"{row['first']} against {row['second']}/ratio"] = float(row["ratio"])
    return metrics
