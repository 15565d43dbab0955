"""Memory is asked for before a protein is begun: one that would not fit waits, then is recorded, and alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import tree

from plmjac.inference import loop
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.inference.memory import Peaks, memory_of_machine
from plmjac.limit import Limit
from plmjac.models import size_of
from plmjac.store import open_store, read_manifest
from plmjac.substitutions import AllSubstitutions

Predict = Callable[..., int]
LONG = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVK"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    path = tmp_path / "in.fasta"
    path.write_text(f">long\n{LONG}\n>a\nMKVLAAGHE\n>b\nMKV\n")
    return ["+dataset=fasta", f"dataset.path={path}", "model=debug", "threads=1", "max_tokens=256"]


def room(length: int) -> int:
    """As much memory as a protein of this length takes besides the model."""
    size = size_of("debug", kind="cpu")
    return JacobianTask(AllSubstitutions(), ["contacts", "logits"]).peak(length, 256, size, "cpu") - size.weights


def test_what_does_not_fit_is_recorded_with_the_remedy_and_done_where_it_does(
    arguments: list[str], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "at_hand", lambda device: room(len(LONG)) - 1)
        assert predict(*arguments, f"store={store}") == 3
    rows = {row.id: row for row in read_manifest(store)}
    assert {name: row.status for name, row in rows.items()} == {"long": "failed", "a": "done", "b": "done"}
    reason = rows["long"].reason
    assert reason.startswith("60 residues need ") and "too_long=window" in reason and "max_length" in reason
    assert "Traceback" not in (store / "failed/long.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "at_hand", lambda device: room(len(LONG)))
        assert predict(*arguments, f"store={store}") == 0
    assert predict(*arguments, f"store={tmp_path / 'other.zarr'}") == 0
    assert tree(store) == tree(tmp_path / "other.zarr") and len(open_store(store)) == 3


def test_what_does_not_fit_at_the_start_goes_last(
    arguments: list[str], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then other programs may have ended, and it is done."""
    order: list[str] = []
    original = JacobianTask.compute

    def watched(self: JacobianTask, model: Any, item: Any, *rest: Any) -> Any:
        order.append(item.key)
        return original(self, model, item, *rest)

    monkeypatch.setattr(JacobianTask, "compute", watched)
    found = iter([room(30), *[10**12] * 9])
    monkeypatch.setattr(loop, "at_hand", lambda device: next(found))
    assert predict(*arguments, f"store={tmp_path / 'run.zarr'}") == 0
    assert order == ["a", "b", "long"]


def test_memory_that_comes_free_a_moment_later_is_waited_for(
    arguments: list[str], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The protein before it is still being written; but what was never there is not waited for."""
    much, little = room(len(LONG)), room(3)
    found = iter([much, much, much, little, *[much] * 9])  # at the start, for a, for b, for the long one, which waits
    monkeypatch.setattr(loop, "at_hand", lambda device: next(found))
    slept: list[float] = []
    monkeypatch.setattr(loop.time, "sleep", slept.append)
    assert predict(*arguments, f"store={tmp_path / 'run.zarr'}") == 0
    assert slept.count(0.5) == 1


def test_where_nobody_knows_the_memory_everything_is_begun(
    arguments: list[str], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "at_hand", lambda device: None)
    assert predict(*arguments, f"store={tmp_path / 'run.zarr'}") == 0


def test_numpy_without_memory_fails_its_protein_and_no_other(
    arguments: list[str], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = JacobianTask.compute

    def greedy(self: JacobianTask, model: Any, item: Any, *rest: Any) -> Any:
        if item.key == "long":
            raise MemoryError("Unable to allocate 12.0 TiB")
        return original(self, model, item, *rest)

    monkeypatch.setattr(JacobianTask, "compute", greedy)
    assert predict(*arguments, f"store={tmp_path / 'run.zarr'}") == 3
    rows = {row.id: row for row in read_manifest(tmp_path / "run.zarr")}
    assert rows["a"].status == rows["b"].status == "done" and "12.0 TiB" in rows["long"].reason


def test_lengths_are_asked_for_as_far_as_needed() -> None:
    asked: list[int] = []
    peaks = Peaks(lambda length: asked.append(length) or length**2)  # type: ignore[func-returns-value]
    assert [peaks.over(100, length) for length in (12, 11, 10, 9, 3, 10, 11)] == [144, 121, 0, 0, 0, 0, 121]
    assert asked == [12, 11, 10]
    assert peaks.over(200, 11) == 0 and peaks.over(80, 9) == 81 and asked == [12, 11, 10, 9]


def test_long_proteins_in_windows_take_the_memory_of_windows() -> None:
    size = size_of("debug", kind="cpu")
    task = JacobianTask(AllSubstitutions(), ["contacts"])
    whole = task.peak(2000, 4096, size, "cpu")
    task.limit(Limit(200, None, "window"))
    assert task.peak(200, 4096, size, "cpu") < task.peak(2000, 4096, size, "cpu") < whole / 10


KIB = 1024
MEMINFO = "MemTotal:  16 kB\nMemFree:  4 kB\nMemAvailable:    12 kB\nHugePages_Total:  0\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "bytes_left"),
    [
        ("0::/\n", {}, 12 * KIB),
        # version 2: the file cache counts as free, and a limit of the group above holds too
        ("0::/job/step\n", {"job/step": ("max", "5000", "inactive_file 1000")}, 12 * KIB),
        ("0::/job/step\n", {"job/step": ("9000", "5000", "inactive_file 1000")}, 5000),
        ("0::/job/step\n", {"job/step": ("9000", "5000", "inactive_file 0"), "job": ("6000", "5500", "")}, 500),
        ("0::/\n", {".": ("3000", "4000", "anon 4")}, 0),
    ],
)
def test_memory_that_is_left_by_the_kernel_and_cgroups(
    cgroup: str, files: dict[str, tuple[str, str, str]], bytes_left: int, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for folder, texts in files.items():
        path = tmp_path / "sys/fs/cgroup" / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, text in zip(("memory.max", "memory.current", "memory.stat"), texts, strict=True):
            (path / name).write_text(text + "\n")
    assert memory_of_machine(tmp_path) == bytes_left


def test_memory_by_cgroups_of_version_1_and_of_systems_that_have_none(tmp_path: Path) -> None:
    assert memory_of_machine(tmp_path) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/job\n2:cpu:/\n0::/\n")
    path = tmp_path / "sys/fs/cgroup/memory/job"
    path.mkdir(parents=True)
    texts = {"limit_in_bytes": "9000", "usage_in_bytes": "5000", "stat": "cache 1\ntotal_inactive_file 500"}
    for name, text in texts.items():
        (path / f"memory.{name}").write_text(text)
    assert memory_of_machine(tmp_path) == 4500
