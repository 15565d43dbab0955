"""A long protein goes on where it was killed, to the same bytes; a block of anything else is never taken for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tree

from plmjac.inference import jacobian_task
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.inference.tasks import Answer
from plmjac.interruption import Interrupted
from plmjac.models import LanguageModel
from plmjac.records import WorkItem
from plmjac.store import SavedRows

Predict = Callable[..., int]
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def test_a_killed_protein_goes_on_with_the_blocks_it_has(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.fasta"
    path.write_text(f">long\n{SEQUENCE}\n>short\nMKV\n")
    arguments = (
        "+dataset=fasta", f"dataset.path={path}", "model=debug", "threads=1", "rows_per_chunk=6",
        "keep=[contacts,jacobian,logits]",
    )  # fmt: skip
    assert predict(*arguments, f"store={tmp_path / 'undisturbed.zarr'}") == 0
    store = tmp_path / "killed.zarr"
    monkeypatch.setattr(jacobian_task, "SAVE_SECONDS", 0.0)
    original = JacobianTask.compute

    def killed(self: JacobianTask, model: LanguageModel, item: WorkItem, *rest: Any) -> Answer:
        if item.start >= 18:
            raise Interrupted
        return original(self, model, item, *rest)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(JacobianTask, "compute", killed)
        predict(*arguments, f"store={store}")
    assert sorted(file.name for file in (store / "pending/saved/long").iterdir()) == ["0-6", "12-18", "6-12"]
    computed: list[int] = []
    rows = jacobian_task.changes
    monkeypatch.setattr(jacobian_task, "changes", lambda *a, **k: computed.append(a[2]) or rows(*a, **k))  # type: ignore[func-returns-value]
    assert predict(*arguments, f"store={store}") == 0
    assert computed == [18, 24, 30, 0]  # the rest of the long one, then the short one
    assert tree(store) == tree(tmp_path / "undisturbed.zarr")
    assert not list((store / "pending/saved").iterdir())


def test_only_the_very_same_block_comes_back(tmp_path: Path) -> None:
    saved, item = SavedRows(tmp_path), WorkItem("a", SEQUENCE, 0, 4)
    rows = np.random.default_rng(0).random((4, 20, len(SEQUENCE), 20), dtype=np.float32)
    strength = np.random.default_rng(1).random((4, len(SEQUENCE)), dtype=np.float32)
    shapes = [rows.shape, strength.shape]
    assert saved.load(item, shapes) is None
    saved.save(item, rows, strength)
    loaded = saved.load(item, shapes)
    assert loaded is not None and np.array_equal(loaded[0], rows) and np.array_equal(loaded[1], strength)
    assert saved.load(WorkItem("a", SEQUENCE[::-1], 0, 4), shapes) is None
    assert saved.load(WorkItem("a", SEQUENCE, 0, 5), shapes) is None
    assert saved.load(WorkItem("b", SEQUENCE, 0, 4), shapes) is None
    assert saved.load(item, shapes[:1]) is None
    path = tmp_path / "pending/saved/a/0-4"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    assert saved.load(item, shapes) is None
    saved.drop_all_but({"b"})
    assert not path.exists()
