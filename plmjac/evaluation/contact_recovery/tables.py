"""The numbers: fractions recovered, what each curve does, two schedules compared pair by pair, minimal segments.

Definitions are in plmjac.recovery; here they meet tables. Intervals are bootstraps over proteins.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from plmjac.comparison import sign_flip, widened
from plmjac.config import Keys
from plmjac.evaluation.contact_recovery.runs import OUTCOME, SEGMENT, Run
from plmjac.recovery import (
    Counts,
    JumpRule,
    classify,
    counted,
    crossings,
    first_crossing,
    interval,
    minimal_segment,
    resamples,
)


class Jump(Keys):
    """Rule for jumps of a curve, stable ones too; see plmjac.recovery.JumpRule."""

    height: PositiveFloat
    drop: PositiveFloat
    window: PositiveInt
    exceptions: NonNegativeInt


class Settings(Keys):
    """The keys of conf/evaluation/contact_recovery.yaml, which explains them."""

    name: Literal["contact_recovery"]
    recovered: float
    jump: Jump
    reference: Literal["flanking", "random", "random_avoiding_30"]
    resamples: PositiveInt
    coverage: float = Field(gt=0, lt=1)
    seed: NonNegativeInt
    panels: NonNegativeInt


CURVE = [
    "steps", "highest", "recoverable", "started_high", "first_step", "first_unmasked", "jump_step", "jump_unmasked",
    "stable_step", "stable_unmasked",
]  # fmt: skip
"""Of a curve: first_ is where it is first recovered, jump_ its first jump, stable_ its first stable one."""


def counts_of(
    rows: pd.DataFrame, proteins: Sequence[str], column: str, recovered: str = "recovered"
) -> tuple[Counts, Float[np.ndarray, " F"]]:
    """Recovered and all segments by protein and by value of a column (step, unmasked), and those values in order.

    Repeats of one segment at one value are averaged first.
    """
    segments = rows.groupby([*SEGMENT, column], sort=False)[recovered].mean().reset_index()
    values, where = np.unique(segments[column].to_numpy(dtype=np.float64), return_inverse=True)
    protein = pd.Index(proteins).get_indexer(pd.Index(segments["protein"])).astype(np.int64)
    share = segments[recovered].to_numpy(dtype=np.float64)
    return counted(protein, where.astype(np.int64), share, len(proteins), len(values)), values


def fractions(run: Run, settings: Settings) -> pd.DataFrame:
    """The fraction recovered at each step of a run, its denominator (segments, of so many proteins) and interval."""
    counts, steps = counts_of(run.contexts, run.proteins, "step")
    low, high = _interval(counts.resampled(_weights(run.proteins, settings)), run.proteins, settings)
    by_step = run.contexts.groupby("step")
    return pd.DataFrame(
        {
            **run.names,
            "step": steps.astype(np.int64),
            "unmasked": by_step["unmasked"].mean().to_numpy(),
            "segments": counts.segments.sum(axis=0).astype(np.int64),
            "proteins": (counts.segments > 0).sum(axis=0),
            "recovered": counts.fraction,
            "low": low,
            "high": high,
            "mean_recovery": by_step["recovery"].mean().to_numpy(),
        }
    )


def classified(run: Run, settings: Settings) -> pd.DataFrame:
    """The kind of curve of each segment and repeat; segments and proteins without a curve with their reason."""
    rule, rows = JumpRule(**settings.jump.model_dump()), []
    ordered = run.contexts.sort_values("step", kind="stable")
    for key, curve in ordered.groupby([*SEGMENT, "repeat"], sort=False):
        steps, unmasked = curve["step"].to_numpy(), curve["unmasked"].to_numpy()
        found = classify(curve["recovery"].to_numpy(dtype=np.float64), rule, settings.recovered)
        row: dict[str, Any] = dict(zip([*SEGMENT, "repeat"], key, strict=True))
        row |= {"steps": len(curve), "highest": found.highest}
        row |= {"recoverable": found.recoverable, "started_high": found.started_high}
        for name, index in (("first", found.first_recovered), ("jump", found.jump), ("stable", found.stable_jump)):
            row[f"{name}_step"] = np.nan if index is None else float(steps[index])
            row[f"{name}_unmasked"] = np.nan if index is None else float(unmasked[index])
        rows.append(row)
    known = pd.DataFrame(rows, columns=[*SEGMENT, "repeat", *CURVE])
    merged = run.outcomes.merge(known, on=SEGMENT, how="left")
    named = pd.DataFrame([run.names] * len(merged), columns=list(run.names))
    return pd.concat([named, merged], axis=1)[[*run.names, *SEGMENT, "repeat", *CURVE, *OUTCOME[len(SEGMENT) :]]]


def summary(run: Run, segments: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    """One row for a run: how many curves are of which kind, and after how many residues half are recovered.

    The kinds are the authors': `low` (never recovered) and `recoverable` are all curves. Of the recoverable, `jump`
    have a jump, `stable` a stable one, `single` but one step and so no jump, and `no_stable` is the rest.
    """
    curves = segments[(segments["store"] == run.store.name) & segments["steps"].notna()]
    recoverable = curves[curves["recoverable"].astype(bool)]
    kinds = {name: int(recoverable[f"{name}_step"].notna().sum()) for name in ("jump", "stable")}
    single = int((recoverable["steps"] == 1).sum())
    row: dict[str, Any] = {
        **run.names,
        "label": run.label,
        "proteins": len(run.proteins),
        "segments": run.num_segments,
        "curves": len(curves),
        "low": len(curves) - len(recoverable),
        "recoverable": len(recoverable),
        **kinds,
        "single": single,
        "no_stable": len(recoverable) - kinds["stable"] - single,
        "started_high": int(curves["started_high"].astype(bool).sum()),
        "too_few_left": int((run.outcomes["outcome"] == "too few residues left").sum()),
        "without_segment": len(run.missing),
    }
    return row | _half(run, settings)


def _half(run: Run, settings: Settings) -> dict[str, float]:
    """The first step at which more than half of the segments are recovered, in steps and in unmasked residues."""
    if not run.num_segments:
        return dict.fromkeys(("half_step", "half_unmasked", "half_low", "half_high"), np.nan)
    counts, steps = counts_of(run.contexts, run.proteins, "step")
    unmasked = run.contexts.groupby("step")["unmasked"].mean().to_numpy(dtype=np.float64)
    index = first_crossing(counts.fraction)
    drawn = counts.resampled(_weights(run.proteins, settings))
    low, high = _interval(crossings(drawn, unmasked), run.proteins, settings).tolist()
    return {
        "half_step": np.nan if index is None else float(steps[index]),
        "half_unmasked": np.nan if index is None else float(unmasked[index]),
        "half_low": low,
        "half_high": high,
    }


def partners(runs: Sequence[Run], reference: str) -> list[tuple[Run, Run]]:
    """Pairs of runs to compare: each of another schedule with each of the reference schedule under the same model.

    Where the reference has been run with the other's seed, only with that.
    """
    found = []
    for other in runs:
        if other.schedule == reference:
            continue
        same = [run for run in runs if run.schedule == reference and _comparable(run, other)]
        seeded = [run for run in same if run.attributes["seed"] == other.attributes["seed"]]
        found += [(run, other) for run in seeded or same]
    return found


def _comparable(first: Run, second: Run) -> bool:
    return all(first.attributes.get(key) == second.attributes.get(key) for key in ("model", "readout"))


def compared(first: Run, second: Run, settings: Settings) -> dict[str, Any]:
    """Two schedules on the segments that both have, at the numbers of unmasked residues that both have.

    `difference`: share recovered, first minus second, averaged over those numbers and then over segments; its interval,
    and the ratio of residues to half recovered, are bootstraps over proteins. `p`: sign-flip test of proteins' means.
    """
    keys = [*SEGMENT, "unmasked"]
    sides = [run.contexts.groupby(keys, sort=False)["recovered"].mean() for run in (first, second)]
    both = pd.concat(sides, axis=1, join="inner", keys=["first", "second"]).reset_index()
    ours, theirs = (set(run.contexts[SEGMENT].itertuples(index=False, name=None)) for run in (first, second))
    row: dict[str, Any] = {
        "first": first.label,
        "second": second.label,
        "model": first.store.model,
        "segments": len(ours & theirs),
        "only_first": len(ours - theirs),
        "only_second": len(theirs - ours),
        "proteins": both["protein"].nunique(),
    }
    if both.empty:
        return row | {"reason": "the stores have no segment in common"}
    proteins = sorted(both["protein"].unique())
    weights = _weights(proteins, settings)
    of_segments = both.assign(difference=both["first"] - both["second"]).groupby(SEGMENT)["difference"].mean()
    by_protein = of_segments.groupby("protein", sort=True)
    drawn = (weights @ by_protein.sum().to_numpy()) / (weights @ by_protein.size().to_numpy(dtype=np.float64))
    low, high = _interval(drawn, proteins, settings).tolist()
    wins, losses = int((by_protein.mean() > 0).sum()), int((by_protein.mean() < 0).sum())
    row |= {"difference": float(of_segments.mean()), "low": low, "high": high}
    means = by_protein.mean().to_numpy(dtype=np.float64)
    row |= {"better": wins, "worse": losses, "p": sign_flip(means, settings.resamples, settings.seed)[1]}
    return row | _ratio(both, proteins, weights, settings) | {"reason": ""}


def _ratio(
    both: pd.DataFrame, proteins: Sequence[str], weights: Float[np.ndarray, "B P"], settings: Settings
) -> dict[str, float]:
    """The ratio of residues, second to first, that it takes until half of the common segments are recovered."""
    halves, drawn = [], []
    for side in ("first", "second"):
        counts, unmasked = counts_of(both, proteins, "unmasked", side)
        halves.append(crossings(counts.fraction[None], unmasked)[0])
        drawn.append(crossings(counts.resampled(weights), unmasked))
    low, high = _interval(_divided(drawn[1], drawn[0]), proteins, settings).tolist()
    ratio = _divided(np.array(halves[1:]), np.array(halves[:1]))[0]
    return {"half_first": halves[0], "half_second": halves[1], "ratio": ratio, "ratio_low": low, "ratio_high": high}


def _divided(above: Float[np.ndarray, " B"], below: Float[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    """NaN where neither crosses, infinity where only the second does not (or the first does at once)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Float[np.ndarray, " B"] = above / below
    return ratio


def by_direction(runs: Sequence[Run]) -> list[dict[str, Run]]:
    """Runs that differ in the direction of their flanks alone, by direction; those with flanks on both sides."""
    groups: dict[str, dict[str, Run]] = {}
    for run in runs:
        if run.direction in ("outward", "left", "right"):
            groups.setdefault(run.panel, {}).setdefault(run.direction, run)
    return [group for group in groups.values() if "outward" in group]


def minimal_segments_of(group: dict[str, Run], segments: pd.DataFrame) -> pd.DataFrame:
    """The residues that were enough for a stable jump, for each segment that has one with flanks on both sides.

    `symmetric`: visible residues at that jump. `fewest`: at that jump or at those of the runs with one flank alone,
    whichever shows fewer. `zhang2024`: the authors' number, which takes the shorter of the one-sided flanks together
    with the other at its two-sided length, and adds a residue a side; NaN where no one-sided run is at hand.
    """
    at = {}
    for direction, run in group.items():
        mine = segments[(segments["store"] == run.store.name) & segments["stable_step"].notna()]
        at[direction] = mine.set_index(SEGMENT)[["stable_step", "stable_unmasked"]]
    rows = []
    for key, (both, unmasked) in zip(at["outward"].index, at["outward"].to_numpy(), strict=True):
        start1, stop1, start2 = key[1:4]
        window = int(stop1 - start1) * (1 if start1 == start2 else 2)
        sides = {side: at[side].loc[key] for side in ("left", "right") if side in at and key in at[side].index}
        left, right = (int(sides[side]["stable_step"]) if side in sides else None for side in ("left", "right"))
        paper = minimal_segment(int(both), left, right, window, extra=1).asymmetric
        seen = [unmasked, *(side["stable_unmasked"] for side in sides.values())]
        row = {**group["outward"].names, **dict(zip(SEGMENT, key, strict=True))}
        row |= {"both": int(both), "left": left, "right": right}
        row |= {"symmetric": window + int(unmasked), "fewest": window + int(min(seen))}
        rows.append(row | {"zhang2024": paper if len(at) > 1 else np.nan})
    return pd.DataFrame(rows)


def _interval(
    samples: Float[np.ndarray, "B *S"], proteins: Sequence[str], settings: Settings
) -> Float[np.ndarray, "2 *S"]:
    """The interval of what was resampled over proteins, as wide as few proteins need; NaN for fewer than 6."""
    level = widened(settings.coverage, len(proteins))
    if np.isnan(level):
        return np.full((2, *samples.shape[1:]), np.nan)
    return interval(samples, level)


def _weights(proteins: Sequence[str], settings: Settings) -> Float[np.ndarray, "B P"]:
    return resamples(proteins, settings.resamples, settings.seed)
