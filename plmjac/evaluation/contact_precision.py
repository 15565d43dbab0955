"""Precision of the top-ranked pairs of each stored contact map against structures.

Every contact map of every store is scored by every definition of a contact, in every range of separations; means come
with intervals over proteins, and methods are compared on the proteins that they share. A protein that could not be
scored is a row too, with NaN and the reason, so that none drops out of an average unseen.
"""

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float64
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from plmjac import plots
from plmjac.comparison import mean_interval, paired, summary
from plmjac.config import Keys
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row, Store
from plmjac.evaluation.pictures import picture
from plmjac.evaluation.scoring import labelled, scored
from plmjac.evaluation.structures import Labelled, Structures
from plmjac.evaluation.tables import MAX_LISTED, lines_of, matched, means_by, not_scored, number, with_interval
from plmjac.metrics import (
    PARTS,
    RANGES,
    Range,
    hits_in,
    in_words,
    ordered_hits_in,
    precision_at,
    precisions,
    ranking,
    scores_of,
)
from plmjac.records import Atom, Contacts
from plmjac.workplan import key_of

MAX_PANELS = 20

Pictures = dict[str, Callable[[], plots.Figure]]


class Settings(Keys):
    """The keys of conf/evaluation/contact_precision.yaml."""

    name: Literal["contact_precision"]
    atom: tuple[Atom, ...] = Field(min_length=1)
    cutoff: tuple[PositiveFloat, ...] = Field(min_length=1)
    min_separation: PositiveInt
    range: Range
    lengths: tuple[PositiveInt, ...]
    bootstrap: PositiveInt
    seed: NonNegativeInt
    ids: tuple[str, ...] | None = None

    @field_validator("atom", "cutoff", "lengths", "ids", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int | float) else value

    @property
    def definitions(self) -> list[tuple[Atom, float]]:
        """Atom and cutoff in step, a single one with each of the others; EvaluationError where they do not fit."""
        size = max(len(self.atom), len(self.cutoff))
        if {len(self.atom), len(self.cutoff)} - {1, size}:
            raise EvaluationError(
                f"evaluation.atom has {len(self.atom)} values and evaluation.cutoff {len(self.cutoff)}; "
                "give as many of one as of the other, or one"
            )
        return list(zip(self.atom * (size // len(self.atom)), self.cutoff * (size // len(self.cutoff)), strict=True))

    @property
    def ranges(self) -> dict[str, tuple[int, int | None]]:
        """The ranges of separations, `all` from `min_separation` on."""
        return {**RANGES, "all": (self.min_separation, None)}


MEASURES = list(PARTS)
"""Of the full length L; `resolved` behind one means that L is the number of resolved residues."""

COLUMNS = [
    "protein", "store", "model", "structure", "match", "map", "atom", "cutoff", "range", "length", "resolved", "pairs",
    "contacts", *MEASURES, *(f"{measure} resolved" for measure in MEASURES), "P@L/2 ordered", "chance", "reason",
]  # fmt: skip

"""`structure` and `match` name the structure that was compared with, and how it was found. `P@L/2 ordered` counts (i,
j) and (j, i) as two among the top L, as Zhang et al. (2024) do. `pairs` and `contacts` are the candidates and those
among them that touch, `chance` their ratio."""

FRACTIONS: Float64[np.ndarray, " K"] = np.arange(1, 41) / 20
"""Points of the precision curves: the top 0.05 L pairs to the top 2 L."""

GROUP = ["method", "atom", "cutoff", "range"]


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Score every contact map of the stores against the structures."""
    stores = inputs.of_kind("jacobian")
    table, curves = contact_precision(
        stores, inputs.structures, definitions=settings.definitions, ranges=settings.ranges
    )
    rows = _named(table[table["map"].notna()], len(stores))
    means = _means(rows, settings)
    differences = paired(rows, GROUP[1:], MEASURES, draws=settings.bootstrap, seed=settings.seed)
    shown = _shown(rows, settings)
    mean_curves = _mean_curves(_named(curves, len(stores)), settings)
    tables = {
        "contact_precision": table, "summary": means, "differences": differences, "precision_curves": mean_curves
    }  # fmt: skip
    drawn = next((store for store in stores if store.name in set(shown["store"])), None)
    figures = _figures(shown, mean_curves, drawn, inputs.structures, settings) if drawn else {}
    if unknown := sorted(set(settings.ids or ()) - set(table["protein"])):
        raise EvaluationError(f"evaluation.ids: no protein {', '.join(unknown)} in the stores")
    return Outcome(
        tables,
        figures,
        _printed(table, rows, means, differences, settings),
        shown["protein"].nunique(),
        {"contact_precision.json": json.dumps(public_scores(table), indent=1, allow_nan=False).encode()},
        _metrics(shown),
        _pictures(shown, stores, inputs.structures, settings),
    )


def public_scores(table: pd.DataFrame) -> Row:
    """The means of a table of `contact_precision` as JSON for a public comparison: set, map, contact, range, measure.

    A set is a store. Each range says over how many proteins its means are; `proteins` counts those that have any score,
    `not_scored` those without. A mean over nothing is null.
    """
    sets: Row = {}
    for (name, model), rows in table.groupby(["store", "model"], sort=False):
        scored = rows[rows["P@L"].notna()]
        every, there = set(rows["protein"]), set(scored["protein"])
        maps: Row = {}
        for (map_name, atom, cutoff, separations), group in rows[rows["map"].notna()].groupby(
            ["map", "atom", "cutoff", "range"], sort=False
        ):
            definition = maps.setdefault(str(map_name), {}).setdefault(f"{atom} < {cutoff:g} A", {})
            means = {measure: group[measure].mean() for measure in MEASURES}
            definition[separations] = {
                "n": int(group["P@L"].notna().sum()),
                **{measure: None if pd.isna(mean) else float(mean) for measure, mean in means.items()},
            }
        sets[str(name)] = {
            "model": model, "proteins": len(there), "not_scored": len(every - there), "maps": maps
        }  # fmt: skip
    return {"evaluation": "contact_precision", "sets": sets}


def contact_precision(
    stores: Sequence[Store],
    structures: Structures,
    *,
    definitions: Sequence[tuple[Atom, float]] = (("cb", 8.0),),
    ranges: dict[str, tuple[int, int | None]] = RANGES,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each map, definition of a contact and range (COLUMNS says which columns), and the precision curves."""
    rows: list[Row] = []
    for store in stores:
        score = partial(_protein, definitions=definitions, ranges=ranges)
        rows += scored(labelled(store, structures), score, store)
    labels = ["store", "model", "protein", "map", "atom", "cutoff", "range", "chance"]
    curves = [
        {**{label: row[label] for label in labels}, **dict(zip(FRACTIONS, row["curve"], strict=True))}
        for row in rows
        if "curve" in row
    ]
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(curves, columns=[*labels, *FRACTIONS])


def _protein(
    protein: Labelled, definitions: Sequence[tuple[Atom, float]], ranges: dict[str, tuple[int, int | None]]
) -> Iterator[Row]:
    """The rows of all maps of a protein; each map is sorted once for all definitions and ranges."""
    if not protein.maps:
        yield {"reason": "the store keeps no contact map of it; run predict with keep=[contacts]"}
        return
    known: list[tuple[Atom, float, Contacts]] = []
    for atom, cutoff in definitions:
        try:
            known.append((atom, cutoff, protein.contacts(atom, cutoff)))
        except ValueError as error:
            yield {"atom": atom, "cutoff": cutoff, "reason": str(error)}
    length = len(protein)
    for name in protein.maps if known else ():
        ranked = ranking(protein.array(name).astype(np.float64))
        for atom, cutoff, contacts in known:
            for label, (low, high) in ranges.items():
                hits, resolved = hits_in(ranked, contacts, low, high), int(contacts.resolved.sum())
                yield {
                    "map": name,
                    "atom": atom,
                    "cutoff": cutoff,
                    "range": label,
                    "resolved": resolved,
                    **scores_of(hits, length),
                    **{f"{name} resolved": precision_at(hits, resolved // part) for name, part in PARTS.items()},
                    "P@L/2 ordered": precision_at(ordered_hits_in(ranked, contacts, low, high), length),
                    "curve": precisions(hits, np.round(FRACTIONS * length).astype(np.int64)),
                }


def _named(rows: pd.DataFrame, num_stores: int) -> pd.DataFrame:
    """With a column `method`: the map, and the store where there are several."""
    method = rows["map"] if num_stores == 1 else rows["store"].astype(str) + " " + rows["map"].astype(str)
    return rows.assign(method=method)


def _means(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Means with intervals over all proteins, and by length."""
    measures = [*MEASURES, *(f"{measure} resolved" for measure in MEASURES), "P@L/2 ordered", "chance"]
    parts = [rows.assign(lengths="all")]
    if settings.lengths:
        edges = sorted(settings.lengths)
        parts.append(rows.assign(lengths=[_bin(int(length), edges) for length in rows["length"]]))
    return summary(pd.concat(parts), [*GROUP, "lengths"], measures, draws=settings.bootstrap, seed=settings.seed)


def _bin(length: int, edges: Sequence[int]) -> str:
    """The half-open bin of a length, in words: "<100", "100-199", ">=400"."""
    below, above = [edge for edge in edges if edge <= length], [edge for edge in edges if edge > length]
    if not below:
        return f"<{above[0]}"
    return f"{below[-1]}-{above[0] - 1}" if above else f">={below[-1]}"


def _mean_curves(curves: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Mean precision at each share of L over the proteins that could be scored, with its interval and mean chance."""
    long = curves.melt([*GROUP, "protein", "chance"], list(FRACTIONS), "pairs / L", "precision").dropna(
        subset="precision"
    )
    rows = []
    for labels, group in long.groupby([*GROUP, "pairs / L"], sort=False):
        values = group["precision"].to_numpy(dtype=np.float64)
        low, high = mean_interval(values, min(settings.bootstrap, 1000), settings.seed)
        rows.append((*labels, values.mean(), len(values), low, high, group["chance"].mean()))
    return pd.DataFrame(rows, columns=[*GROUP, "pairs / L", "precision", "n", "low", "high", "chance"])


def _shown(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The rows that have a score in the chosen range, by the first definition by which any has."""
    scored = rows[(rows["range"] == settings.range) & rows["P@L"].notna()]
    for atom, cutoff in settings.definitions:
        chosen = scored[(scored["atom"] == atom) & (scored["cutoff"] == cutoff)]
        if len(chosen):
            return chosen
    return scored


def _figures(
    shown: pd.DataFrame, curves: pd.DataFrame, store: Store, structures: Structures, settings: Settings
) -> dict[str, Callable[[], plots.Figure]]:
    atom, cutoff = shown["atom"].iloc[0], float(shown["cutoff"].iloc[0])
    definition = _definition(atom, cutoff, settings)
    maps = f"{store.model}: contact map above, structure below ({definition}); yellow: not scored"
    if shown["protein"].nunique() > MAX_PANELS and not settings.ids:
        maps += f"; the first {MAX_PANELS} of {shown['protein'].nunique()}, all in proteins/"
    scores = shown.pivot(index="protein", columns="method", values="P@L/2")[list(shown["method"].unique())]
    return {
        "contact_maps": lambda: plots.contact_maps(_panels(shown, store, structures, settings), maps),
        "precision_curves": lambda: plots.precision_curves(_curves_of(_at(curves, atom, cutoff, settings)), definition),
        "per_protein": lambda: plots.paired_scores(scores, "P@L/2", definition),
    }


def _metrics(shown: pd.DataFrame) -> dict[str, float]:
    means = shown.groupby("method", sort=False)[MEASURES].mean()
    return {f"{method}/{measure}": float(means.loc[method, measure]) for method in means.index for measure in MEASURES}


def _curves_of(curves: pd.DataFrame) -> dict[str, plots.Curve]:
    columns = ["pairs / L", "precision", "low", "high", "chance"]
    return {
        str(method): plots.Curve(*(rows[name].to_numpy(dtype=np.float64) for name in columns))
        for method, rows in curves.groupby("method", sort=False)
    }


def _pictures(shown: pd.DataFrame, stores: Sequence[Store], structures: Structures, settings: Settings) -> Pictures:
    """A picture of each protein's first map, each read and drawn when it is its turn."""
    pictures: Pictures = {}
    for store in stores:
        here = shown[shown["store"] == store.name].drop_duplicates("protein")
        for row in here.to_dict("records"):
            if settings.ids is None or row["protein"] in settings.ids:
                name = key_of(row["protein"]) + (f".{key_of(store.name)}" if len(stores) > 1 else "")
                pictures[name] = partial(_picture, store, dict(row), structures)
    return pictures


def _picture(store: Store, row: dict[Hashable, Any], structures: Structures) -> plots.Figure:
    found = structures.find(store.opened[row["protein"]])
    assert isinstance(found, Labelled)
    return picture(found.stored, found.array(row["map"]), found, atom=row["atom"], cutoff=row["cutoff"])


def _panels(shown: pd.DataFrame, store: Store, structures: Structures, settings: Settings) -> list[plots.MapPanel]:
    """The first map of the proteins of a store that has any, in their order."""
    here = shown[shown["store"] == store.name]
    chosen = here[here["protein"].isin(settings.ids)] if settings.ids else here
    rows = chosen[chosen["map"] == here["map"].iloc[0]].head(MAX_PANELS) if len(here) else here
    panels = []
    for row in rows.to_dict("records"):
        found = structures.find(store.opened[row["protein"]])
        assert isinstance(found, Labelled)
        title = f"{row['protein']}  P@L/2 {row['P@L/2']:.2f} ({row['chance']:.2f})"
        panels.append(plots.MapPanel(title, found.array(row["map"]), found.contacts(row["atom"], row["cutoff"])))
    return panels


def _definition(atom: Atom, cutoff: float, settings: Settings) -> str:
    return f"{atom} < {cutoff:g} A, {in_words(*settings.ranges[settings.range])}"


def _printed(
    table: pd.DataFrame, rows: pd.DataFrame, means: pd.DataFrame, differences: pd.DataFrame, settings: Settings
) -> str:
    """The means of the chosen range, by protein where there are few, the differences, and what is missing and why."""
    models = dict(zip(table["store"], table["model"], strict=True))
    lines = [
        "model " + (", ".join(f"{model} ({name})" for name, model in models.items()) if len(models) > 1 else
                    "".join(models.values())),
        "P@L: share of contacts among the L best pairs (L: residues); chance: among all pairs",
    ]  # fmt: skip
    measures = [*MEASURES, "P@L/2 ordered"] if settings.range == "long" else MEASURES  # as the paper counts
    for atom, cutoff in settings.definitions:
        here = _at(means, atom, cutoff, settings)
        lines += ["", f"contacts: {_definition(atom, cutoff, settings)}; mean and 95 % interval over n proteins"]
        lines += means_by(here[here["lengths"] == "all"], "method", [*measures, "chance"]) or [
            "nothing could be scored"
        ]
        lines += _by_length(here[(here["lengths"] != "all") & (here["measure"] == "P@L/2")])
        lines += _differences(_at(differences, atom, cutoff, settings))
    lines += _by_protein(_shown(rows, settings))
    here = table[(table["range"] == settings.range) | table["range"].isna()]
    missing = [*matched(table), *not_scored(here, "P@L")]
    return "\n".join([*lines, *([""] if missing else []), *missing])


def _by_length(binned: pd.DataFrame) -> list[str]:
    """P@L/2 of each method in each bin of lengths, where there is more than one."""
    if binned["lengths"].nunique() < 2:
        return []
    lines: dict[str, dict[str, str]] = {}
    for row in sorted(binned.to_dict("records"), key=lambda row: _start(row["lengths"])):
        line = lines.setdefault(row["method"], {"P@L/2 by length": row["method"]})
        line[row["lengths"]] = f"{row['mean']:.3f} (n={row['n']})"
    return ["", *lines_of(list(lines.values()))]


def _start(bin_name: str) -> int:
    """Lower end of a bin; the inverse of `_bin`."""
    return 0 if bin_name.startswith("<") else int(bin_name.removeprefix(">=").split("-")[0])


def _differences(differences: pd.DataFrame) -> list[str]:
    """One line for every two methods, by P@L/2."""
    lines = [
        {
            "first": row["first"], "second": row["second"], "n": row["n"],
            "difference of P@L/2": with_interval(row["difference"], row["low"], row["high"]),
            "better": row["better"], "worse": row["worse"], "p": number(row["p"], ".4f"),
        }
        for row in differences[differences["measure"] == "P@L/2"].to_dict("records")
    ]  # fmt: skip
    heading = "first minus second on the proteins of both; p: sign-flip test, two-sided; -: fewer than 6 proteins"
    return ["", heading, *lines_of(lines)] if lines else []


def _by_protein(shown: pd.DataFrame) -> list[str]:
    """P@L/2 of each protein by each method, where they fit on a screen."""
    lines: dict[str, dict[str, str]] = {}
    for row in shown.to_dict("records"):
        line = lines.setdefault(row["protein"], {"P@L/2 of": row["protein"], "length": f"{row['length']:.0f}"})
        line[row["method"]] = f"{row['P@L/2']:.3f}"
        line["chance"] = f"{row['chance']:.3f}"
    return ["", *lines_of(list(lines.values()))] if 0 < len(lines) <= MAX_LISTED else []


def _at(table: pd.DataFrame, atom: Atom, cutoff: float, settings: Settings) -> pd.DataFrame:
    return table[(table["atom"] == atom) & (table["cutoff"] == cutoff) & (table["range"] == settings.range)]
