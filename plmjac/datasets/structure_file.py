"""Read the protein chains of one structure file: sequence, C-alpha and C-beta, aligned to one another.

The sequence is SEQRES (PDB) or entity_poly_seq (mmCIF) where the file has one, so that unresolved loops keep their
columns; otherwise the residues of the model. Only model 1, only protein chains, only backbone and C-beta are kept;
other atoms, ligands, assemblies and B-factors are dropped. Everything that can be wrong with a file ends as a
`Rejected` that names it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Int64

from plmjac.datasets.atom_table import AtomTable, SequenceTable
from plmjac.datasets.chains import Chain, chains_of
from plmjac.datasets.compressed import DamagedFile, TooLarge, read_bytes
from plmjac.datasets.mmcif_table import read_mmcif
from plmjac.datasets.pdb_table import read_pdb
from plmjac.datasets.placement import Placement, place
from plmjac.datasets.residue_names import is_standard, letter_of, residue_letter
from plmjac.datasets.residues import CA, CB, Residue, joints_of
from plmjac.records import Coordinates, Protein, Rejected

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")

MIN_IDENTITY = 0.9
"""Least fraction of the resolved residues that must agree with SEQRES; below it the columns cannot be trusted."""

_SHOWN = 10
"""Residues that a note names one by one."""

_ASCII = bytes(32 if code == 0 else code if code < 128 else ord("?") for code in range(256))
"""A table that leaves one character per byte, or columns would be cut in the middle of a letter."""


@dataclass(frozen=True)
class ChainRecord:
    """One chain of an entry, or why it is rejected; `chain` is None where the whole file is."""

    entry: str
    chain: str | None
    record: Protein | Rejected


def entry_name(path: Path) -> str:
    """The entry that a file holds: its name without suffixes, a PDB id in upper case (`pdb1ten.ent.gz` -> `1TEN`)."""
    stem = path.name
    for suffix in (".gz", *SUFFIXES):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    if match := re.fullmatch(r"(?:pdb)?([0-9][A-Za-z0-9]{3})", stem):
        return match[1].upper()
    return stem or path.name


def read_chains(path: Path) -> list[ChainRecord]:
    """Every protein chain of the file, in file order, or one `Rejected` for the file; never an exception.

    Ids are `<entry>_<chain>` with the author's chain name; a file `1TEN_A.pdb` that holds a chain A does not repeat it.
    A letter that stands for several chains gives A, A.2 and so on.
    """
    entry = entry_name(path)
    try:
        table = parse(path)
        chains = chains_of(table)
        unseen = _chains_without_atoms(table, chains)
        if not chains:
            reason = "; ".join([_why_no_protein(table), *unseen])
            return [ChainRecord(entry, None, _reject(entry, path, reason))]
        chains[0].notes += unseen
        entry = _without_chain(entry, [chain.name for chain in chains])
        records = []
        for chain in chains:
            record_id = f"{entry}_{chain.name}".rstrip("_")  # old files may leave the chain's name blank
            records.append(ChainRecord(entry, chain.name, _read_chain(table, chain, chains, record_id, path)))
        return records
    except MemoryError:
        reason = "there is not enough memory to read it; give the job more, or leave the file out"
    except (OSError, DamagedFile, TooLarge) as error:
        reason = f"it cannot be read ({error})"
    except (RuntimeError, ValueError, IndexError, KeyError, OverflowError) as error:
        text = " ".join(str(error).split())[:200].replace("string:", "line ")
        reason = f"it is not a PDB or mmCIF structure ({text})"
    return [ChainRecord(entry, None, _reject(entry, path, reason))]


def parse(path: Path) -> AtomTable:
    """The atoms of a file, its format known by content and not by name.

    Raises OSError, DamagedFile, TooLarge, ValueError or RuntimeError where it cannot be read as a structure.
    """
    return read_table(read_bytes(path))


def read_table(content: bytes) -> AtomTable:
    """Atom table of a file's content, PDB or mmCIF. Raises ValueError or RuntimeError for anything else."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", errors="replace").encode("ascii", errors="replace")
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise ValueError("the file is empty")
    content = content.translate(_ASCII)
    start = re.match(rb"(?:\s|#[^\r\n]*)*+([^\r\n]{0,5})", content)
    is_mmcif = start is not None and start[1].lower() == b"data_"
    table = read_mmcif(content.decode("ascii")) if is_mmcif else read_pdb(content.splitlines())
    if bool(np.isin(table.name[table.residue == "HSE"], ("C3", "O3", "OD")).any()):
        # HSE is a histidine in force fields, but homoserine in the PDB.
        return replace(table, parents={**table.parents, "HSE": "SER"})
    return table


def _without_chain(entry: str, chains: list[str]) -> str:
    """`1ten_A` of a file with a chain A -> `1TEN`."""
    stem, _, last = entry.rpartition("_")
    if not stem or last not in chains:
        return entry
    return stem.upper() if re.fullmatch("[0-9][A-Za-z0-9]{3}", stem) else stem


def _reject(record_id: str, path: Path, reason: str) -> Rejected:
    return Rejected(record_id, f"{path.name}: {reason}", str(path))


def _why_no_protein(table: AtomTable) -> str:
    if not len(table):
        return "no atoms; it is not a structure, or an empty one"
    if any(gemmi.find_tabulated_residue(name).is_nucleic_acid() for name in np.unique(table.residue).tolist()):
        return "no protein chain, only nucleic acid"
    return "no protein chain, only ligands, water or other molecules"


def _read_chain(table: AtomTable, chain: Chain, chains: list[Chain], record_id: str, path: Path) -> Protein | Rejected:
    """One chain as a protein in the columns of its sequence, or why its residues do not fit there."""
    sequence = _sequence_of(table, chain, chains)
    fitted = _fit(table, chain, sequence) if sequence is not None else None
    if fitted is not None and fitted.identity < MIN_IDENTITY and _may_be_anothers(table, chain, chains):
        fitted = None
    if fitted is not None and fitted.identity < MIN_IDENTITY:
        return _reject(
            record_id, path, f"chain {chain.name}: only {fitted.agreeing} of the {len(fitted.residues)} residues in "
            f"the model agree with its {_table_name(table)}; correct or remove {_table_name(table)}",
        )  # fmt: skip
    if fitted is None:
        fitted = _without_sequence(table, chain)
    if set(fitted.letters) <= {"X"}:
        return _reject(record_id, path, f"chain {chain.name}: every residue is unknown (UNK)")
    coordinates = _coordinates(fitted)
    notes = [*chain.notes, *_notes(table, chain, fitted)]
    atoms = np.stack([residue.atoms[0] for residue in fitted.residues])
    if np.isnan(atoms[:, CA]).all():
        notes.append("no C-alpha, as in coarse-grained models: every residue counts as unresolved")
    elif np.isnan(atoms[:, CB]).all():
        notes.append("C-alpha only: C-beta taken at C-alpha")
    source = f"{path}, chain {chain.name}"
    numbers = _residue_numbers(fitted, sequence)
    return Protein(record_id, fitted.letters, source, "; ".join(notes), coordinates, residue_numbers=numbers)


def _table_name(table: AtomTable) -> str:
    return "entity_poly_seq" if table.is_mmcif else "SEQRES"


# ---------------------------------------------------------------- columns


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A chain's residues and the columns of its sequence that they stand in; -1 for one that has none."""

    letters: str
    names: Sequence[Sequence[str]]
    residues: list[Residue]
    placement: Placement
    has_sequence: bool

    @property
    def agreeing(self) -> int:
        """Residues whose letter is that of their column."""
        return len(self.residues) - len(self.differing)

    @property
    def identity(self) -> float:
        """The fraction of the residues that agree with the sequence."""
        return self.agreeing / len(self.residues)

    @property
    def differing(self) -> list[tuple[Residue, int]]:
        """Residues that are not what the sequence has in their column, with that column."""
        return [(residue, column) for residue, column in self.placed if column < 0 or not self._agrees(residue, column)]

    def _agrees(self, residue: Residue, column: int) -> bool:
        return self.letters[column] == residue.letter or bool(set(residue.names) & set(self.names[column]))

    @property
    def placed(self) -> list[tuple[Residue, int]]:
        """Each residue with its column."""
        return list(zip(self.residues, self.placement.columns.tolist(), strict=True))


def _sequence_of(table: AtomTable, chain: Chain, chains: list[Chain]) -> SequenceTable | None:
    """The sequence that the file gives the chain, None where it gives none."""
    if table.is_mmcif:
        whose = Counter((residue.asym, residue.entity) for residue in chain.residues)
        found = [table.sequence(asym, entity) for (asym, entity), _ in whose.most_common()]
        return next((sequence for sequence in found if sequence is not None), None)
    same = [other for other in chains if other.letter == chain.letter]
    sequences = table.sequences.get(chain.letter, [])
    if not sequences and len(chains) == len(table.sequences) == 1 and "" in (chain.letter, *table.sequences):
        sequences = next(iter(table.sequences.values()))
    if not sequences:
        return None
    return sequences[min(same.index(chain), len(sequences) - 1)]


def _chains_without_atoms(table: AtomTable, chains: list[Chain]) -> list[str]:
    """A note on the proteins in the file's sequences of which the model has no residue; none where there is no such."""
    if table.is_mmcif:
        there = {residue.asym for chain in chains for residue in chain.residues}
        asyms = {key.removeprefix("asym "): found for key, found in table.sequences.items() if key.startswith("asym ")}
        unseen = {asym: found for asym, found in asyms.items() if asym not in there}
    else:
        used = [_sequence_of(table, chain, chains) for chain in chains]
        unseen = {letter: found for letter, found in table.sequences.items()
                  if not any(one is each for one in found for each in used)}  # fmt: skip
    names = [name for name, found in unseen.items()
             if 2 * sum(bool(letter_of(each[0])) for each in found[0].names) > len(found[0].names)]  # fmt: skip
    return [f"{_table_name(table)} has a protein that the model lacks: chain {_listed(names)}"] if names else []


def _may_be_anothers(table: AtomTable, chain: Chain, chains: list[Chain]) -> bool:
    """True if the sequence under the chain's letter may be that of another chain."""
    has_twin = any(other.letter == chain.letter for other in chains if other is not chain)
    return not table.is_mmcif and (has_twin or chain.letter not in table.sequences)


def _fit(table: AtomTable, chain: Chain, sequence: SequenceTable) -> _Fitted:
    """The chain in the columns of the sequence: by label_seq_id where that can be trusted, else by alignment."""
    letters = "".join(residue_letter(names[0], table.parents) for names in sequence.names)
    best: _Fitted | None = None
    labelled = [residue for residue in chain.residues if residue.label > 0]
    if table.is_mmcif and 2 * len(labelled) > len(chain.residues):
        labelled.sort(key=lambda residue: residue.label)
        columns = np.array([residue.label - 1 for residue in labelled])
        if (np.diff(columns) > 0).all() and columns[-1] < len(letters):
            best = _Fitted(letters, sequence.names, labelled, _given(columns), True)
            if best.identity >= MIN_IDENTITY:
                chain.left_out += [residue for residue in chain.residues if residue.label == 0]
                return best
    for residues in _orders(chain.residues):
        fitted = _Fitted(letters, sequence.names, residues, place(residues, letters, sequence.names), True)
        if best is not None and fitted.agreeing == best.agreeing and best.identity >= MIN_IDENTITY:
            chain.notes.append(f"residues fit {_table_name(table)} in two orders: that of their numbers, which is "
                               "taken, and that of the file")  # fmt: skip
        if best is None or fitted.agreeing > best.agreeing:
            best = fitted
    assert best is not None
    return best


def _given(columns: Int64[np.ndarray, " R"]) -> Placement:
    certain = np.zeros(len(columns), dtype=bool)
    return Placement(columns, certain, certain)


def _orders(residues: list[Residue]) -> list[list[Residue]]:
    """The residues by their numbers, and as they stand in the file where that is another order."""
    starts = [0, *(np.flatnonzero(joints_of(residues).is_break) + 1).tolist(), len(residues)]
    stretches = [residues[start:stop] for start, stop in pairwise(starts)]
    stretches.sort(key=lambda stretch: stretch[0].number)
    by_number = [residue for stretch in stretches for residue in stretch]
    return [residues] if all(a is b for a, b in zip(residues, by_number, strict=True)) else [by_number, residues]


def _without_sequence(table: AtomTable, chain: Chain) -> _Fitted:
    """The chain's own residues as its sequence; where label_seq_id leaves a gap, X for each missing residue."""
    residues = chain.residues
    steps = np.ones(len(residues), dtype=np.int64)
    labels = np.array([residue.label for residue in residues])
    if table.is_mmcif and (labels > 0).all() and (np.diff(labels) > 0).all():
        steps[1:] = np.where(joints_of(residues).is_break, np.diff(labels), 1)
    columns = np.cumsum(steps) - 1
    names: list[tuple[str, ...]] = [("UNK",)] * (int(columns[-1]) + 1)
    letters = ["X"] * len(names)
    for residue, column in zip(residues, columns.tolist(), strict=True):
        names[column], letters[column] = tuple(residue.names), residue.letter
    return _Fitted("".join(letters), names, residues, _given(columns), False)


def _residue_numbers(fitted: _Fitted, sequence: SequenceTable | None) -> tuple[str, ...] | None:
    """The author's number of every column; of an unresolved one from the file, or from its neighbours within a gap.

    Empty where neither says it; None where no residue has a number.
    """
    given = sequence.numbers if fitted.has_sequence and sequence is not None else None
    numbers = list(given) if given is not None else [""] * len(fitted.letters)
    placed = sorted((column, residue.text) for residue, column in fitted.placed if column >= 0)
    for column, text in placed:
        numbers[column] = text
    for (left, before), (right, after) in pairwise(placed):
        if given is None and _is_whole(before) and _is_whole(after) and int(after) - int(before) == right - left:
            numbers[left + 1 : right] = [str(int(before) + by) for by in range(1, right - left)]
    return tuple(numbers) if any(numbers) else None


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdigit()


# ---------------------------------------------------------------- notes and coordinates


def _notes(table: AtomTable, chain: Chain, fitted: _Fitted) -> list[str]:
    notes = []
    modified = Counter(
        f"{names[0]} as {letter}"
        for names, letter in zip(fitted.names, fitted.letters, strict=True)
        if letter != "X" and not is_standard(names[0])
    )
    if modified:
        notes.append("modified residues read as their parents: " + ", ".join(sorted(modified)))
    if unknown := sum(letter == "X" for letter in fitted.letters):
        notes.append(f"{unknown} unknown residue(s) as X")
    if table.models > 1:
        notes.append(f"model 1 of {table.models}")
    if table.structures > 1:
        notes.append(f"structure 1 of {table.structures} in the file")
    if fitted.has_sequence:
        notes += _notes_of_sequence(_table_name(table), fitted)
    else:
        is_break = joints_of(fitted.residues).is_break.tolist()
        breaks = [pair for pair, is_one in zip(pairwise(fitted.residues), is_break, strict=True) if is_one]
        text = f", {len(breaks)} chain break(s)" if breaks else ""
        notes.append("no SEQRES: sequence of the resolved residues" + text)
        if backward := [second for first, second in breaks if second.number < first.number]:
            notes.append(f"residue numbers go back at {_listed(backward)}: the order is that of the file")
    if chain.left_out:
        notes.append(f"left out, not part of the chain: {_listed(chain.left_out)}")
    return notes


def _notes_of_sequence(table_name: str, fitted: _Fitted) -> list[str]:
    notes = []
    if differing := [(residue, fitted.names[column][0]) for residue, column in fitted.differing if column >= 0]:
        each = [f"{residue} for {name}" for residue, name in differing]
        notes.append(f"{len(each)} residues differ from {table_name}: {_listed(each)}")
    if without := [residue for residue, column in fitted.placed if column < 0]:
        notes.append(f"left out, not in {table_name}: {_listed(without)}")
    placed = sorted(((column, residue) for residue, column in fitted.placed if column >= 0), key=lambda pair: pair[0])
    gaps = np.diff([column for column, _ in placed]) > 1
    is_torn = gaps & ~joints_of([residue for _, residue in placed]).is_break if placed else gaps
    if torn := [placed[place][1] for place in np.flatnonzero(is_torn).tolist()]:
        notes.append(f"{table_name} has residues that the unbroken chain lacks behind {_listed(torn)}")
    placement = fitted.placement
    for is_such, text in (
        (placement.is_uncertain, f"fit {table_name} in several places equally well, the first is taken"),
        (placement.by_number, f"fit {table_name} in several places, the residue numbers decide"),
    ):
        if such := [residue for residue, is_one in zip(fitted.residues, is_such, strict=True) if is_one]:
            notes.append(f"{_listed(such)} {text}")
    return notes


def _listed(items: Sequence[object]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(str(item) for item in items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _coordinates(fitted: _Fitted) -> Coordinates:
    length = len(fitted.letters)
    alpha, beta, backbone = (np.full((length, *shape), np.nan) for shape in ((3,), (3,), (4, 3)))
    placed = [(residue, column) for residue, column in fitted.placed if column >= 0]
    if placed:
        columns = np.array([column for _, column in placed])
        which = [_alternative(residue, fitted.names[column][0]) for residue, column in placed]
        atoms = np.stack([residue.atoms[one] for (residue, _), one in zip(placed, which, strict=True)])
        is_glycine = np.array([residue.names[one] == "GLY" for (residue, _), one in zip(placed, which, strict=True)])
        has_beta = np.isfinite(atoms[:, CB]).all(axis=1) & ~is_glycine
        alpha[columns], backbone[columns] = atoms[:, CA], atoms[:, :CB]
        beta[columns] = np.where(has_beta[:, None], atoms[:, CB], atoms[:, CA])
    has_backbone = np.isfinite(backbone).all(axis=(1, 2)).any()
    return Coordinates(alpha, beta, backbone if has_backbone else None)


def _alternative(residue: Residue, wanted: str) -> int:
    """Of several residues at one place the one that the sequence names, else the first."""
    return residue.names.index(wanted) if wanted in residue.names else 0
