"""Ten real domains with their contacts, shipped in the package, so that everything can be tried offline.

The sequence is the stretch of the structure's chain that is aligned to its family, which is what the bundled model was
trained on; contacts come as lists for the two usual definitions, not as coordinates. scripts/make_demo.py wrote
demo.json; the structures are from the PDB, the domains among those of Ollikainen and Kortemme (2013), PLoS Comput Biol
9, e1003313.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Bool

from plmjac.datasets.base import InputError, Record, as_list
from plmjac.files import nearest, shorten
from plmjac.records import Atom, ContactList, Contacts, Protein

DEFINITIONS: dict[str, tuple[Atom, float]] = {"cb_8": ("cb", 8.0), "ca_10": ("ca", 10.0)}
"""Names in demo.json of the contact definitions: atom and distance in angstrom."""


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
            resolved = np.ones(length, dtype=bool)
            resolved[domain["unresolved"]] = False
            known = {
                definition: Contacts(unpack_pairs(domain["contacts"][name], length), resolved)
                for name, definition in DEFINITIONS.items()
            }
            part = f"residues {domain['start'] + 1} to {domain['start'] + length} of PDB {domain['id']}"
            source = f"demo, {domain['pfam']} ({domain['name']}), {part}"
            yield Protein(domain["id"], domain["sequence"], source, "", ContactList(known))


def pack_pairs(pairs: Bool[np.ndarray, "L L"]) -> list[str]:
    """A symmetric contact map as text, one line per residue i: its partners j > i as ranges, "3-6 12", from 0."""
    rows = []
    for i, row in enumerate(pairs):
        partners = [j for j in np.flatnonzero(row).tolist() if j > i]
        starts = [j for j in partners if j - 1 not in partners]
        ends = [j for j in partners if j + 1 not in partners]
        rows.append(" ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in zip(starts, ends, strict=True)))
    return rows


def unpack_pairs(rows: list[str], length: int) -> Bool[np.ndarray, "L L"]:
    """The symmetric (length, length) contact map that `pack_pairs` wrote."""
    pairs = np.zeros((length, length), dtype=bool)
    for i, row in enumerate(rows):
        for span in row.split():
            start, _, end = span.partition("-")
            pairs[i, int(start) : int(end or start) + 1] = True
    return pairs | pairs.T
