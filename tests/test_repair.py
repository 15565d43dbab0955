"""A damaged store is mended by `plmjac.verify repair=true` and the command that made it, whatever was damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import composed, tree

from plmjac.store import lock, open_store, read_manifest
from plmjac.verify import verify

Predict = Callable[..., int]


@pytest.fixture
def inputs(fasta: Path, tmp_path: Path) -> list[tuple[str, ...]]:
    """The arguments of two runs with different inputs into one store."""
    other = tmp_path / "other.fasta"
    other.write_text(">e\nMKVWW\n>a_again\nMKTAYIAKQRQISFVKSH\n")
    common = ("model=debug", "threads=1", f"store={tmp_path / 'run.zarr'}")
    return [("+dataset=fasta", f"dataset.path={path}", *common) for path in (fasta, other)]


@pytest.fixture
def store(inputs: list[tuple[str, ...]], predict: Predict, tmp_path: Path) -> Path:
    """Results of those runs."""
    assert [predict(*arguments) for arguments in inputs] == [0, 0]
    return tmp_path / "run.zarr"


def check(store: Path, **keys: bool) -> int:
    return verify(composed("verify", f"store={store}", *(f"{key}={value}" for key, value in keys.items())))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped byte": lambda store: flip(store / "proteins/a/contacts/c/0/0"),
    "a chunk gone": lambda store: (store / "proteins/e/logits/c/0/0").unlink(),
    "a protein gone": lambda store: shutil.rmtree(store / "proteins/a"),
    "a half-deleted protein": lambda store: (store / "proteins/e/zarr.json").unlink(),
    "a file too many": lambda store: (store / "proteins/b/notes.txt").write_text("mine"),
    "a stranger": lambda store: (store / "proteins/notes.txt").write_text("mine"),
    "the manifest gone": lambda store: (store / "manifest.parquet").unlink(),
    "the manifest damaged": lambda store: (store / "manifest.parquet").write_bytes(b"PAR1"),
    "the group gone": lambda store: (store / "proteins/zarr.json").unlink(),
    "the group damaged": lambda store: flip(store / "proteins/zarr.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_repair_and_the_same_commands_mend_a_store_of_several_inputs(
    damage: str, store: Path, inputs: list[tuple[str, ...]], predict: Predict
) -> None:
    before, ids = tree(store), {row.id for row in read_manifest(store)}
    DAMAGE[damage](store)
    assert check(store) == 1
    assert check(store, repair=True) == 0
    assert check(store, deep=True) == 0
    assert [predict(*arguments) for arguments in inputs] == [0, 0]
    assert tree(store) == before and {row.id for row in read_manifest(store)} == ids
    assert set(open_store(store)) == ids and check(store, deep=True) == 0


def test_deleting_a_protein_by_hand_and_running_another_input_leaves_no_damage(
    store: Path, inputs: list[tuple[str, ...]], predict: Predict
) -> None:
    shutil.rmtree(store / "proteins/b")
    assert check(store) == 1
    assert predict(*inputs[1]) == 0
    assert check(store) == 0 and "b" not in open_store(store)
    assert predict(*inputs[0]) == 0 and "b" in open_store(store)


def test_what_is_whole_is_left_alone(store: Path) -> None:
    before, rows = tree(store), read_manifest(store)
    (store / "proteins/.DS_Store").write_bytes(b"x")
    (store / "proteins/a/.DS_Store").write_bytes(b"x")
    assert check(store) == 0 and check(store, repair=True) == 0
    after = {name: digest for name, digest in tree(store).items() if ".DS_Store" not in name}
    assert after == before and read_manifest(store) == rows


def test_a_store_that_is_being_written_is_not_repaired(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from plmjac.config import UsageError

    guard = lock(store)
    with pytest.raises(UsageError, match="being written by another run"):
        check(store, repair=True)
    guard.release()
