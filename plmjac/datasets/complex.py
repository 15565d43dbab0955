"""Complexes: several chains made into one sequence, so that a model of single chains sees them together.

The chains are joined by linker residues, by a gap in the residue index, by both or by nothing. From FASTA records whose
chains stand between colons (`AAAA:BBBB`, ColabFold's convention), or from structure files, whose coordinates say which
residues of two chains touch. Linkers have no coordinates, so that they are never scored. What is not protein is left
out, and so are all assemblies but the one that the file holds.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from plmjac.alphabet import clean
from plmjac.datasets.base import InputError, Record, as_list
from plmjac.datasets.fasta import read_records
from plmjac.datasets.pdb import files_of
from plmjac.datasets.structure_file import SUFFIXES, ChainRecord, read_chains
from plmjac.records import Chains, Coordinates, Protein, Rejected

LINKER = "G" * 25
"""ESMFold's linker: long enough to reach, of a residue that prefers no neighbour."""


class ComplexDataset:
    """Complexes of FASTA records `AAAA:BBBB` and of structure files, each one sequence with its `Chains`.

    A FASTA record without a colon is an ordinary protein. A structure gives one complex, `<entry>_A-B`.

    Parameters
    ----------
    path: FASTA files, structure files (.pdb .ent .cif .mmcif, each also .gz) or a folder of these, one or several.
    chains: of each structure, in this order, by the author's names; None for all its protein chains.
    linker: residues to put between two chains; None or empty for none.
    index_gap: residues that the index of each following chain is moved on by, as the model's positions say it.
    max_record_length: longest FASTA record to hold in memory, in residues.

    Raises InputError where the path does not exist, the linker is not of amino acids, or one chain is asked for.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        chains: str | list[str] | None = None,
        linker: str | None = LINKER,
        index_gap: int = 0,
        max_record_length: int = 100_000,
    ) -> None:
        if not path:
            raise InputError("dataset=complex needs a file: dataset.path=FILE.fasta (A:B) or dataset.path=ENTRY.cif")
        self._files = [file for name in as_list(path) for file in files_of(Path(name).expanduser())]
        self._chains = as_list(chains)
        if len(self._chains) == 1 or len(set(self._chains)) < len(self._chains):
            raise InputError(
                f"dataset.chains={self._chains}: a complex has two chains or more, each once; "
                "single chains are +dataset=pdb"
            )
        if index_gap < 0:
            raise InputError(f"dataset.index_gap={index_gap}; it is 0 or more residues")
        try:
            self._linker = clean(linker)[0] if linker else ""
        except ValueError as error:
            raise InputError(f"dataset.linker={linker}: {error}") from None
        self._index_gap, self._max_length = index_gap, max_record_length

    def __iter__(self) -> Iterator[Record]:
        for file in self._files:
            if file.name.lower().removesuffix(".gz").endswith(SUFFIXES):
                yield self._of_structure(file, read_chains(file))
            elif self._chains:
                raise InputError(f"{file}: dataset.chains names chains of structures; FASTA records take all of theirs")
            else:
                yield from map(self._of_record, read_records(file, self._max_length, _clean_each))

    def _of_record(self, record: Protein | Rejected) -> Record:
        if isinstance(record, Rejected) or ":" not in record.sequence:
            return record
        sequence, chains = self._join(record.sequence.split(":"))
        return Protein(record.id, sequence, record.source, record.note, chains=chains)

    def _of_structure(self, file: Path, records: list[ChainRecord]) -> Record:
        there = {record.chain: record for record in records if record.chain is not None}
        if not there:
            return records[0].record  # the file as a whole is rejected
        wanted = self._chains or list(there)
        identifier = f"{records[0].entry}_{'-'.join(wanted)}"
        if missing := [name for name in wanted if name not in there]:
            reason = f"{file.name}: no protein chain {', '.join(missing)}; there are {', '.join(there)}"
            return Rejected(identifier, reason, str(file))
        found = [there[name].record for name in wanted]
        parts = [record for record in found if isinstance(record, Protein)]
        if len(parts) < len(found):
            return Rejected(identifier, next(r.reason for r in found if isinstance(r, Rejected)), str(file))
        if len(parts) == 1:
            return Rejected(identifier, f"{file.name}: it has one protein chain; use +dataset=pdb", str(file))
        sequence, chains = self._join([part.sequence for part in parts])
        notes = [f"chain {name}: {part.note}" for name, part in zip(wanted, parts, strict=True) if part.note]
        source = f"{file}, chains {', '.join(wanted)}"
        structure, numbers = _joined(parts, chains), _joined_numbers(parts, chains)
        return Protein(identifier, sequence, source, "; ".join(notes), structure, chains, numbers)

    def _join(self, sequences: Sequence[str]) -> tuple[str, Chains]:
        spans, start = [], 0
        for sequence in sequences:
            spans.append((start, start + len(sequence)))
            start += len(sequence) + len(self._linker)
        return self._linker.join(sequences), Chains(tuple(spans), self._index_gap)


def _clean_each(text: str) -> tuple[str, str]:
    """`alphabet.clean` for each chain between colons; the colons stay. Raises ValueError naming the chain."""
    cleaned = []
    parts = text.split(":")
    for number, part in enumerate(parts, start=1):
        try:
            cleaned.append(clean(part))
        except ValueError as error:
            raise ValueError(f"chain {number}: {error}" if len(parts) > 1 else str(error)) from None
    return ":".join(letters for letters, _ in cleaned), "; ".join(note for _, note in cleaned if note)


def _joined(parts: Sequence[Protein], chains: Chains) -> Coordinates:
    """The chains' coordinates in the frame of their file, NaN for linkers."""
    length = chains.spans[-1][1]
    alpha, beta = np.full((length, 3), np.nan), np.full((length, 3), np.nan)
    for part, (start, stop) in zip(parts, chains.spans, strict=True):
        assert isinstance(part.structure, Coordinates)
        alpha[start:stop], beta[start:stop] = part.structure.alpha, part.structure.beta
    return Coordinates(alpha, beta)


def _joined_numbers(parts: Sequence[Protein], chains: Chains) -> tuple[str, ...] | None:
    """The chains' residue numbers, empty for linkers; None where no chain has any."""
    numbers = [""] * chains.spans[-1][1]
    for part, (start, stop) in zip(parts, chains.spans, strict=True):
        numbers[start:stop] = part.residue_numbers or [""] * len(part)
    return tuple(numbers) if any(numbers) else None
