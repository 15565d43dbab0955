"""Secondary structure from backbone atoms: H, E or - for every residue, as pydssp assigns them.

Zhang et al. (2024) chose pairs of segments by it. Unresolved residues are -, and make no hydrogen bonds. DSSP's finer
classes, bends and turns, are not told apart.
"""

import numpy as np
import pydssp.pydssp_numpy as pydssp
from jaxtyping import Float64

MIN_RESIDUES = 6
"""pydssp's patterns reach five residues ahead."""


def secondary_structure(backbone: Float64[np.ndarray, "L 4 3"]) -> str:
    """One letter a residue from the positions of N, C-alpha, C and O in angstrom, NaN where unresolved."""
    length = len(backbone)
    if length < MIN_RESIDUES:
        return "-" * length
    with np.errstate(all="ignore"):  # NaN compares as no bond
        _, helix, strand = pydssp.assign(backbone).T
    there = np.isfinite(backbone).all(axis=(1, 2))
    return "".join(
        "H" if is_helix and resolved else "E" if is_strand and resolved else "-"
        for is_helix, is_strand, resolved in zip(helix, strand, there, strict=True)
    )


def fitted(letters: str, sequence: str) -> str:
    """Letters that were assigned without the unknown residues (X) of a sequence, brought to its length with - there.

    Letters of any other length come back as they are.
    """
    if len(letters) != len(sequence) - sequence.count("X"):
        return letters
    rest = iter(letters)
    return "".join("-" if residue == "X" else next(rest) for residue in sequence)
