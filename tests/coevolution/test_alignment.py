"""Alignments in every format, whole and broken, and a protein's residues found in their columns."""

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest

from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution import GAP, Query, columns_of_query, load_alignment_for, read_alignment, read_queries
from plmjac.coevolution.alignment import match
from plmjac.datasets import InputError

STATES = [[0, 1, 2, 3], [0, GAP, GAP, 3]]
"""LAGV and L--V."""

FORMATS = {
    "a3m": ">query\nLAG\nV\n>hit\nLa.bX-\nV\n",
    "hh-suite": ">ss_pred\nCCHH\n>query\nLAGV\n>hit\nL--xxV\n",
    "fasta": ">query\nLAGV\n>hit\nL--V\n",
    "lower case": ">query\nlagv\n>hit\nl--v\n",
    "stockholm": "# STOCKHOLM 1.0\n#=GF ID x\nquery LA\nhit L.\n\nquery GV\nhit -V\n#=GC RF xxxx\n//\n",
    "annotation of one block": "# STOCKHOLM 1.0\n\nquery LA\n#=GR query SS HH\nhit L.\n\nquery GV\nhit -V\n//\n",
    "blank line first": "\n\n# STOCKHOLM 1.0\nquery LAGV\nhit L--V\n//\n",
    "tabs": "# STOCKHOLM 1.0\nquery\tLAGV\nhit\tL--V\n//\n\n",
    "no end": "# STOCKHOLM 1.0\nquery LAGV\nhit L--V\n",
    "byte order mark": "\ufeff# STOCKHOLM 1.0\r\nquery LAGV\r\nhit L--V\r\n//\r\n",
    "old line ends": ">query\rLAGV\r>hit\rL--V\r",
    "NUL at the end": ">101\nLAGV\n>hit\tx\nL--aV\n\0",
    "two searches of one query": ">101\nLAGV\n\0>101\nLAGV\n>hit\nL--V\n",
    "comments first": "#4\t1\n>101\nLAGV\n>hit\nL--V\n",
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_states(name: str, tmp_path: Path) -> None:
    path = tmp_path / "alignment"
    for content in (
        FORMATS[name].encode(),
        gzip.compress(FORMATS[name].encode()),
        bz2.compress(FORMATS[name].encode()),
    ):
        path.write_bytes(content)
        assert read_alignment(path).tolist() == STATES
        assert read_alignment(path, max_sequences=1).tolist() == STATES[:1]


def test_states_are_in_the_order_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(f">all\n{AMINO_ACIDS}-\n", encoding="utf-8")
    assert read_alignment(path)[0].tolist() == list(range(21))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b">one\nLAG\n>two\nLA\n", "'two' has 2 columns and the first record 3"),
        (b"LAG\n", "no FASTA record"),
        (b"", "no FASTA record"),
        (b"# STOCKHOLM 1.0\none LAG\ntwo LA\n//\n", "Stockholm: 'two' has 2 columns and the first row 3"),
        (b"# STOCKHOLM 1.0\none LAG\none LAG\n//\n", "'one LAG' is a name twice in one block"),
        (b"# STOCKHOLM 1.0\none LAG V\n//\n", "is no name and row"),
        (b"# STOCKHOLM 1.0\none LAG\n//\n# STOCKHOLM 1.0\ntwo LAG\n//\n", "more than one Stockholm alignment"),
        (b"# STOCKHOLM 1.0\n//\n", "has no row"),
        (b"CLUSTAL W (1.83) multiple sequence alignment\n\none LAG\n", "is a Clustal file; convert it to a3m"),
        (b">101\nLAGV\n\0>102\nLAGG\n", "alignments of '101' and '102'"),
        (gzip.compress(b">one\nLAG\n" * 9000)[:-20], "copy or download the file again"),
    ],
)
def test_what_is_no_alignment_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.a3m"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_alignment(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=r"missing\.a3m cannot be read"):
        read_alignment(tmp_path / "missing.a3m")


def test_stops_and_borders_of_chains_are_no_residues(tmp_path: Path) -> None:
    (tmp_path / "P1.a3m").write_text(">P1\nLAGV:SER*\n>hit\nL*-V:-ER*\n", encoding="utf-8")
    found = load_alignment_for(tmp_path, "P1", "LAGVSER")
    assert found.states.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, GAP, GAP, 3, GAP, 5, 6]] and found.identity == 1
    assert found.positions.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_columns_of_query() -> None:
    assert columns_of_query("-LA.G-V").tolist() == [1, 2, 4, 6]


def test_the_first_row_is_the_protein(tmp_path: Path) -> None:
    (tmp_path / "P1.a3m").write_text(">P1 of something\nL-GVS\n>hit\nLAGbbbVS\n", encoding="utf-8")
    found = load_alignment_for(tmp_path, "P1", "MMLGVSK")
    assert found.states.tolist() == [[0, 2, 3, 4], [0, 2, 3, 4]]
    assert found.positions.tolist() == [2, 3, 4, 5]
    assert (found.identity, found.query, found.path.name) == (1.0, "P1 of something", "P1.a3m")


def test_a_query_that_differs_is_aligned_and_its_identity_told(tmp_path: Path) -> None:
    """The chain lacks two residues of the query and has another one once; both orders are worked out by hand."""
    query, sequence = "LAGVSERTIDPKQNFYMHWC", "GGLAGVSEIDPKWNFYMHWCKK"
    (tmp_path / "P1.fasta").write_text(f">q\n{query}\n>hit\n{query}\n", encoding="utf-8")
    found = load_alignment_for(tmp_path, "P1", sequence)
    assert found.positions.tolist() == list(range(2, 20))
    assert found.states[0].tolist() == [0, 1, 2, 3, 4, 5, *range(8, 20)]
    assert found.identity == 17 / 20


def test_rows_of_proteins_given_apart(tmp_path: Path) -> None:
    folder = tmp_path / "alignments"
    folder.mkdir()
    (folder / "PF1.fasta").write_text(">a\nLAGV\n>b\nLAG-\n", encoding="utf-8")
    (tmp_path / "queries.fasta").write_text(">1ABC_A PF1\n-AG\nV\n>solo\nLAGV\n", encoding="utf-8")
    queries = read_queries(tmp_path / "queries.fasta")
    assert queries == {"1ABC_A": Query("PF1", "-AGV"), "solo": Query("solo", "LAGV")}
    found = load_alignment_for(folder, "1ABC_A", "MAGV", queries=queries)
    assert found.states.tolist() == [[1, 2, 3], [1, 2, GAP]]
    assert found.positions.tolist() == [1, 2, 3]
    for identifier, message in [("1ABC_B", "did you mean '1ABC_A'"), ("solo", "no alignment solo.a3m")]:
        with pytest.raises(InputError, match=message):
            load_alignment_for(folder, identifier, "MAGV", queries=queries)
    with pytest.raises(InputError, match="4 columns and the query of 'x' 2"):
        load_alignment_for(folder, "x", "MAGV", queries={"x": Query("PF1", "LA")})


@pytest.mark.parametrize("identifier", ["x" * 300, "../P1", "a\0b", "nobody"])
def test_an_id_that_is_no_file_name_has_no_alignment(identifier: str, tmp_path: Path) -> None:
    folder = tmp_path / "alignments"
    folder.mkdir()
    (tmp_path / "P1.a3m").write_text(">P1\nLAGV\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no alignment"):
        load_alignment_for(folder, identifier, "LAGV")


def test_two_files_of_one_protein_are_a_question(tmp_path: Path) -> None:
    for name in ("P1.a3m", "P1.sto.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"more than one alignment of P1: P1\.a3m, P1\.sto\.gz"):
        load_alignment_for(tmp_path, "P1", "L")


def test_match_finds_planted_pairs() -> None:
    """Residues cut out of both: the rest must be matched to itself, whatever was cut."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        whole = "".join(rng.choice(list(AMINO_ACIDS), 60))
        start, gap = int(rng.integers(0, 15)), int(rng.integers(25, 35))
        query, sequence = whole[start:50], whole[:gap] + whole[gap + 4 :]
        of_query, of_sequence = match(query, sequence)
        places = [start + i for i in of_query]
        assert [k if k < gap else k + 4 for k in of_sequence][:5] == places[:5]
        assert sum(query[i] == sequence[j] for i, j in zip(of_query, of_sequence, strict=True)) >= 50 - start - 4
