"""Protein sequences from FASTA files, one result for each record, in constant memory.

The file is split into records here and not by dnaio, whose reader stops at the first record it dislikes (a letter that
is not ASCII), glues `;` comments into sequences and holds a record of any length in memory; plmjac promises one result
per record whatever the others look like. xopen, the library beneath dnaio, does the unpacking. FASTQ, alignments
and tables are refused, not converted.
"""

import codecs
import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from plmjac.alphabet import clean
from plmjac.datasets.base import InputError, Record, as_list
from plmjac.datasets.compressed import DamagedFile, open_bytes
from plmjac.files import nearest, shorten
from plmjac.records import Protein, Rejected


def _as_latin1(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no UTF-8 as the letters they are in Latin-1, so that names that differ in them stay different."""
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("latin1letters", _as_latin1)

_log = logging.getLogger(__name__)

_PIECE = 1 << 16
"""Longest piece of a line that is held at once, in characters; a file without line ends stays harmless."""

_MIN_NUCLEOTIDES = 50
_NUCLEOTIDES = re.compile("[ACGTUN]")

_OTHER_FORMATS = (
    (re.compile(r"@[^\n]*\n[^\n]*\n\+"), "it looks like FASTQ (reads); give protein sequences in FASTA"),
    (re.compile(r"PK\x03\x04"), "it is a zip archive; unpack it first"),
    (re.compile("[\x80-\xff]{2}|[^\n]*\x00"), "it is a binary file, a tar archive or UTF-16 text; give plain FASTA"),
    (re.compile(r"#\s*STOCKHOLM|CLUSTAL|MUSCLE"), "it is an alignment; give unaligned sequences in FASTA"),
    (re.compile(r"(LOCUS|ID) {3,}"), "it is a GenBank, EMBL or UniProt flat file; export it as FASTA"),
    (re.compile(r"(HEADER|ATOM|data_|loop_)"), "it looks like a structure; use +dataset=pdb"),
    (re.compile(r"\s*[<{\[]"), "it looks like HTML, XML or JSON; give FASTA"),
    (re.compile(r"[^\n]*[,\t]"), "it looks like a table (CSV or TSV); write each row as `>id` and sequence"),
)


@dataclass
class _Raw:
    """A record as it stands in the file, its sequence cut off after the longest allowed length."""

    header: str
    parts: list[str] = field(default_factory=list)
    length: int = 0


class FastaDataset:
    """Sequences of one or more FASTA files, plain or compressed.

    The id is the first word of the header; the whole header goes into `source`. Records of the same id or sequence are
    passed on as they come.

    Parameters
    ----------
    path: one file or several.
    ids: only these records; a UniProt accession also selects `sp|ACCESSION|NAME`.
    max_record_length: longest sequence to hold in memory, in residues; longer ones are rejected.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        ids: str | list[str] | None = None,
        max_record_length: int = 100_000,
    ) -> None:
        if not path:
            raise InputError("dataset=fasta needs a file: dataset.path=FILE.fasta")
        self._paths = [_existing_file(name) for name in as_list(path)]
        self._ids = as_list(ids)
        self._max_length = max_record_length

    def __iter__(self) -> Iterator[Record]:
        missing = set(self._ids)
        seen: list[str] = []
        for path in self._paths:
            warned = False
            for record in read_records(path, self._max_length):
                names = {record.id, *record.id.split("|")}
                if self._ids:
                    if len(seen) < 10_000:
                        seen.append(record.id)
                    if not names.intersection(self._ids):
                        continue
                    missing -= names
                if not warned and isinstance(record, Protein) and "nucleotide" in record.note:
                    _log.warning("%s: %s; plmjac needs protein sequences", record.source, record.note)
                    warned = True
                yield record
        if missing:
            there = nearest(min(missing), seen, 3) if seen else "the file has no records"
            raise InputError(f"dataset.ids: no record {shorten(sorted(missing))} in {shorten(map(str, self._paths))}; "
                             f"{there}")  # fmt: skip


def _existing_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder; dataset.path takes FASTA files, e.g. dataset.path=[a.fasta,b.fasta]")
    if not path.exists():
        raise InputError(f"{path} does not exist; check dataset.path")
    return path


def read_records(
    path: Path, max_length: int, clean: Callable[[str], tuple[str, str]] = clean
) -> Iterator[Protein | Rejected]:
    """Every record of one file, its sequence brought to our letters by `clean`, which gives a note as well.

    Raises InputError where the file is no FASTA file, is empty or breaks off.
    """
    number = 0
    try:
        with open_bytes(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="latin1letters", newline=None)
            for number, raw in enumerate(_split(text, path, max_length), start=1):
                yield _judge(raw, path, number, max_length, clean)
    except DamagedFile as error:
        raise InputError(f"{path}: {error} after record {number}; copy or download the file again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if number == 0:
        raise InputError(f"{path} is empty: no line starts with '>'")


def _split(text: io.TextIOWrapper, path: Path, max_length: int) -> Iterator[_Raw]:
    """Cut a file into records at the lines that start with `>`."""
    record: _Raw | None = None
    line_number, is_line_start, is_header, is_comment = 1, True, False, False
    while piece := text.readline(_PIECE):
        if is_line_start:
            is_header, is_comment = piece.startswith(">"), piece.startswith(";")
            if is_header:
                if record is not None:
                    yield record
                record = _Raw(piece[1:].strip())
            elif record is None and not is_comment and piece.strip():
                raise _not_fasta(path, piece + text.read(2000), line_number)
        if record is not None and not is_header and not is_comment:
            # Only the ends of a line are stripped: a blank inside a sequence is for `clean` to refuse.
            residues = piece.strip()
            record.length += len(residues)
            if record.length <= max_length:
                record.parts.append(residues)
        is_line_start = piece.endswith("\n")
        line_number += is_line_start
    if record is not None:
        yield record


def _not_fasta(path: Path, head: str, line_number: int) -> InputError:
    for pattern, reason in _OTHER_FORMATS:
        if pattern.match(head):
            return InputError(f"{path} is not FASTA: {reason}")
    start = head.split("\n")[0].strip()[:40]
    return InputError(f"{path}, line {line_number}: text before the first '>': {start!r}; start with '>id'")


def _judge(
    raw: _Raw, path: Path, number: int, max_length: int, clean: Callable[[str], tuple[str, str]]
) -> Protein | Rejected:
    """A record as a protein, or the reason why it is none and the remedy."""
    source = f"{path}, record {number}: {raw.header}"
    words = raw.header.split(maxsplit=1)
    record_id = words[0] if words else f"record_{number}"

    def reject(reason: str) -> Rejected:
        return Rejected(record_id, f"{path.name}, record {number}: {reason}", source)

    if not words:
        return reject("its header has no id; write a name after '>'")
    if "\x00" in raw.header:
        return reject("its header holds a NUL byte; is the file damaged?")
    if raw.length > max_length:
        return reject(f"{raw.length:,} residues, above dataset.max_record_length={max_length}; split it into domains")
    try:
        sequence, note = clean("".join(raw.parts))
    except ValueError as error:
        return reject(str(error))
    notes = [note] if note else []
    if len(sequence) >= _MIN_NUCLEOTIDES and len(_NUCLEOTIDES.findall(sequence)) > 0.9 * len(sequence):
        notes.append("looks like a nucleotide sequence")
    return Protein(record_id, sequence, source, "; ".join(notes))
