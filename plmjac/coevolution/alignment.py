"""Alignments of a family as arrays of states, and the columns in which the residues of one protein stand.

Reads a3m, aligned FASTA and Stockholm, also compressed, told apart by content. Own readers: libraries that know a3m
hold a million rows as objects, and Biopython refuses Stockholm files whose annotations are shorter than their rows.
The columns are those in which the query has a residue; nothing is realigned or filtered.
"""

import io
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from Bio.Align import PairwiseAligner
from jaxtyping import Int8, Int64

from plmjac.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from plmjac.datasets.base import InputError
from plmjac.datasets.compressed import DamagedFile, open_bytes
from plmjac.files import nearest, shorten

log = logging.getLogger("plmjac.alignment")

GAP = NUM_AMINO_ACIDS
"""State 20 of an alignment: a gap, or a letter that is none of the 20 amino acids."""

NUM_STATES = NUM_AMINO_ACIDS + 1

SUFFIXES = (".a3m", ".a2m", ".fasta", ".fa", ".afa", ".sto", ".stk", ".stockholm")

_STATE_OF_BYTE = np.full(256, GAP, dtype=np.int8)
_STATE_OF_BYTE[np.frombuffer(AMINO_ACIDS.encode("ascii"), dtype=np.uint8)] = np.arange(NUM_AMINO_ACIDS)

_ANNOTATIONS = ("ss_pred", "ss_conf", "ss_dssp", "sa_dssp", "aa_dssp", "aa_pred")
"""Records of HH-suite's a3m files that are no sequences."""

Rows = list[tuple[str, str]]
"""Name and aligned letters (upper case, `-` for a gap) of each sequence, all of one length."""


@dataclass(frozen=True)
class Query:
    """A protein's own sequence as a row of its family's alignment: `row` has one character for each column."""

    alignment: str
    row: str


@dataclass(frozen=True, eq=False)
class AlignmentOfProtein:
    """An alignment cut to the residues of one protein: column k is residue `positions[k]` of its sequence.

    `query` names the row that was used to find them, `identity` is the share of that row's residues which are the
    protein's own at the same place.
    """

    path: Path
    states: Int8[np.ndarray, "N C"]
    positions: Int64[np.ndarray, " C"]
    query: str
    identity: float


def read_alignment(path: str | Path, max_sequences: int | None = None) -> Int8[np.ndarray, "N L"]:
    """Read an alignment as states: 0 to 19 in the order of AMINO_ACIDS, 20 for a gap or anything else.

    In a3m, and in FASTA whose rows fit together that way, lower-case letters and `.` are insertions relative to the
    first sequence and are dropped; elsewhere they are residues and gaps. Only the first `max_sequences` are kept.
    Raises InputError (a ValueError) for a file that cannot be read or has no record, and for rows of unequal length,
    naming the record.
    """
    return states_of(read_rows(Path(path), max_sequences))


def read_rows(path: Path, max_sequences: int | None = None) -> Rows:
    """The rows of an alignment, in file order; see `read_alignment`."""
    try:
        with open_bytes(path) as file:
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace")
            first = next((line for line in lines if line.strip()), "")
            if first.startswith("# STOCKHOLM"):
                return _stockholm(lines, path)[:max_sequences]
            if first.upper().startswith("CLUSTAL"):
                raise InputError(f"{path} is a Clustal file; convert it to a3m, aligned FASTA or Stockholm")
            return _fasta(_first_records(itertools.chain([first], lines), max_sequences), path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except DamagedFile as error:
        raise InputError(f"{path}: {error}; copy or download the file again") from None


def states_of(rows: Rows) -> Int8[np.ndarray, "N L"]:
    """Letters as states."""
    text = "".join(row for _, row in rows).encode("ascii", errors="replace")
    states: Int8[np.ndarray, "N L"] = _STATE_OF_BYTE[np.frombuffer(text, dtype=np.uint8)].reshape(len(rows), -1)
    return states


def _first_records(lines: Iterable[str], max_sequences: int | None) -> Iterator[str]:
    """The lines up to the end of record `max_sequences`; annotations of HH-suite are not counted."""
    number = 0
    for line in lines:
        if line.lstrip("\0").startswith(">") and not line.lstrip("\0")[1:].startswith(_ANNOTATIONS):
            number += 1
            if max_sequences is not None and number > max_sequences:
                return
        yield line


def _fasta(lines: Iterable[str], path: Path) -> Rows:
    """The records of an aligned FASTA or a3m; a server's a3m has NUL between alignments, and at its end."""
    records: list[tuple[str, list[str]]] = []
    starts: list[int] = []
    for line in lines:
        if "\0" in line:
            starts.append(len(records))
            line = line.replace("\0", "")
        if line.startswith(">"):
            records.append((line[1:].strip(), []))
        elif records:
            records[-1][1].append(line.strip())
    whole = [(name, "".join(parts)) for name, parts in records]
    again = [start for start in starts if 0 < start < len(whole)]  # the query, once more
    if other := next((whole[start] for start in again if whole[start][1] != whole[0][1]), None):
        raise InputError(f"{path} holds alignments of {whole[0][0]!r} and {other[0]!r}; give each its own file")
    raw = [row for number, row in enumerate(whole) if number not in again and not row[0].startswith(_ANNOTATIONS)]
    if not raw:
        raise InputError(f"{path} has no FASTA record (no line that starts with '>') and is no Stockholm file")
    rows = [(name, "".join(letter for letter in row if letter != "." and not letter.islower())) for name, row in raw]
    if _unequal(rows) or not rows[0][1]:
        if _unequal(raw) is None:
            return _as_written(raw)
        name, row = _unequal(rows) or rows[0]
        raise InputError(
            f"{path}: {name!r} has {len(row)} columns and the first record {len(rows[0][1])}: is it aligned?"
        )
    return _as_written(rows)


def _stockholm(lines: Iterable[str], path: Path) -> Rows:
    """The rows of the one alignment of a Stockholm file, blocks joined; annotations (#=GF, #=GR, ...) are dropped."""
    parts: dict[str, list[str]] = {}
    block: set[str] = set()
    ended = False
    for line in lines:
        words = line.split()
        if not words:
            block.clear()
        elif ended:
            raise InputError(f"{path} holds more than one Stockholm alignment; give each its own file")
        elif words[0] == "//":
            ended = True
        elif not line.startswith("#"):
            if len(words) != 2 or words[0] in block:
                why = "a name twice in one block" if len(words) == 2 else "no name and row"
                raise InputError(f"{path} is no readable Stockholm alignment: {line.strip()[:60]!r} is {why}")
            block.add(words[0])
            parts.setdefault(words[0], []).append(words[1])
    rows = [(name, "".join(each)) for name, each in parts.items()]
    if not rows:
        raise InputError(f"{path}: the Stockholm alignment has no row")
    if (other := _unequal(rows)) is not None:
        name, row = other
        raise InputError(f"{path}, Stockholm: {name!r} has {len(row)} columns and the first row {len(rows[0][1])}")
    if not ended:
        log.warning("%s ends without //, as a file that was cut would; its %d rows are used", path, len(rows))
    return _as_written(rows)


_GAPS = str.maketrans({sign: "-" for sign in ".~*: \t"})


def _as_written(rows: Rows) -> Rows:
    """Rows in upper case, with one sign for gaps, stops and borders of chains."""
    return [(name, row.upper().translate(_GAPS)) for name, row in rows]


def _unequal(rows: Rows) -> tuple[str, str] | None:
    """The first row that is not as long as the first one."""
    return next((row for row in rows if len(row[1]) != len(rows[0][1])), None)


def columns_of_query(query: str) -> Int64[np.ndarray, " L"]:
    """Indices of the columns in which the query has a residue, from its aligned row (`-` for a gap)."""
    return np.flatnonzero([letter not in "-." for letter in query])


def read_queries(path: Path) -> dict[str, Query]:
    """Rows of proteins in the columns of their alignments, from an aligned FASTA: `>protein alignment`, then the row.

    The second word of the header is the name of the alignment's file without its ending; without one it is the
    protein's id. Raises InputError where two records have one id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    queries: dict[str, Query] = {}
    for number, record in enumerate(text.split(">")[1:], start=1):
        header, _, letters = record.partition("\n")
        words = header.split()
        if not words:
            raise InputError(f"{path}, record {number}: its header has no id; write `>protein alignment`")
        if words[0] in queries:
            raise InputError(f"{path}, record {number}: {words[0]!r} stands there twice; keep one row a protein")
        queries[words[0]] = Query(words[-1] if len(words) == 1 else words[1], "".join(letters.split()).upper())
    if not queries:
        raise InputError(f"{path} has no FASTA record (no line that starts with '>')")
    return queries


def load_alignment_for(
    path: Path,
    identifier: str,
    sequence: str,
    *,
    queries: dict[str, Query] | None = None,
    max_sequences: int | None = None,
) -> AlignmentOfProtein:
    """The alignment of a protein, cut to the columns that hold its residues.

    `path` is the file, or a folder with a file of the protein's id (`1TEN_A.a3m`) or, with `queries`, of the alignment
    named there. The row that says which column is which residue is the protein's in `queries`, or the file's first.
    It is aligned to the sequence (exactly, where it is part of it); residues without a counterpart are dropped. Raises
    InputError where there is no file, no query or no residue in common.
    """
    query = None
    if queries is not None:
        query = queries.get(identifier)
        if query is None:
            raise InputError(f"no row for {identifier!r} among the queries; {nearest(identifier, queries, 8)}")
    file = _file_for(path, query.alignment if query else identifier)
    rows = read_rows(file, max_sequences)
    name, row = (identifier, query.row) if query else rows[0]
    if len(row) != len(rows[0][1]):
        raise InputError(f"{file} has {len(rows[0][1])} columns and the query of {identifier!r} {len(row)}")
    columns = columns_of_query(row)
    of_query, positions = match("".join(row[column] for column in columns), sequence)
    if len(positions) == 0:
        raise InputError(f"{file}: {name!r} has no residue in common with the sequence of {identifier!r}")
    columns = columns[of_query]
    equal = sum(row[column] == sequence[position] for column, position in zip(columns, positions, strict=True))
    identity = equal / len(columns_of_query(row))
    return AlignmentOfProtein(file, states_of(rows)[:, columns], positions, name, identity)


def match(query: str, sequence: str) -> tuple[Int64[np.ndarray, " C"], Int64[np.ndarray, " C"]]:
    """Residues of the query and the residues of the sequence that they match, as two lists of indices.

    The first place where the query stands in the sequence letter by letter; else a global alignment in which ends are
    free (match 2, mismatch -1, gap -5 and -0.5).
    """
    if not query:
        return np.arange(0), np.arange(0)
    at = sequence.find(query)
    if at >= 0:
        return np.arange(len(query)), np.arange(at, at + len(query))
    aligner = PairwiseAligner(
        mode="global", match_score=2.0, mismatch_score=-1.0, open_gap_score=-5.0, extend_gap_score=-0.5,
        end_gap_score=0.0,
    )  # fmt: skip
    of_query, of_sequence = aligner.align(query, sequence)[0].aligned
    ranges = [
        np.concatenate([np.arange(0), *(np.arange(*span) for span in spans)]) for spans in (of_query, of_sequence)
    ]
    return ranges[0], ranges[1]


def _file_for(path: Path, name: str) -> Path:
    """The file itself, or the one in the folder with this name and the ending of an alignment."""
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path} does not exist; alignments are a file or a folder of files")
        return path
    files = [path / f"{name}{suffix}{end}" for suffix in SUFFIXES for end in ("", ".gz")]
    try:
        found = [file for file in files if file.is_file()] if Path(name).name == name else []
    except (OSError, ValueError):  # a name that no file can have
        found = []
    if not found:
        raise InputError(f"{path} holds no alignment {name}.a3m ({', '.join(SUFFIXES[1:])}; each also .gz)")
    if len(found) > 1:
        raise InputError(f"{path} holds more than one alignment of {name}: {shorten(file.name for file in found)}")
    return found[0]
