"""Contact sets that come as matrices: the form of the public zero-shot sets (casp14, casp15, selected_protein).

A folder holds extracted_sequences.fasta and contacts/<id>.npy, an L x L matrix with 1 where the C-beta atoms (C-alpha
of glycine) of two residues are closer than 8 angstrom. Entries that are NaN or negative are unknown; a residue of which
nothing is known counts as unresolved. Nothing is fetched, and there are no coordinates: other definitions of a contact
are an error and not an approximation.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from plmjac.datasets.base import InputError, Record, as_list
from plmjac.datasets.fasta import FastaDataset
from plmjac.files import nearest, shorten
from plmjac.records import ContactList, Contacts, Protein, Rejected

SEQUENCES, CONTACTS = "extracted_sequences.fasta", "contacts"


class ContactMapsDataset:
    """The proteins of a folder, in the order of extracted_sequences.fasta.

    Parameters
    ----------
    path: the folder.
    ids: only these records.

    A protein without a matrix, or with one of another size, is rejected with the reason. Raises InputError where the
    folder is not such a folder, or an id is not in it.
    """

    def __init__(self, path: str | None = None, ids: str | list[str] | None = None) -> None:
        if path is None:
            raise InputError(f"dataset.path is needed: the folder with {SEQUENCES} and {CONTACTS}/")
        self._folder, self._ids = Path(path).expanduser(), as_list(ids)
        for name in (SEQUENCES, CONTACTS):
            if not (self._folder / name).exists():
                raise InputError(f"dataset.path={path} has no {name}; give a folder with {SEQUENCES} and {CONTACTS}/")

    def __iter__(self) -> Iterator[Record]:
        there: list[str] = []
        for record in FastaDataset(str(self._folder / SEQUENCES)):
            there.append(record.id)
            if not self._ids or record.id in self._ids:
                yield self._with_contacts(record) if isinstance(record, Protein) else record
        if missing := sorted(set(self._ids) - set(there)):
            raise InputError(f"dataset.ids: no record {shorten(missing)}; {nearest(missing[0], there, 3)}")

    def _with_contacts(self, protein: Protein) -> Protein | Rejected:
        path = self._folder / CONTACTS / f"{protein.id}.npy"
        try:
            contacts = contacts_of(np.load(path, allow_pickle=False), len(protein))
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            return Rejected(protein.id, f"{path}: {reason}; take the file again", protein.source)
        return Protein(protein.id, protein.sequence, str(path), protein.note, ContactList({("cb", 8.0): contacts}))


def contacts_of(matrix: Shaped[np.ndarray, "..."], length: int) -> Contacts:
    """A matrix of 0, 1 and unknown (NaN or negative) as contacts. Raises ValueError for any other shape or number."""
    if matrix.shape != (length, length):
        raise ValueError(f"contacts of shape {matrix.shape} for a sequence of {length} residues")
    values = matrix.astype(np.float64)
    known = values >= 0  # False for NaN
    strange = known & (values != 0) & (values != 1)
    if strange.any():
        raise ValueError(f"it holds {values[strange][0]:g}; entries are 1 (contact), 0, or NaN or below 0 (unknown)")
    touching = np.asarray(known & (values == 1))
    if (touching != touching.T).any():
        raise ValueError("it is not symmetric")
    np.fill_diagonal(touching, False)
    np.fill_diagonal(known, False)
    resolved = known.any(axis=1) if length > 1 else np.ones(1, dtype=bool)
    if not known[np.ix_(resolved, resolved)][~np.eye(int(resolved.sum()), dtype=bool)].all():
        raise ValueError("single pairs are unknown; only whole residues (a row and its column) can be")
    return Contacts(touching, np.asarray(resolved, dtype=bool))
