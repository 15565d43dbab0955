"""PDB files made from a sequence and a random coil."""

import numpy as np

from plmjac.datasets.structure_file import residue_letter

NAMES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"
THREE = {residue_letter(name): name for name in NAMES.split(" ")}


def walk(length: int, seed: int = 0) -> np.ndarray:
    """A compact random coil of 3.8 A steps, so that there are contacts."""
    rng = np.random.default_rng(seed)
    xyz = [np.zeros(3)]
    while len(xyz) < length:
        step = rng.normal(size=3) - 0.08 * xyz[-1]
        xyz.append(xyz[-1] + 3.8 * step / np.linalg.norm(step))
    return np.array(xyz)


def pdb_text(sequence: str, seed: int = 0, chain: str = "A", first: int = 1) -> str:
    """A PDB file of C-alphas with SEQRES."""
    names = [THREE[letter] for letter in sequence]
    lines = [
        f"SEQRES {row // 13 + 1:3d} {chain} {len(names):4d}  {' '.join(names[row : row + 13])}"
        for row in range(0, len(names), 13)
    ]
    for number, (name, (x, y, z)) in enumerate(zip(names, walk(len(names), seed), strict=True)):
        lines.append(
            f"ATOM  {number + 1:5d}  CA  {name} {chain}{number + first:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00"
            "           C"
        )
    return "\n".join([*lines, "TER", "END", ""])
