"""Read the atom table of an mmCIF file; gemmi reads its syntax."""

from itertools import islice
from typing import Any

import gemmi
import numpy as np
from jaxtyping import Float64, Int64, Shaped

from plmjac.datasets.atom_table import NO_NUMBER, AtomTable, SequenceTable, decimal


def read_mmcif(text: str) -> AtomTable:
    """Table of the first block with atoms. Raises ValueError for a file without atoms or coordinates."""
    blocks = [block for block in gemmi.cif.read_string(text) if block.find_values("_atom_site.id")]
    if not blocks:
        raise ValueError("it has no atoms (_atom_site)")
    block = blocks[0]
    count = len(block.find_values("_atom_site.id"))
    models = list(block.find_values("_atom_site.pdbx_PDB_model_num")) or ["1"] * count
    rows: Any = np.flatnonzero(np.array(models) == models[0])
    last, is_whole = int(rows[-1]) + 1, len(rows) == int(rows[-1]) + 1

    def column(*tags: str) -> list[str]:
        for tag in tags:
            items = list(islice(block.find_values(f"_atom_site.{tag}"), last))
            items = items if is_whole or not items else [items[row] for row in rows]
            if not set(items) <= {"?", "."}:
                return items
        return []

    def texts(*tags: str, default: str = "") -> Shaped[np.ndarray, " A"]:
        items = column(*tags) or [default] * len(rows)
        plain = {item: _unquoted(item) for item in set(items)}
        return np.array([plain[item] for item in items])

    def whole(missing: int, *tags: str) -> Int64[np.ndarray, " A"]:
        items = column(*tags) or [""] * len(rows)
        numbers = {item: _whole(item, missing) for item in set(items)}
        return np.array([numbers[item] for item in items], dtype=np.int64)

    def decimals(tag: str, default: float) -> Float64[np.ndarray, " A"]:
        return np.array([decimal(item, default) for item in column(tag) or [""] * len(rows)])

    positions = [decimals(f"Cartn_{axis}", np.nan) for axis in "xyz"]
    if not any(np.isfinite(position).any() for position in positions):
        raise ValueError("its atoms have no coordinates (_atom_site.Cartn_x)")
    asym = texts("label_asym_id", "auth_asym_id")
    chain = texts("auth_asym_id", "label_asym_id")
    return AtomTable(
        name=np.char.upper(texts("label_atom_id", "auth_atom_id")),
        residue=np.char.upper(texts("label_comp_id", "auth_comp_id")),
        chain=np.where(chain == "", asym, chain),
        number=whole(NO_NUMBER, "auth_seq_id", "label_seq_id"),
        insertion=texts("pdbx_PDB_ins_code"),
        altloc=texts("label_alt_id"),
        occupancy=decimals("occupancy", 1.0),
        position=np.stack(positions, axis=1),
        b_factor=decimals("B_iso_or_equiv", 0.0),
        element=np.char.upper(texts("type_symbol")),
        is_hetero=texts("group_PDB", default="ATOM") == "HETATM",
        segment=np.full(len(rows), ""),
        ter=np.zeros(len(rows), dtype=np.int64),
        asym=asym,
        entity=texts("label_entity_id"),
        label=np.maximum(whole(0, "label_seq_id"), 0),
        is_mmcif=True,
        sequences=_mmcif_sequences(block),
        parents=_mmcif_parents(block),
        models=len(set(models)),
        structures=len(blocks),
    )


def _unquoted(item: str) -> str:
    if item in ("", "?", "."):
        return ""
    return gemmi.cif.as_string(item) if item[0] in "'\";" else item


def _whole(text: str, missing: int) -> int:
    try:
        return int(text)
    except ValueError:
        return missing


def _mmcif_sequences(block: gemmi.cif.Block) -> dict[str, list[SequenceTable]]:
    """Sequences by "asym A" (pdbx_poly_seq_scheme, with the author's numbers, or by struct_asym) and "entity 1"."""
    entities = {name: SequenceTable(names) for name, (names, _) in
                _numbered(block, "_entity_poly_seq.", "entity_id", "num", "mon_id").items()}  # fmt: skip
    for row in block.find("_entity_poly.", ["entity_id", "type", "pdbx_seq_one_letter_code"]):
        if row.str(0) not in entities and "peptide" in row.str(1).lower() and (letters := row.str(2).split()):
            expanded = gemmi.expand_one_letter_sequence("".join(letters), gemmi.ResidueKind.AA)
            entities[row.str(0)] = SequenceTable(tuple((name.upper(),) for name in expanded))
    found = {f"entity {name}": [table] for name, table in entities.items()}
    for row in block.find("_struct_asym.", ["id", "entity_id"]):
        if row.str(1) in entities:
            found[f"asym {row.str(0)}"] = [entities[row.str(1)]]
    scheme = _numbered(block, "_pdbx_poly_seq_scheme.", "asym_id", "seq_id", "mon_id", "pdb_seq_num", "pdb_ins_code")
    for asym, (names, numbers) in scheme.items():
        table = found.get(f"asym {asym}", [SequenceTable(names)])[0]
        is_same = len(table.names) == len(names)
        found[f"asym {asym}"] = [SequenceTable(table.names, numbers if is_same else None)]
    return found


def _numbered(
    block: gemmi.cif.Block, category: str, group: str, number: str, name: str, *optional: str
) -> dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]]:
    """The names at each number of each group, and what `optional` columns say there, put together."""
    if any(tag not in block.find_mmcif_category(category).tags for tag in [category + number, category + name]):
        return {}
    tags = [group if f"{category}{group}" in block.find_mmcif_category(category).tags else name, number, name]
    rows: dict[str, dict[int, tuple[list[str], str]]] = {}
    for row in block.find(category, [*tags, *(f"?{tag}" for tag in optional)]):
        place = _whole(row.str(1), 0)
        if place < 1:
            continue
        label = "".join(row.str(i) for i in range(3, 3 + len(optional)) if row.has(i))
        whose = row.str(0) if tags[0] == group else "1"
        rows.setdefault(whose, {}).setdefault(place, ([], label))[0].append(row.str(2).upper())
    found = {}
    for whose, places in rows.items():
        length = max(places)
        if length > 10 * len(places) + 1000:
            raise ValueError(f"{category}{number} jumps to {length} with {len(places)} residues")
        each = [places.get(place, (["UNK"], "")) for place in range(1, length + 1)]
        found[whose] = tuple(tuple(names) for names, _ in each), tuple(label for _, label in each)
    return found


def _mmcif_parents(block: gemmi.cif.Block) -> dict[str, str]:
    parents: dict[str, str] = {}
    for category, name, parent in (
        ("_chem_comp.", "id", "mon_nstd_parent_comp_id"),
        ("_pdbx_struct_mod_residue.", "label_comp_id", "parent_comp_id"),
    ):
        for row in block.find(category, [name, parent]):
            if row.str(1):
                parents[row.str(0).upper()] = row.str(1).upper()
    return parents
