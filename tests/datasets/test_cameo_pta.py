"""CameoPtaDataset on a small folder, and its splits and contacts on the real one."""

import json
from pathlib import Path

import numpy as np
import pytest

from plmjac.datasets import InputError, build
from plmjac.records import Protein, Rejected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three chains: one with positions, one with contacts alone, one whose file is of another length."""
    (tmp_path / "sequences.fasta").write_text(">1AAA_A\nMKVLA\n>2BBB_B\nACDEF\n>3CCC_C\nMKV\n")
    (tmp_path / "cameo_pta_split.json").write_text(json.dumps({"select10": ["2BBB_B"], "eval29": ["3CCC_C", "1AAA_A"]}))
    (tmp_path / "contacts").mkdir()
    positions = np.zeros((5, 3), np.float32)
    positions[:, 0] = [0, 3.8, 7.6, 11.4, 0]
    resolved = np.array([True, True, True, True, False])
    pairs = np.abs(np.subtract.outer(positions[:, 0], positions[:, 0])) < 8
    np.savez(tmp_path / "contacts/1AAA_A.npz", contacts=pairs, valid_residues=resolved, positions=positions)
    np.savez(tmp_path / "contacts/2BBB_B.npz", contacts=np.eye(5, k=2, dtype=bool), valid_residues=np.ones(5, bool))
    np.savez(tmp_path / "contacts/3CCC_C.npz", contacts=pairs, valid_residues=resolved)
    return tmp_path


def test_splits_and_contacts(folder: Path) -> None:
    first, broken = build("cameo_pta", path=str(folder))
    assert isinstance(first, Protein) and first.id == "1AAA_A" and first.structure is not None
    near, far = first.structure.contacts("ca", 8.0), first.structure.contacts("ca", 12.0)
    assert near.resolved.tolist() == [True] * 4 + [False]
    assert set(zip(*np.nonzero(np.triu(near.pairs)), strict=True)) == {(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)}
    assert far.pairs.sum() == 12 and not far.pairs[4].any()
    with pytest.raises(ValueError, match=r"evaluation\.atom=ca"):
        first.structure.contacts("cb", 8.0)
    assert isinstance(broken, Rejected) and broken.id == "3CCC_C" and "of 3 residues" in broken.reason
    (second,) = build("cameo_pta", path=str(folder), split="selection")
    assert isinstance(second, Protein) and second.structure is not None
    assert second.structure.contacts("ca", 8.0).pairs.sum() == 6
    with pytest.raises(ValueError, match=r"there are ca < 8\.0 A"):
        second.structure.contacts("ca", 10.0)
    assert len(list(build("cameo_pta", path=str(folder), split="all"))) == 3
    assert [record.id for record in build("cameo_pta", path=str(folder), ids="1AAA_A")] == ["1AAA_A"]


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.path is needed"):
        build("cameo_pta")
    with pytest.raises(InputError, match="2BBB_B not in split=evaluation"):
        list(build("cameo_pta", path=str(folder), ids=["2BBB_B"]))
    with pytest.raises(InputError, match="evaluation"):
        build("cameo_pta", path=str(folder), split="eval29")
    (folder / "contacts/1AAA_A.npz").write_bytes(b"no archive")
    first, _ = build("cameo_pta", path=str(folder))
    assert isinstance(first, Rejected) and "1AAA_A.npz" in first.reason
    (folder / "cameo_pta_split.json").write_text('{"eval29": ["9ZZZ_Z"], "select10": []}')
    with pytest.raises(InputError, match=r"names 9ZZZ_Z, which sequences\.fasta does not have"):
        list(build("cameo_pta", path=str(folder)))
    (folder / "cameo_pta_split.json").write_text("[]")
    with pytest.raises(InputError, match="no list of splits"):
        list(build("cameo_pta", path=str(folder)))
    (folder / "cameo_pta_split.json").unlink()
    with pytest.raises(InputError, match=r"has no cameo_pta_split\.json"):
        build("cameo_pta", path=str(folder))


def test_the_real_set(shared_data: Path) -> None:
    sizes = {}
    for split in ("evaluation", "selection", "all"):
        records = list(build("cameo_pta", path=str(shared_data / "cameo_pta"), split=split))
        assert all(isinstance(record, Protein) for record in records)
        sizes[split] = (len(records), sum(len(record) for record in records), max(map(len, records)))  # type: ignore[arg-type]
    assert sizes["all"] == (56, 12_846, 1007)
    assert (sizes["evaluation"][0], sizes["selection"][0]) == (29, 10)
    for record in build("cameo_pta", path=str(shared_data / "cameo_pta"), split="all"):
        assert isinstance(record, Protein) and record.structure is not None
        listed = record.structure.contacts("ca", 8.0)
        measured = record.structure.contacts("ca", 8.0 + 1e-9)
        assert np.array_equal(listed.pairs, measured.pairs) and np.array_equal(listed.resolved, measured.resolved)
