"""PdbDataset: which files and chains it takes, what it calls them, and how it fetches entries."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from handmade import backbone, write

from plmjac.datasets import InputError, build
from plmjac.datasets.pdb import PdbDataset
from plmjac.records import Filtered, Protein, Rejected


def test_broken_links_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "a.pdb", *backbone("A", ["ALA"]))
    (tmp_path / "b.pdb").symlink_to(tmp_path / "gone.pdb")
    (tmp_path / "c.pdb").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    records = list(PdbDataset(path=str(tmp_path)))
    assert [(type(r), r.id) for r in records] == [(Protein, "a_A"), (Rejected, "b")]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("1ten_A.pdb", ["1TEN_A", "1TEN_B"]),
        ("1TEN_A.ent", ["1TEN_A", "1TEN_B"]),
        ("pdb1ten.ent", ["1TEN_A", "1TEN_B"]),
        ("1ten.PDB", ["1TEN_A", "1TEN_B"]),
        ("my_model.pdb", ["my_model_A", "my_model_B"]),
        ("my_model_C.pdb", ["my_model_C_A", "my_model_C_B"]),
        ("a_b_A.v2.pdb", ["a_b_A.v2_A", "a_b_A.v2_B"]),
    ],
)
def test_ids_from_file_names(tmp_path: Path, name: str, ids: list[str]) -> None:
    file = write(tmp_path / name, *backbone("A", ["ALA"]), "TER", *backbone("B", ["CYS"]))
    assert [record.id for record in PdbDataset(path=str(file))] == ids
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert [record.id for record in PdbDataset(path=str(packed))] == ids


def test_same_id_twice(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "1abc.pdb", *backbone("A", ["ALA", "CYS"])),
        write(tmp_path / "1ABC.ent", *backbone("A", ["ALA", "CYS"])),
        write(tmp_path / "pdb1abc.ent", *backbone("A", ["ALA", "TRP"])),
    ]
    first, same, other = PdbDataset(path=[str(file) for file in files])
    assert isinstance(first, Protein) and isinstance(same, Filtered) and isinstance(other, Rejected)
    assert "another sequence" in other.reason and str(files[0]) in other.reason
    assert len({first.id, same.id, other.id}) == 3


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in ("1aaa", "1bbb"):
        chains = [[*backbone(chain, ["ALA", "CYS"]), "TER"] for chain in "ABb"]
        write(tmp_path / f"{name}.pdb", *(line for chain in chains for line in chain))
    (tmp_path / "1ccc.pdb").write_text("")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ids": ["1aaa"]}, ["1AAA_A", "1AAA_B", "1AAA_b"]),
        ({"ids": "1bbb_B"}, ["1BBB_B"]),
        ({"ids": ["1BBB_b", "1AAA_a"]}, ["1AAA_A", "1BBB_b"]),
        ({"ids": ["1ccc_A", "1AAA_A"]}, ["1AAA_A", "1CCC"]),
        ({"chains": ["A"]}, ["1AAA_A", "1BBB_A", "1CCC"]),
        ({"chains": ["1AAA_b", "1bbb_A"]}, ["1AAA_b", "1BBB_A"]),
        ({"ids": ["1AAA"], "chains": ["B"]}, ["1AAA_B"]),
    ],
)
def test_selection(folder: str, arguments: dict[str, Any], expected: list[str]) -> None:
    assert [record.id for record in PdbDataset(path=folder, **arguments)] == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({}, "dataset.path"),
        ({"ids": ["tenascin"]}, "not a PDB id"),
        ({"ids": ["../../etc/passwd"]}, "not a PDB id"),
    ],
)
def test_unusable_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build("pdb", **arguments)


def test_unusable_folders_and_unknown_names(folder: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no chain Z; there are: 1AAA_A, 1AAA_B"):
        list(PdbDataset(path=folder, chains=["A", "Z"]))
    with pytest.raises(InputError, match="nothing found for 1aab"):
        list(PdbDataset(path=folder, ids=["1aab"]))
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="it is empty"):
        PdbDataset(path=str(tmp_path / "sub"))
    (tmp_path / "sub" / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"holds a\.txt"):
        PdbDataset(path=str(tmp_path / "sub"))
    (tmp_path / "mine.seq").write_text(">one\nMKT\n")
    with pytest.raises(InputError, match=r"mine\.seq is a FASTA file, without structures; use dataset=fasta"):
        PdbDataset(path=str(tmp_path / "mine.seq"))


def test_fetched_entries(server: Any, tmp_path: Path) -> None:
    """Fetched once into the cache, an unknown entry told, the others not stopped by it."""
    content = gzip.compress(write(tmp_path / "x", *backbone("A", ["ALA", "CYS"])).read_bytes())
    server.answers = {
        "/1ABC.cif.gz": [server.status(503), server.body(content)],
        "/4CUT.cif.gz": [server.body(content[:60])],
    }
    arguments = {"ids": ["1abc_A", "9ZZZ", "4cut", "1ABC"], "cache": str(tmp_path / "cache"), "url": server.url}
    protein, unknown, cut = build("pdb", **arguments)
    assert isinstance(protein, Protein) and (protein.id, protein.sequence) == ("1ABC_A", "AC")
    assert isinstance(unknown, Rejected) and unknown.id == "9ZZZ" and "no such entry" in unknown.reason
    assert isinstance(cut, Rejected) and cut.id == "4CUT" and "damaged" in cut.reason
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["1ABC.cif.gz"]
    requests = len(server.requests)
    assert [record.id for record in build("pdb", **{**arguments, "ids": ["1ABC"]})] == ["1ABC_A"]
    assert len(server.requests) == requests


def test_without_network_the_remedy_is_named(tmp_path: Path) -> None:
    dataset = PdbDataset(ids=["1TEN"], cache=str(tmp_path), url="http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"dataset\.path"):
        list(dataset)


def test_covariation_structures(shared_data: Path) -> None:
    records = list(PdbDataset(path=str(shared_data / "covariation" / "structures")))
    assert len(records) == 36 and all(isinstance(record, Protein) for record in records)
    assert [record.id for record in records] == sorted(
        f.stem for f in (shared_data / "covariation/structures").iterdir()
    )
