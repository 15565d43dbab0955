"""A protein that costs more than a fair share: its rows in several ranks or shards, the bytes of one process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import ROOT, composed, tree

from plmjac.inference import jacobian_task, sharing
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.inference.sharing import SharedProteins
from plmjac.interruption import Interrupted
from plmjac.models import load_model
from plmjac.plan import plan
from plmjac.records import WorkItem
from plmjac.store import SavedRows, open_store, read_manifest, verify
from plmjac.substitutions import Subset

Predict = Callable[..., int]
GIANT = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVVHSLAKWKRQ"
KEEP = "keep=[contacts,jacobian,logits,representation]"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """One of 78 residues in ten blocks, and three that cost a twentieth together."""
    path = tmp_path / "in.fasta"
    path.write_text(f">giant\n{GIANT}\n>a\nMKVLAAGHE\n>b\nMKWVTFISLL\n>c\nMKV\n>copy\n{GIANT}\n")
    return ["+dataset=fasta", f"dataset.path={path}", "model=debug", "threads=1", KEEP, "rows_per_chunk=8"]


@pytest.fixture
def whole(arguments: list[str], predict: Predict, tmp_path: Path) -> Path:
    """The store of one process."""
    assert predict(*arguments, f"store={tmp_path / 'whole.zarr'}") == 0
    return tmp_path / "whole.zarr"


def blocks_of(store: Path) -> list[str]:
    folder = store / "pending/saved/giant"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Length of the protein and first row of every block that is computed from now on."""
    computed: list[tuple[int, int]] = []
    changes = jacobian_task.changes

    def call(read: Any, tokens: Any, start: int, *rest: Any, **more: Any) -> Any:
        computed.append((len(tokens), start))
        return changes(read, tokens, start, *rest, **more)

    monkeypatch.setattr(jacobian_task, "changes", call)
    return computed


def is_complete(store: Path, whole: Path) -> None:
    assert tree(store) == tree(whole)
    assert [(row.id, row.status) for row in read_manifest(store)] == [
        (name, "done") for name in ("giant", "a", "b", "c", "copy")
    ]
    assert not any(found for _, found in verify(open_store(store), deep=True))
    left = {path.name for path in (store / "pending").rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("lock")} <= {"door", "plan.json"}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_shard_that_ends_last_puts_it_together(
    order: tuple[int, int], arguments: list[str], whole: Path, predict: Predict, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    store, computed = tmp_path / "shards.zarr", watched(monkeypatch)
    with caplog.at_level("INFO"):
        assert predict(*arguments, f"store={store}", f"shard={order[0]}/2") == 0
    assert len(blocks_of(store)) == 5 and "giant" not in open_store(store)
    assert {row.id: row.status for row in read_manifest(store)}["giant"] == "pending"
    assert "pending giant: other shards have rows of it" in caplog.text
    assert predict(*arguments, f"store={store}", f"shard={order[0]}/2") == 0  # again: nothing is computed twice
    assert predict(*arguments, f"store={store}", f"shard={order[1]}/2") == 0
    is_complete(store, whole)
    assert len(computed) == len(set(computed)) == 15  # ten blocks of the giant, five of the others


def test_a_shard_that_is_killed_over_its_rows_or_over_the_joining_is_done_again(
    arguments: list[str], whole: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "shards.zarr"
    apart, compute = JacobianTask.compute_apart, JacobianTask.compute

    def killed(method: Callable[..., Any], role: str, at: int) -> Callable[..., Any]:
        def call(self: JacobianTask, model: Any, item: WorkItem, *rest: Any) -> Any:
            if item.role == role and item.start >= at:
                raise Interrupted
            return method(self, model, item, *rest)

        return call

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(JacobianTask, "compute_apart", killed(apart, "shared", 16))
        predict(*arguments, f"store={store}", "shard=1/2")
    assert 1 <= len(blocks_of(store)) < 5
    assert predict(*arguments, f"store={store}", "shard=2/2") == 0
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(JacobianTask, "compute", killed(compute, "joined", 24))
        predict(*arguments, f"store={store}", "shard=1/2")
    assert "claim" in blocks_of(store) and "giant" not in open_store(store)
    assert predict(*arguments, f"store={store}", "shard=1/2") == 0
    is_complete(store, whole)


def test_a_run_without_shards_goes_on_with_the_rows_that_one_left(
    arguments: list[str], whole: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "shards.zarr"
    assert predict(*arguments, f"store={store}", "shard=2/2") == 0
    computed = watched(monkeypatch)
    assert predict(*arguments, f"store={store}") == 0
    is_complete(store, whole)
    assert sum(length == len(GIANT) for length, _ in computed) == 5


def test_rows_that_fail_in_one_shard_fail_the_protein_and_are_tried_again(
    arguments: list[str], whole: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, original = tmp_path / "shards.zarr", JacobianTask.compute_apart

    def sabotaged(self: JacobianTask, model: Any, item: WorkItem, *rest: Any) -> None:
        if item.start == 48:
            raise ValueError("no luck")
        original(self, model, item, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(JacobianTask, "compute_apart", sabotaged)
        codes = [predict(*arguments, f"store={store}", f"shard={number}/2") for number in (1, 2)]
        assert sorted(codes) in ([0, 3], [3, 3]) and "giant" not in open_store(store)
        status = {row.id: (row.status, row.reason) for row in read_manifest(store)}
        assert status["giant"] == ("failed", "no luck")
    assert [predict(*arguments, f"store={store}", f"shard={number}/2") for number in (1, 2)] == [0, 0]
    is_complete(store, whole)


def test_two_ranks_give_the_bytes_of_one(arguments: list[str], whole: Path, tmp_path: Path) -> None:
    """torchrun; both have rows of the giant, and one of them puts it together."""
    store = tmp_path / "ranks.zarr"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "plmjac.predict",
         *arguments, f"store={store}", "trainer=ddp", "trainer.accelerator=cpu"],
        cwd=ROOT, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    is_complete(store, whole)


def test_plan_tells_a_shard_its_rows(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(composed("plan", *arguments, "shard=1/2")) == 0
    first = capsys.readouterr().out
    assert "of giant 5 of 10 blocks of rows, the rest in other shards" in first
    assert plan(composed("plan", *arguments)) == 0
    assert "other shards" not in capsys.readouterr().out


def test_rows_made_with_other_amino_acids_are_not_taken(tmp_path: Path) -> None:
    """Where the model chooses them, another machine may choose others at a near tie: its rows are computed anew."""
    model = load_model("debug")
    task = JacobianTask(Subset(k=2, choose="likely"), ["jacobian"], rows_per_chunk=8, saved=SavedRows(tmp_path))
    item = WorkItem("g", GIANT, 0, 8, role="shared")
    task.compute_apart(model, item, 4096)
    shape, saved = (8, 2), SavedRows(tmp_path)
    rest = [(8, 2, len(GIANT), 20)]
    letters, rows = saved.load(item, [shape, *rest]) or []
    saved.save(item, np.roll(letters, 1, axis=1), rows)
    calls: list[int] = []
    task._parts(model, item, task._protein, 4096, calls.append)  # type: ignore[arg-type]
    assert sum(calls) == 16
    again = saved.load(item, [shape, *rest])
    assert again is not None and np.array_equal(again[0], letters)


def test_one_process_claims_a_protein_and_a_dead_ones_claim_is_freed(tmp_path: Path) -> None:
    items = [WorkItem("g", GIANT, start, start + 39, role="joined") for start in (0, 39)]
    saved = SavedRows(tmp_path)
    first, second = (SharedProteins(tmp_path, role, items, ()) for role in ("1-of-2", "2-of-2"))
    rows = np.zeros((1, 1), dtype=np.float32)
    saved.save(items[0], rows)
    assert not first.concerns(items[0])  # the second block is missing
    saved.save(items[1], rows)
    assert second.concerns(items[0]) and second.concerns(items[1])
    assert not first.concerns(items[0]) and not first.concerns(items[1])
    saved.free_claims("1-of-2")
    assert not first.concerns(items[0])
    saved.free_claims("2-of-2")
    assert first.concerns(items[0])
    saved.free_claims(None)
    (tmp_path / "proteins/g").mkdir(parents=True)
    assert not second.concerns(items[0])


def test_the_first_rank_waits_until_the_others_have_done_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [WorkItem("g", GIANT, start, start + 39, role="joined") for start in (0, 39)]
    saved, rows = SavedRows(tmp_path), np.zeros((1, 1), dtype=np.float32)
    saved.save(items[0], rows)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            saved.save(items[1], rows)

    monkeypatch.setattr(sharing.time, "sleep", sleep)
    assert SharedProteins(tmp_path, "run", items, {"g"}).concerns(items[0])
    assert len(looks) == 3
