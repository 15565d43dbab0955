"""The store: what is there is whole, what is missing or damaged is an error, and nothing is taken over silently."""

import contextlib
import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr

from plmjac.jacobian import center, contact_map, symmetrize
from plmjac.records import Failure, Protein, WorkItem
from plmjac.store import (
    CorruptStoreError,
    JacobianStore,
    StoreError,
    StoreWriter,
    create_or_check,
    lock,
    open_store,
    read_manifest,
    verify,
    write_manifest,
)
from plmjac.workplan import ManifestRow, Stored, manifest

IDENTITY = {
    "kind": "jacobian",
    "keep": ["contacts", "jacobian", "logits"],
    "model": {"name": "none", "weights_sha256": "0"},
}
SEQUENCE = "MKTAYIAKQRQIS"


def jacobian_of(seed: int, length: int = len(SEQUENCE)) -> torch.Tensor:
    return torch.randn(length, 20, length, 20, generator=torch.Generator().manual_seed(seed)).half().float()


def write_protein(path: Path, key: str, seed: int, sequence: str = SEQUENCE) -> None:
    jacobian = jacobian_of(seed, len(sequence))
    pending = StoreWriter(path).begin(key, sequence=sequence, identifier=key)
    for start in range(0, len(sequence), 4):
        pending.write("jacobian", jacobian[start : start + 4].numpy(), start)
    pending.write("logits", np.zeros((len(sequence), 20), dtype=np.float32))
    pending.write("contacts", contact_map(jacobian).numpy())
    pending.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of two proteins, and an alias of the first."""
    store = tmp_path / "run.zarr"
    create_or_check(store, IDENTITY, {"run": {"max_tokens": 5}})
    write_protein(store, "a", 1)
    write_protein(store, "b", 2)
    rows = [ManifestRow(name, name, len(SEQUENCE), SEQUENCE, status="done") for name in "ab"]
    rows.append(ManifestRow("c", "c", len(SEQUENCE), SEQUENCE, alias_of="a", status="done"))
    rows.append(ManifestRow("bad", "bad", 0, "", status="failed", reason="no atoms"))
    write_manifest(store, rows)
    return store


def test_round_trip(path: Path) -> None:
    store = open_store(path)
    assert list(store) == ["a", "b", "c"]
    assert len(store) == 3 and "bad" not in store
    protein = store["b"]
    assert protein.names == ("contacts", "jacobian", "logits")
    assert np.array_equal(protein.jacobian, jacobian_of(2).numpy().astype(np.float16))
    assert np.array_equal(protein.contacts, contact_map(jacobian_of(2)).numpy())
    assert np.array_equal(store["c"].contacts, store["a"].contacts)
    assert protein.sequence == SEQUENCE and len(protein) == len(SEQUENCE)


def test_couplings_are_those_of_the_whole_tensor(path: Path) -> None:
    protein = open_store(path)["a"]
    whole = symmetrize(center(torch.from_numpy(protein.jacobian.astype(np.float64)))).numpy()
    for i, j in [(0, 0), (2, 7), (7, 2), (12, 0)]:
        np.testing.assert_allclose(protein.couplings(i, j), whole[i, :, j, :], atol=1e-6)
    with pytest.raises(IndexError, match="outside its 13 residues"):
        protein.couplings(0, 13)


def test_plain_zarr_reads_it(path: Path) -> None:
    root = zarr.open(str(path), mode="r")
    array = root["proteins/a/jacobian"]
    assert array.shape == (13, 20, 13, 20) and array.dtype == np.float16 and array.chunks == (4, 20, 13, 20)
    assert np.array_equal(array[:], jacobian_of(1).numpy().astype(np.float16))
    assert root["proteins/a"].attrs["sequence"] == SEQUENCE
    assert root.attrs["format_version"] == 1 and root.attrs["kind"] == "jacobian"


def test_an_array_of_zeros_is_stored_and_missing_chunks_are_not_zeros(path: Path) -> None:
    assert not open_store(path)["a"].logits.any()
    shutil.rmtree(path / "proteins/a/logits/c")
    with pytest.raises(CorruptStoreError, match="chunks are missing"):
        _ = open_store(path)["a"].logits
    (path / "proteins/a/jacobian/c/1/0/0/0").unlink()
    with pytest.raises(CorruptStoreError, match="chunks are missing"):
        _ = open_store(path)["a"].jacobian


def test_what_was_not_kept_is_named(path: Path) -> None:
    with pytest.raises(StoreError, match="'contact_head' was not kept; there are contacts, jacobian, logits"):
        _ = open_store(path)["a"].contact_head


def test_unknown_and_failed_ids_say_why(path: Path) -> None:
    with pytest.raises(KeyError, match="no atoms"):
        open_store(path)["bad"]
    with pytest.raises(KeyError, match="is not in"):
        open_store(path)["nobody"]


def files_of(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in (path / "proteins/a").rglob("*") if file.is_file())


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "delete"])
def test_verify_finds_every_damaged_file(path: Path, how: str) -> None:
    assert all(not damages for _, damages in verify(open_store(path), deep=True))
    for name in files_of(path):
        file = path / name
        whole = file.read_bytes()
        for data in damaged(whole, how):
            file.unlink() if data is None else file.write_bytes(data)
            found = dict(verify(open_store(path)))
            assert found["a"], f"{how} of {name} was not seen"
            assert not found["b"]
        file.write_bytes(whole)
    assert all(not damages for _, damages in verify(open_store(path)))


def damaged(whole: bytes, how: str) -> list[bytes | None]:
    if how == "flip":
        places = {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}
        return [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in sorted(places)]
    return [{"truncate": whole[: len(whole) // 2], "empty": b"", "delete": None}[how]]


def test_a_reader_never_gives_wrong_numbers(path: Path) -> None:
    """Whatever byte of a chunk is flipped: the right numbers or an error."""
    right = {name: open_store(path)["a"].array(name) for name in ("contacts", "jacobian", "logits")}
    generator = np.random.default_rng(0)
    for name in [name for name in files_of(path) if "/c/" in name]:
        file = path / name
        whole = file.read_bytes()
        for at in generator.integers(0, len(whole), 8):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            array = name.split("/")[2]
            with contextlib.suppress(CorruptStoreError):
                assert np.array_equal(open_store(path)["a"].array(array), right[array])
        file.write_bytes(whole)


def test_verify_names_a_protein_that_is_gone_and_a_stranger(path: Path) -> None:
    shutil.rmtree(path / "proteins/b")
    (path / "proteins/a/contacts/c/0/0.partial").write_bytes(b"x")
    found = dict(verify(open_store(path)))
    assert "gone" in found["b"][0].problem
    assert "does not belong" in found["a"][0].problem


def test_the_readers_look_at_what_they_got(path: Path) -> None:
    """Two folders swapped: the reader refuses them, verify names both."""
    other = "ACDEFGHIKLMNP"
    write_protein(path, "other", 5, other)
    write_manifest(path, [*read_manifest(path), ManifestRow("other", "other", 13, other, status="done")])
    (path / "proteins/a").rename(path / "x")
    (path / "proteins/other").rename(path / "proteins/a")
    (path / "x").rename(path / "proteins/other")
    with pytest.raises(CorruptStoreError, match="another sequence"):
        open_store(path)["a"]
    found = dict(verify(open_store(path)))
    assert found["a"] and found["other"] and not found["b"]


@pytest.mark.parametrize("name", ["manifest.parquet", "proteins/zarr.json"])
def test_verify_misses_the_stores_own_files(path: Path, name: str) -> None:
    (path / name).unlink()
    assert dict(verify(open_store(path)))[""]


def test_verify_goes_on_after_a_protein_it_cannot_open(path: Path) -> None:
    (path / "proteins/a/zarr.json").unlink()
    (path / "proteins/a/zarr.json").mkdir()
    (path / "proteins/stranger.txt").write_text("x")
    found = dict(verify(open_store(path)))
    assert found["a"] and found["stranger.txt"] and not found["b"]


def test_a_commit_over_other_content_is_refused(path: Path) -> None:
    before = (path / "proteins/a/zarr.json").read_bytes()
    with pytest.raises(ValueError, match="with other content"):
        write_protein(path, "a", 7)
    assert (path / "proteins/a/zarr.json").read_bytes() == before


def test_deep_verify_sees_a_map_that_is_not_of_its_jacobian(path: Path) -> None:
    pending = StoreWriter(path).begin("d", sequence=SEQUENCE, identifier="d")
    pending.write("jacobian", jacobian_of(1).numpy(), 0)
    pending.write("logits", np.zeros((13, 20), dtype=np.float32))
    pending.write("contacts", contact_map(jacobian_of(9)).numpy())
    pending.commit()
    write_manifest(path, [*read_manifest(path), ManifestRow("d", "d", 13, SEQUENCE, status="done")])
    assert not dict(verify(open_store(path)))["d"]
    assert "does not follow" in dict(verify(open_store(path), deep=True))["d"][0].problem


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_values_that_cannot_be_stored_are_refused(path: Path, value: float) -> None:
    pending = StoreWriter(path).begin("d", sequence="MK", identifier="d")
    with pytest.raises(ValueError, match="not finite, or too large"):
        pending.write("jacobian", np.full((2, 20, 2, 20), value, dtype=np.float32), 0)


def test_another_configuration_is_refused_with_the_keys_that_differ(path: Path) -> None:
    with pytest.raises(StoreError, match=r"model.weights_sha256: the store has '0', this run '1'"):
        create_or_check(path, {**IDENTITY, "model": {"name": "none", "weights_sha256": "1"}}, {})
    assert create_or_check(path, IDENTITY, {"run": {"max_tokens": 7}})["run"] == {"max_tokens": 5}


def test_a_store_that_lacks_a_key_is_said_to_be_of_an_earlier_version(path: Path) -> None:
    subset = {"name": "subset", "k": 4, "choose": "EYVR"}
    other = path.with_name("subset.zarr")
    create_or_check(other, {**IDENTITY, "substitutions": subset}, {})
    now = {**IDENTITY, "substitutions": {**subset, "symmetrized": "tensor"}}
    with pytest.raises(StoreError, match=r"An earlier plmjac made it, which had no substitutions\.symmetrized"):
        create_or_check(other, now, {})
    with pytest.raises(StoreError) as refusal:  # other substitutions, which have no such key
        create_or_check(path, now, {})
    assert "earlier" not in str(refusal.value)


def test_what_is_not_a_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    for name in ("file", "photos"):
        with pytest.raises(StoreError, match="give store= the name of"):
            create_or_check(tmp_path / name, IDENTITY, {})
        with pytest.raises(StoreError, match="give store= the name of"):
            lock(tmp_path / name)
    with pytest.raises(StoreError, match="no plmjac store"):
        open_store(tmp_path / "photos")
    assert [entry.name for entry in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_store_of_another_format_version_is_refused(path: Path) -> None:
    from plmjac.store.layout import group_document

    attributes = dict(open_store(path).attributes)
    (path / "zarr.json").write_bytes(group_document({**attributes, "format_version": 2}))
    with pytest.raises(StoreError, match="format version 2"):
        JacobianStore(path)


@pytest.mark.parametrize("name", ["zarr.json", "manifest.parquet"])
def test_damage_to_the_stores_own_files_is_an_error_or_changes_nothing(path: Path, name: str) -> None:
    """Some bytes of a Parquet file mean nothing to a reader; no flip may give other rows."""
    whole, rows, attributes = (path / name).read_bytes(), open_store(path).rows, open_store(path).attributes
    refused = 0
    for at in range(0, len(whole), 7):
        (path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert open_store(path).rows == rows and open_store(path).attributes == attributes
        except StoreError:
            refused += 1
    assert refused > len(range(0, len(whole), 7)) / 4


def test_the_manifest_comes_back_as_it_was(path: Path) -> None:
    rows = read_manifest(path)
    assert [row.id for row in rows] == ["a", "b", "c", "bad"]
    write_manifest(path, rows)
    assert read_manifest(path) == rows
    assert not list(path.glob(".*.tmp"))


def test_one_run_at_a_time(path: Path) -> None:
    guard = lock(path)
    with pytest.raises(StoreError, match="being written by another run"):
        lock(path)
    guard.release()
    lock(path).release()


def test_a_killed_writer_leaves_nothing_visible(path: Path) -> None:
    pending = StoreWriter(path).begin("d", sequence=SEQUENCE, identifier="d")
    pending.write("jacobian", jacobian_of(1)[:4].numpy(), 0)
    assert not (path / "proteins/d").exists()
    (path / ".manifest.parquet.1.tmp").write_bytes(b"torn")
    StoreWriter(path).clear_pending()
    assert not list((path / "pending").glob("*/")) and not list(path.glob(".*.tmp"))


def test_what_is_half_deleted_goes_and_a_store_called_proteins_keeps_all_else(tmp_path: Path) -> None:
    store = tmp_path / "proteins"
    create_or_check(store, IDENTITY, {"run": {"max_tokens": 5}})
    write_protein(store, "a", 1)
    for folder in ("proteins/half", "notes", "failed", "pending"):
        (store / folder).mkdir(exist_ok=True)
    (store / "notes/mine.txt").touch()
    (store / "failed/b.json").touch()
    StoreWriter(store).clear_pending()
    assert {path.name for path in (store / "proteins").iterdir() if path.is_dir()} == {"a"}
    assert (store / "notes/mine.txt").exists() and (store / "failed/b.json").exists() and (store / "pending").exists()


def test_committing_what_is_already_there_keeps_the_first(path: Path) -> None:
    before = (path / "proteins/a/zarr.json").read_bytes()
    write_protein(path, "a", 1)
    assert (path / "proteins/a/zarr.json").read_bytes() == before
    assert not (path / "pending/a").exists()


def test_failures_are_written_for_their_protein(path: Path) -> None:
    writer = StoreWriter(path)
    writer.fail("k", "K|1", Failure(WorkItem("k", "MK", 0, 2), "no memory", "trace"))
    assert json.loads((path / "failed/k.json").read_bytes())["reason"] == "no memory"
    writer.forget_failures()
    assert not list((path / "failed").iterdir())


def test_a_full_disk_is_an_error_and_leaves_the_store_as_it_was(path: Path) -> None:
    script = f"""
        import resource, numpy as np
        from pathlib import Path
        from plmjac.store import StoreWriter
        pending = StoreWriter(Path({str(path)!r})).begin("d", sequence="M" * 100, identifier="d")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            pending.write("contacts", np.random.default_rng(0).random((100, 100)).astype("f4"))
        except OSError as error:
            print("refused", error.errno)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert "refused 27" in done.stdout, done.stderr
    assert list(open_store(path)) == ["a", "b", "c"]


def test_couplings_need_every_substitution(path: Path) -> None:
    """Blocks of fewer amino acids than 20 cannot be symmetrised; a number made from them would be wrong."""
    pending = StoreWriter(path).begin("few", sequence=SEQUENCE, identifier="few")
    pending.write("jacobian", np.ones((len(SEQUENCE), 4, len(SEQUENCE), 20), dtype=np.float32), 0)
    pending.commit()
    write_manifest(path, [ManifestRow("few", "few", len(SEQUENCE), SEQUENCE, status="done")])
    with pytest.raises(StoreError, match="substitutions=all"):
        open_store(path)["few"].couplings(0, 5)


def test_residue_numbers_are_those_of_each_record(path: Path) -> None:
    """Two records of one sequence have numbers of their own; those without a structure have none."""
    numbers = ("-1", "1", "1A", *(str(number) for number in range(20, 29)), "")
    records = [
        Protein("a", SEQUENCE, residue_numbers=numbers),
        Protein("twin", SEQUENCE, residue_numbers=tuple(map(str, range(13)))),
        Protein("plain", SEQUENCE),
    ]
    write_manifest(
        path, (replace(row, status="done") for row in manifest(records, stored=[Stored("a", "a", SEQUENCE)]))
    )
    store = open_store(path)
    assert store["a"].residue_numbers == numbers
    assert store["twin"].residue_numbers == tuple(map(str, range(13)))
    assert store["plain"].residue_numbers is None


def test_stores_without_structures_have_no_column_for_residue_numbers(path: Path) -> None:
    """As stores of before there were residue numbers, which are read as they are."""
    assert "residue_numbers" not in pq.read_schema(path / "manifest.parquet").names
    assert open_store(path)["a"].residue_numbers is None
