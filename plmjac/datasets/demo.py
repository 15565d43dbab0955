"""Ten real domains with C-alpha and C-beta positions, shipped in the package, so that everything can be tried offline.

The sequence is the stretch of the structure's chain that is aligned to its family, which is what the bundled model was
trained on. scripts/make_demo.py wrote demo.json; the structures are from the PDB, the domains among those of Ollikainen
and Kortemme (2013), PLoS Comput Biol 9, e1003313. Other atoms are not there, and so no secondary structure.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float64

from plmjac.datasets.base import InputError, Record, as_list
from plmjac.files import nearest, shorten
from plmjac.records import Coordinates, Protein


class DemoDataset:
    """The shipped domains, or those named in `ids` (`1TEN_A`, in upper or lower case).

    Raises InputError for an id that is not among them.
    """

    def __init__(self, ids: str | list[str] | None = None) -> None:
        self._domains: list[dict[str, Any]] = json.loads(
            files("plmjac.datasets").joinpath("demo.json").read_text(encoding="utf-8")
        )["domains"]
        wanted = {name.upper() for name in as_list(ids)}
        there = [domain["id"] for domain in self._domains]
        if missing := sorted(wanted.difference(there)):
            raise InputError(f"dataset.ids: no demo domain {shorten(missing)}; {nearest(missing[0], there)}")
        if wanted:
            self._domains = [domain for domain in self._domains if domain["id"] in wanted]

    def __iter__(self) -> Iterator[Record]:
        for domain in self._domains:
            length = len(domain["sequence"])
            part = f"residues {domain['start'] + 1} to {domain['start'] + length} of PDB {domain['id']}"
            source = f"demo, {domain['pfam']} ({domain['name']}), {part}"
            yield Protein(domain["id"], domain["sequence"], source, "", unpack(domain["atoms"]))


def pack(structure: Coordinates) -> list[str]:
    """Positions as text, one line per residue: x, y, z of C-alpha and of C-beta, in thousandths of an angstrom.

    Empty for a residue that is not resolved; C-beta is left out where it is the C-alpha, as of glycine.
    """
    lines = []
    for alpha, beta in zip(_thousandths(structure.alpha), _thousandths(structure.beta), strict=True):
        atoms = [atom for atom in (alpha, beta) if np.isfinite(atom).all()]
        numbers = [f"{value:.0f}" for atom in (atoms[:1] if np.array_equal(alpha, beta) else atoms) for value in atom]
        lines.append(" ".join(numbers))
    return lines


def unpack(lines: list[str]) -> Coordinates:
    """The positions that `pack` wrote."""
    alpha, beta = np.full((2, len(lines), 3), np.nan)
    for residue, line in enumerate(lines):
        if line:
            numbers = np.array(line.split(), dtype=np.float64) / 1000
            alpha[residue], beta[residue] = numbers[:3], numbers[-3:]
    return Coordinates(alpha, beta)


def _thousandths(positions: Float64[np.ndarray, "L 3"]) -> Float64[np.ndarray, "L 3"]:
    return np.round(positions * 1000)
