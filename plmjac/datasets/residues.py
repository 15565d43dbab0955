"""Amino-acid residues out of a table of atoms, and which of them are bonded, by geometry and chemistry.

A residue is what is named as an amino acid or has a peptide's backbone; the record, asym or entity that it stands under
says little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from plmjac.datasets.atom_table import NO_NUMBER, AtomTable
from plmjac.datasets.residue_names import CAPS, is_never_a_residue, is_of_a_force_field, letter_of, residue_letter

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


def residues_of(table: AtomTable) -> list[Residue]:
    """Candidates for residues, in file order: amino acids by name, and groups of atoms with a peptide's backbone."""
    if not len(table):
        return []
    group = _groups(table)
    name_codes, names = _codes(table.residue)
    # An alternative is what has one name under one residue number.
    _, first_row, alternative = np.unique(group * len(names) + name_codes, return_index=True, return_inverse=True)
    atoms = _backbones(table, np.arange(len(table)), alternative, len(first_row))
    alternative_names = table.residue[first_row].tolist()
    in_sequence = names_in_sequences(table)
    letters = {name: residue_letter(name, table.parents) for name in names.tolist()}
    may_be = {name: bool(letter_of(name)) or letters[name] != "X" for name in names.tolist()}
    never = {name: is_never_a_residue(name) for name in names.tolist()}
    has_backbone = np.isfinite(atoms[:, [N, CA, C]]).all(axis=(1, 2))
    has_alpha = np.isfinite(atoms[:, CA]).all(axis=1)
    is_name_enough = {name: may_be[name] and not is_of_a_force_field(name) for name in may_be}
    kept = [
        number
        for number, name in enumerate(alternative_names)
        if is_name_enough[name]
        or (may_be[name] and (has_alpha[number] or not table.is_hetero[first_row[number]]))
        or (not never[name] and (has_backbone[number] or name in in_sequence))
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


def names_in_sequences(table: AtomTable) -> frozenset[str]:
    tables = [each for tables in table.sequences.values() for each in tables]
    return frozenset(name for each in tables for names in each.names for name in names)


def _codes(values: Shaped[np.ndarray, " A"]) -> tuple[Int64[np.ndarray, " A"], Shaped[np.ndarray, " K"]]:
    unique, inverse = np.unique(values, return_inverse=True)
    return inverse.astype(np.int64), unique


def _groups(table: AtomTable) -> Int64[np.ndarray, " A"]:
    """A number for each run of atoms with one residue number; a run in which a whole residue repeats is cut."""
    is_new = np.zeros(len(table), dtype=bool)
    for values in (table.chain, table.number, table.insertion, table.ter, table.asym):
        is_new[1:] |= values[1:] != values[:-1]
    # Biopython counts the alternatives of one residue on in label_seq_id.
    are_alternatives = (table.altloc[1:] != "") & (table.altloc[:-1] != "") & (table.altloc[1:] != table.altloc[:-1])
    is_new[1:] |= (table.label[1:] != table.label[:-1]) & ~are_alternatives
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
    """The number of caps above each atom."""
    is_cap = np.isin(table.residue, list(CAPS))
    starts = np.ones(len(table), dtype=bool)
    starts[1:] = group[1:] != group[:-1]
    return np.cumsum(is_cap & starts)


def _has_mixed_segments(table: AtomTable, group: Int64[np.ndarray, " A"]) -> bool:
    """True if columns 73 to 76 hold something else than segment ids, as in PDBQT, where each atom has its own."""
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
        if above is residue or residue.number == NO_NUMBER or not _are_one(table, above, residue):
            kept.append(residue)
            continue
        rows = above.rows[0] = np.concatenate([above.rows[0], residue.rows[0]])
        above.atoms[0] = _backbones(table, rows, np.zeros(len(rows), dtype=np.int64), 1)[0]
        above.is_last = above.is_last or residue.is_last
    return kept


def _are_one(table: AtomTable, above: Residue, below: Residue) -> bool:
    """True if two residues of one number and name are parts of one: no atom, in no alternative location, is in both."""
    first, second = ({(str(table.name[row]), str(table.altloc[row])) for row in residue.rows[0]}
                     for residue in (above, below))  # fmt: skip
    return not first & second and (above.ter == below.ter or bool(np.isnan(below.atoms[0]).all()))


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
