"""Read every heavy atom of one protein chain, where a surface is asked for and not only contacts.

Model 1 only, one alternative location an atom, no hydrogens, no ligands, no water. Residues that the file does not
have are not in the sequence: this reader knows no SEQRES.
"""

from pathlib import Path

import numpy as np

from plmjac.datasets.atom_table import AtomTable
from plmjac.datasets.base import InputError
from plmjac.datasets.chains import chains_of
from plmjac.datasets.compressed import DamagedFile, TooLarge
from plmjac.datasets.residues import CA, Residue
from plmjac.datasets.structure_file import parse
from plmjac.records import Atoms


def read_atoms(path: Path, chain: str | None = None) -> Atoms:
    """The heavy atoms of a chain of a PDB or mmCIF file (also .gz), of its first protein chain by default.

    Raises InputError naming the file where it cannot be read or has no such chain.
    """
    try:
        table = parse(path)
    except MemoryError:
        raise InputError(f"{path}: there is not enough memory to read it") from None
    except (OSError, DamagedFile, TooLarge, RuntimeError, ValueError, IndexError, KeyError) as error:
        raise InputError(
            f"{path} cannot be read as a PDB or mmCIF structure ({' '.join(str(error).split())})"
        ) from error
    residues = {each.name: [one for one in each.residues if np.isfinite(one.atoms[0][CA]).all()]
                for each in chains_of(table)}  # fmt: skip
    there = [name for name, found in residues.items() if found]
    chosen = [name for name in there if chain in (None, name)]
    if not chosen:
        raise InputError(f"{path} has no protein chain {chain or ''}; its protein chains: {' '.join(there) or 'none'}")
    return _atoms(table, residues[chosen[0]])


def _atoms(table: AtomTable, residues: list[Residue]) -> Atoms:
    rows: list[int] = []
    numbers: list[int] = []
    elements: list[str] = []
    for number, residue in enumerate(residues):
        best: dict[str, int] = {}
        for row in residue.rows[0].tolist():
            name = str(table.name[row])
            known = best.get(name)
            if known is None or table.occupancy[row] > table.occupancy[known]:
                best[name] = row
        for name, row in best.items():
            element = _element(str(table.element[row]), name)
            if element not in ("H", "D"):
                rows.append(row)
                numbers.append(number)
                elements.append(element)
    return Atoms(
        "".join(residue.letter for residue in residues),
        tuple(table.name[rows].tolist()),
        tuple(elements),
        np.array(numbers, dtype=np.int64),
        table.position[rows],
        table.b_factor[rows],
    )


def _element(symbol: str, name: str) -> str:
    """The element of an amino acid's atom: of its column, or from its name where that holds something else."""
    if symbol in ("C", "N", "O", "S", "SE", "P", "H", "D", "F", "CL", "BR", "I", "B"):
        return symbol
    plain = name.strip("0123456789")
    return "SE" if plain == "SE" else plain[:1]
