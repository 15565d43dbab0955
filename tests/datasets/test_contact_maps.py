"""Folders of sequences and contact matrices: what is read, what is unknown, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plmjac.datasets import InputError, build
from plmjac.datasets.contact_maps import contacts_of
from plmjac.records import Protein, Rejected


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder(id=(sequence, matrix), ...)` writes a set; a matrix of None has no file."""

    def write(**records: tuple[str, np.ndarray | None]) -> Path:
        (tmp_path / "contacts").mkdir(exist_ok=True)
        text = "".join(f">{name} something\n{sequence}\n" for name, (sequence, _) in records.items())
        (tmp_path / "extracted_sequences.fasta").write_text(text)
        for name, (_, matrix) in records.items():
            if matrix is not None:
                np.save(tmp_path / "contacts" / f"{name}.npy", matrix)
        return tmp_path

    return write


def _matrix(length: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    matrix = np.eye(length)  # the diagonal is 1 in the public sets; it is no contact
    for i, j in pairs:
        matrix[i, j] = matrix[j, i] = 1
    return matrix


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_])
def test_contacts_are_the_ones_of_the_matrix(folder: Callable[..., Path], dtype: type) -> None:
    path = folder(T1=("MKVLA", _matrix(5, [(0, 3), (1, 4)]).astype(dtype)))
    (protein,) = build("contact_maps", path=str(path))
    assert isinstance(protein, Protein)
    assert protein.structure is not None
    contacts = protein.structure.contacts("cb", 8.0)
    assert np.argwhere(np.triu(contacts.pairs)).tolist() == [[0, 3], [1, 4]]
    assert contacts.resolved.all()
    with pytest.raises(ValueError, match="no contacts for ca < 10"):
        protein.structure.contacts("ca", 10.0)


@pytest.mark.parametrize("unknown", [np.nan, -1])
def test_a_residue_without_knowledge_is_unresolved(unknown: float) -> None:
    matrix = _matrix(4, [(0, 3)])
    matrix[2, :] = matrix[:, 2] = unknown
    contacts = contacts_of(matrix, 4)
    assert contacts.resolved.tolist() == [True, True, False, True]
    assert not contacts.pairs[2].any()


def test_what_is_wrong_with_one_matrix_leaves_the_others(folder: Callable[..., Path]) -> None:
    lopsided = _matrix(4, [])
    lopsided[0, 3] = 1
    half_known = _matrix(4, [])
    half_known[0, 3] = half_known[3, 0] = np.nan
    path = folder(
        good=("MKVL", _matrix(4, [])), none=("MKVL", None), short=("MKVLA", _matrix(4, [])), odd=("MKVL", lopsided),
        distances=("MKVL", np.full((4, 4), 7.5)), half=("MKVL", half_known),
    )  # fmt: skip
    (path / "contacts" / "broken.npy").write_bytes(b"not numpy")
    with (path / "extracted_sequences.fasta").open("a") as file:
        file.write(">broken\nMKVL\n>bad letters\nMK VL1\n")
    records = {record.id: record for record in build("contact_maps", path=str(path))}
    assert isinstance(records["good"], Protein)
    reasons = {name: record.reason for name, record in records.items() if isinstance(record, Rejected)}
    assert "No such file" in reasons["none"]
    assert "shape (4, 4) for a sequence of 5 residues" in reasons["short"]
    assert "not symmetric" in reasons["odd"]
    assert "it holds 7.5" in reasons["distances"]
    assert "single pairs are unknown" in reasons["half"]
    assert set(reasons) == set(records) - {"good"}
    assert all("take the file again" in reasons[name] for name in ("none", "short", "odd", "broken"))


def test_ids_and_folders_that_are_not_there(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder(T1=("MKVL", _matrix(4, [])), T2=("MKVLA", _matrix(5, [])))
    assert [record.id for record in build("contact_maps", path=str(path), ids="T2")] == ["T2"]
    with pytest.raises(InputError, match=r"no record T3; did you mean"):
        list(build("contact_maps", path=str(path), ids="T3"))
    with pytest.raises(InputError, match=r"has no extracted_sequences.fasta"):
        build("contact_maps", path=str(tmp_path / "contacts"))
    with pytest.raises(InputError, match=r"dataset.path is needed"):
        build("contact_maps")
