"""CAMEO-PTA25: CAMEO targets deposited after ESM-2's training data, with C-alpha contacts (Thorstenson 2026, MIT).

A folder holds sequences.fasta, contacts/<id>.npz and cameo_pta_split.json: 56 chains, 10 of which are for choosing
(attention heads, say) and 29 for judging what was chosen; 17 are in neither. Nothing is fetched. The files know C-alpha
positions only, so contacts of C-beta atoms are an error and not an approximation.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float64

from plmjac.datasets.base import InputError, Record, as_list
from plmjac.datasets.fasta import FastaDataset
from plmjac.files import nearest, shorten
from plmjac.records import Atom, Contacts, Coordinates, Protein, Rejected

SEQUENCES, CONTACTS, SPLIT = "sequences.fasta", "contacts", "cameo_pta_split.json"

SPLITS = {"evaluation": "eval29", "selection": "select10"}
"""The names of the splits in the file."""


@dataclass(frozen=True, eq=False)
class AlphaContacts:
    """The contacts of a file (C-alpha closer than 8 angstrom), and the positions for any other cutoff."""

    listed: Bool[np.ndarray, "L L"]
    resolved: Bool[np.ndarray, " L"]
    positions: Float64[np.ndarray, "L 3"] | None

    def contacts(self, atom: Atom = "ca", cutoff: float = 8.0) -> Contacts:
        """Pairs closer than `cutoff` angstrom. ValueError for C-beta, and where positions are needed and not there."""
        if atom != "ca":
            raise ValueError(f"no contacts for {atom} < {cutoff} A; these are C-alpha: evaluation.atom=ca")
        if cutoff == 8.0:
            return Contacts(self.listed, self.resolved)
        if self.positions is None:
            raise ValueError(f"no contacts for ca < {cutoff} A; there are ca < 8.0 A")
        return Coordinates(self.positions, self.positions).contacts("ca", cutoff)


class CameoPtaDataset:
    """The chains of one split, in the order of sequences.fasta.

    Parameters
    ----------
    path: the folder.
    split: `evaluation` (29 chains), `selection` (10), or `all` (56).
    ids: only these, `8S7A_A`.

    Raises InputError where a file is missing or not what it should be, or an id is not in the split.
    """

    def __init__(
        self,
        path: str | None = None,
        split: Literal["evaluation", "selection", "all"] = "evaluation",
        ids: str | list[str] | None = None,
    ) -> None:
        if path is None:
            raise InputError(f"dataset.path is needed: the folder with {SEQUENCES}, {CONTACTS}/ and {SPLIT}")
        self._folder, self._split, self._ids = Path(path).expanduser(), split, as_list(ids)
        for name in (SEQUENCES, CONTACTS, SPLIT):
            if not (self._folder / name).exists():
                raise InputError(f"dataset.path={path} has no {name}; give the folder of CAMEO-PTA25")

    def __iter__(self) -> Iterator[Record]:
        records = list(FastaDataset(str(self._folder / SEQUENCES)))
        there = [record.id for record in records]
        chosen = there if self._split == "all" else self._members(there)
        if missing := sorted(set(self._ids) - set(chosen)):
            raise InputError(
                f"dataset.ids: {shorten(missing)} not in split={self._split}; {nearest(missing[0], chosen, 8)}"
            )
        wanted = set(self._ids or chosen)
        for record in records:
            if record.id in wanted:
                yield self._with_contacts(record) if isinstance(record, Protein) else record

    def _members(self, there: list[str]) -> list[str]:
        path, key = self._folder / SPLIT, SPLITS[self._split]
        try:
            document: Any = json.loads(path.read_text(encoding="utf-8"))
            members = [str(name) for name in document[key]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no list of splits with {', '.join(SPLITS.values())} ({error!r})") from None
        if strangers := sorted(set(members) - set(there)):
            raise InputError(f"{path} names {shorten(strangers)}, which {SEQUENCES} does not have")
        return members

    def _with_contacts(self, protein: Protein) -> Protein | Rejected:
        path = self._folder / CONTACTS / f"{protein.id}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                structure = _structure(dict(file), len(protein))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            return Rejected(protein.id, f"{path}: {' '.join(str(error).split())}; take the file again", str(path))
        return Protein(protein.id, protein.sequence, str(path), protein.note, structure)


def _structure(arrays: dict[str, np.ndarray], length: int) -> AlphaContacts:
    """The arrays of a file, checked against the length of the sequence. Raises ValueError and KeyError."""
    listed, resolved = arrays["contacts"].astype(bool), arrays["valid_residues"].astype(bool)
    if listed.shape != (length, length) or resolved.shape != (length,):
        raise ValueError(f"contacts of shape {listed.shape} for a sequence of {length} residues")
    listed &= resolved[:, None] & resolved[None, :] & ~np.eye(length, dtype=bool)
    if "positions" not in arrays:
        return AlphaContacts(listed | listed.T, resolved, None)
    positions = arrays["positions"].astype(np.float64)
    if positions.shape != (length, 3):
        raise ValueError(f"positions of shape {positions.shape} for a sequence of {length} residues")
    return AlphaContacts(listed | listed.T, resolved, np.where(resolved[:, None], positions, np.nan))
