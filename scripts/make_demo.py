"""Write plmjac/datasets/demo.json: sequences, C-alpha and C-beta positions of ten domains, from their structures.

    python scripts/make_demo.py FOLDER [--out plmjac/datasets/demo.json]

FOLDER holds domains.csv, queries.fasta and structures/<PDB>_A.pdb as published with Ollikainen and Kortemme (2013).
Only what follows from them is kept: of each chain the residues in the family's columns, which are what the bundled
model was trained on, and where their C-alpha and C-beta atoms are.
"""

import argparse
import csv
import json
import logging
from pathlib import Path

import numpy as np

from plmjac.datasets.demo import pack
from plmjac.datasets.structure_file import read_chains
from plmjac.records import Coordinates, Protein

CHOSEN = {
    "2O9S_A": "b",  # SH3
    "2X1B_A": "a+b",  # RRM
    "2EVB_A": "b",  # biotinyl
    "3GQS_A": "b",  # FHA
    "1T8K_A": "a",  # acyl carrier protein
    "1WVN_A": "a+b",  # KH
    "2O37_A": "a",  # DnaJ
    "1GUU_A": "a",  # Myb DNA-binding
    "1TEN_A": "b",  # fibronectin type III
    "1BXY_A": "a+b",  # ribosomal protein L30
}
SOURCE = (
    "PDB entries as named, public domain (wwPDB); domains chosen from Ollikainen N, Kortemme T (2013) Computational "
    "protein design quantifies structural constraints on amino acid covariation, PLoS Comput Biol 9:e1003313 (data MIT)"
)


def aligned_sequences(folder: Path) -> dict[str, str]:
    """Of each structure the residues that are aligned to its family, from queries.fasta."""
    records = (folder / "queries.fasta").read_text(encoding="utf-8").split(">")[1:]
    lines = [record.splitlines() for record in records]
    return {title.split()[0]: "".join(rest).replace("-", "") for title, *rest in lines}


def domain(folder: Path, row: dict[str, str], aligned: str) -> dict[str, object]:
    """One entry of demo.json, from the structure that a row of domains.csv names and its residues `aligned`."""
    record = read_chains(folder / "structures" / f"{row['pdb']}.pdb")[0].record
    if not isinstance(record, Protein) or not isinstance(record.structure, Coordinates):
        raise SystemExit(f"{row['pdb']}: {record}")
    start = record.sequence.find(aligned)
    if start < 0 or record.sequence.count(aligned) > 1:
        raise SystemExit(f"{row['pdb']}: the residues in queries.fasta are not one stretch of the chain")
    part = slice(start, start + len(aligned))
    atoms = Coordinates(record.structure.alpha[part], record.structure.beta[part])
    if (np.isfinite(atoms.alpha) != np.isfinite(atoms.beta)).any():
        raise SystemExit(f"{row['pdb']}: C-alpha and C-beta are resolved for different residues; choose another domain")
    return {
        "id": record.id,
        "pfam": row["pfam"],
        "name": row["name"],
        "scop_class": row["scop_class"],
        "start": start,
        "sequence": aligned,
        "atoms": pack(atoms),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("plmjac/datasets/demo.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    with (arguments.folder / "domains.csv").open(encoding="utf-8") as file:
        rows = {row["pdb"]: row for row in csv.DictReader(file)}
    aligned = aligned_sequences(arguments.folder)
    domains = [domain(arguments.folder, rows[name], aligned[name]) for name in CHOSEN]
    document = {
        "source": SOURCE,
        "format": "start: where the domain begins in the chain, from 0; "
        "atoms: one text per residue, x y z of C-alpha and then of C-beta in thousandths of an angstrom, C-alpha alone "
        "where it stands for both (glycine), empty where unresolved",
        "domains": domains,
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    logging.getLogger(__name__).info("%d domains in %s", len(domains), arguments.out)


if __name__ == "__main__":
    main()
