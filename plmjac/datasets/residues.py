"""Amino-acid residues out of a table of atoms, put in order and grouped into chains by geometry and chemistry.

A residue is what is named as an amino acid or has a peptide's backbone and is bonded to a neighbour; the record, asym
or entity that it stands under says little. Residues bonded from C to N belong together, wherever they stand in the
file. Between stretches that are not bonded, chain letters, TER, segment ids and residue numbers say what is one chain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from plmjac.datasets.atom_table import NO_NUMBER, AtomTable
from plmjac.datasets.residue_names import CAPS, is_never_a_residue, is_standard, letter_of, residue_letter

ATOMS = ("N", "CA", "C", "O", "CB")
N, CA, C, CB = (ATOMS.index(name) for name in ("N", "CA", "C", "CB"))

PEPTIDE_BOND = 2.0
"""Angstrom from C to N (1.33) up to which two residues are bonded."""

CHAIN_BREAK = 4.5
"""Angstrom between neighbouring C-alphas (3.8 in a peptide) beyond which residues are missing in between."""

RISE = 3.8
"""Angstrom that a chain reaches at most with each residue, from C-alpha to C-alpha."""

_FUSED = 2.5
"""Angstrom within which two C-alphas under one residue number are alternatives and not two residues."""

_SECOND_OXYGENS = ("OXT", "OT2", "OT1")

_FAR = 10.0
"""Angstrom that a stretch of missing residues may seem too long by, in a poor model."""


@dataclass(eq=False)
class Residue:
    """One residue of the model; `names` has several where it is one of several (microheterogeneity).

    `is_last`: it has the second oxygen of a chain's end. `caps` and `ter` count the caps and TER records above it.
    `is_named`: its name, or its parent's, is that of an amino acid. `is_in_table`: mmCIF's sequence has it at `label`.
    `atoms` are N, C-alpha, C, O and C-beta of each name, in angstrom, NaN where there is none; `rows` those of the
    table.
    """

    names: list[str]
    atoms: list[Float64[np.ndarray, "5 3"]]
    rows: list[Int64[np.ndarray, " R"]]
    number: int
    insertion: str
    chain: str
    segment: str
    ter: int
    asym: str
    entity: str
    label: int
    is_hetero: bool
    caps: int
    is_last: bool
    letter: str
    is_named: bool
    is_in_table: bool

    @property
    def id(self) -> tuple[int, str]:
        """Number and insertion code."""
        return self.number, self.insertion

    @property
    def text(self) -> str:
        """The author's number with its insertion code; empty where there is none."""
        return "" if self.number == NO_NUMBER else f"{self.number}{self.insertion}"

    def __str__(self) -> str:
        return f"{self.names[0]} {self.text}".rstrip()


@dataclass(eq=False)
class Chain:
    """Residues in the order of the chain; `name` tells it from the others of its file.

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
    for residue in _residues(table):
        by_letter.setdefault(residue.chain, []).append(residue)
    in_sequence = _names_in_sequences(table)
    chains = [chain for letter, residues in by_letter.items() for chain in _chains(letter, residues, in_sequence)]
    chains.sort(key=lambda chain: min(int(residue.rows[0][0]) for residue in chain.residues))
    _name(chains)
    return chains


# ---------------------------------------------------------------- residues


def _residues(table: AtomTable) -> list[Residue]:
    """What may be a residue: an amino acid by name, or what has a peptide's backbone, in file order."""
    if not len(table):
        return []
    group = _groups(table)
    name_codes, names = _codes(table.residue)
    # An alternative is what has one name under one residue number.
    _, first_row, alternative = np.unique(group * len(names) + name_codes, return_index=True, return_inverse=True)
    atoms = _backbones(table, np.arange(len(table)), alternative, len(first_row))
    alternative_names = table.residue[first_row].tolist()
    in_sequence = _names_in_sequences(table)
    letters = {name: residue_letter(name, table.parents) for name in names.tolist()}
    may_be = {name: bool(letter_of(name)) or letters[name] != "X" for name in names.tolist()}
    never = {name: is_never_a_residue(name) for name in names.tolist()}
    has_backbone = np.isfinite(atoms[:, [N, CA, C]]).all(axis=(1, 2))
    kept = [
        number
        for number, name in enumerate(alternative_names)
        if may_be[name] or (not never[name] and (has_backbone[number] or name in in_sequence))
    ]
    kept.sort(key=lambda number: first_row[number])
    rows_of = _rows_of(alternative, len(first_row))
    segment = np.full(len(table), "") if _has_mixed_segments(table, group) else table.segment
    ends = set(alternative[np.isin(table.name, _SECOND_OXYGENS)].tolist())
    caps = _count_of_caps(table, group)
    columns = (table.number, table.insertion, table.chain, segment, table.ter, table.asym, table.entity, table.label,
               table.is_hetero, caps, group)  # fmt: skip
    of_kept = zip(*(column[first_row[kept]].tolist() for column in columns), strict=True)
    found: list[Residue] = []
    last_group = -1
    for number, values in zip(kept, of_kept, strict=True):
        name = alternative_names[number]
        if values[-1] == last_group and _is_alternative(found[-1], atoms[number]):
            found[-1].names.append(name)
            found[-1].atoms.append(atoms[number])
            found[-1].rows.append(rows_of[number])
            continue
        last_group = values[-1]
        is_in_table = table.is_mmcif and table.is_in_sequence(int(first_row[number]))
        more = (number in ends, letters[name], may_be[name], is_in_table)
        found.append(Residue([name], [atoms[number]], [rows_of[number]], *(*values[:-1], *more)))
    return _with_late_atoms(table, found)


def _names_in_sequences(table: AtomTable) -> frozenset[str]:
    tables = [each for tables in table.sequences.values() for each in tables]
    return frozenset(name for each in tables for names in each.names for name in names)


def _codes(values: Shaped[np.ndarray, " A"]) -> tuple[Int64[np.ndarray, " A"], Shaped[np.ndarray, " K"]]:
    unique, inverse = np.unique(values, return_inverse=True)
    return inverse.astype(np.int64), unique


def _groups(table: AtomTable) -> Int64[np.ndarray, " A"]:
    """A number for each run of atoms with one residue number; a run in which a whole residue repeats is cut."""
    is_new = np.zeros(len(table), dtype=bool)
    for values in (table.chain, table.number, table.insertion, table.ter, table.asym, table.label):
        is_new[1:] |= values[1:] != values[:-1]
    group = np.cumsum(is_new)
    # Files without residue numbers, or without insertion codes: another C-alpha, elsewhere.
    alphas = np.flatnonzero((table.name == "CA") & np.isin(table.altloc, ("", "A", "1")))
    before, after = alphas[:-1], alphas[1:]
    is_apart = np.linalg.norm(table.position[after] - table.position[before], axis=1) > _FUSED
    for number in np.unique(group[after[(group[after] == group[before]) & is_apart]]).tolist():
        rows = np.flatnonzero(group == number)
        names, residues = table.name[rows], table.residue[rows]
        is_new[rows[1:][(names[1:] == names[0]) | (residues[1:] != residues[:-1])]] = True
    return np.cumsum(is_new)


def _backbones(
    table: AtomTable, rows: Int64[np.ndarray, " R"], alternative: Int64[np.ndarray, " R"], count: int
) -> Float64[np.ndarray, "K 5 3"]:
    """N, CA, C, O and CB of every alternative; of alternative locations the most occupied, ties by their letter."""
    atoms = np.full((count, len(ATOMS), 3), np.nan)
    which = np.full(len(rows), -1)
    for number, name in enumerate(ATOMS):
        which[table.name[rows] == name] = number
    kept = np.flatnonzero(which >= 0)
    rows, alternative, which = rows[kept], alternative[kept], which[kept]
    order = np.lexsort((rows, table.altloc[rows], -table.occupancy[rows]))[::-1]  # the last to be written stays
    atoms[alternative[order], which[order]] = table.position[rows[order]]
    return atoms


def _rows_of(alternative: Int64[np.ndarray, " A"], count: int) -> list[Int64[np.ndarray, " R"]]:
    order = np.argsort(alternative, kind="stable")
    bounds = np.searchsorted(alternative[order], np.arange(1, count))
    return np.split(order, bounds)


def _count_of_caps(table: AtomTable, group: Int64[np.ndarray, " A"]) -> Int64[np.ndarray, " A"]:
    """How many caps stand above each atom."""
    is_cap = np.isin(table.residue, list(CAPS))
    starts = np.ones(len(table), dtype=bool)
    starts[1:] = group[1:] != group[:-1]
    return np.cumsum(is_cap & starts)


def _has_mixed_segments(table: AtomTable, group: Int64[np.ndarray, " A"]) -> bool:
    """Whether columns 73 to 76 hold something else than segment ids, as in PDBQT, where each atom has its own."""
    same = (group[1:] == group[:-1]) & (table.segment[1:] != table.segment[:-1])
    return bool(same.any())


def _is_alternative(residue: Residue, atoms: Float64[np.ndarray, "5 3"]) -> bool:
    return not math.dist(residue.atoms[0][CA], atoms[CA]) > _FUSED


def _with_late_atoms(table: AtomTable, residues: list[Residue]) -> list[Residue]:
    """Residues put together whose atoms do not stand together: water between them, hydrogens at the end of the file."""
    first: dict[tuple[str, str, str, int, str, str], Residue] = {}
    kept = []
    for residue in residues:
        key = (residue.chain, residue.segment, residue.asym, *residue.id, residue.names[0])
        above = first.setdefault(key, residue)
        if above is residue or residue.number == NO_NUMBER or not _are_one(above, residue):
            kept.append(residue)
            continue
        rows = above.rows[0] = np.concatenate([above.rows[0], residue.rows[0]])
        above.atoms[0] = _backbones(table, rows, np.zeros(len(rows), dtype=np.int64), 1)[0]
        above.is_last = above.is_last or residue.is_last
    return kept


def _are_one(above: Residue, below: Residue) -> bool:
    """Whether two residues of one number and name share no atom, or only alternative locations of one."""
    distances = np.linalg.norm(above.atoms[0] - below.atoms[0], axis=1)
    is_near = not (distances > _FUSED).any()
    return is_near and (above.ter == below.ter or bool(np.isnan(below.atoms[0]).all()))


# ---------------------------------------------------------------- bonds


@dataclass(frozen=True, eq=False)
class Joints:
    """Between each residue and the next: whether C is bonded to N, whether some may be missing, angstrom of C-alphas.

    Without these atoms, C-alphas that are neighbours count as bonded.
    """

    is_bonded: Bool[np.ndarray, " J"]
    is_break: Bool[np.ndarray, " J"]
    distance: Float64[np.ndarray, " J"]


def joints_of(residues: Sequence[Residue]) -> Joints:
    """The joints of residues that follow one another."""
    atoms = np.stack([residue.atoms[0] for residue in residues])
    numbers = np.array([residue.number for residue in residues])
    distance = np.linalg.norm(atoms[1:, CA] - atoms[:-1, CA], axis=1)
    bond = np.linalg.norm(atoms[1:, N] - atoms[:-1, C], axis=1)
    is_bonded = np.where(np.isfinite(bond), bond < PEPTIDE_BOND, distance < CHAIN_BREAK)
    is_far = np.where(np.isfinite(distance), distance > CHAIN_BREAK, ~np.isin(np.diff(numbers), (0, 1)))
    return Joints(is_bonded, ~is_bonded & is_far, distance)


def alpha_distance(first: Residue, second: Residue) -> float:
    """Angstrom between the C-alphas, NaN where one is not there."""
    return math.dist(first.atoms[0][CA], second.atoms[0][CA])


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
    """Whether the bonds go from `start` to `end`: one more would close a ring."""
    while start >= 0 and start != end:
        start = after[start]
    return start == end


# ---------------------------------------------------------------- chains


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
    """Whether it is part of a chain without further proof."""
    if _is_labelled(stretch):
        return True
    if not any(residue.is_named for residue in stretch):
        return len(stretch) > 2 or (not _is_hetero(stretch) and stretch[0].names[0] in in_sequence)
    return len(stretch) > 1 or not _is_hetero(stretch)


def _is_labelled(stretch: list[Residue]) -> bool:
    """Whether the sequence of the file has a place for it, which only mmCIF says."""
    return all(residue.label > 0 and residue.is_in_table for residue in stretch)


def _is_hetero(stretch: list[Residue]) -> bool:
    return all(residue.is_hetero for residue in stretch)


def _continues(chain: Chain, stretch: list[Residue]) -> bool:
    """Whether a stretch that is not bonded to the chain is more of it, and not another chain of the same letter."""
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
    """Whether a residue that is bonded to nothing is far from the chain, by TER or by its number."""
    return last.ter != alone.ter or (not alone.is_in_table and alone.number - last.number > 100)


def _insert(chain: Chain, stretch: list[Residue]) -> bool:
    """Put a short stretch into the gap of the chain that its numbers name, if it fits there; whether it did."""
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
    """Whether the residues missing between the two, by their numbers, can span the distance."""
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
