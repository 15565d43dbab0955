"""Hydrophobic surface: SAP against a loop over its definition, areas against those of spheres, a real domain cut."""

import numpy as np
import pytest
from Bio.PDB.Atom import Atom
from Bio.PDB.Residue import Residue
from Bio.PDB.SASA import ShrakeRupley
from scipy.spatial.transform import Rotation
from support import SHARED

from plmjac.datasets.atoms import read_atoms
from plmjac.records import Atoms
from plmjac.surface import BACKBONE, EXPOSED_SIDE_CHAIN, accessible_area, relative_hydrophobicity, surface

STRUCTURES = SHARED / "covariation" / "structures"


def few_atoms(sequence: str, names: list[str], residues: list[int], positions: np.ndarray) -> Atoms:
    return Atoms(sequence, tuple(names), ("C",) * len(names), np.array(residues), positions, np.zeros(len(names)))


def test_a_lone_atom_shows_its_whole_sphere_and_a_buried_one_nothing() -> None:
    lone = few_atoms("A", ["CA"], [0], np.zeros((1, 3)))
    assert accessible_area(lone)[0] == pytest.approx(4 * np.pi * (1.7 + 1.4) ** 2, rel=1e-6)
    shell = np.random.default_rng(0).normal(size=(300, 3))
    cage = np.vstack([np.zeros(3), 2.5 * shell / np.linalg.norm(shell, axis=1, keepdims=True)])
    assert accessible_area(few_atoms("A", ["CA"] * 301, [0] * 301, cage))[0] == 0.0


def test_areas_are_biopythons() -> None:
    """A random ball of atoms of several elements, against Biopython's own Shrake-Rupley with as many points."""
    rng = np.random.default_rng(4)
    count = 150
    elements = tuple(rng.choice(["C", "N", "O", "S", "SE", "FE"], count))
    zeros, position = np.zeros(count), rng.normal(scale=4.0, size=(count, 3))
    atoms = Atoms("A", ("CB",) * count, elements, zeros.astype(np.int64), position, zeros)
    container = Residue((" ", 1, " "), "ALL", "")
    for number, (element, position) in enumerate(zip(atoms.element, atoms.position, strict=True)):
        container.add(Atom(str(number), position, 0.0, 1.0, " ", str(number), number, element))
    ShrakeRupley(probe_radius=1.4, n_points=1500).compute(container, level="A")
    expected = np.array([atom.sasa for atom in container.get_atoms()])
    found = accessible_area(atoms, points=1500)
    assert np.abs(found - expected).max() < 1.5 and found.sum() == pytest.approx(expected.sum(), rel=0.002)


def test_areas_do_not_depend_on_the_orientation() -> None:
    rng = np.random.default_rng(5)
    steps = rng.normal(size=(400, 3))
    position = np.cumsum(1.5 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0) * 0.7
    areas = []
    for seed in range(6):
        turned = position @ Rotation.random(random_state=seed).as_matrix().T
        areas.append(accessible_area(few_atoms("A", ["CB"] * 400, [0] * 400, turned)).sum())
    assert np.ptp(areas) < 0.004 * np.mean(areas)


def test_sap_is_the_definition_atom_by_atom() -> None:
    rng = np.random.default_rng(1)
    sequence, names, residues = "FKGLX", [], []
    for number, letter in enumerate(sequence):
        for name in ["N", "CA", "C", "O"] + (["CB", "CG"] if letter != "G" else []):
            names.append(name)
            residues.append(number)
    atoms = few_atoms(sequence, names, residues, rng.normal(scale=5.0, size=(len(names), 3)))
    areas = accessible_area(atoms)
    expected = np.zeros(len(sequence))
    for number in range(len(sequence)):
        mine = [i for i in range(len(names)) if residues[i] == number]
        for i in mine:
            for other, letter in enumerate(sequence):
                near = [
                    areas[j]
                    for j in range(len(names))
                    if residues[j] == other
                    and (names[j] not in BACKBONE or (letter == "G" and names[j] == "CA"))
                    and np.linalg.norm(atoms.position[i] - atoms.position[j]) <= 6.0
                ]
                if letter != "X":
                    expected[number] += relative_hydrophobicity(letter) * sum(near) / EXPOSED_SIDE_CHAIN[letter]
        expected[number] /= len(mine)
    shown = surface(atoms, radius=6.0)
    np.testing.assert_allclose(shown.sap, expected, atol=1e-12)
    np.testing.assert_allclose(shown.area.sum(), areas.sum())
    assert shown.hydrophobic[1] == shown.hydrophobic[4] == 0 < shown.hydrophobic[0]


def test_the_scale_is_glycines_and_covers_the_twenty() -> None:
    assert relative_hydrophobicity("G") == relative_hydrophobicity("X") == 0
    assert max("ACDEFGHIKLMNPQRSTVWY", key=relative_hydrophobicity) == "F"
    assert min("ACDEFGHIKLMNPQRSTVWY", key=relative_hydrophobicity) == "R"
    assert set(EXPOSED_SIDE_CHAIN) == set("ACDEFGHIKLMNPQRSTVWY")


@pytest.mark.skipif(not STRUCTURES.is_dir(), reason="the real structures are not here")
def test_a_real_domain_has_plausible_areas_and_bares_its_core_when_cut() -> None:
    whole = read_atoms(STRUCTURES / "1TEN_A.pdb")
    kept = np.array([number >= 20 for number in whole.residue])
    cut = Atoms(
        whole.sequence[20:],
        tuple(np.array(whole.name)[kept]),
        tuple(np.array(whole.element)[kept]),
        whole.residue[kept] - 20,
        whole.position[kept],
        whole.b_factor[kept],
    )
    before, after = surface(whole), surface(cut)
    assert 4500 < before.area.sum() < 6000  # a domain of 89 residues, in square angstrom
    assert (after.area >= before.area[20:] - 1e-9).all()  # taking atoms away uncovers, and covers nothing
    assert after.hydrophobic.sum() > before.hydrophobic[20:].sum() + 200
    assert after.sap.sum() > before.sap[20:].sum()
