"""The one-letter code of a residue name: of the chemical component dictionary, of a force field, or of its parent."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import gemmi

from plmjac.alphabet import AMINO_ACIDS, NONCANONICAL

_PROTONATED = {
    "H": "HID HIE HIP HSD HSE HSP HISA HISB HISH HIS1 HIS2 HISD HISE HISP HDD HED",
    "C": "CYX CYM CYN CYSH CYS1 CYS2 CYSX",
    "D": "ASH ASPH ASPP AS4",
    "E": "GLH GLUH GLUP GL4",
    "K": "LYN LYSH LYSN LSN LYP",
    "R": "ARGN ARN",
    "Y": "TYM TYRU",
}
"""Names that AMBER, CHARMM, GROMACS, GROMOS and OPLS give to states of protonation and to disulphides."""

_FORCE_FIELD = {name: letter for letter, names in _PROTONATED.items() for name in names.split()}

CAPS = frozenset(["ACE", "NME", "NMA", "NH2", "NHE", "FOR", "CT1", "CT2", "CT3", "NTER", "CTER"])
"""Groups that close the end of a chain; they have no amino acid's letter and are never residues."""


def residue_letter(name: str, parents: Mapping[str, str] = MappingProxyType({})) -> str:
    """One letter for a residue name; a modified residue gets that of its parent, an unknown one X.

    The parent that a file names comes first: HSE is a histidine in force fields, and homoserine in the PDB.
    """
    return next((letter for each in (parents.get(name, ""), name) if (letter := letter_of(each)) not in ("", "X")), "X")


@lru_cache(maxsize=4096)
def letter_of(name: str) -> str:
    """The letter of an amino acid, X for UNK, and nothing for what is no amino acid."""
    if name in CAPS:
        return ""
    if name in _FORCE_FIELD:
        return _FORCE_FIELD[name]
    residue = gemmi.find_tabulated_residue(name)
    if residue.is_amino_acid():
        letter = residue.one_letter_code.upper()
        return letter if letter in AMINO_ACIDS + NONCANONICAL else "X"
    # AMBER writes NMET and CVAL for the residues at the ends of a chain.
    return letter_of(name[1:]) if len(name) == 4 and name[0] in "NC" else ""


@lru_cache(maxsize=4096)
def is_never_a_residue(name: str) -> bool:
    """True if the name stands for a cap, a nucleotide or water."""
    known = gemmi.find_tabulated_residue(name)
    return name in CAPS or known.is_nucleic_acid() or known.is_water()


def is_of_a_force_field(name: str) -> bool:
    """True if force fields have a name that in the PDB may be another molecule's, such as HED or CYN."""
    return name in _FORCE_FIELD


def is_standard(name: str) -> bool:
    """True if the name is that of an amino acid as it is, in any state of protonation."""
    return name in _FORCE_FIELD or gemmi.find_tabulated_residue(name[-3:]).is_standard()
