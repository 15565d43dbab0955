"""The frozen records that travel through plmjac, each checking its own shape when it is made.

A dataset yields `Protein`s and `Rejected`s; the plan turns proteins into `WorkItem`s; a task computes each, or it ends
in a `Failure`. Nothing here computes, reads or writes, and no torch is imported.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

Atom = Literal["cb", "ca"]


@dataclass(frozen=True)
class Contacts:
    """The contacts of a structure: which residues touch, and for which residues that is known.

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

    `beta` of glycine, and of a residue whose C-beta is missing but whose C-alpha is there, is its C-alpha. `backbone`
    are N, C-alpha, C and O where the source has them all, for secondary structure.
    """

    alpha: Float[np.ndarray, "L 3"]
    beta: Float[np.ndarray, "L 3"]
    backbone: Float[np.ndarray, "L 4 3"] | None = None

    def __post_init__(self) -> None:
        if self.alpha.shape != self.beta.shape or self.alpha.shape[1:] != (3,):
            raise ValueError(f"coordinates of shapes {self.alpha.shape} and {self.beta.shape}; both must be (L, 3)")
        if self.backbone is not None and self.backbone.shape != (len(self.alpha), 4, 3):
            raise ValueError(f"a backbone of shape {self.backbone.shape} for {len(self.alpha)} residues")

    def contacts(self, atom: Atom = "cb", cutoff: float = 8.0) -> Contacts:
        """Pairs of residues whose `atom`s are closer than `cutoff` angstrom."""
        xyz = self.beta if atom == "cb" else self.alpha
        resolved = np.isfinite(xyz).all(axis=1)
        distances = np.linalg.norm(xyz[:, None] - xyz[None, :], axis=-1)
        pairs = np.where(np.isnan(distances), np.inf, distances) < cutoff
        np.fill_diagonal(pairs, False)
        return Contacts(pairs, resolved)


@dataclass(frozen=True, eq=False)
class Atoms:
    """Every heavy atom of the residues of one chain that are there, in file order.

    `residue` says which residue of `sequence` an atom belongs to; positions are in angstrom. `b_factor` is what the
    file's column of that name holds: an uncertainty in a crystal structure, pLDDT in a predicted one.
    """

    sequence: str
    name: tuple[str, ...]
    element: tuple[str, ...]
    residue: Int64[np.ndarray, " A"]
    position: Float64[np.ndarray, "A 3"]
    b_factor: Float64[np.ndarray, " A"]

    def __post_init__(self) -> None:
        counts = {len(self.name), len(self.element), len(self.residue), len(self.position), len(self.b_factor)}
        if len(counts) != 1:
            raise ValueError(f"atoms with columns of different lengths: {sorted(counts)}")


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


@dataclass(frozen=True)
class Chains:
    """The chains of a complex in one sequence: half-open spans in order; residues between two are a linker.

    The model sees each chain after the first `index_gap` residues further on. As text:
    "0:120 145:265 +200", the last word where there is a gap. Raises ValueError for spans that overlap or are empty.
    """

    spans: tuple[tuple[int, int], ...]
    index_gap: int = 0

    def __post_init__(self) -> None:
        bounds = [bound for span in self.spans for bound in span]
        if not bounds or bounds[0] != 0 or bounds != sorted(bounds) or any(start == stop for start, stop in self.spans):
            raise ValueError(f"chains at {self.spans}: they start at 0, are not empty and do not overlap")
        if self.index_gap < 0:
            raise ValueError(f"index_gap={self.index_gap}; it is 0 or more residues")

    def __str__(self) -> str:
        words = [f"{start}:{stop}" for start, stop in self.spans]
        return " ".join([*words, *([f"+{self.index_gap}"] if self.index_gap else [])])

    @classmethod
    def parse(cls, text: str) -> "Chains | None":
        """The inverse of `str`; None for an empty text, which stands for a single chain."""
        words = text.split()
        gap = int(words.pop()[1:]) if words and words[-1].startswith("+") else 0
        spans = [word.split(":") for word in words]
        return cls(tuple((int(start), int(stop)) for start, stop in spans), gap) if words else None

    @classmethod
    def of(cls, length: int, breaks: Sequence[int], linkers: Sequence[Sequence[int]], index_gap: int) -> "Chains":
        """From the attributes of a store: where chains after the first start, and the linkers before them."""
        stop_before = {stop: start for start, stop in linkers}
        stops = [*(stop_before.get(start, start) for start in breaks), length]
        return cls(tuple(zip([0, *breaks], stops, strict=True)), index_gap)

    @property
    def breaks(self) -> tuple[int, ...]:
        """The first residues of the second chain and those after it, as indices into the sequence, from 0."""
        return tuple(start for start, _ in self.spans[1:])

    @property
    def linkers(self) -> tuple[tuple[int, int], ...]:
        """Half-open spans of the residues that belong to no chain and are never scored."""
        stops = [stop for _, stop in self.spans[:-1]]
        return tuple((stop, start) for stop, start in zip(stops, self.breaks, strict=True) if start > stop)

    def positions(self) -> Int64[np.ndarray, " L"] | None:
        """The residue index that the model is given for every residue; None where it is 0, 1, ..., L - 1."""
        if not self.index_gap:
            return None
        indices = np.arange(self.spans[-1][1], dtype=np.int64)
        for start in self.breaks:
            indices[start:] += self.index_gap
        return indices


@dataclass(frozen=True, eq=False)
class Protein:
    """One sequence to compute, clean (see `alphabet.clean`), with its structure where one is known.

    `source` says where it came from in words a user can act on ("my.fasta, record 3"); `note` says what was changed on
    reading, or is empty. `chains` is None for a single chain, else where those of a complex lie in the sequence.
    `residue_numbers` are the author's, with insertion codes ("52", "52A", "-3"), one for each residue and empty where
    it is not known; None where there is no structure to number them.
    """

    id: str
    sequence: str
    source: str = ""
    note: str = ""
    structure: Structure | None = None
    chains: Chains | None = None
    residue_numbers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _make_plain(self, "id", "source", "note")
        if not self.id:
            raise ValueError(f"a protein without an id ({self.source or 'no source'})")
        if not self.sequence:
            raise ValueError(f"{self.id}: the sequence is empty")
        if self.chains is not None and self.chains.spans[-1][1] != len(self.sequence):
            raise ValueError(f"{self.id}: chains at {self.chains} of a sequence of {len(self.sequence)} residues")
        if self.residue_numbers is not None and len(self.residue_numbers) != len(self.sequence):
            raise ValueError(f"{self.id}: {len(self.residue_numbers)} residue numbers, {len(self.sequence)} residues")

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True)
class Rejected:
    """A record of the input that could not become a `Protein`; it is reported, and the others are computed."""

    id: str
    reason: str
    source: str = ""

    def __post_init__(self) -> None:
        _make_plain(self, "id", "reason", "source")


@dataclass(frozen=True)
class Filtered:
    """A record that a filter of the dataset left out (by length, say): listed in the manifest, not a failure."""

    id: str
    reason: str
    source: str = ""
    length: int = 0

    def __post_init__(self) -> None:
        _make_plain(self, "id", "reason", "source")


def plain(text: str) -> str:
    """A name that any terminal and any file can hold: bytes of file names that are no UTF-8 as letters of Latin-1,
    control characters and those that turn the direction of writing as escapes such as \\x1b."""
    if text.isprintable():
        return text
    return "".join(_plain_letter(letter) for letter in text)


def _plain_letter(letter: str) -> str:
    code, kind = ord(letter), unicodedata.category(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return _plain_letter(chr(code - 0xDC00))
    if kind in ("Cc", "Cs", "Zl", "Zp") or code in _DIRECTIONS:
        return letter.encode("unicode_escape").decode()
    return letter


_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}


def _make_plain(record: object, *names: str) -> None:
    for name in names:
        object.__setattr__(record, name, plain(getattr(record, name)))


@dataclass(frozen=True, order=True)
class Segment:
    """Two windows of residues, half-open, whose contacts with each other are watched; a single window stands twice.

    Both are of one size and in order along the sequence. Whether they lie within a protein is not known here.
    """

    start1: int
    stop1: int
    start2: int
    stop2: int

    def __post_init__(self) -> None:
        if not (self.start1 < self.stop1 and self.stop2 - self.start2 == self.stop1 - self.start1):
            raise ValueError(f"{self}: two windows of one size, each with at least one residue")
        if not self.is_diagonal and self.stop1 > self.start2:
            raise ValueError(f"{self}: the windows of a pair do not overlap, and the first comes first")

    @property
    def is_diagonal(self) -> bool:
        """True for a single window, whose block is on the diagonal of the contact map."""
        return self.start1 == self.start2

    @property
    def windows(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(start, stop) of each window."""
        return (self.start1, self.stop1), (self.start2, self.stop2)

    @property
    def size(self) -> int:
        """Residues of one window."""
        return self.stop1 - self.start1


@dataclass(frozen=True)
class WorkItem:
    """A block of rows start <= i < stop of one protein: what one predict step computes, and one chunk of the store."""

    key: str
    sequence: str
    start: int
    stop: int
    cost: float = 0.0
    chains: Chains | None = None
    id: str = ""
    """The id of the record; by default the key."""
    role: Literal["own", "shared", "joined"] = "own"
    """own: of a protein that one process computes from end to end. Where several share the rows of one, each computes
    some that are `shared`, kept on disk, and one of them puts all of the protein together, `joined`."""
    rows: tuple[int, int] = (0, 0)
    """The rows of the protein that are computed, first <= i < last; by default all of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or self.key)
        if self.rows == (0, 0):
            object.__setattr__(self, "rows", (0, len(self.sequence)))
        if not 0 <= self.rows[0] <= self.start < self.stop <= self.rows[1] <= len(self.sequence):
            raise ValueError(f"{self.key}: rows {self.start}:{self.stop} of {len(self.sequence)} residues")

    @property
    def is_first(self) -> bool:
        """True for the first item of its protein."""
        return self.start == self.rows[0]

    @property
    def is_last(self) -> bool:
        """True for the item that completes its protein."""
        return self.stop == self.rows[1]


@dataclass(frozen=True)
class Failure:
    """Reason why a protein could not be computed; the others of the run continue."""

    item: WorkItem
    reason: str
    trace: str = ""
