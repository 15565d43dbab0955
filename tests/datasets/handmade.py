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
