"""The frozen records that travel through plmjac, each checking its own shape when it is made.

A dataset yields `Protein`s and `Rejected`s; the plan turns proteins into `WorkItem`s; the model side answers each with
a `JacobianChunk` or a `Failure`. Nothing here computes, reads or writes.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

Atom = Literal["cb", "ca"]


@dataclass(frozen=True)
class Contacts:
    """What a structure says about pairs: which residues touch, and for which residues that is known.

    A pair counts only where both residues are resolved; the diagonal is never a contact.
    """

    pairs: Bool[np.ndarray, "L L"]
    resolved: Bool[np.ndarray, " L"]

    def __post_init__(self) -> None:
        length = len(self.resolved)
        if self.pairs.shape != (length, length):
            raise ValueError(f"contacts of shape {self.pairs.shape} for {length} residues")


@runtime_checkable
class Structure(Protocol):
    """Anything that can say which residues touch: coordinates, or a list of contacts made from some."""

    def contacts(self, atom: Atom, cutoff: float) -> Contacts:
        """Pairs of residues whose `atom`s are closer than `cutoff` angstrom.

        Raises ValueError where the structure does not know contacts of this definition.
        """
        ...


@dataclass(frozen=True, eq=False)
class Coordinates:
    """C-alpha and C-beta positions in angstrom, one row per residue of the sequence, NaN where unresolved.

    `beta` of glycine, and of a residue whose C-beta is missing but whose C-alpha is there, is its C-alpha.
    """

    alpha: Float[np.ndarray, "L 3"]
    beta: Float[np.ndarray, "L 3"]

    def __post_init__(self) -> None:
        if self.alpha.shape != self.beta.shape or self.alpha.shape[1:] != (3,):
            raise ValueError(f"coordinates of shapes {self.alpha.shape} and {self.beta.shape}; both must be (L, 3)")

    def contacts(self, atom: Atom = "cb", cutoff: float = 8.0) -> Contacts:
        """Pairs of residues whose `atom`s are closer than `cutoff` angstrom."""
        xyz = self.beta if atom == "cb" else self.alpha
        resolved = np.isfinite(xyz).all(axis=1)
        distances = np.linalg.norm(xyz[:, None] - xyz[None, :], axis=-1)
        pairs = np.where(np.isnan(distances), np.inf, distances) < cutoff
        np.fill_diagonal(pairs, False)
        return Contacts(pairs, resolved)


@dataclass(frozen=True, eq=False)
class ContactList:
    """Known contacts of one or more definitions, for data that comes without coordinates."""

    known: dict[tuple[Atom, float], Contacts]

    def contacts(self, atom: Atom = "cb", cutoff: float = 8.0) -> Contacts:
        """The stored contacts of this definition; ValueError naming those there are, if it is not among them."""
        try:
            return self.known[atom, float(cutoff)]
        except KeyError:
            there = ", ".join(f"{a} < {c} A" for a, c in sorted(self.known))
            raise ValueError(f"no contacts for {atom} < {cutoff} A; there are {there}") from None


@dataclass(frozen=True, eq=False)
class Protein:
    """One sequence to compute, clean (see `alphabet.clean`), with its structure where one is known.

    `source` says where it came from in words a user can act on ("my.fasta, record 3"); `note` says what was changed on
    reading, or is empty.
    """

    id: str
    sequence: str
    source: str = ""
    note: str = ""
    structure: Structure | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError(f"a protein without an id ({self.source or 'no source'})")
        if not self.sequence:
            raise ValueError(f"{self.id}: the sequence is empty")

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True)
class Rejected:
    """A record of the input that could not become a `Protein`; it is reported and never stops the others."""

    id: str
    reason: str
    source: str = ""


@dataclass(frozen=True)
class Filtered:
    """A record that the dataset was told to leave out (a length filter, say): told in the manifest, not a failure."""

    id: str
    reason: str
    source: str = ""
    length: int = 0


@dataclass(frozen=True)
class WorkItem:
    """A block of rows start <= i < stop of one protein: what one predict step computes, and one chunk of the store."""

    key: str
    sequence: str
    start: int
    stop: int
    cost: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= len(self.sequence):
            raise ValueError(f"{self.key}: rows {self.start}:{self.stop} of {len(self.sequence)} residues")

    @property
    def is_first(self) -> bool:
        """Whether this block opens its protein (and carries the wild-type readouts)."""
        return self.start == 0

    @property
    def is_last(self) -> bool:
        """Whether the protein is complete with this block."""
        return self.stop == len(self.sequence)


@dataclass(frozen=True, eq=False)
class JacobianChunk:
    """The answer to a `WorkItem`: its rows of the raw Jacobian in float32, on the device that made them.

    The first chunk of a protein also carries the wild type's readouts (logits (L, 20), contact_head (L, L), ...).
    """

    item: WorkItem
    rows: Float[Tensor, "R A L 20"]
    readouts: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (self.item.stop - self.item.start, len(self.item.sequence), 20)
        shape = tuple(self.rows.shape)
        if (shape[0], *shape[2:]) != expected:
            raise ValueError(f"{self.item.key}: a chunk of shape {shape} for rows {self.item.start}:{self.item.stop}")


@dataclass(frozen=True)
class Failure:
    """Why a protein could not be computed; it ends that protein and no other."""

    item: WorkItem
    reason: str
    trace: str = ""
