"""Structures to judge stored proteins by: found by id, sequence or alignment, and put in the protein's own columns.

A structure is found by its id (2QNIA, 2QNI_A and chain A of 2qni.pdb are one), else by an identical sequence, else by
an alignment with at least 90 % identity over the shorter sequence. Residues without a partner count as unresolved, and
so do those whose partner depends on the direction of the alignment. Complexes are matched whole, never by alignment.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from plmjac.coevolution.alignment import match
from plmjac.metrics import Pairs
from plmjac.readouts import maps
from plmjac.records import Atom, Contacts, Coordinates, Protein, Structure
from plmjac.store import CorruptStoreError, StoredProtein

MIN_IDENTITY = 0.9
MIN_RESIDUES = 20
"""Sequences shorter than this are matched by id or whole, never by alignment: a few residues are alike by chance."""

WORD, CANDIDATES, MIN_WORDS = 5, 5, 0.2
"""Sequences are aligned that share at least a fifth of their words of 5 residues, the best 5 of them. A tenth of the
residues replaced leaves half of the words, or a little less."""

ANCHOR = 3
"""Matches in a row from which an aligned stretch is trusted."""

NO_STRUCTURE = "no structure to compare with"


@dataclass(frozen=True)
class Match:
    """Structure matched to a protein and how it was found; `identity` if the two were aligned."""

    structure: str
    by: Literal["id", "sequence", "alignment"]
    identity: float | None = None

    def __str__(self) -> str:
        return self.by if self.identity is None else f"{self.by} {self.identity:.0%}"


@dataclass(frozen=True, eq=False)
class PlacedStructure:
    """A structure in the columns of another sequence: residue i there is residue `columns[i]` here, -1 for none."""

    structure: Structure
    columns: Int64[np.ndarray, " L"]

    def contacts(self, atom: Atom, cutoff: float) -> Contacts:
        """Contacts between the residues that have a partner; the others are unresolved."""
        known = self.structure.contacts(atom, cutoff)
        there = self.columns >= 0
        place = np.where(there, self.columns, 0)
        return Contacts(known.pairs[np.ix_(place, place)] & np.outer(there, there), known.resolved[place] & there)


@dataclass(frozen=True, eq=False)
class Labelled:
    """A stored protein and the structure that it is judged by, in the protein's own columns."""

    stored: StoredProtein
    structure: Structure
    match: Match
    residue_numbers: tuple[str, ...] | None = None
    """Author numbers of the structure's residues in the protein's columns, empty where there is no residue."""
    source: str = ""
    """Source of the structure, in words."""

    @property
    def id(self) -> str:
        """The id of the stored protein."""
        return self.stored.id

    def __len__(self) -> int:
        return len(self.stored)

    def contacts(self, atom: Atom, cutoff: float) -> Contacts:
        """Contacts of this definition. Raises ValueError where the structure does not know them."""
        return self.structure.contacts(atom, cutoff)

    def positions(self, atom: Atom) -> Float64[np.ndarray, "L 3"] | None:
        """Positions of the atoms in angstrom, NaN where unresolved; None where the structure is contacts alone."""
        placed, columns = self.structure, np.arange(len(self), dtype=np.int64)
        if isinstance(self.structure, PlacedStructure):
            placed, columns = self.structure.structure, self.structure.columns
        if not isinstance(placed, Coordinates):
            return None
        xyz = placed.beta if atom == "cb" else placed.alpha
        return np.where((columns >= 0)[:, None], xyz[columns], np.nan)

    @cached_property
    def maps(self) -> tuple[str, ...]:
        """The contact maps that the store keeps of it, best known first."""
        return tuple(name for name in maps() if name in self.stored.names)

    def array(self, name: str) -> np.ndarray:
        """A contact map. Raises CorruptStoreError where it is damaged or not of this protein's length."""
        values = self.stored.array(name)
        if values.shape != (len(self), len(self)):
            raise CorruptStoreError(f"{self.stored.folder / name}: {values.shape} for {len(self)} residues")
        return values


class Structures:
    """Structures to find by id, by sequence and by alignment; of several with one id the first.

    Of coordinates only C-alpha and C-beta are held.
    """

    def __init__(self, proteins: Iterable[Protein]) -> None:
        self._by_id: dict[str, Protein] = {}
        for protein in proteins:
            structure = protein.structure
            if isinstance(structure, Coordinates) and structure.backbone is not None:
                protein = replace(protein, structure=Coordinates(structure.alpha, structure.beta))
            self._by_id.setdefault(protein.id, protein)
        self._with_name: dict[str, list[Protein]] = {}
        self._with_input: dict[tuple[str, object], Protein] = {}
        for protein in self._by_id.values():
            self._with_name.setdefault(plain_id(protein.id), []).append(protein)
            if protein.structure is not None:
                self._with_input.setdefault(_input_of(protein), protein)

    def __iter__(self) -> Iterator[Protein]:
        return iter(self._by_id.values())

    def find(self, stored: StoredProtein) -> Labelled | str:
        """The structure of a stored protein in its columns, or the reason why there is none."""
        wanted = _input_of(stored)
        named = list(self._with_name.get(plain_id(stored.id), []))
        named.sort(key=lambda protein: protein.id != stored.id)
        named = [protein for protein in named if protein.structure is not None]
        for protein in named:
            if protein.structure is not None and _input_of(protein) == wanted:
                return Labelled(
                    stored, protein.structure, Match(protein.id, "id"), protein.residue_numbers, protein.source
                )
        if found := self._aligned(stored, named, "id"):
            return found
        whole = self._with_input.get(wanted)
        if whole is not None and whole.structure is not None:
            return Labelled(stored, whole.structure, Match(whole.id, "sequence"), whole.residue_numbers, whole.source)
        if stored.chains is None:
            alike = [self._single[number] for number in self._words.alike(stored.sequence)]
            if found := self._aligned(stored, alike, "alignment"):
                return found
        if not named:
            return NO_STRUCTURE
        if stored.chains is not None or named[0].chains is not None:
            return "the structure has another sequence, or other chains, than the store"
        identity = place(stored.sequence, named[0].sequence)[1]
        return f"the structure has another sequence than the store ({identity:.0%} identical)"

    def _aligned(
        self, stored: StoredProtein, candidates: Iterable[Protein], by: Literal["id", "alignment"]
    ) -> Labelled | None:
        """The candidate with the most residues in common, where enough of them are."""
        found: Labelled | None = None
        most = 0.0
        for protein in candidates:
            shorter = min(len(stored), len(protein))
            if stored.chains is not None or protein.chains is not None or shorter < MIN_RESIDUES:
                continue
            columns, identity = place(stored.sequence, protein.sequence)
            if identity >= MIN_IDENTITY and identity * shorter > most and protein.structure is not None:
                most = identity * shorter
                placed = PlacedStructure(protein.structure, columns)
                numbers = protein.residue_numbers
                numbers = numbers and tuple(numbers[at] if at >= 0 else "" for at in columns)
                found = Labelled(stored, placed, Match(protein.id, by, identity), numbers, protein.source)
        return found

    @cached_property
    def _single(self) -> list[Protein]:
        """One protein for each sequence of a single chain."""
        return [protein for protein in self._with_input.values() if protein.chains is None]

    @cached_property
    def _words(self) -> "_Words":
        return _Words([protein.sequence for protein in self._single])


def touching(found: Labelled | str, pairs: Pairs, atom: Atom, cutoff: float) -> Float64[np.ndarray, " N"]:
    """For each pair 1 for a contact, 0 for none, NaN where no structure shows it."""
    unknown: Float64[np.ndarray, " N"] = np.full(len(pairs[0]), np.nan)
    if isinstance(found, str):
        return unknown
    try:
        contacts = found.contacts(atom, cutoff)
    except ValueError:
        return unknown
    known = contacts.resolved[pairs[0]] & contacts.resolved[pairs[1]]
    return np.where(known, contacts.pairs[pairs].astype(np.float64), np.nan)


def plain_id(identifier: str) -> str:
    """An id without what people write differently: `2qni_A.pdb`, `pdb2qni_A`, `2QNIA` and `2QNI_A` are one.

    The entry is the same in upper and lower case, the chain is not: large assemblies have a chain A and a chain a.
    """
    name = re.sub(r"\.(pdb|ent|cif|mmcif)(\.gz)?$", "", identifier.strip(), flags=re.IGNORECASE)
    entry = re.fullmatch(r"(?:pdb)?([0-9][A-Za-z0-9]{3})[_:.-]?([A-Za-z0-9]{0,4})", name)
    return f"{entry[1].upper()}_{entry[2]}" if entry else name


def place(sequence: str, other: str) -> tuple[Int64[np.ndarray, " L"], float]:
    """For each residue of a sequence its partner in the other one, -1 for none; and the identity over the shorter.

    Aligned from either end; partners that differ between the two are none. Each stretch without a gap is trusted from
    its first three matches in a row to its last: nearer to a gap a residue could as well be its neighbour. Unknown
    residues (X) do not count as residues of the shorter sequence.
    """
    from_start, from_end = np.full((2, len(sequence)), -1, dtype=np.int64)
    partner, residue = match(other, sequence)
    from_start[residue] = partner
    partner, residue = match(other[::-1], sequence[::-1])
    from_end[len(sequence) - 1 - residue] = len(other) - 1 - partner
    columns = np.where(from_start == from_end, from_start, -1)
    matches = np.array([k >= 0 and sequence[at] == other[k] != "X" for at, k in enumerate(columns)], dtype=bool)
    equal, kept = int(matches.sum()), np.zeros(len(sequence), dtype=bool)
    starts = np.flatnonzero(np.diff(columns, prepend=-9) != 1)  # of stretches without a gap
    for start, stop in zip(starts, [*starts[1:], len(sequence)], strict=True):
        anchors = [at for at in range(start, stop - ANCHOR + 1) if matches[at : at + ANCHOR].all()]
        if anchors:
            kept[anchors[0] : anchors[-1] + ANCHOR] = True
    columns = np.where(kept, columns, -1)
    shorter = min(len(sequence) - sequence.count("X"), len(other) - other.count("X"))
    return columns, equal / max(1, shorter)


def _input_of(protein: Protein | StoredProtein) -> tuple[str, object]:
    """The sequence and where its chains lie."""
    return protein.sequence, protein.chains.spans if protein.chains else None


class _Words:
    """Sequences by the words of five residues that stand in them, to find those that may be alike."""

    def __init__(self, sequences: list[str]) -> None:
        words = [_words_of(sequence) for sequence in sequences]
        codes = np.concatenate([np.zeros(0, dtype=np.int64), *words])
        owners = np.repeat(np.arange(len(words)), [len(each) for each in words])
        order = np.argsort(codes, kind="stable")
        self._codes, self._owners = codes[order], owners[order]
        self._counts = np.array([len(each) for each in words], dtype=np.int64)

    def alike(self, sequence: str) -> list[int]:
        """Numbers of the sequences that share the most words with this one."""
        words = _words_of(sequence)
        if not len(words) or not len(self._codes):
            return []
        spans = zip(np.searchsorted(self._codes, words), np.searchsorted(self._codes, words, "right"), strict=True)
        owners = np.concatenate([self._owners[start:stop] for start, stop in spans])
        shared = np.bincount(owners, minlength=len(self._counts))
        part = shared / np.maximum(1, np.minimum(self._counts, len(words)))
        best = np.argsort(-part, kind="stable")[:CANDIDATES]
        return [int(number) for number in best if part[number] >= MIN_WORDS]


def _words_of(sequence: str) -> Int64[np.ndarray, " N"]:
    """Each word of a sequence once, as a number."""
    letters = np.frombuffer(sequence.encode("ascii", "replace"), dtype=np.uint8).astype(np.int64) & 31
    count = max(0, len(letters) - WORD + 1)
    words: Any = sum((letters[at : at + count] << 5 * at for at in range(WORD)), np.zeros(count, dtype=np.int64))
    return np.unique(words)
