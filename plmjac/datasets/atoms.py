"""Read every heavy atom of one protein chain, where a surface is asked for and not only contacts.

Model 1 only, one alternative location an atom, no hydrogens, no ligands, no water. Residues that the file does not
have are not in the sequence: this reader knows no SEQRES. gemmi does the parsing.
"""

import itertools
from pathlib import Path

import gemmi
import numpy as np

from plmjac.datasets.base import InputError
from plmjac.datasets.compressed import DamagedFile
from plmjac.datasets.structure_file import parse, residue_letter
from plmjac.records import Atoms


def read_atoms(path: Path, chain: str | None = None) -> Atoms:
    """The heavy atoms of a chain of a PDB or mmCIF file (also .gz), of its first protein chain by default.

    Raises InputError naming the file where it cannot be read or has no such chain.
    """
    try:
        structure = parse(path)
    except (OSError, DamagedFile, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a PDB or mmCIF structure ({' '.join(str(error).split())})"
        ) from error
    chains = [each for each in (structure[0] if len(structure) else []) if _residues(each)]
    chosen = [each for each in chains if chain in (None, each.name)]
    if not chosen:
        names = " ".join(each.name for each in chains) or "none"
        raise InputError(f"{path} has no protein chain {chain or ''}; its protein chains: {names}")
    return _atoms(_residues(chosen[0]))


def _residues(chain: gemmi.Chain) -> list[gemmi.Residue]:
    """The first residue at each number that is an amino acid with a C-alpha."""
    groups = itertools.groupby(chain, key=lambda residue: str(residue.seqid))
    firsts = (next(residues) for _, residues in groups)
    return [
        residue
        for residue in firsts
        if gemmi.find_tabulated_residue(residue.name).is_amino_acid() and any(atom.name == "CA" for atom in residue)
    ]


def _atoms(residues: list[gemmi.Residue]) -> Atoms:
    rows = []
    for number, residue in enumerate(residues):
        best: dict[str, gemmi.Atom] = {}
        for atom in residue:
            known = best.get(atom.name)
            if not atom.is_hydrogen() and (known is None or atom.occ > known.occ):
                best[atom.name] = atom
        rows += [
            (name, atom.element.name.upper(), number, atom.pos.tolist(), atom.b_iso) for name, atom in best.items()
        ]
    names, elements, numbers, positions, b_factors = zip(*rows, strict=True)
    return Atoms(
        "".join(residue_letter(residue.name) for residue in residues),
        tuple(names),
        tuple(elements),
        np.array(numbers, dtype=np.int64),
        np.array(positions, dtype=np.float64),
        np.array(b_factors, dtype=np.float64),
    )
