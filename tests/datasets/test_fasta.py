"""FastaDataset: every bad input of a table of them, and random bytes, against an obvious reader."""

import bz2
import gzip
import logging
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plmjac.alphabet import clean
from plmjac.datasets import InputError, Record, build
from plmjac.datasets.fasta import FastaDataset
from plmjac.records import Protein, Rejected, plain


def read(path: Path, content: bytes | str, **arguments: Any) -> list[Record]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(FastaDataset(path=str(path), **arguments))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my.fasta"


def test_plain(file: Path) -> None:
    first, second = read(file, ">sp|P24821|TENA_HUMAN Tenascin OS=Homo sapiens\nMKV\nLAA\n\n>b\nacde\n")
    assert isinstance(first, Protein) and isinstance(second, Protein)
    assert (first.id, first.sequence, first.note) == ("sp|P24821|TENA_HUMAN", "MKVLAA", "")
    assert first.source == f"{file}, record 1: sp|P24821|TENA_HUMAN Tenascin OS=Homo sapiens"
    assert (second.id, second.sequence) == ("b", "ACDE")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (">a\r\nAC\r\nDE\r\n>b\r\nFG\r\n", [("a", "ACDE"), ("b", "FG")]),
        (">a\rAC\rDE\r>b\rFG\r", [("a", "ACDE"), ("b", "FG")]),
        ("\ufeff>a\nAC\n", [("a", "AC")]),
        ("\n\n  \n>a\n\nAC\n\nDE", [("a", "ACDE")]),
        ("; made by hand\n>a\n;comment\nAC\n; more\nDE\n", [("a", "ACDE")]),
        (">a\n  AC\t\nDE \n", [("a", "ACDE")]),
        (">a\nMXBUZO\n", [("a", "MXBUZO")]),
        (">a\nMJK*\n", [("a", "MXK")]),
        (">a 1\nAC\n>a 2\nAC\n>a 3\nDE\n", [("a", "AC"), ("a", "AC"), ("a", "DE")]),
        (">\u00e9\u00e8 caf\u00e9\nAC\n", [("\u00e9\u00e8", "AC")]),
        ("> a b\nAC\n", [("a", "AC")]),
        (f">{'n' * 300_000}\nAC\n", [("n" * 65_535, "AC")]),
        (f">a\n{'AC' * 40_000}\n", [("a", "AC" * 40_000)]),
        (">a\nM\n", [("a", "M")]),
    ],
    ids=range(14),
)
def test_accepted(file: Path, content: str, expected: list[tuple[str, str]]) -> None:
    records = read(file, content)
    assert [(record.id, record.sequence) for record in records if isinstance(record, Protein)] == expected
    assert len(records) == len(expected)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (">bad\n", "empty"),
        (">bad\n\n  \n", "empty"),
        (">bad\n*\n", "empty"),
        (">bad\nAC-DE\n", "gaps"),
        (">bad\nAC.DE\n", "gaps"),
        (">bad\nAC*DE\n", "stop codon"),
        (">bad\nAC DE\n", "white space"),
        (">bad\nA<mask>C\n", "special tokens"),
        (">bad\nACDE:FGHI\n", "chains of a complex"),
        (">bad\nAC1\n", "'1'"),
        (">bad\nAC\x00DE\n", "x00"),
        (">bad\x00\nACDE\n", "NUL"),
        (">bad\nAC\u00e9\n", "position 3"),
        (">bad\nAC>x\n", "position 3"),
        (">bad\n" + "A" * 101 + "\n", "101 residues"),
        (">bad\n" + "A" * 60 + "\n" + "A" * 60 + "\n", "120 residues"),
    ],
    ids=range(16),
)
def test_a_bad_record_is_rejected_and_stops_no_other(file: Path, record: str, reason: str) -> None:
    before, bad, after = read(file, f">x\nAC\n{record}>y\nDE\n", max_record_length=100)
    assert isinstance(before, Protein) and isinstance(after, Protein) and after.sequence == "DE"
    assert isinstance(bad, Rejected) and bad.id.startswith("bad")
    assert reason in bad.reason and "my.fasta, record 2" in bad.reason and str(file) in bad.source


def test_a_record_without_a_name(file: Path) -> None:
    (bad,) = read(file, ">\nAC\n")
    assert isinstance(bad, Rejected) and bad.id == "record_1" and "no id" in bad.reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"; only a comment\n", "empty"),
        (b"MKV\n>a\nAC\n", "line 1: text before the first '>': 'MKV'"),
        (b"\n;c\nMKV\n>a\nAC\n", "line 3"),
        (b"@read1\nACGT\n+\nIIII\n", "FASTQ"),
        (b"id,sequence\na,MKV\n", "table"),
        (b"id\tsequence\na\tMKV\n", "table"),
        (b"PK\x03\x04\x14\x00\x00", "zip"),
        (bytes(range(128, 256)) * 10, "binary"),
        (">a\nAC\n".encode("utf-16"), "binary"),
        (b"# STOCKHOLM 1.0\nseq1 ACDE\n", "alignment"),
        (b"CLUSTAL W\n", "alignment"),
        (b"<html><body>404</body></html>", "HTML"),
        (b'{"a": "MKV"}', "JSON"),
        (b"LOCUS       AB000001\n", "flat file"),
        (b"HEADER    TRANSFERASE\n", "dataset=pdb"),
    ],
    ids=range(17),
)
def test_what_is_not_fasta(file: Path, content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        read(file, content)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compression_is_known_by_content(file: Path, compress: Callable[[bytes], bytes]) -> None:
    packed = compress(b">a\nACDE\n")
    assert [record.id for record in read(file, packed)] == ["a"]
    whole = b"".join(f">r{n}\nACDEFGHIKLMNPQRSTVWY\n".encode() for n in range(300))
    with pytest.raises(InputError, match="cut or damaged"):
        read(file, compress(whole)[:-20])


def test_zstandard(file: Path) -> None:
    zstd = pytest.importorskip("backports.zstd")
    assert [record.id for record in read(file, zstd.compress(b">a\nACDE\n"))] == ["a"]


def test_gzip_bomb_is_bounded(file: Path) -> None:
    """100 million residues in one line: rejected for their number, while memory stays small."""
    import resource

    with gzip.open(file, "wb", compresslevel=1) as out:
        out.write(b">bomb\n")
        for _ in range(100):
            out.write(b"A" * 1_000_000)
        out.write(b"\n>good\nACDE\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bomb, good = FastaDataset(path=str(file))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # in KiB
    assert isinstance(bomb, Rejected) and "100,000,000 residues" in bomb.reason
    assert isinstance(good, Protein) and grown < 50_000


def test_nucleotides_are_told_but_computed(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        records = read(file, ">gene1\n" + "ACGTTGCA" * 20 + "\n>gene2\n" + "ACGUN" * 20 + "\n>short\nACGA\n")
    assert [isinstance(record, Protein) for record in records] == [True] * 3
    assert "nucleotide" in records[0].note and records[2].note == ""  # type: ignore[union-attr]
    assert len(caplog.records) == 1 and "gene1" in caplog.text


def test_several_files_and_ids(tmp_path: Path) -> None:
    one, two = tmp_path / "1.fa", tmp_path / "2.fa"
    one.write_text(">a\nAC\n>sp|P12345|X_Y\nDE\n")
    two.write_text(">c\nFG\n")
    both = [str(one), str(two)]
    assert [record.id for record in build("fasta", path=both)] == ["a", "sp|P12345|X_Y", "c"]
    assert [record.id for record in build("fasta", path=both, ids=["P12345", "c"])] == ["sp|P12345|X_Y", "c"]
    with pytest.raises(InputError, match=r"no record alpha in .*there are: a, c, sp\|P12345\|X_Y"):
        list(build("fasta", path=both, ids=["a", "alpha"]))
    # Reading twice gives the same.
    dataset = build("fasta", path=both)
    assert [record.id for record in dataset] == [record.id for record in dataset]


def test_unusable_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        build("fasta", path=str(tmp_path / "gone.fasta"))
    with pytest.raises(InputError, match="is a folder"):
        build("fasta", path=str(tmp_path))
    with pytest.raises(InputError, match=r"dataset\.path"):
        build("fasta")
    (tmp_path / "link.fasta").symlink_to(tmp_path / "real.fasta")
    (tmp_path / "real.fasta").write_text(">a\nAC\n")
    assert len(list(build("fasta", path=str(tmp_path / "link.fasta")))) == 1


def obvious(text: str) -> list[tuple[str, str | None]]:
    """Id and sequence (None: rejected) of each record, the slow way: the whole file at once."""
    records = []
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    lines = [line for line in text.split("\n") if not line.startswith(";")]
    for record in ("\n" + "\n".join(lines)).split("\n>")[1:]:
        header, *rest = record.split("\n")
        try:
            sequence: str | None = clean("".join(line.strip() for line in rest))[0]
        except ValueError:
            sequence = None
        words = header.split()
        records.append((plain(words[0]) if words else "", sequence if words and "\0" not in header else None))
    return records


PIECES = [b">", b"\n", b"\r\n", b"\r", b";", b" ", b"AC", b"mk", b"*", b"-", b"J", b"\0", b"\xff", b"\xc3\xa9",
          b"\xef\xbb\xbf", b"sp|P1|N x", b"\t", b"<pad>", b"\x1c"]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join) | st.binary(max_size=200))
def test_random_bytes_give_one_result_per_record(file: Path, content: bytes) -> None:
    try:
        records = read(file, content)
    except InputError as error:
        assert str(file) in str(error)
        return
    expected = obvious(content.decode("utf-8", errors="latin1letters"))
    assert len(records) == len(expected)
    for number, (record, (record_id, sequence)) in enumerate(zip(records, expected, strict=True), start=1):
        assert record.id == (record_id or f"record_{number}")
        assert (record.sequence if isinstance(record, Protein) else None) == sequence
