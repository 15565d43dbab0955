"""Table of the atoms of a structure file's first model, and of the sequences that the file lists.

Nothing is interpreted here: every ATOM and HETATM record is a row, in file order. Read by `pdb_table`, `mmcif_table`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

NO_NUMBER = -(10**9)
"""Number of a residue without one."""


@dataclass(frozen=True)
class SequenceTable:
    """The sequence of a chain as listed in the file, resolved or not; `numbers` are the author's, if given."""

    names: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class AtomTable:
    """The atoms of the first model, one row each, and the sequences, parents and models that the file lists.

    A missing `number` is NO_NUMBER, a missing `label` 0; `ter` counts the TER records above a row. The keys of
    `sequences` are chains in a PDB file (which may list several for one), `asym` and `entity` in mmCIF.
    """

    name: Shaped[np.ndarray, " A"]
    residue: Shaped[np.ndarray, " A"]
    chain: Shaped[np.ndarray, " A"]
    number: Int64[np.ndarray, " A"]
    insertion: Shaped[np.ndarray, " A"]
    altloc: Shaped[np.ndarray, " A"]
    occupancy: Float64[np.ndarray, " A"]
    position: Float64[np.ndarray, "A 3"]
    b_factor: Float64[np.ndarray, " A"]
    element: Shaped[np.ndarray, " A"]
    is_hetero: Bool[np.ndarray, " A"]
    segment: Shaped[np.ndarray, " A"]
    ter: Int64[np.ndarray, " A"]
    asym: Shaped[np.ndarray, " A"]
    entity: Shaped[np.ndarray, " A"]
    label: Int64[np.ndarray, " A"]
    is_mmcif: bool = False
    sequences: Mapping[str, list[SequenceTable]] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    models: int = 1
    structures: int = 1

    def __len__(self) -> int:
        return len(self.name)

    def sequence(self, asym: str, entity: str) -> SequenceTable | None:
        """Sequence of an mmCIF polymer; None if the file lists none."""
        return next(iter(self.sequences.get(f"asym {asym}") or self.sequences.get(f"entity {entity}") or []), None)

    def is_in_sequence(self, row: int) -> bool:
        """True if the residue of this atom is in mmCIF's sequence at its label_seq_id."""
        label = int(self.label[row])
        table = self.sequence(str(self.asym[row]), str(self.entity[row])) if label else None
        return table is not None and label <= len(table.names) and str(self.residue[row]) in table.names[label - 1]


def decimal(text: str | bytes, default: float) -> float:
    """A decimal number of a file, `default` where it is none."""
    try:
        return float(text)
    except ValueError:
        return default
