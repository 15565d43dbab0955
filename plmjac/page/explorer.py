"""The interactive view: contact maps to click on, and the 20 x 20 couplings of the pair that was clicked.

Everything it shows stands in the page as base64: a map as 16-bit levels, couplings as 8-bit levels with a scale for
each pair. That costs accuracy (1/127 of a pair's largest coupling), so it is for looking; numbers come from the store.
"""

import base64
import json
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64

from plmjac.alphabet import AMINO_ACIDS
from plmjac.records import Contacts

MIN_SEPARATION = 6
"""Nearer pairs are drawn in yellow and not ranked, as in the figures."""

BYTES_OF_A_PAIR = 408


@dataclass(frozen=True, eq=False)
class Couplings:
    """The couplings of some pairs i < j: rows are the amino acid at i, columns that at j."""

    pairs: Int64[np.ndarray, "N 2"]
    values: Float32[np.ndarray, "N 20 20"]


@dataclass(frozen=True, eq=False)
class ExplorerProtein:
    """One protein of the view: contact maps by name, contacts where they are known, couplings where they were kept.

    `numbers` are the author's residue numbers, `trace` C-alpha positions in angstrom (NaN where unresolved), as far as
    there is a structure.
    """

    id: str
    sequence: str
    maps: dict[str, Float[np.ndarray, "L L"]]
    summary: str = ""
    contacts: Contacts | None = None
    couplings: Couplings | None = None
    numbers: tuple[str, ...] | None = None
    trace: Float[np.ndarray, "L 3"] | None = None
    rates: dict[str, list[float]] = field(default_factory=dict)
    """By map: the false discovery rates of its best L pairs, best first."""

    def encoded(self) -> dict[str, Any]:
        """The protein as the script reads it."""
        return {
            "id": self.id,
            "sequence": self.sequence,
            "length": len(self.sequence),
            "summary": self.summary,
            "maps": {name: {**_map(scores), "fdr": self.rates.get(name)} for name, scores in self.maps.items()},
            "truth": _truth(self.contacts) if self.contacts is not None else None,
            "couplings": _couplings(self.couplings) if self.couplings is not None else None,
            "numbers": list(self.numbers) if self.numbers is not None else None,
            "trace": _base64(self.trace.astype("<f4")) if self.trace is not None else None,
        }


def couplings_of(tensor: Float[np.ndarray, "L 20 L 20"], scores: Float[np.ndarray, "L L"], budget: int) -> Couplings:
    """Couplings of as many pairs as fit into `budget` bytes, all of them or those with the best scores.

    `tensor` is centred and symmetrised; `scores` is its contact map.
    """
    first, second = np.triu_indices(len(scores), k=1)
    count = min(len(first), budget // BYTES_OF_A_PAIR)
    best = np.argsort(-scores[first, second], kind="stable")[:count]
    first, second = first[best], second[best]
    pairs = np.stack([first, second], axis=1).astype(np.int64)
    return Couplings(pairs, np.ascontiguousarray(tensor[first, :, second, :], dtype=np.float32))


def explorer(proteins: list[ExplorerProtein]) -> tuple[str, str]:
    """The view's HTML, and the script with its data that goes to the end of the page."""
    data = {
        "alphabet": AMINO_ACIDS,
        "separation": MIN_SEPARATION,
        "proteins": [protein.encoded() for protein in proteins],
    }
    folder = resources.files("plmjac.page")
    html, code = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("explorer.html", "explorer.js"))
    text = json.dumps(data).replace("<", "\\u003c")  # an id may hold "</script>"
    return html, f'<script type="application/json" id="data">{text}</script><script>{code}</script>'


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _map(scores: Float[np.ndarray, "L L"]) -> dict[str, Any]:
    """Levels from 0 to 65534 between the lowest and the highest score; 65535 for a pair without one."""
    known = ~np.isnan(scores)
    low, high = (float(end(scores[known])) if known.any() else 0.0 for end in (np.min, np.max))
    levels = np.where(known, np.round((scores - low) / max(high - low, 1e-12) * 65534), 65535)
    return {"low": low, "high": high, "values": _base64(levels.astype("<u2"))}


def _truth(contacts: Contacts) -> str:
    """A byte a pair: 0 apart, 1 in contact, 2 not known."""
    state = contacts.pairs.astype(np.uint8)
    state[~contacts.resolved, :] = 2
    state[:, ~contacts.resolved] = 2
    return _base64(state)


def _couplings(couplings: Couplings) -> dict[str, str]:
    scales = np.maximum(np.abs(couplings.values).max(axis=(1, 2), initial=0.0), 1e-12)
    levels = np.round(couplings.values / scales[:, None, None] * 127)
    return {
        "pairs": _base64(couplings.pairs.astype("<u2")),
        "scales": _base64(scales.astype("<f4")),
        "values": _base64(levels.astype(np.int8)),
    }
