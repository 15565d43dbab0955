"""Read the protein chains of one structure file: sequence, C-alpha and C-beta, aligned to one another.

The sequence is SEQRES (PDB) or entity_poly_seq (mmCIF) where the file has one, so that unresolved loops keep their
columns; otherwise the residues of the model. Only model 1, only protein chains, only backbone and C-beta are kept;
other atoms, ligands, assemblies and B-factors are dropped. Everything that can be wrong with a file ends as a
`Rejected` that names it. gemmi does the parsing and the alignment.
"""

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import gemmi
import numpy as np
from jaxtyping import Float64

from plmjac.alphabet import AMINO_ACIDS, NONCANONICAL
from plmjac.datasets.compressed import DamagedFile, open_bytes
from plmjac.records import Coordinates, Protein, Rejected

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")

MIN_IDENTITY = 0.9
"""Least fraction of the resolved residues that must agree with SEQRES; below it the columns cannot be trusted."""

BACKBONE = ("N", "CA", "C", "O")
_MAX_BYTES = 4 << 30
_PROTEIN = {gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD}
_NUCLEIC = {gemmi.PolymerType.Dna, gemmi.PolymerType.Rna, gemmi.PolymerType.DnaRnaHybrid, gemmi.PolymerType.Pna}
_CHAIN_BREAK = 4.5
"""Angstrom between neighbouring C-alphas (3.8 in a peptide) beyond which residues are missing in between."""


@dataclass(frozen=True)
class ChainRecord:
    """What became of one chain of an entry; `chain` is None where the file as a whole is rejected."""

    entry: str
    chain: str | None
    record: Protein | Rejected


@dataclass(frozen=True)
class _Site:
    """One position of a chain as the model has it: where in the sequence, and its atoms; `backbone`: N, CA, C, O."""

    column: int | None
    name: str
    beta: Float64[np.ndarray, " 3"]
    backbone: Float64[np.ndarray, "4 3"]


def entry_name(path: Path) -> str:
    """The entry that a file holds: its name without suffixes, a PDB id in upper case (`pdb1ten.ent.gz` -> `1TEN`)."""
    stem = path.name
    for suffix in (".gz", *SUFFIXES):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    if match := re.fullmatch(r"(?:pdb)?([0-9][A-Za-z0-9]{3})", stem):
        return match[1].upper()
    return stem or path.name


def read_chains(path: Path) -> list[ChainRecord]:
    """Every protein chain of the file, in file order, or one `Rejected` for the file; never an exception.

    Ids are `<entry>_<chain>` with the author's chain name; a file `1TEN_A.pdb` that holds a chain A does not repeat it.
    """
    entry = entry_name(path)
    try:
        structure = parse(path)
    except (OSError, DamagedFile) as error:
        return [ChainRecord(entry, None, _reject(entry, path, f"it cannot be read ({error})"))]
    except (RuntimeError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200].replace("string:", "line ")
        return [ChainRecord(entry, None, _reject(entry, path, f"it is not a PDB or mmCIF structure ({reason})"))]
    chains = list(structure[0]) if len(structure) else []
    proteins = [chain for chain in chains if _polymer_type(structure, chain) in _PROTEIN]
    if not proteins:
        return [ChainRecord(entry, None, _reject(entry, path, _why_no_protein(structure, chains)))]
    entry = _without_chain(entry, [chain.name for chain in proteins])
    records = []
    for chain in proteins:
        record_id = f"{entry}_{chain.name}".rstrip("_")  # old files may leave the chain's name blank
        records.append(ChainRecord(entry, chain.name, _read_chain(structure, chain, record_id, path)))
    return records


def _without_chain(entry: str, chains: list[str]) -> str:
    """`1ten_A` of a file with a chain A -> `1TEN`."""
    stem, _, last = entry.rpartition("_")
    if not stem or last not in chains:
        return entry
    return stem.upper() if re.fullmatch("[0-9][A-Za-z0-9]{3}", stem) else stem


def _reject(record_id: str, path: Path, reason: str) -> Rejected:
    return Rejected(record_id, f"{path.name}: {reason}", str(path))


def parse(path: Path) -> gemmi.Structure:
    """gemmi's structure, its format known by content and not by name."""
    with open_bytes(path) as file:
        content = file.read(_MAX_BYTES)
    if not content.strip():
        raise ValueError("the file is empty")
    # One character per byte, or gemmi cuts PDB columns in the middle of a letter.
    text = content.decode("ascii", errors="replace").replace("\ufffd", "?")
    start = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    if start.lstrip().lower().startswith("data_"):
        blocks = [block for block in gemmi.cif.read_string(text) if block.find_values("_atom_site.id")]
        if not blocks:
            raise ValueError("it has no atoms (_atom_site)")
        structure = gemmi.make_structure_from_block(blocks[0])
    else:
        structure = gemmi.read_pdb_string(text)
    structure.merge_chain_parts()
    structure.setup_entities()
    structure.assign_label_seq_id()
    return structure


def _polymer_type(structure: gemmi.Structure, chain: gemmi.Chain) -> gemmi.PolymerType:
    polymer = chain.get_polymer()
    entity = structure.get_entity_of(polymer) if len(polymer) else None
    known = entity.polymer_type if entity is not None else gemmi.PolymerType.Unknown
    return known if known != gemmi.PolymerType.Unknown else polymer.check_polymer_type()


def _why_no_protein(structure: gemmi.Structure, chains: list[gemmi.Chain]) -> str:
    if not any(len(residue) for chain in chains for residue in chain):
        return "no atoms; it is not a structure, or an empty one"
    if any(_polymer_type(structure, chain) in _NUCLEIC for chain in chains):
        return "no protein chain, only nucleic acid"
    return "no protein chain, only ligands, water or other molecules"


def _read_chain(structure: gemmi.Structure, chain: gemmi.Chain, record_id: str, path: Path) -> Protein | Rejected:
    polymer = chain.get_polymer()
    entity = structure.get_entity_of(polymer)
    seqres = [gemmi.Entity.first_mon(item) for item in entity.full_sequence] if entity is not None else []
    parents = {change.res_id.name: change.parent_comp_id for change in structure.mod_residues}
    sites = _sites(polymer, seqres)
    names = seqres or [site.name for site in sites]
    letters = "".join(residue_letter(name, parents) for name in names)
    if set(letters) <= {"X"}:
        return _reject(record_id, path, f"chain {chain.name}: every residue is unknown (UNK)")
    notes = _notes(structure, names, letters, parents)
    if seqres:
        fitting = [site for site in sites if site.column is not None and site.column < len(letters)
                   and residue_letter(site.name, parents) == letters[site.column]]  # fmt: skip
        identity = len(fitting) / len(sites)
        if identity < MIN_IDENTITY:
            return _reject(
                record_id, path, f"chain {chain.name}: only {identity:.0%} of the {len(sites)} residues in the model "
                "agree with its SEQRES; correct or remove SEQRES",
            )  # fmt: skip
        if identity < 1:
            notes.append(f"{len(sites) - len(fitting)} residues differ from SEQRES")
    coordinates = _coordinates(sites, len(letters))
    if not seqres:
        breaks = int((np.linalg.norm(np.diff(coordinates.alpha, axis=0), axis=1) > _CHAIN_BREAK).sum())
        notes.append("no SEQRES: sequence of the resolved residues" + (f", {breaks} chain break(s)" if breaks else ""))
    if all(np.isnan(site.beta).all() for site in sites):
        notes.append("C-alpha only: C-beta taken at C-alpha")
    return Protein(record_id, letters, f"{path}, chain {chain.name}", "; ".join(notes), coordinates)


def residue_letter(name: str, parents: Mapping[str, str] = MappingProxyType({})) -> str:
    """One letter for a residue name; a modified residue gets that of its parent, an unknown one X."""
    for candidate in (name, parents.get(name, "")):
        residue = gemmi.find_tabulated_residue(candidate)
        letter = residue.one_letter_code.upper()
        if residue.is_amino_acid() and letter in AMINO_ACIDS + NONCANONICAL and letter != "X":
            return letter
    return "X"


def _notes(structure: gemmi.Structure, names: list[str], letters: str, parents: dict[str, str]) -> list[str]:
    notes = []
    modified = Counter(
        f"{name} as {letter}"
        for name, letter in zip(names, letters, strict=True)
        if letter != "X" and not gemmi.find_tabulated_residue(name).is_standard()
    )
    if modified:
        notes.append("modified residues read as their parents: " + ", ".join(sorted(modified)))
    if unknown := letters.count("X"):
        notes.append(f"{unknown} unknown residue(s) as X")
    if len(structure) > 1:
        notes.append(f"model 1 of {len(structure)}")
    return notes


def _sites(polymer: gemmi.ResidueSpan, seqres: list[str]) -> list[_Site]:
    """One site per residue number; of several residues at one (microheterogeneity) the one that SEQRES names first."""
    sites: list[_Site] = []
    # gemmi's own residue_groups() never ends where a residue has no number.
    for _, group in itertools.groupby(polymer, key=lambda residue: str(residue.seqid)):
        residues = list(group)
        label = residues[0].label_seq
        column = label - 1 if seqres and label is not None and label > 0 else None
        wanted = seqres[column] if column is not None and column < len(seqres) else residues[0].name
        residue = next((r for r in residues if r.name == wanted), residues[0])
        column = column if seqres else len(sites)
        backbone = np.stack([_position(residue, name) for name in BACKBONE])
        sites.append(_Site(column, residue.name, _position(residue, "CB"), backbone))
    return sites


def _position(residue: gemmi.Residue, atom_name: str) -> Float64[np.ndarray, " 3"]:
    """Where the atom is, in angstrom; of alternative locations the one of highest occupancy, ties by their letter."""
    atoms = [atom for atom in residue if atom.name == atom_name]
    if not atoms:
        return np.full(3, np.nan)
    best = min(atoms, key=lambda atom: (-atom.occ, atom.altloc))
    position = np.array(best.pos.tolist())
    return position if np.isfinite(position).all() else np.full(3, np.nan)


def _coordinates(sites: list[_Site], length: int) -> Coordinates:
    alpha, beta, backbone = (np.full((length, *shape), np.nan) for shape in ((3,), (3,), (4, 3)))
    for site in sites:
        if site.column is not None and site.column < length:
            backbone[site.column] = site.backbone
            alpha[site.column] = site.backbone[BACKBONE.index("CA")]
            has_beta = site.name != "GLY" and np.isfinite(site.beta).all()
            beta[site.column] = site.beta if has_beta else alpha[site.column]
    has_backbone = np.isfinite(backbone).all(axis=(1, 2)).any()
    return Coordinates(alpha, beta, backbone if has_backbone else None)
