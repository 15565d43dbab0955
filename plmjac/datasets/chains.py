"""The protein chains of a file: residues put in order and grouped by their bonds.

Residues bonded from C to N belong together, wherever they stand in the file. Between stretches that are not bonded,
chain letters, TER, segment ids and residue numbers say what is one chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from plmjac.datasets.atom_table import NO_NUMBER, AtomTable
from plmjac.datasets.residue_names import is_standard
from plmjac.datasets.residues import (
    CHAIN_BREAK,
    PEPTIDE_BOND,
    RISE,
    C,
    N,
    Residue,
    alpha_distance,
    joints_of,
    names_in_sequences,
    residues_of,
)

_FAR = 10.0
"""Angstrom that a stretch of missing residues may seem too long by, in a poor model."""


@dataclass(eq=False)
class Chain:
    """Residues in the order of the chain; `name` is unique in its file.

    `letter` is the chain's in the file; `left_out` are amino acids under that letter that are no part
    of it: bonded to nothing, or not in the sequence that mmCIF gives the chain.
    """

    name: str
    letter: str
    residues: list[Residue]
    left_out: list[Residue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def chains_of(table: AtomTable) -> list[Chain]:
    """The protein chains of the table, in file order, each under a name of its own."""
    by_letter: dict[str, list[Residue]] = {}
    for residue in residues_of(table):
        by_letter.setdefault(residue.chain, []).append(residue)
    in_sequence = names_in_sequences(table)
    chains = [chain for letter, residues in by_letter.items() for chain in _chains(letter, residues, in_sequence)]
    chains.sort(key=lambda chain: min(int(residue.rows[0][0]) for residue in chain.residues))
    _name(chains)
    return chains


def _stretches(residues: list[Residue]) -> list[list[Residue]]:
    """Bonded stretches, each in the order of its bonds, in file order of their first residues."""
    count = len(residues)
    after = [*(i + 1 if bonded else -1 for i, bonded in enumerate(joints_of(residues).is_bonded.tolist())), -1]
    bonded = {i for i in after if i >= 0}
    tails = [i for i in range(count) if after[i] < 0 and np.isfinite(residues[i].atoms[0][C]).all()]
    heads = [i for i in range(count) if i not in bonded and np.isfinite(residues[i].atoms[0][N]).all()]
    if tails and heads:
        carbons = np.stack([residues[i].atoms[0][C] for i in tails])
        nitrogens = np.stack([residues[i].atoms[0][N] for i in heads])
        for head, nitrogen in zip(heads, nitrogens, strict=True):
            distances = np.linalg.norm(carbons - nitrogen, axis=1)
            tail = tails[int(np.argmin(distances))]
            is_free = after[tail] < 0 and tail != head
            if is_free and distances.min() < PEPTIDE_BOND and not _leads_to(after, head, tail):
                after[tail] = head
                bonded.add(head)
    stretches = []
    for i in range(count):
        if i in bonded:
            continue
        stretch = [residues[i]]
        while (i := after[i]) >= 0:
            stretch.append(residues[i])
        stretches.append(stretch)
    return stretches


def _leads_to(after: Sequence[int], start: int, end: int) -> bool:
    """True if the bonds go from `start` to `end`: one more would close a ring."""
    while start >= 0 and start != end:
        start = after[start]
    return start == end


def _chains(letter: str, residues: list[Residue], in_sequence: frozenset[str]) -> list[Chain]:
    """The chains under one letter, in file order."""
    stretches = _stretches(residues)
    firm = [stretch for stretch in stretches if _is_firm(stretch, in_sequence)]
    # Beside a chain, a short stretch of HETATM records is a ligand, unless the chain has a place for it.
    longest = max((len(stretch) for stretch in firm if not _is_hetero(stretch)), default=0)
    firm = [stretch for stretch in firm if _is_labelled(stretch) or not _is_hetero(stretch) or len(stretch) > 3
            or longest <= len(stretch)]  # fmt: skip
    loose = [stretch for stretch in stretches if not any(stretch is each for each in firm)]
    chains: list[Chain] = []
    for stretch in firm:
        chain = next((chain for chain in reversed(chains) if _continues(chain, stretch)), None)
        if chain is None and chains and len(stretch) == 1 and not _is_labelled(stretch):
            loose.append(stretch)
        elif chain is None:
            chains.append(Chain("", letter, list(stretch)))
        elif len(stretch) == 1 and _is_detached(chain.residues[-1], stretch[0]):
            loose.append(stretch)
        else:
            chain.residues += stretch
    chains = [chain for chain in chains if any(residue.is_named for residue in chain.residues)]
    for stretch in sorted(loose, key=lambda stretch: stretch[0].number):
        if not any(_insert(chain, stretch) for chain in chains):
            named = [residue for residue in stretch if residue.is_named]
            if chains and named:
                chains[-1].left_out += named
    return chains


def _is_firm(stretch: list[Residue], in_sequence: frozenset[str]) -> bool:
    """True if it is part of a chain without further proof."""
    if _is_labelled(stretch):
        return True
    if not any(residue.is_named for residue in stretch):
        return len(stretch) > 2 or (not _is_hetero(stretch) and stretch[0].names[0] in in_sequence)
    return len(stretch) > 1 or not _is_hetero(stretch)


def _is_labelled(stretch: list[Residue]) -> bool:
    """True if the sequence of the file has a place for it, which only mmCIF says."""
    return all(residue.label > 0 and residue.is_in_table for residue in stretch)


def _is_hetero(stretch: list[Residue]) -> bool:
    return all(residue.is_hetero for residue in stretch)


def _continues(chain: Chain, stretch: list[Residue]) -> bool:
    """True if a stretch that is not bonded to the chain is more of it, and not another chain of the same letter."""
    last, first = chain.residues[-1], stretch[0]
    if first.entity and last.entity and first.entity != last.entity and first.label and last.label:
        return False
    ids = {residue.id for residue in chain.residues if residue.number != NO_NUMBER}
    if any(residue.id in ids for residue in stretch):
        return False
    if first.entity and first.asym != last.asym and _is_labelled(stretch) and _is_labelled(chain.residues):
        return False
    if first.caps != last.caps:
        return False
    room = first.number - last.number
    is_apart = first.ter != last.ter or first.segment != last.segment
    if not chain.letter:
        return not is_apart and not last.is_last
    if not is_apart:
        return not (last.is_last and room <= 1)
    return room > 1 and not alpha_distance(last, first) > RISE * room + _FAR


def _is_detached(last: Residue, alone: Residue) -> bool:
    """True if a residue that is bonded to nothing is far from the chain, by TER or by its number."""
    return last.ter != alone.ter or (not alone.is_in_table and alone.number - last.number > 100)


def _insert(chain: Chain, stretch: list[Residue]) -> bool:
    """Put a short stretch into the gap of the chain that its numbers name. Returns True if it fits there."""
    first, last = stretch[0], stretch[-1]
    if first.number == NO_NUMBER or not any(residue.is_named for residue in stretch):
        return False
    residues = chain.residues
    for place, (before, after) in enumerate(pairwise(residues), start=1):
        if before.number < first.number <= last.number < after.number and joints_of([before, after]).is_break[0]:
            if _reaches(before, first) and _reaches(last, after):
                residues[place:place] = stretch
                return True
            return False
    is_same = first.ter == residues[0].ter and first.rows[0][0] < residues[0].rows[0][0]
    if is_same and last.number < residues[0].number and _reaches(last, residues[0]):
        residues[:0] = stretch
        return True
    end = residues[-1]
    is_near = first.ter == end.ter and 0 < first.number - end.number <= 10 and _reaches(end, first)
    if is_near and not any(is_standard(residue.names[0]) for residue in stretch):
        residues += stretch
        return True
    return False


def _reaches(first: Residue, second: Residue) -> bool:
    """True if the residues missing between the two, by their numbers, can span the distance."""
    return not alpha_distance(first, second) > RISE * (second.number - first.number) + CHAIN_BREAK - RISE


def _name(chains: list[Chain]) -> None:
    """Names by letter; of several chains under one letter the second is A.2; those without letter go by segment id."""
    taken = {chain.letter for chain in chains}
    for letter in dict.fromkeys(chain.letter for chain in chains):
        same = [chain for chain in chains if chain.letter == letter]
        for number, chain in enumerate(same, start=1):
            segment = chain.residues[0].segment
            if len(same) == 1 or (letter and number == 1):
                chain.name = letter
            elif letter:
                chain.name = f"{letter}.{number}"
                chain.notes.append(f"chain {number} of {len(same)} that the file calls {letter}")
            else:
                chain.name = segment if segment and segment not in taken else str(number)
            taken.add(chain.name)
