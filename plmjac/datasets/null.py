"""Null versions of a dataset: the same proteins with nothing left for a model to recognise.

`shuffle` puts the residues of each sequence in random order, so that its composition stays. `relabel` gives every amino
acid the name of another, one permutation for the whole dataset: whatever depends on which residues are alike stays
exactly (an alignment's inverse covariance does not change), what depends on amino acids is gone. Structures are kept,
position by position: scored against them, a null map should be at chance.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Int64

from plmjac.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from plmjac.datasets.base import Dataset, Record
from plmjac.draws import generator, shuffled
from plmjac.records import Protein

Kind = Literal["shuffle", "relabel"]


class NullDataset:
    """Another dataset's records, proteins among them shuffled or relabelled; ids, sources and structures are kept.

    The chains of a complex are shuffled each within itself; X, B, U, Z and O keep their names under `relabel`.
    """

    def __init__(self, dataset: Dataset, kind: Kind, seed: int = 0) -> None:
        self._dataset, self._kind, self._seed = dataset, kind, seed

    def __iter__(self) -> Iterator[Record]:
        for record in self._dataset:
            if not isinstance(record, Protein):
                yield record
                continue
            note = "; ".join(part for part in (record.note, f"null: {self._kind}, seed {self._seed}") if part)
            yield replace(record, sequence=self._sequence(record), note=note)

    def _sequence(self, protein: Protein) -> str:
        if self._kind == "relabel":
            return protein.sequence.translate(str.maketrans(AMINO_ACIDS, relabelled(self._seed)))
        letters = np.array(list(protein.sequence))
        spans = protein.chains.spans if protein.chains else ((0, len(letters)),)
        for start, stop in spans:
            order = shuffled(np.arange(stop - start), ("null shuffle", self._seed, protein.id, start))
            letters[start:stop] = letters[start:stop][order]
        return "".join(letters)


def relabelled(seed: int) -> str:
    """The amino acids that stand for L, A, G, V, ...: a permutation in which none stays itself."""
    return "".join(AMINO_ACIDS[each] for each in permutation(seed))


def permutation(seed: int) -> Int64[np.ndarray, " 20"]:
    """New amino acid of each one, as indices into AMINO_ACIDS: the first derangement drawn from the seed."""
    for attempt in range(1000):
        order = generator(("null relabel", seed, attempt)).permutation(NUM_AMINO_ACIDS)
        if (order != np.arange(NUM_AMINO_ACIDS)).all():
            return order
    raise AssertionError("a thousand permutations, each with a fixed point")  # one in e has none
