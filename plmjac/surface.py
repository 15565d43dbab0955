"""The hydrophobic surface of a structure: accessible area, and spatial aggregation propensity (SAP).

A fold that lost a part of itself shows what the part had covered; that is how Zhang et al. (PNAS 2024) judge predicted
structures of isoforms that should not fold. Areas are Shrake and Rupley's, with Biopython's radii; no solvent model, no
energies.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from Bio.PDB.SASA import ATOMIC_RADII
from jaxtyping import Bool, Float64
from scipy.spatial import cKDTree

from plmjac.records import Atoms

HYDROPHOBICITY = {
    "A": 0.616, "R": 0.000, "N": 0.236, "D": 0.028, "C": 0.680, "Q": 0.251, "E": 0.043, "G": 0.501, "H": 0.165,
    "I": 0.943, "L": 0.943, "K": 0.283, "M": 0.738, "F": 1.000, "P": 0.711, "S": 0.359, "T": 0.450, "W": 0.878,
    "Y": 0.880, "V": 0.825,
}  # fmt: skip
"""Scale of Black and Mould (1991); SAP takes it relative to glycine."""

EXPOSED_SIDE_CHAIN = {
    "A": 69.41, "R": 201.25, "N": 106.24, "D": 102.69, "C": 96.75, "Q": 140.99, "E": 134.74, "G": 32.33, "H": 147.08,
    "I": 137.96, "L": 141.12, "K": 163.30, "M": 156.64, "F": 164.11, "P": 119.90, "S": 78.11, "T": 101.70, "W": 211.26,
    "Y": 177.38, "V": 114.28,
}  # fmt: skip
"""Square angstrom of a side chain in an extended Ala-X-Ala (Hubbard and Thornton 1993; glycine: its C-alpha)."""

POINTS = 2000
"""Points on each atom's sphere: the hydrophobic area of a domain of 90 residues (960 square angstrom) then differs by
less than 3 between orientations; with 100 it is 32."""

DEFAULT_RADIUS = 2.0
"""Angstrom, for an element without a radius."""

BACKBONE = frozenset({"N", "CA", "C", "O", "OXT"})


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of each residue of a chain; unknown residues (X) show no hydrophobic area and have SAP 0.

    `area` is all of it and `hydrophobic` that of the side chains of residues more hydrophobic than glycine, both in
    square angstrom; `sap` is the mean over the residue's atoms.
    """

    area: Float64[np.ndarray, " L"]
    hydrophobic: Float64[np.ndarray, " L"]
    sap: Float64[np.ndarray, " L"]


def relative_hydrophobicity(letter: str) -> float:
    """Black and Mould's value of an amino acid minus glycine's; 0 for a letter that is none of the 20."""
    return HYDROPHOBICITY.get(letter, HYDROPHOBICITY["G"]) - HYDROPHOBICITY["G"]


def surface(atoms: Atoms, *, radius: float = 5.0, probe: float = 1.4, points: int = POINTS) -> Surface:
    """Accessible area, hydrophobic area and SAP of each residue; the chain is taken alone.

    SAP of an atom (Chennamsetty et al. 2009): over the residues with side-chain atoms within `radius` angstrom of it,
    the sum of hydrophobicity times the accessible area of those atoms, as a share of that of the exposed side chain.
    """
    areas = accessible_area(atoms, probe, points)
    length = len(atoms.sequence)
    hydrophobicity = np.array([relative_hydrophobicity(letter) for letter in atoms.sequence])
    exposed = np.array([EXPOSED_SIDE_CHAIN.get(letter, np.inf) for letter in atoms.sequence])
    side = side_chain(atoms)
    weights = np.where(side, areas * (hydrophobicity / exposed)[atoms.residue], 0.0)
    near = cKDTree(atoms.position).query_ball_point(atoms.position, radius)
    sap_of_atoms = np.array([weights[neighbours].sum() for neighbours in near])
    count = np.bincount(atoms.residue, minlength=length)
    hydrophobic = side & (hydrophobicity > 0)[atoms.residue]
    return Surface(
        np.bincount(atoms.residue, areas, length),
        np.bincount(atoms.residue, np.where(hydrophobic, areas, 0.0), length),
        np.bincount(atoms.residue, sap_of_atoms, length) / count,
    )


def side_chain(atoms: Atoms) -> Bool[np.ndarray, " A"]:
    """Mask of side-chain atoms; glycine, which has none, counts with its C-alpha."""
    glycine = np.array([atoms.sequence[number] == "G" for number in atoms.residue])
    names = np.array(atoms.name)
    chosen: Bool[np.ndarray, " A"] = ~np.isin(names, sorted(BACKBONE)) | (glycine & (names == "CA"))
    return chosen


def accessible_area(atoms: Atoms, probe: float = 1.4, points: int = POINTS) -> Float64[np.ndarray, " A"]:
    """Solvent-accessible area of each atom in square angstrom (Shrake and Rupley 1973)."""
    radii = np.array([ATOMIC_RADII.get(element.upper(), DEFAULT_RADIUS) for element in atoms.element]) + probe
    sphere = _sphere(points)
    tree = cKDTree(atoms.position)
    shown = np.zeros(len(radii))
    for number, near in enumerate(tree.query_ball_point(atoms.position, radii + radii.max())):
        near.remove(number)
        between, radius = atoms.position[near] - atoms.position[number], radii[number]
        # A point of the sphere is inside a neighbour where its height towards it is above this.
        heights = (radius**2 - radii[near] ** 2 + (between**2).sum(axis=1)) / (2 * radius)
        shown[number] = (sphere @ between.T <= heights).all(axis=1).mean()
    return 4 * np.pi * radii**2 * shown


@lru_cache
def _sphere(points: int) -> Float64[np.ndarray, "P 3"]:
    """Points evenly over the unit sphere, along a golden spiral."""
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(points)
    z = 1 - (2 * np.arange(points) + 1) / points
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)
