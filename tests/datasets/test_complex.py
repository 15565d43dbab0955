"""Complexes: chains joined as asked, coordinates that follow their residues, and a reason for what is no complex."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import backbone, write

from plmjac.datasets.base import InputError
from plmjac.datasets.complex import LINKER, ComplexDataset
from plmjac.datasets.pdb import PdbDataset
from plmjac.records import Chains, Protein, Rejected


def records(path: Path, **arguments: Any) -> dict[str, Any]:
    return {record.id: record for record in ComplexDataset(path=str(path), **arguments)}


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "some.fasta"
    path.write_text(">trimer of chains\nmktay\nIA:ACD\n:EFGH*\n>single\nMKV\n>open\nMKV:\n>odd\nMKV:A1\n")
    return path


def test_chains_of_a_record_are_joined_by_a_linker(fasta: Path) -> None:
    found = records(fasta)
    trimer = found["trimer"]
    assert trimer.sequence == f"MKTAYIA{LINKER}ACD{LINKER}EFGH" and len(LINKER) == 25
    assert [trimer.sequence[slice(*span)] for span in trimer.chains.spans] == ["MKTAYIA", "ACD", "EFGH"]
    assert trimer.chains.breaks == (32, 60)
    assert [trimer.sequence[slice(*span)] for span in trimer.chains.linkers] == [LINKER, LINKER]
    assert trimer.chains.positions() is None
    assert (found["single"].sequence, found["single"].chains) == ("MKV", None)
    assert "chain 2: the sequence is empty" in found["open"].reason
    assert "chain 2: position 2 holds '1'" in found["odd"].reason


def test_chains_of_a_record_are_kept_apart_by_an_index_gap(fasta: Path) -> None:
    trimer = records(fasta, linker=None, index_gap=200)["trimer"]
    assert trimer.sequence == "MKTAYIAACDEFGH" and trimer.chains == Chains(((0, 7), (7, 10), (10, 14)), 200)
    assert trimer.chains.linkers == ()
    expected = [*range(7), 207, 208, 209, 410, 411, 412, 413]
    np.testing.assert_array_equal(trimer.chains.positions(), expected)


def test_a_structure_gives_one_complex_with_coordinates_where_the_residues_are(tmp_path: Path) -> None:
    lines = [
        *backbone("A", ["MET", "LYS", "GLY"]),
        *backbone("B", ["ALA", "CYS"], first=5),
        *backbone("C", ["TRP"] * 2),
    ]
    file = write(tmp_path / "three.pdb", *lines)
    both = records(file, chains=["B", "A"], linker="GS")["three_B-A"]
    assert both.sequence == "ACGSMKG" and both.chains.spans == ((0, 2), (4, 7))
    x = [19.0, 22.8, np.nan, np.nan, 3.8, 7.6, 11.4]
    np.testing.assert_allclose(both.structure.alpha[:, 0], x)
    np.testing.assert_allclose(both.structure.beta[:, 1], [1.5, 1.5, np.nan, np.nan, 1.5, 1.5, 0.0])
    assert both.residue_numbers == ("5", "6", "", "", "1", "2", "3")
    contacts = both.structure.contacts("ca", 8.0)
    assert contacts.resolved.tolist() == [True, True, False, False, True, True, True]
    assert {(i, j) for i, j in zip(*np.nonzero(contacts.pairs), strict=True) if i < 2 <= j} == {(0, 6)}
    assert records(file)["three_A-B-C"].sequence == LINKER.join(["MKG", "AC", "WW"])
    assert list(records(file, chains=["A", "C"])) == ["three_A-C"]


def test_what_is_no_complex_is_rejected_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / "one.pdb", *backbone("A", ["MET", "LYS"]))
    (missing,) = records(file, chains=["A", "Z"]).values()
    assert isinstance(missing, Rejected) and "no protein chain Z; there are A" in missing.reason
    (alone,) = records(file).values()
    assert isinstance(alone, Rejected) and "one protein chain" in alone.reason
    (broken,) = records(write(tmp_path / "broken.pdb", "nothing here")).values()
    assert isinstance(broken, Rejected) and "broken.pdb" in broken.reason


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": None}, "dataset.path=FILE.fasta"),
        ({"path": "nowhere.fasta"}, "does not exist"),
        ({"chains": ["A"]}, "two chains or more"),
        ({"chains": ["A", "A"]}, "each once"),
        ({"chains": ["A", "B"]}, "chains of structures"),
        ({"linker": "GG1"}, "position 3 holds '1'"),
        ({"index_gap": -1}, "0 or more"),
    ],
)
def test_wrong_keys_say_what_to_do(fasta: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        list(ComplexDataset(**{"path": str(fasta), **arguments}))


def test_two_chains_of_a_large_assembly(shared_data: Path) -> None:
    file = shared_data / "structures" / "4uv3.cif.gz"
    a, b = PdbDataset(path=str(file), chains=["A", "B"])
    (both,) = ComplexDataset(path=str(file), chains=["A", "B"])
    assert isinstance(a, Protein) and isinstance(b, Protein) and isinstance(both, Protein)
    assert both.sequence == a.sequence + LINKER + b.sequence and both.chains is not None
    first, second = both.chains.spans
    assert both.chains.breaks == (287,)
    pairs = both.structure.contacts("cb", 8.0).pairs[slice(*first), slice(*second)]  # type: ignore[union-attr]
    between = sum(
        bool(np.linalg.norm(p - q) < 8.0)
        for p in a.structure.beta  # type: ignore[union-attr]
        for q in b.structure.beta  # type: ignore[union-attr]
    )
    assert pairs.sum() == between == 229
