"""Relatives of one protein: rows of its family's alignment, drawn evenly over their identity to it.

The first row is the reference. A relative is the whole row, insertions included and gaps left out, since it is a
protein of its own; `+evaluation=relatives` finds its residues in the columns again. Reads a3m and aligned FASTA, whose
rows are all held in memory; Stockholm files are not read here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from plmjac.alphabet import clean
from plmjac.datasets.base import InputError, Record
from plmjac.datasets.fasta import read_records
from plmjac.draws import generator
from plmjac.records import Protein, Rejected

BINS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]

MAX_ROW = 100_000


@dataclass(frozen=True)
class AlignedRow:
    """One row: its id, what it holds in each column of the alignment (`-` for a gap), and all of its residues.

    `places` says which of the residues stands in each column, from 0; -1 for a gap.
    """

    id: str
    columns: str
    residues: str
    places: tuple[int, ...]
    source: str = ""


class AlignmentDataset:
    """The reference of an alignment, then relatives drawn from each bin of identity to it, the most similar bin first.

    Parameters
    ----------
    path: an a3m or an aligned FASTA, plain or compressed.
    per_bin: relatives from each bin, or all that there are.
    bins: where the bins of identity begin, from 0 to 1, each up to the next; the last one up to 1.
    min_coverage: of the reference's residues that a relative must have a residue at.
    seed: of the draws.

    Identity is the share of equal letters among the columns in which both have a residue. A sequence is drawn once.
    Raises InputError for a file that is no alignment or bins that do not rise.
    """

    def __init__(
        self,
        path: str | None = None,
        per_bin: int = 3,
        bins: list[float] = BINS,
        min_coverage: float = 0.75,
        seed: int = 0,
    ) -> None:
        if path is None:
            raise InputError("dataset.path is needed: an alignment, .a3m or aligned FASTA")
        if sorted(set(bins)) != bins or not bins or bins[0] < 0 or bins[-1] > 1:
            raise InputError(f"dataset.bins={bins}: give where bins begin, rising, from 0 to 1")
        self._path, self._per_bin, self._bins = Path(path).expanduser(), per_bin, bins
        self._min_coverage, self._seed = min_coverage, seed
        if not self._path.is_file():
            raise InputError(f"dataset.path={path} is no file; give an alignment, .a3m or aligned FASTA")

    def __iter__(self) -> Iterator[Record]:
        reference, *others = read_aligned(self._path)
        yield _record(reference, f"the reference of {self._path.name}")
        seen, identities = {reference.residues}, []
        for row in others:
            identity, coverage = identity_and_coverage(reference.columns, row.columns)
            if row.residues in seen or coverage < self._min_coverage:
                identities.append(-1.0)
            else:
                seen.add(row.residues)
                identities.append(identity)
        bin_of = np.digitize(identities, self._bins) - 1  # -1 below the first
        taken = {reference.id}
        for number in reversed(range(len(self._bins))):
            members = np.flatnonzero(bin_of == number)
            draw = generator(("relatives", self._seed, number)).random(len(members)).argsort(kind="stable")
            for index in sorted(members[draw[: self._per_bin]]):
                row = others[index]
                name = row.id if row.id not in taken else f"{row.id}_row{index + 2}"  # ids are unique in a run
                taken.add(name)
                note = f"{identities[index]:.0%} identical to {reference.id}"
                yield _record(replace(row, id=name), note)


def read_aligned(path: Path) -> list[AlignedRow]:
    """The rows of an a3m or an aligned FASTA, in file order; in a3m lower case and `.` are insertions.

    Raises InputError for a file that is no FASTA and for rows of unequal length.
    """
    raw = []
    for record in read_records(path, MAX_ROW, clean=lambda text: (text, "")):
        if isinstance(record, Rejected):
            raise InputError(record.reason)
        raw.append(record)
    rows = [_row(record, record.sequence) for record in raw]
    if _unequal(rows) or not rows[0].columns:
        as_written = [_row(record, record.sequence.upper().replace(".", "-")) for record in raw]
        if _unequal(as_written) is None:  # aligned FASTA: case and the kind of gap mean nothing
            return as_written
        row = _unequal(rows) or rows[0]
        first = len(rows[0].columns)
        raise InputError(f"{path}: {row.id!r} has {len(row.columns)} columns and the first {first}: is it aligned?")
    return rows


def _unequal(rows: list[AlignedRow]) -> AlignedRow | None:
    """The first row that is not as long as the first one."""
    return next((row for row in rows if len(row.columns) != len(rows[0].columns)), None)


def _row(record: Protein, letters: str) -> AlignedRow:
    """A row in a3m: upper case and `-` are columns, lower case is an insertion, `.` nothing."""
    columns: list[str] = []
    residues: list[str] = []
    places: list[int] = []
    for letter in letters:
        if letter == ".":
            continue
        if not letter.islower():
            columns.append(letter)
            places.append(-1 if letter == "-" else len(residues))
        if letter != "-":
            residues.append(letter.upper())
    return AlignedRow(record.id, "".join(columns), "".join(residues), tuple(places), record.source)


def identity_and_coverage(reference: str, row: str) -> tuple[float, float]:
    """The share of equal letters where both rows have a residue, and the share of the reference's residues there.

    Rows are of one length with `-` for a gap. Without a common column the identity is 0.
    """
    both = [(a, b) for a, b in zip(reference, row, strict=True) if a != "-" and b != "-"]
    equal, residues = sum(a == b for a, b in both), len(reference) - reference.count("-")
    return equal / len(both) if both else 0.0, len(both) / residues if residues else 0.0


def _record(row: AlignedRow, note: str) -> Record:
    try:
        sequence, changed = clean(row.residues)
    except ValueError as error:
        return Rejected(row.id, str(error), row.source)
    return Protein(row.id, sequence, row.source, "; ".join(part for part in (note, changed) if part))
