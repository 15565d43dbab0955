"""Jobs that share a store without talking: each its own proteins, together the bytes of one run, whoever dies."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import composed, tree

from plmjac.config import UsageError
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.inference.tasks import Answer
from plmjac.interruption import Interrupted
from plmjac.models import LanguageModel
from plmjac.records import WorkItem
from plmjac.store import lock, open_store, read_manifest, verify

Predict = Callable[..., int]


@pytest.fixture
def arguments(fasta: Path) -> tuple[str, ...]:
    """Four proteins, an alias, a record that is refused."""
    with fasta.open("a") as file:
        file.write(">gaps\nM-KV\n")
    return ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", "keep=[contacts,jacobian]")


@pytest.fixture
def whole(arguments: tuple[str, ...], predict: Predict, tmp_path: Path) -> Path:
    """The store of a run without shards."""
    assert predict(*arguments, f"store={tmp_path / 'whole.zarr'}") == 3
    return tmp_path / "whole.zarr"


def states(store: Path) -> list[tuple[str, str, str]]:
    return [(row.id, row.status, row.alias_of) for row in read_manifest(store)]


@pytest.mark.parametrize("count", [1, 3, 9])
def test_shards_in_any_order_give_the_store_of_one_run(
    count: int, arguments: tuple[str, ...], whole: Path, predict: Predict, tmp_path: Path
) -> None:
    """Also more shards than proteins; the record that nobody computes is the first shard's to report."""
    store = tmp_path / "shards.zarr"
    codes = {number: predict(*arguments, f"store={store}", f"shard={number}/{count}") for number in range(count, 0, -1)}
    assert codes == {number: 3 if number == 1 else 0 for number in range(1, count + 1)}
    assert tree(store) == tree(whole) and states(store) == states(whole)
    assert not any(found for _, found in verify(open_store(store), deep=True))
    assert {path.name for path in (store / "failed").iterdir()} == {path.name for path in (whole / "failed").iterdir()}
    assert predict(*arguments, f"store={store}", f"shard=1/{count}") == 3  # again, with nothing left to do
    assert tree(store) == tree(whole) and states(store) == states(whole)


def test_shards_of_a_part_of_each_protein_give_the_store_of_one_run(
    arguments: tuple[str, ...], predict: Predict, tmp_path: Path
) -> None:
    part = (*arguments, "positions=1:4")
    whole, store = tmp_path / "part.zarr", tmp_path / "shards.zarr"
    code = predict(*part, f"store={whole}")
    assert max(predict(*part, f"store={store}", f"shard={number}/3") for number in (2, 3, 1)) == code
    assert tree(store) == tree(whole) and states(store) == states(whole)
    assert {protein.positions for protein in map(open_store(store).__getitem__, open_store(store))} == {(1, 4)}


def test_a_shard_that_is_killed_keeps_nobody_waiting_and_is_done_again(
    arguments: tuple[str, ...], whole: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "shards.zarr"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(JacobianTask, "compute", lambda *_: (_ for _ in ()).throw(Interrupted))
        predict(*arguments, f"store={store}", "shard=2/2")
    assert predict(*arguments, f"store={store}", "shard=1/2") == 3
    assert {status for _, status, _ in states(store)} == {"done", "pending", "failed"}
    assert predict(*arguments, f"store={store}", "shard=2/2") == 0
    assert tree(store) == tree(whole) and states(store) == states(whole)


def test_a_run_without_shards_completes_what_they_left(
    arguments: tuple[str, ...], whole: Path, predict: Predict, tmp_path: Path
) -> None:
    store = tmp_path / "shards.zarr"
    assert predict(*arguments, f"store={store}", "shard=2/3") == 0
    assert 0 < len(open_store(store)) < 5
    assert predict(*arguments, f"store={store}") == 3
    assert tree(store) == tree(whole) and states(store) == states(whole)


def test_a_failure_is_its_own_shards_and_stays_in_the_manifest(
    arguments: tuple[str, ...], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, original = tmp_path / "shards.zarr", JacobianTask.compute

    def sabotaged(self: JacobianTask, model: LanguageModel, item: WorkItem, *others: Any) -> Answer:
        if item.key == "b":
            raise ValueError("no luck")
        return original(self, model, item, *others)

    monkeypatch.setattr(JacobianTask, "compute", sabotaged)
    codes = [predict(*arguments, f"store={store}", f"shard={number}/4") for number in (1, 2, 3, 4)]
    assert sorted(codes) in ([0, 0, 0, 3], [0, 0, 3, 3]) and codes[0] == 3
    status = {row.id: (row.status, row.reason) for row in read_manifest(store)}
    assert status["b"] == ("failed", "no luck") and status["c"][0] == "done"


def test_two_copies_of_one_shard_a_run_beside_shards_and_another_plan_are_refused(
    arguments: tuple[str, ...], predict: Predict, tmp_path: Path
) -> None:
    store = tmp_path / "shards.zarr"
    assert predict(*arguments, f"store={store}", "shard=2/3") == 0
    held = lock(store, "1-of-3")  # as if shard 1 were at work
    with pytest.raises(UsageError, match=r"shard 1/3 .* by another run"):
        predict(*arguments, f"store={store}", "shard=1/3")
    with pytest.raises(UsageError, match="being written by another run"):
        predict(*arguments, f"store={store}")
    with pytest.raises(UsageError, match="shards of another plan"):
        predict(*arguments, f"store={store}", "shard=2/4")
    with pytest.raises(UsageError, match="shards of another plan"):
        predict(*arguments, f"store={store}", "shard=2/3", "max_length=10")
    assert predict(*arguments, f"store={store}", "shard=3/3") == 0
    held.release()
    assert predict(*arguments, f"store={store}", "shard=1/3") == 3


@pytest.mark.parametrize("text", ["0/3", "4/3", "three", "1/0"])
def test_a_shard_that_cannot_be_is_a_sentence(text: str, predict: Predict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="from 1 to n"):
        predict("+dataset=demo", "model=debug", f"store={tmp_path / 'x.zarr'}", f"shard={text}")
    assert not (tmp_path / "x.zarr").exists()


def test_plan_forecasts_the_share(
    arguments: tuple[str, ...], predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from plmjac.plan import plan

    store = tmp_path / "shards.zarr"
    predict(*arguments, f"store={store}", "shard=2/2")
    done = set(open_store(store))
    assert plan(composed("plan", *arguments, f"store={store}", "shard=2/2")) == 0
    said = capsys.readouterr().out
    assert f"{len(done - {'copy_of_a'})} proteins, of which 0 are to be computed" in said
    shutil.rmtree(store)
    assert plan(composed("plan", *arguments, f"store={store}", "shard=1/2")) == 0
    assert "shard     1/2: " in capsys.readouterr().out


def test_an_object_store_is_refused_before_a_folder_of_its_name_is_made(predict: Predict) -> None:
    with pytest.raises(UsageError, match=r"a folder of this machine, not s3://"):
        predict("+dataset=demo", "model=debug", "store=s3://bucket/run.zarr")
    assert not Path("s3:").exists()
