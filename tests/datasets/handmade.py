"""Structure files made by hand, line by line, and the comparison with what they should be read as."""

from pathlib import Path
from typing import Any

import numpy as np

from plmjac.datasets.pdb import PdbDataset
from plmjac.records import Protein

ATOM_FIELDS = ["group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
               "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
               "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num"]  # fmt: skip


def atom(
    name: str, residue: str, chain: str, number: int, xyz: tuple[float, float, float], *, occupancy: float = 1.0,
    altloc: str = " ", insertion: str = " ", serial: int = 1, kind: str = "ATOM", element: str = "C",
) -> str:  # fmt: skip
    """One ATOM line of the PDB format, columns as in its version 3.3."""
    x, y, z = xyz
    return (
        f"{kind:<6}{serial:5d} {name:^4}{altloc}{residue:>3} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{10:6.2f}          {element:>2}"
    )


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def only(path: Path, **arguments: Any) -> Any:
    """The one record of a file."""
    (record,) = PdbDataset(path=str(path), **arguments)
    return record


def backbone(chain: str, names: list[str], first: int = 1) -> list[str]:
    """C-alphas 3.8 A apart along x, with a C-beta 1.5 A above each but glycine's."""
    lines = []
    for number, name in enumerate(names, start=first):
        lines.append(atom("CA", name, chain, number, (3.8 * number, 0, 0)))
        if name != "GLY":
            lines.append(atom("CB", name, chain, number, (3.8 * number, 1.5, 0)))
    return lines


def check(protein: Protein, alpha: list[Any], beta: list[Any]) -> None:
    assert protein.structure is not None
    np.testing.assert_allclose(protein.structure.alpha, alpha)  # type: ignore[attr-defined]
    np.testing.assert_allclose(protein.structure.beta, beta)  # type: ignore[attr-defined]


def mmcif(path: Path, kind: str, names: list[str], rows: list[str], numbers: list[int] | None = None) -> Path:
    """A minimal mmCIF file of one polymer entity."""
    numbers = numbers or list(range(1, len(names) + 1))
    path.write_text(
        "data_TEST\nloop_\n_entity.id\n_entity.type\n1 polymer\n"
        f"loop_\n_entity_poly.entity_id\n_entity_poly.type\n1 '{kind}'\n"
        "loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n"
        + "".join(f"1 {number} {name}\n" for number, name in zip(numbers, names, strict=True))
        + "loop_\n_struct_asym.id\n_struct_asym.entity_id\n"
        + "".join(f"{label} 1\n" for label in sorted({row.split()[6] for row in rows}))
        + "loop_\n"
        + "".join(f"_atom_site.{field}\n" for field in ATOM_FIELDS)
        + "\n".join(rows)
        + "\n"
    )
    return path


SEQUENCE = "MKTAYIAKQRHISFVKSHFCRQLEERLGLIEV"
_THREE_LETTERS = """
ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL UNK
"""
THREE = dict(zip("ARNDCQEGHILKMFPSTWYVX", _THREE_LETTERS.split(), strict=True))


def fold(length: int, seed: int = 0, at: float = 0.0) -> np.ndarray[Any, Any]:
    """N, CA, C, O and CB of a chain with the bonds and angles of a peptide, (length, 5, 3) in angstrom."""
    random = np.random.default_rng(seed)
    n, ca, c = np.array([at, 0, 0]), np.array([at + 1.458, 0, 0]), np.array([at + 2.005, 1.42, 0])
    atoms = []
    for _ in range(length):
        phi, psi = [(-60, -45), (-120, 130)][random.integers(2)] + random.uniform(-20, 20, 2)
        atoms.append([n, ca, c, _next(n, ca, c, 1.23, 120, psi + 180), _next(c, n, ca, 1.53, 110, -120)])
        n, ca_before, c_before = _next(n, ca, c, 1.33, 116, psi), ca, c
        ca = _next(ca_before, c_before, n, 1.458, 122, 180)
        c = _next(c_before, n, ca, 1.52, 111, phi)
    return np.array(atoms)


def _next(a: Any, b: Any, c: Any, bond: float, angle: float, torsion: float) -> np.ndarray[Any, Any]:
    """The atom behind a, b and c, by bond length, angle and torsion in degrees."""
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    angle, torsion = np.radians(angle), np.radians(torsion)
    sideways = np.cos(torsion) * np.cross(normal, along) + np.sin(torsion) * normal
    return np.asarray(c + bond * (-np.cos(angle) * along + np.sin(angle) * sideways))


def peptide(
    names: list[str], atoms: np.ndarray[Any, Any], chain: str = "A", numbers: list[str] | None = None, *,
    segment: str = "", hetero: tuple[str, ...] = ("MSE",), kept: tuple[str, ...] = ("N", "CA", "C", "O", "CB"),
) -> list[str]:  # fmt: skip
    """ATOM lines of residues, one list of names, atoms and numbers ("52", "52A") of equal length."""
    lines = []
    numbers = numbers or [str(number) for number in range(1, len(names) + 1)]
    for name, five, number in zip(names, atoms, numbers, strict=True):
        plain = number.rstrip("ABCDEFGH")
        for atom_name, xyz in zip(("N", "CA", "C", "O", "CB"), five, strict=True):
            if atom_name not in kept or (atom_name == "CB" and name == "GLY"):
                continue
            kind = "HETATM" if name in hetero else "ATOM"
            columns = f"{name:>3}{' ' * (len(name) < 4)}{chain:>1}{plain:>4}{number[len(plain) :] or ' '}"
            x, y, z = xyz
            lines.append(f"{kind:<6}{1:5d}  {atom_name:<3} {columns}   {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{20:6.2f}"
                         f"      {segment:<4}{atom_name[0]:>2}")  # fmt: skip
    return lines


def seqres(names: list[str], chain: str = "A") -> list[str]:
    """SEQRES lines, 13 residues each."""
    return [f"SEQRES {row + 1:3d} {chain} {len(names):4d}  {' '.join(names[13 * row : 13 * row + 13])}"
            for row in range((len(names) + 12) // 13)]  # fmt: skip


def other(name: str, chain: str, number: int, atom_name: str = "C1", kind: str = "HETATM") -> str:
    """One atom of something that is no amino acid, far away."""
    element = atom_name[0]
    return atom(atom_name, name, chain, number, (60, 50, 40), kind=kind, element=element)


def cif(path: Path, rows: list[dict[str, str]], *loops: str) -> Path:
    """An mmCIF file of atoms, given by their fields, and of whatever loops stand before them."""
    fields = list(rows[0])
    lines = ["data_X", *loops, "loop_", *(f"_atom_site.{field}" for field in fields)]
    path.write_text("\n".join([*lines, *(" ".join(row[field] for field in fields) for row in rows), ""]))
    return path


def cif_rows(names: list[str], atoms: np.ndarray[Any, Any], **fields: Any) -> list[dict[str, str]]:
    """Rows of atom_site; a field is one text for all, or one for each residue."""
    rows = []
    for number, (name, five) in enumerate(zip(names, atoms, strict=True)):
        own = {key: value if isinstance(value, str) else value[number] for key, value in fields.items()}
        for atom_name, xyz in zip(("N", "CA", "C", "O", "CB"), five, strict=True):
            place = dict(zip(("Cartn_x", "Cartn_y", "Cartn_z"), (f"{value:.3f}" for value in xyz), strict=True))
            rows.append({"group_PDB": "HETATM" if name == "MSE" else "ATOM", "id": str(len(rows) + 1),
                         "type_symbol": atom_name[0], "label_atom_id": atom_name, "label_alt_id": ".",
                         "label_comp_id": name, **own, **place})  # fmt: skip
    return rows
