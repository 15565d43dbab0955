"""Relatives of the demo's domains that training never saw, as PDB files: more domains than ten to measure on.

    python scripts/relatives.py FOLDER runs/relatives --families PF00076 PF00018 --number 3
    python -m plmjac.predict +dataset=pdb dataset.path=runs/relatives store=runs/relatives.zarr

Of the held-out tenth of each family (scripts/tiny/data.py) the sequences with the fewest gaps are put on the backbone
of the family's crystal structure: its residues are renamed, those in front of a gap left out. The contacts are thus
those of the family's structure; a relative's own may differ where the fold does.
"""

import argparse
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Int8
from tiny.data import Family, load_families

from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution import GAP


def fullest(family: Family, number: int) -> list[Int8[np.ndarray, " L"]]:
    """The `number` held-out rows with the fewest gaps in the query's columns, those columns only."""
    rows = family.held_out[:, family.columns]
    order = np.argsort((rows == GAP).sum(axis=1), kind="stable")
    return [rows[k] for k in order[:number]]


def threaded(chain: gemmi.Chain, start: int, row: Int8[np.ndarray, " L"], name: str) -> gemmi.Structure:
    """The chain's residues from `start` on under the names of the row's amino acids, without those at gaps."""
    kept = gemmi.Chain("A")
    for k in np.flatnonzero(row != GAP).tolist():
        residue = chain[start + k].clone()
        residue.name = gemmi.expand_one_letter(AMINO_ACIDS[row[k]], gemmi.ResidueKind.AA)
        residue.het_flag = "A"
        kept.add_residue(residue)
    model = gemmi.Model(1)
    model.add_chain(kept)
    structure = gemmi.Structure()
    structure.name = name
    structure.add_model(model)
    return structure


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with alignments/, structures/ and queries.fasta")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--families", nargs="*", default=[], help="names of alignments; none means all")
    parser.add_argument("--number", type=int, default=3, help="relatives of each family")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for family in load_families(arguments.folder, arguments.families):
        chain = gemmi.read_structure(str(arguments.folder / "structures" / f"{family.structure}.pdb"))[0][0]
        residues = gemmi.Chain("A")
        for residue in chain:
            if gemmi.find_tabulated_residue(residue.name).is_amino_acid():
                residues.add_residue(residue)
        letters = "".join(gemmi.find_tabulated_residue(residue.name).one_letter_code.upper() for residue in residues)
        start = letters.index(family.query)
        for number, row in enumerate(fullest(family, arguments.number), start=1):
            name = f"{family.structure.split('_')[0]}_{number}"
            threaded(residues, start, row, name).write_pdb(str(arguments.out / f"{name}.pdb"))


if __name__ == "__main__":
    main()
