"""One trial of a fault: a run that meets it, the same command again, and what must hold of the store afterwards."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults.forks import Forks, Outcome
from faults.injection import DEATHS, SIGNALS, Fault
from support import tree

from plmjac.store import open_store, read_manifest, verify

RECORDS = """>a
MKTAYIAKQRQISFVKSH
>b
GSHMLEDPVDAFKLAAQWERTY
>c
MKV
>copy_of_a
MKTAYIAKQRQISFVKSH
>gaps
M-KV
"""
"""Three proteins of several chunks and of one, one of them twice, and a record that is refused: a run ends with 3."""

FINISHED, KILLED = 3, -9
Check = Callable[["Bench"], "Trial"]


@dataclass(frozen=True)
class Trial:
    """The outcome of one fault: what is wrong (nothing if it was survived) and proteins that a finished run lacks."""

    problems: tuple[str, ...] = ()
    lost: int = 0


@dataclass
class Bench:
    """A warmed-up parent, an input, and the bytes that every run of it must come to."""

    forks: Forks
    folder: Path
    arguments: tuple[str, ...]
    expected: dict[str, str] = field(default_factory=dict)
    statuses: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    _number: int = 0

    @classmethod
    def set_up(cls, forks: Forks, folder: Path) -> "Bench":
        """Write the input and do the undisturbed run, counting its operations."""
        path = folder / "in.fasta"
        path.write_text(RECORDS)
        arguments = (
            "+dataset=fasta", f"dataset.path={path}", "model=debug", "threads=1", "trainer=cpu",
            "keep=[contacts,logits,jacobian]", "rows_per_chunk=8",
        )  # fmt: skip
        forks.compose(*arguments)
        bench = cls(forks, folder, arguments)
        store = bench.new_store()
        done = forks.run(*arguments, f"store={store}", count_under=store)
        assert done.code == FINISHED, done.said
        bench.expected, bench.statuses, bench.counts = tree(store), statuses(store), done.counts
        assert len(bench.expected) > 20 and not broken(store)
        # A store that is there is read before it is written: a second run meets operations that the first did not.
        again = forks.run(*arguments, f"store={store}", count_under=store)
        assert again.code == FINISHED, again.said
        bench.counts = {name: max(done.counts.get(name, 0), again.counts.get(name, 0)) for name in done.counts}
        return bench

    def new_store(self) -> Path:
        """A path where nothing is yet."""
        self._number += 1
        return self.folder / f"{self._number}.zarr"

    def run(self, store: Path, *more: str, fault: Fault | None = None, condition: str = "", **options: str) -> Outcome:
        """The command of this bench on a store; `options` go to the environment."""
        environment = {key: value for key, value in options.items() if key.isupper()}
        return self.forks.run(
            *self.arguments, *more, f"store={store}", fault=fault, condition=condition, environment=environment
        )

    def after(self, store: Path, disturbed: Outcome, codes: set[int], condition: str = "") -> Trial:
        """Judge the disturbed run, then run the same command again, undisturbed, and judge the store."""
        problems = judged(disturbed, codes)
        if store.exists():
            there = visible(store)
            if wrong := [name for name, digest in there.items() if self.expected.get(name) != digest]:
                problems.append(f"what is there is not right: {wrong[:3]}")
        resumed = self.run(store, condition=condition)
        problems += [f"on resuming, {problem}" for problem in judged(resumed, {FINISHED})]
        problems += self.compared(store)
        return Trial(tuple(problems), self.lost(store))

    def compared(self, store: Path) -> list[str]:
        """Differences from the undisturbed store."""
        if not (store / "zarr.json").exists():
            return ["there is no store"]
        problems, there = [], visible(store)
        if there != self.expected:
            differing = [
                name for name in there.keys() | self.expected.keys() if there.get(name) != self.expected.get(name)
            ]
            problems.append(f"proteins/ differs in {sorted(differing)[:3]}")
        if statuses(store) != self.statuses:
            problems.append(f"the manifest says {statuses(store)}")
        return problems + broken(store)

    def lost(self, store: Path) -> int:
        """Proteins of the undisturbed store that are not in this one, byte for byte."""
        there = tree(store) if store.exists() else {}
        wrong = {name.split("/")[0] for name, digest in self.expected.items() if there.get(name) != digest}
        return len(wrong - {"zarr.json"})

    def at(self, operation: str, number: int, action: str, lasting: bool = False) -> Trial:
        """One run with a fault at a file operation, and its resumption."""
        store = self.new_store()
        fault = Fault(operation, number, action, str(store), lasting)
        disturbed = self.run(store, fault=fault)
        trial = self.after(store, disturbed, codes_of(action))
        shutil.rmtree(store, ignore_errors=True)
        return trial


def visible(store: Path) -> dict[str, str]:
    """`tree` without hidden files, which are nobody's data."""
    return {name: digest for name, digest in tree(store).items() if not Path(name).name.startswith(".")}


def codes_of(action: str) -> set[int]:
    """The exit codes that a fault may give; a fault that comes too late, or where it is tolerated, changes nothing."""
    if action in DEATHS:
        return {KILLED, FINISHED}
    return {75, FINISHED} if action in SIGNALS else {75, 2, FINISHED}


def judged(outcome: Outcome, codes: set[int]) -> list[str]:
    """True if a command ended with one of these codes and without a traceback."""
    problems = []
    if outcome.code not in codes:
        problems.append(f"exit code {outcome.code}, not {sorted(codes)}: {outcome.said.strip()[-300:]}")
    if "Traceback" in outcome.said:
        problems.append(f"a traceback: {outcome.said.strip().splitlines()[-1][:300]}")
    return problems


def statuses(store: Path) -> list[tuple[str, str]]:
    """Every record and what became of it."""
    return [(row.id, row.status) for row in read_manifest(store)]


def broken(store: Path) -> list[str]:
    """Findings of plmjac.verify, and files that a finished run must not leave."""
    opened = open_store(store)
    found = [f"verify: {damage.key}: {damage.problem}" for _, damages in verify(opened) for damage in damages]
    left = [path for path in store.rglob("*") if path.name.endswith((".tmp", ".partial"))]
    files = {
        path.relative_to(store / "pending").as_posix() for path in (store / "pending").rglob("*") if path.is_file()
    }
    known = {"lock", "door", "plan.json"} | {name for name in files if name.startswith("lock.")}
    left += [store / "pending" / name for name in sorted(files - known)]
    return found + [f"left behind: {path.relative_to(store)}" for path in left]


def fast_folder() -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder in memory where there is one: what is tested is order and names, not the disk."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="plmjac-faults-", dir=memory if memory.is_dir() else None)
