"""The number of parameters that holds the couplings of all protein families: the paper's estimate, and a measurement.

Zhang et al. (2024): 20,000 families of average length 256, every pair of positions, 20 x 20 couplings each, make
261,120,000,000 parameters; with at most 4 contacts a position 4.1 billion, about where ESM-2 stops improving with size.
The measurement counts what stands out of the noise in the maps, and Jacobians, of a store.

Noise, for pairs: scores below the median of a protein's contact map (|i - j| >= min_separation), mirrored at the
median; it takes for granted that pairs without a coupling score symmetrically about the median and that they are more
than half of all. For single couplings: the elements of the Jacobian's blocks of those pairs. What counts as above noise
is decided by Benjamini and Hochberg's procedure at a false discovery rate; as no p is smaller than one over the number
of noise values, fewer than about 1 / rate pairs in a protein are never told from noise and count as none.
Above noise means coupled in the model, not in contact: a model that knows no contacts has couplings too.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import comb
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from plmjac import plots
from plmjac.comparison import MIN_PROTEINS, summary
from plmjac.config import Keys
from plmjac.evaluation.base import Inputs, Outcome, Row, Store
from plmjac.evaluation.scoring import NoCouplings, couplings_of, scored, stored_proteins
from plmjac.evaluation.tables import lines_of, not_scored, with_interval
from plmjac.metrics import scored_pairs
from plmjac.models.caution import SHIPPED
from plmjac.store import StoredProtein

READS_STRUCTURES = False

MIN_PAIRS = 50
"""Fewer pairs than this say nothing about the noise."""


class Settings(Keys):
    """The keys of conf/evaluation/capacity.yaml."""

    name: Literal["capacity"]
    families: PositiveInt
    length: PositiveInt
    states: PositiveInt
    contacts_per_position: NonNegativeFloat
    min_separation: PositiveInt
    false_discovery_rate: float = Field(gt=0, lt=1)
    bootstrap: PositiveInt
    seed: NonNegativeInt


MEASURED = ["pairs / residue", "couplings / residue"]

COLUMNS = [
    "protein", "store", "model", "length", "pairs", "pairs above noise", "couplings above noise", *MEASURED, "reason"
]  # fmt: skip


def full_capacity(families: int, length: int, states: int = 20) -> int:
    """Parameters of all pairs of positions i < j of all families, without fields: families x C(L, 2) x states^2."""
    return families * comb(length, 2) * states**2


def sparse_capacity(families: int, length: int, contacts_per_position: float = 4.0, states: int = 20) -> float:
    """As `full_capacity`, with only `contacts_per_position` partners a position; each contact is of two positions."""
    return families * length * contacts_per_position / 2 * states**2


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """The estimates for any number of families and length, and what the stores hold, if there are any."""
    stores = inputs.of_kind("jacobian") if inputs.stores else ()
    measured = partial(_measured, settings=settings)
    rows = [row for store in stores for row in scored(stored_proteins(store), measured, store)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    means = summary(table, ["store", "model"], MEASURED, draws=settings.bootstrap, seed=settings.seed)
    concluded = means[~means["model"].isin(list(SHIPPED))]
    estimates = _estimates(concluded, settings)
    tables = {"capacity": estimates}
    if stores:
        tables |= {"couplings_above_noise": table, "capacity_summary": means}
    return Outcome(
        tables,
        _figures(table, estimates, settings),
        _printed(table, means, estimates, _refused(stores, means), settings),
        scored=int(table["pairs above noise"].notna().sum()) if stores else len(estimates),
        metrics={f"capacity/{row['estimate']}": float(row["parameters"]) for row in estimates.to_dict("records")},
    )


def above_noise(
    values: Float64[np.ndarray, " N"], noise: Float64[np.ndarray, " M"], false_discovery_rate: float
) -> Bool[np.ndarray, " N"]:
    """Mask of values too large for noise: Benjamini and Hochberg with p = (1 + noise at least as large) / (1 + M)."""
    ordered = np.sort(noise)
    p = (1 + len(noise) - np.searchsorted(ordered, values, side="left")) / (1 + len(noise))
    rank = np.arange(1, len(p) + 1)
    good = np.sort(p) <= false_discovery_rate * rank / max(1, len(p))
    bound = np.sort(p)[good].max() if good.any() else -1.0
    chosen: Bool[np.ndarray, " N"] = p <= bound
    return chosen


def _measured(stored: StoredProtein, settings: Settings) -> Iterator[Row]:
    """Couplings of one protein that stand out of the noise; or the reason why they cannot be counted."""
    if "contacts" not in stored.names:
        yield {"reason": "its contact map was not kept; run predict with keep=[contacts]"}
        return
    contacts = stored.contacts
    first, second = scored_pairs(contacts, settings.min_separation)
    if len(first) < MIN_PAIRS:
        yield {"pairs": len(first), "reason": f"fewer than {MIN_PAIRS} pairs with |i-j| >= {settings.min_separation}"}
        return
    scores = contacts[first, second].astype(np.float64)
    deviation = scores - np.median(scores)
    quiet = deviation < 0
    noise = np.concatenate([deviation[quiet], -deviation[quiet]])
    above = above_noise(deviation, noise, settings.false_discovery_rate)
    found: Row = {
        "pairs": len(first),
        "pairs above noise": int(above.sum()),
        "pairs / residue": above.sum() / len(stored),
    }
    try:
        couplings = couplings_of(stored)
    except NoCouplings as error:
        yield {**found, "reason": f"single couplings: {error}"}
        return
    values, noise = (
        np.abs(couplings[first[pairs], :, second[pairs], :]).ravel().astype(np.float64) for pairs in (above, quiet)
    )
    count = int(above_noise(values, noise, settings.false_discovery_rate).sum())
    yield {**found, "couplings above noise": count, "couplings / residue": count / len(stored), "reason": ""}


def _estimates(means: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """One row an estimate: its name, how it was made, parameters, and where it was measured its interval."""
    families, length, squared = settings.families, settings.length, settings.states**2
    rows = [
        (
            "full",
            f"{families:,} x {comb(length, 2):,} pairs x {squared}",
            full_capacity(families, length, settings.states),
            np.nan,
            np.nan,
        ),
        (
            "sparse",
            f"{families:,} x {length} x {settings.contacts_per_position:g} / 2 pairs x {squared}",
            sparse_capacity(families, length, settings.contacts_per_position, settings.states),
            np.nan,
            np.nan,
        ),
    ]
    for row in means.dropna(subset="low").to_dict("records"):
        what = row["measure"].split()[0]
        each = squared if what == "pairs" else 1
        made = f"{families:,} x {length} x {row['mean']:.2g} {what}" + (f" x {squared}" if each > 1 else "")
        values = [families * length * row[key] * each for key in ("mean", "low", "high")]
        rows.append((f"measured {what}, {row['store']}", made, *values))
    columns = ["estimate", "from", "parameters", "low", "high"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], float))


def _refused(stores: Sequence[Store], means: pd.DataFrame) -> list[str]:
    """The stores from which nothing is concluded about all families, and why."""
    lines = []
    for store in stores:
        n = int(means.loc[means["store"] == store.name, "n"].max())
        if store.model in SHIPPED:
            lines.append(f"no estimate from {store.name}: {SHIPPED[store.model]}")
        elif n < MIN_PROTEINS:
            lines.append(
                f"no estimate from {store.name}: {n} proteins say nothing of all families; {MIN_PROTEINS} do at least"
            )
    return lines


def _two_digits(value: float) -> str:
    """`4,500,000,000`."""
    return f"{float(f'{value:.2g}'):,.0f}"


def _figures(table: pd.DataFrame, estimates: pd.DataFrame, settings: Settings) -> dict[str, Callable[[], plots.Figure]]:
    bars = dict(zip(estimates["estimate"], estimates["parameters"], strict=True))
    scored = table.dropna(subset="pairs above noise")
    points = {
        str(store): (rows["length"].to_numpy(dtype=np.float64), rows["pairs above noise"].to_numpy(dtype=np.float64))
        for store, rows in scored.groupby("store", sort=False)
    }
    return {"capacity": lambda: plots.capacity_estimates(bars, points, settings.contacts_per_position)}


def _printed(
    table: pd.DataFrame, means: pd.DataFrame, estimates: pd.DataFrame, refused: list[str], settings: Settings
) -> str:
    rows = [
        {
            "estimate": row["estimate"], "from": row["from"],
            "parameters": f"{row['parameters']:,.0f}" if pd.isna(row["low"]) else
            f"{_two_digits(row['parameters'])} [{_two_digits(row['low'])}, {_two_digits(row['high'])}]",
        }
        for row in estimates.to_dict("records")
    ]  # fmt: skip
    lines = [
        f"parameters for {settings.families:,} families of length {settings.length}; measured: mean and 95 % interval "
        "over proteins",
        *lines_of(rows),
        *refused,
    ]
    if len(means):
        lines += [
            "",
            f"above noise at a false discovery rate of {settings.false_discovery_rate:g}, |i-j| >= "
            f"{settings.min_separation}; noise: scores below the median, mirrored; mean over n proteins, 95 % interval",
        ]
        counted = means[means["n"] > 0].to_dict("records")
        shown = [
            {**{key: row[key] for key in ("store", "measure", "n")},
             "mean": with_interval(row["mean"], row["low"], row["high"], ".3g")}
            for row in counted
        ]  # fmt: skip
        lines += lines_of(shown) or ["nothing could be counted"]
    return "\n".join([*lines, *not_scored(table, "couplings above noise")])
