"""The short form of `make test-faults`: a dozen kinds at one place each, by the same harness."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.bench import Bench, fast_folder
from faults.forks import Forks
from faults.injection import Fault, Injection
from faults.kinds import kinds

SHORT = (
    "killed before the n-th rename",
    "killed in the n-th write, rubbish left",
    "power cut at the n-th fsync",
    "ENOSPC at the n-th write",
    "EIO at the n-th read",
    "EACCES at the n-th mkdir",
    "SIGUSR1 at the n-th write",
    "EXDEV at every rename from the n-th on",
    "a protein that kills its process",
    "killed on a file system without flock",
    "temporary files of killed writers",
    "a shard killed, then both",
    "a shared protein, a shard killed over its rows",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One warmed-up parent for all of them."""
    with Forks() as forks, fast_folder() as folder:
        yield Bench.set_up(forks, Path(folder))


@pytest.mark.parametrize("name", SHORT)
def test_a_run_survives(name: str, bench: Bench) -> None:
    (kind,) = [kind for kind in kinds() if kind.name == name]
    for trial in kind.trials(bench, 1):
        assert not trial.problems and trial.lost == 0


def test_there_are_at_least_sixty_kinds_and_no_two_of_one_name() -> None:
    names = [kind.name for kind in kinds()]
    assert len(names) == len(set(names)) >= 60


def test_the_bench_sees_a_loss(bench: Bench) -> None:
    """A byte that the resumed run does not mend is a problem, and the protein counts as lost."""
    store = bench.new_store()
    first = bench.run(store)
    chunk = store / "proteins/a/contacts/c/0/0"
    data = bytearray(chunk.read_bytes())
    data[-1] ^= 1
    chunk.write_bytes(data)
    trial = bench.after(store, first, {3})
    assert trial.lost == 1 and any("not right" in problem for problem in trial.problems)


def test_a_fault_strikes_at_its_place_and_nowhere_else(tmp_path: Path) -> None:
    struck = Injection(Fault("rename", 2, "EIO", str(tmp_path)), str(tmp_path))
    calls = [struck.strikes("rename") for _ in range(4)], struck.strikes("open")
    assert calls == ([False, True, False, False], False)
    lasting = Injection(Fault("rename", 2, "EIO", str(tmp_path), lasting=True), str(tmp_path))
    assert [lasting.strikes("rename") for _ in range(4)] == [False, True, True, True]
    assert struck.is_watched(str(tmp_path / "x")) and not struck.is_watched(str(tmp_path) + "x")
    chance = random.Random(0).random()
    with pytest.raises(OSError, match="Input/output"):
        struck.strike(str(tmp_path / f"{chance}"))
