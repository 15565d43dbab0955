"""Read the atom table of a PDB file by its columns, in the many ways that programs fill them.

Four-letter residue names, two-letter chains, hybrid-36 numbers, segment ids, entry codes in columns 73 to 80, CR line
ends, and models without an end are all read.
"""

from collections.abc import Iterable

import gemmi
import numpy as np
from jaxtyping import Float64, Int64, Shaped, UInt8

from plmjac.datasets.atom_table import NO_NUMBER, AtomTable, SequenceTable, decimal
from plmjac.datasets.residue_names import letter_of

_WIDTH = 80


def read_pdb(lines: list[bytes]) -> AtomTable:
    """Table of the lines of a PDB file, each character one byte. Raises ValueError for a cut or shifted line."""
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
        return np.array([decimal(text, default) for text in texts.tolist()])


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
