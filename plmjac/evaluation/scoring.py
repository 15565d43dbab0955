"""The join of a store and structures: each stored protein with its contacts, or the reason why it is not scored."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32

from plmjac.evaluation.base import Row, Store
from plmjac.evaluation.structures import Labelled, Structures, plain_id
from plmjac.jacobian import center, symmetrize
from plmjac.store import CorruptStoreError, StoredProtein

P = TypeVar("P", Labelled, StoredProtein)


@dataclass(frozen=True)
class Unscored:
    """A record of a store, or a structure, that is not scored, and why; `stored` where its data can be read."""

    id: str
    reason: str
    length: int | None = None
    stored: StoredProtein | None = None


def labelled(store: Store, structures: Structures) -> Iterator[Labelled | Unscored]:
    """Each protein of a store with its structure or the reason for none, then the structures that the store lacks."""
    used: set[str] = set()
    names: set[str] = set()
    for stored in stored_proteins(store):
        names.add(plain_id(stored.id))
        if isinstance(stored, Unscored):
            yield stored
            continue
        found = structures.find(stored)
        if isinstance(found, Labelled):
            used.add(found.match.structure)
            yield found
        else:
            yield Unscored(stored.id, found, len(stored), stored)
    for protein in structures:
        if protein.id not in used and plain_id(protein.id) not in names:
            yield Unscored(protein.id, "not in the store", len(protein))


def stored_proteins(store: Store) -> Iterator[StoredProtein | Unscored]:
    """The proteins of a store in input order, then its records without a result; damage is a reason, not an error."""
    opened = store.opened
    there = list(opened)
    for identifier in there:
        protein: StoredProtein | Unscored
        try:
            protein = opened[identifier]
        except CorruptStoreError as error:
            protein = Unscored(identifier, str(error))
        yield protein
    seen = set(there)
    for row in opened.rows:
        if row.id not in seen and row.status != "filtered":
            seen.add(row.id)
            lost = row.status in ("failed", "skipped")
            missing = "missing; run plmjac.verify" if row.status == "done" else "not computed yet"
            yield Unscored(row.id, f"{row.status}: {row.reason}" if lost else missing, row.length or None)


def scored(
    items: Iterable[P | Unscored], score: Callable[[P], Iterable[Row]], store: Store | None = None
) -> Iterator[Row]:
    """The rows that `score` makes of each protein, and one row with the reason for each other record.

    A CorruptStoreError of `score`, and any ValueError (a definition of contacts that the structure does not know), is
    the reason of that protein. Every row begins with protein, store, model and length, and with structure and match
    where proteins are labelled.
    """
    names: Row = {"store": store.name, "model": store.model} if store else {}
    for item in items:
        if isinstance(item, Unscored):
            yield {"protein": item.id, **names, "length": item.length, "reason": item.reason}
            continue
        row: Row = {"protein": item.id, **names, "length": len(item)}
        if isinstance(item, Labelled):
            row |= {"structure": item.match.structure, "match": str(item.match)}
        try:
            rows = list(score(item))
        except (MemoryError, ValueError) as error:
            rows = [{"reason": str(error) or "not enough memory"}]
        yield from ({**row, **each} for each in rows)


class NoCouplings(ValueError):
    """The reason why a stored protein has no couplings between all amino acids."""


def couplings_of(stored: StoredProtein) -> Float32[np.ndarray, "L 20 L 20"]:
    """The centred, symmetrised Jacobian. Raises NoCouplings where it was not kept, or is not whole."""
    if "jacobian" not in stored.names:
        raise NoCouplings("its Jacobian was not kept; run predict with keep=[contacts,jacobian]")
    if stored.partly:
        raise NoCouplings(stored.partly)
    raw = stored.jacobian
    if raw.shape[1] != raw.shape[3]:
        raise NoCouplings(
            f"couplings need all 20 amino acids at each position; its Jacobian has {raw.shape[1]} substitutions of 20: "
            "run predict with substitutions=all"
        )
    return symmetrize(center(torch.from_numpy(raw.astype(np.float32)))).numpy()
