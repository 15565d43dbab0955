"""Parse the text of a PDB or mmCIF file into one flat table of the atoms of model 1, and what it says of sequences.

Nothing is judged here: every ATOM and HETATM record is a row, in file order. PDB files are read by their columns, in
the many ways that programs fill them (four-letter residue names, two-letter chains, hybrid-36 numbers, segment ids,
entry codes in columns 73 to 80, CR line ends, models that do not end). gemmi reads the syntax of mmCIF.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import gemmi
import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8

from plmjac.datasets.residue_names import letter_of

NO_NUMBER = -(10**9)
"""Number of a residue that has none."""


@dataclass(frozen=True)
class SequenceTable:
    """The residues that the file says a chain has, resolved or not; `numbers` are the author's where they are given."""

    names: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class AtomTable:
    """The atoms of the first model, one row each, and the sequences, parents and models that the file lists.

    `number` is NO_NUMBER and `label` 0 where there is none; `ter` counts the TER records above a row. `sequences` are
    by chain in a PDB file (several where a chain has several), by `asym` and by `entity` in mmCIF.
    """

    name: Shaped[np.ndarray, " A"]
    residue: Shaped[np.ndarray, " A"]
    chain: Shaped[np.ndarray, " A"]
    number: Int64[np.ndarray, " A"]
    insertion: Shaped[np.ndarray, " A"]
    altloc: Shaped[np.ndarray, " A"]
    occupancy: Float64[np.ndarray, " A"]
    position: Float64[np.ndarray, "A 3"]
    b_factor: Float64[np.ndarray, " A"]
    element: Shaped[np.ndarray, " A"]
    is_hetero: Bool[np.ndarray, " A"]
    segment: Shaped[np.ndarray, " A"]
    ter: Int64[np.ndarray, " A"]
    asym: Shaped[np.ndarray, " A"]
    entity: Shaped[np.ndarray, " A"]
    label: Int64[np.ndarray, " A"]
    is_mmcif: bool = False
    sequences: Mapping[str, list[SequenceTable]] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    models: int = 1
    structures: int = 1

    def __len__(self) -> int:
        return len(self.name)

    def sequence(self, asym: str, entity: str) -> SequenceTable | None:
        """The sequence of an mmCIF polymer, None where the file has none."""
        return next(iter(self.sequences.get(f"asym {asym}") or self.sequences.get(f"entity {entity}") or []), None)

    def is_in_sequence(self, row: int) -> bool:
        """True if mmCIF's sequence has this atom's residue where its label_seq_id says."""
        label = int(self.label[row])
        table = self.sequence(str(self.asym[row]), str(self.entity[row])) if label else None
        return table is not None and label <= len(table.names) and str(self.residue[row]) in table.names[label - 1]


def read_table(content: bytes) -> AtomTable:
    """The table of a file, its format known by content. Raises ValueError or RuntimeError where it is neither."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", errors="replace").encode("ascii", errors="replace")
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise ValueError("the file is empty")
    content = content.translate(_ASCII)  # one character per byte, or columns are cut in the middle of a letter
    start = re.match(rb"(?:\s|#[^\r\n]*)*+([^\r\n]{0,5})", content)
    is_mmcif = start is not None and start[1].lower() == b"data_"
    table = _read_mmcif(content.decode("ascii")) if is_mmcif else _read_pdb(content.splitlines())
    if bool(np.isin(table.name[table.residue == "HSE"], ("C3", "O3", "OD")).any()):
        # Force fields call a histidine so, the PDB homoserine.
        return replace(table, parents={**table.parents, "HSE": "SER"})
    return table


_ASCII = bytes(32 if code == 0 else code if code < 128 else ord("?") for code in range(256))

# ---------------------------------------------------------------- PDB

_WIDTH = 80


def _read_pdb(lines: list[bytes]) -> AtomTable:
    atoms: list[bytes] = []
    ter: list[int] = []
    sequences: list[bytes] = []
    parents: dict[str, str] = {}
    terminated, models = 0, 0
    ended: bytes | None = b""  # the record that ended a model, None within one
    is_first = True
    for number, line in enumerate(lines, start=1):
        record = line[:6].upper().rstrip()
        if record == b"ATOM" or record == b"HETATM":
            if ended is not None:
                is_first = not atoms or (is_first and ended == b"END" and _are_other_chains(atoms, line))
                models += not (atoms and is_first)
                ended = None
            if is_first:
                if len(line) < 54:
                    raise ValueError(f"line {number} is cut: {line.decode().rstrip()}")
                atoms.append(line.ljust(_WIDTH)[:_WIDTH])
                ter.append(terminated)
        elif record[:3] == b"TER":
            terminated += 1
        elif record in (b"MODEL", b"ENDMDL", b"END"):
            ended = record
        elif record == b"SEQRES":
            sequences.append(line)
        elif record == b"MODRES":
            parents[line[12:15].decode().strip().upper()] = line[24:27].decode().strip().upper()
    if not atoms:
        return _empty()
    table = np.frombuffer(b"".join(atoms), dtype=np.uint8).reshape(len(atoms), _WIDTH)
    residue, chain = _residue_and_chain(table)
    return AtomTable(
        name=_text(table, 12, 16, upper=True),
        residue=residue,
        chain=chain,
        number=_numbers(_text(table, 22, 26)),
        insertion=_text(table, 26, 27),
        altloc=_text(table, 16, 17),
        occupancy=_decimals(_bytes(table, 54, 60), 1.0),
        position=np.stack([_coordinates(_bytes(table, start, start + 8)) for start in (30, 38, 46)], axis=1),
        b_factor=_decimals(_bytes(table, 60, 66), 0.0),
        element=_text(table, 76, 78, upper=True),
        is_hetero=(table[:, 0] | 32) == ord("h"),
        segment=_text(table, 72, 76),
        ter=np.array(ter),
        asym=np.full(len(atoms), ""),
        entity=np.full(len(atoms), ""),
        label=np.zeros(len(atoms), dtype=np.int64),
        sequences=_seqres(sequences),
        parents=parents,
        models=models,
    )


def _are_other_chains(atoms: list[bytes], line: bytes) -> bool:
    """True if files were put one behind the other, each with its END, rather than models of the same chains."""
    chain = line[20:22]
    return bool(chain.strip()) and all(atom[20:22] != chain for atom in atoms)


def _empty() -> AtomTable:
    text, whole = np.full(0, ""), np.zeros(0, dtype=np.int64)
    decimals = np.zeros(0)
    return AtomTable(
        text, text, text, whole, text, text, decimals, np.zeros((0, 3)), decimals, text, np.zeros(0, dtype=bool), text,
        whole, text, text, whole,
    )  # fmt: skip


def _bytes(table: UInt8[np.ndarray, "A W"], start: int, stop: int) -> Shaped[np.ndarray, " A"]:
    return np.ascontiguousarray(table[:, start:stop]).view(f"S{stop - start}").ravel()


def _text(table: UInt8[np.ndarray, "A W"], start: int, stop: int, upper: bool = False) -> Shaped[np.ndarray, " A"]:
    """Columns of at most four characters, without their blanks."""
    padded = np.full((len(table), 4), 32, dtype=np.uint8)
    padded[:, : stop - start] = table[:, start:stop]
    unique, inverse = np.unique(padded.view(np.uint32).ravel(), return_inverse=True)
    texts = [code.tobytes().decode("ascii").strip() for code in unique]
    return np.array([text.upper() for text in texts] if upper else texts)[inverse]


def _residue_and_chain(table: UInt8[np.ndarray, "A W"]) -> tuple[Shaped[np.ndarray, " A"], Shaped[np.ndarray, " A"]]:
    """Residue and chain names; column 21 is the fourth letter of the one (NMET, TIP3) or the first of the other.

    It is a chain's where the same two letters stand behind a residue name that is whole without it.
    """
    residue = _text(table, 17, 20, upper=True)
    chain = _text(table, 21, 22)
    fourth = _text(table, 20, 21)
    if not (has_fourth := fourth != "").any():
        return residue, chain
    four, both = np.char.add(residue, np.char.upper(fourth)), np.char.add(fourth, chain)
    kinds = {name: _is_known(name) for name in np.unique(np.concatenate([residue[has_fourth], four[has_fourth]]))}
    is_whole = np.array([kinds.get(short, False) and not kinds.get(long, False)
                         for short, long in zip(residue, four, strict=True)])  # fmt: skip
    pairs = np.unique(both[has_fourth & is_whole & (chain != "")])
    is_chain = has_fourth & np.isin(both, pairs)
    is_long = has_fourth & ~is_chain
    return np.where(is_long, four, residue), np.where(is_chain, both, chain)


def _is_known(name: str) -> bool:
    return bool(letter_of(name)) or gemmi.find_tabulated_residue(name).found()


def _numbers(texts: Shaped[np.ndarray, " A"]) -> Int64[np.ndarray, " A"]:
    known = {text: _number(text) for text in np.unique(texts).tolist()}
    return np.array([known[text] for text in texts.tolist()], dtype=np.int64)


def _number(text: str) -> int:
    """A residue number, also in hybrid-36 (A000 is 10000)."""
    try:
        return int(text)
    except ValueError:
        pass
    if len(text) == 4 and text.isalnum() and text[0].isalpha() and text in (text.upper(), text.lower()):
        value, base = int(text, 36), 10 * 36**3
        return value - base + 10**4 if text.isupper() else value - base + 10**4 + 26 * 36**3
    return NO_NUMBER


def _decimals(texts: Shaped[np.ndarray, " A"], default: float) -> Float64[np.ndarray, " A"]:
    try:
        return texts.astype(np.float64)
    except ValueError:
        return np.array([_decimal(text, default) for text in texts.tolist()])


def _decimal(text: str | bytes, default: float) -> float:
    try:
        return float(text)
    except ValueError:
        return default


def _coordinates(texts: Shaped[np.ndarray, " A"]) -> Float64[np.ndarray, " A"]:
    """Angstrom; NaN for what overflowed its column. Raises ValueError where it is no number at all."""
    try:
        values = texts.astype(np.float64)
    except ValueError:
        values = np.array([_coordinate(text) for text in np.char.strip(texts.astype(str)).tolist()])
    return np.where(np.isfinite(values), values, np.nan)


def _coordinate(text: str) -> float:
    if text.strip("*") == "" or text in ("?", "."):
        return np.nan
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} stands where a coordinate should; are the columns shifted?") from None


def _seqres(lines: Iterable[bytes]) -> dict[str, list[SequenceTable]]:
    """The sequences by chain; a chain whose count of lines starts again at 1 has another."""
    found: dict[str, list[list[str]]] = {}
    last: dict[str, int] = {}
    for line in lines:
        text = line.decode()
        chain = text[10:12].strip()
        serial = int(text[7:10]) if text[7:10].strip().isdigit() else last.get(chain, 0) + 1
        if chain not in found or serial <= last[chain]:
            found.setdefault(chain, []).append([])
        last[chain] = serial
        found[chain][-1] += text[18:70].upper().split()
    return {chain: [SequenceTable(tuple((name,) for name in names)) for names in tables if names]
            for chain, tables in found.items()}  # fmt: skip


# ---------------------------------------------------------------- mmCIF


def _read_mmcif(text: str) -> AtomTable:
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
        return np.array([_decimal(item, default) for item in column(tag) or [""] * len(rows)])

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
