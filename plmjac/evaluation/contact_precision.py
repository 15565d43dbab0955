"""How many of the top-ranked pairs of each stored contact map touch in the structure.

One row for each protein, contact map and range of separations. What could not be scored is a row too, with NaN and the
reason, so that no protein drops out of an average unseen.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from plmjac.metrics import RANGES, chance, precision_at, ranked_hits, reason_for_nan
from plmjac.records import Atom, Contacts, Protein
from plmjac.store import JacobianStore, StoredProtein

MAPS = ("contacts", "contact_head")
"""Arrays of a store that are contact maps: of the Jacobian, and of the model's supervised head."""


def contact_precision(
    store: JacobianStore, truth: Iterable[Protein], *, atom: Atom = "cb", cutoff: float = 8.0
) -> pd.DataFrame:
    """Score every contact map of every protein that is in the store, in the truth, or in both.

    Columns: protein, map, range, length, resolved, P@L, P@L/2, P@L/5 (L = full length), chance, reason. `cutoff` is in
    angstrom, between C-beta (C-alpha of glycine) or C-alpha atoms.
    """
    structures = {protein.id: protein for protein in truth}
    ids = [*store, *(identifier for identifier in structures if identifier not in store)]
    rows = [row for identifier in ids for row in _protein(store, structures.get(identifier), identifier, atom, cutoff)]
    rows += [
        {"protein": row.id, "reason": f"{row.status}: {row.reason}"}
        for row in store.rows
        if row.status in ("failed", "skipped") and row.id not in ids
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = ["protein", "map", "range", "length", "resolved", "P@L", "P@L/2", "P@L/5", "chance", "reason"]


def _protein(
    store: JacobianStore, truth: Protein | None, identifier: str, atom: Atom, cutoff: float
) -> Iterator[dict[str, Any]]:
    if identifier not in store:
        yield {"protein": identifier, "reason": "not in the store"}
        return
    stored = store[identifier]
    blank = {"protein": identifier, "length": len(stored)}
    if truth is None or truth.structure is None:
        yield {**blank, "reason": "no structure to compare with"}
    elif truth.sequence != stored.sequence:
        yield {**blank, "reason": "the structure has another sequence than the store"}
    else:
        try:
            contacts = truth.structure.contacts(atom, cutoff)
        except ValueError as error:
            yield {**blank, "reason": str(error)}
            return
        for name in MAPS:
            if name in stored.names:
                yield from ({**blank, **scores} for scores in _map(stored, name, contacts))


def _map(stored: StoredProtein, name: str, contacts: Contacts) -> Iterator[dict[str, Any]]:
    scores, length = stored.array(name), len(stored)
    for label, (low, high) in RANGES.items():
        hits = ranked_hits(scores, contacts, low, high)
        yield {
            "map": name,
            "range": label,
            "resolved": int(contacts.resolved.sum()),
            "P@L": precision_at(hits, length),
            "P@L/2": precision_at(hits, length // 2),
            "P@L/5": precision_at(hits, length // 5),
            "chance": chance(hits),
            "reason": reason_for_nan(hits),
        }
