"""Measured speeds of GPUs on whole Jacobians, and the time of a run by them.

No measurement is of just this model, these lengths and this card, so a time is scaled from the nearest one: by FLOPs
from model to model and length to length, by the makers' peak rates from card to card; the forecast says how.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from plmjac.models.base import Precision

Way = Literal["compiled", "fast", "plain"]
"""The fast path through torch.compile, the fast path, fair-esm's own module."""


@dataclass(frozen=True)
class Measured:
    """One whole categorical Jacobian, 19 L + 1 forwards and its map, on one card."""

    card: str
    precision: Precision
    way: Way
    parameters: int
    """Of the model, in millions."""
    length: int
    seconds: float
    flops: float
    day: str


MEASURED = (
    Measured("H100", "fp16", "compiled", 651, 256, 4.11, 1.688e15, "2026-11-26"),
    Measured("H100", "fp16", "fast", 651, 256, 5.02, 1.688e15, "2026-11-26"),
    Measured("H100", "fp32", "plain", 651, 256, 50.7, 1.688e15, "2026-11-26"),
    Measured("H100", "tf32", "plain", 651, 256, 15.2, 1.688e15, "2026-11-26"),
)
"""On one H100 80GB HBM3 with random weights, PyTorch 2.11+cu130, plmjac at 150a6f7 (docs/benchmarks.md); the plain rows
are the authors' loop, 20 mutants a forward."""

PEAK = {
    "A100": {"fp32": 19.5e12, "tf32": 156e12, "fp16": 312e12},
    "H100": {"fp32": 66.9e12, "tf32": 494e12, "fp16": 989e12},
}
"""FLOP/s by the makers' data sheets (SXM): fp32 without tensor cores, the others with them and without sparsity."""

FIRST_COMPILED_FORWARD = 5.7
"""Seconds of the first compiled forward, measured with the rows above: compiling, mostly."""


@dataclass(frozen=True)
class GpuTime:
    """A forecast for one card, and where it is from."""

    card: str
    seconds: float
    source: str


def gpu_times(
    flops: float | int, parameters: int, length: float | int, precision: Precision, way: Way
) -> Iterator[GpuTime]:
    """The time of so many FLOPs on each card of `PEAK`; `parameters` are of the model, `length` a typical protein's."""
    for card, peaks in PEAK.items():
        known = _nearest(card, parameters / 1e6, length, precision, way)
        rate = known.flops / known.seconds * peaks[precision] / PEAK[known.card][precision]
        yield GpuTime(card, flops / rate, _source(known, card, parameters / 1e6, length))


def compiling_saves(flops: float | int) -> bool:
    """True if so many FLOPs are enough for torch.compile to win back the time it takes itself, on the card measured."""
    rates = {row.way: row.flops / row.seconds for row in MEASURED if row.precision == "fp16"}
    return flops / rates["fast"] - flops / rates["compiled"] > FIRST_COMPILED_FORWARD


def _nearest(card: str, millions: float, length: float | int, precision: Precision, way: Way) -> Measured:
    """This card before others, this way before others, then by size and length."""

    def distance(row: Measured) -> tuple[bool, bool, float]:
        apart = abs(math.log(row.parameters / millions)) + abs(math.log(row.length / length))
        return row.card != card, row.way != way, apart

    return min((row for row in MEASURED if row.precision == precision), key=distance)


def _source(known: Measured, card: str, millions: float, length: float | int) -> str:
    """The measurement, and what it was scaled by."""
    scaled = []
    if not 0.95 < known.parameters / millions < 1.05 or not 0.95 < known.length / length < 1.05:
        scaled.append("FLOPs")
    if known.card != card:
        scaled.append("peak rates")
    there = f"{known.parameters:.0f}M, L = {known.length}" + (f" on one {known.card}" if known.card != card else "")
    means = {"plain": "the authors' loop", "fast": "compiled=false", "compiled": "torch.compile"}[known.way]
    return f"measured {known.day} with {there}, {means}" + (f"; scaled by {' and '.join(scaled)}" if scaled else "")
