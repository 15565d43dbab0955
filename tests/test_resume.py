"""Killed anywhere, by anything, a run resumes to the bytes of an undisturbed one, with any number of ranks."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import ROOT, command, tree, undisturbed_tree

from plmjac.store import completed, open_store, read_manifest, verify

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of some seconds: 24 proteins of 30 to 75 residues, several chunks each."""
    chance = random.Random(7)
    path = tmp_path_factory.mktemp("input") / "proteins.fasta"
    lines = [f">p{n}\n{''.join(chance.choices('LAGVSERTIDPKQNFYMHWC', k=30 + 2 * n))}\n" for n in range(24)]
    path.write_text("".join(lines))
    return [
        "+dataset=fasta", f"dataset.path={path}", "model=debug", "keep=[contacts,jacobian]", "rows_per_chunk=16",
        "threads=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes that every other run has to come to."""
    return undisturbed_tree(tmp_path_factory.mktemp("undisturbed") / "run.zarr", *arguments)


def start(*line: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        line, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(store: Path, number: int, process: "subprocess.Popen[str]") -> None:
    """Until so many proteins are in the store."""
    deadline = time.monotonic() + 120
    while len(completed(store)) < number:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def no_orphans() -> Iterator[list["subprocess.Popen[str]"]]:
    """End whatever a failing test left running."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def torchrun(*arguments: str, ranks: int = 2) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
        "-m", "plmjac.predict", *arguments, "trainer=ddp", "trainer.accelerator=cpu",
    ]  # fmt: skip


def test_killed_three_times_and_finished_by_two_ranks(
    arguments: list[str], undisturbed: dict[str, str], tmp_path: Path, no_orphans: list["subprocess.Popen[str]"]
) -> None:
    store, chance = tmp_path / "run.zarr", random.Random(3)
    for kill, ranks in enumerate((1, 2, 1)):
        line = command(*arguments, f"store={store}") if ranks == 1 else torchrun(*arguments, f"store={store}")
        process = start(*line)
        no_orphans.append(process)
        wait_for(store, 1 + 6 * kill, process)
        time.sleep(chance.random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        there = tree(store)
        assert {name: undisturbed.get(name) for name in there} == there  # what is there is right, and whole
    assert 12 < len(completed(store)) < 24
    finished = subprocess.run(
        torchrun(*arguments, f"store={store}"), cwd=ROOT, env=ENVIRONMENT, timeout=200, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert tree(store) == undisturbed
    assert [row.status for row in read_manifest(store)] == ["done"] * 24
    assert not any(damages for _, damages in verify(open_store(store), deep=True))
    assert {path.name for path in (store / "pending").rglob("*") if path.is_file()} == {"lock", "door"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_within_seconds(
    arguments: list[str], tmp_path: Path, number: signal.Signals, no_orphans: list["subprocess.Popen[str]"]
) -> None:
    store = tmp_path / "run.zarr"
    process = start(*command(*arguments, f"store={store}"))
    no_orphans.append(process)
    wait_for(store, 1, process)
    began = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 75, out
    assert time.monotonic() - began < 5
    assert "run the same command again" in out and "Traceback" not in out


def test_a_dead_rank_is_never_a_success(
    arguments: list[str], undisturbed: dict[str, str], tmp_path: Path, no_orphans: list["subprocess.Popen[str]"]
) -> None:
    """One rank is killed: the launcher ends the other, the exit code is not 0, and nobody goes on writing."""
    store = tmp_path / "run.zarr"
    process = start(*torchrun(*arguments, f"store={store}"))
    no_orphans.append(process)
    wait_for(store, 2, process)
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    deadline = time.monotonic() + 10
    while any(is_running(rank) for rank in ranks):
        assert time.monotonic() < deadline, "a rank outlived its launcher"
        time.sleep(0.1)
    there = tree(store)
    assert {name: undisturbed.get(name) for name in there} == there


def test_ranks_end_with_a_launcher_that_was_killed(
    arguments: list[str], tmp_path: Path, no_orphans: list["subprocess.Popen[str]"]
) -> None:
    store = tmp_path / "run.zarr"
    process = start(*torchrun(*arguments, f"store={store}"))
    no_orphans.append(process)
    wait_for(store, 1, process)
    ranks = children(process.pid)
    assert len(ranks) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(is_running(rank) for rank in ranks):
        assert time.monotonic() < deadline, "a rank goes on without its launcher"
        time.sleep(0.1)
    assert len(completed(store)) < 24


def is_running(process: int) -> bool:
    """True if a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int) -> list[int]:
    """Processes started by another, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "stat").exists():
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return sorted(found)


def test_more_ranks_than_proteins(
    tmp_path: Path, arguments: list[str], predict: Callable[..., int], no_orphans: list["subprocess.Popen[str]"]
) -> None:
    path = tmp_path / "one.fasta"
    path.write_text(">a\nMKVLAAGHE\n")
    line = [*arguments[:1], f"dataset.path={path}", *arguments[2:]]
    done = subprocess.run(
        torchrun(*line, f"store={tmp_path / 'many.zarr'}"), cwd=ROOT, env=ENVIRONMENT, timeout=200,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert predict(*line, f"store={tmp_path / 'one.zarr'}") == 0
    assert tree(tmp_path / "many.zarr") == tree(tmp_path / "one.zarr")
