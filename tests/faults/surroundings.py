"""Kinds of fault that are no file operation: limits, other people, bad input, a protein that kills, shards."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from faults.bench import FINISHED, KILLED, Bench, Trial, broken, judged, statuses
from faults.forks import Outcome
from faults.injection import Fault
from support import tree

from plmjac.store import read_manifest


def _under(condition: str, codes: set[int]) -> Callable[[Bench], Trial]:
    """A run under a condition of conditions.py, then one without it."""

    def check(bench: Bench) -> Trial:
        store = bench.new_store()
        return bench.after(store, bench.run(store, condition=condition, FAULT_STORE=str(store)), codes)

    return check


def _without_flock(bench: Bench) -> Trial:
    """Killed while it held a lease; the next run has no flock either, and finds the holder dead."""
    store = bench.new_store()
    killed = bench.run(store, fault=Fault("rename", 9, "kill", str(store)), condition="no_flock")
    return bench.after(store, killed, {KILLED}, condition="no_flock")


def _left(*names: str) -> Callable[[Bench], Trial]:
    """Files that somebody leaves in a finished store: no damage, and no reason to write anything anew."""

    def check(bench: Bench) -> Trial:
        store = bench.new_store()
        first = bench.run(store)
        for name in names:
            (store / name).write_bytes(b"left behind")
        found = [problem for problem in broken(store) if problem.startswith("verify")]
        trial = bench.after(store, first, {FINISHED})
        return Trial((*found, *trial.problems), trial.lost)

    return check


def _spoilt(name: str, codes: set[int], mend: Callable[[Bench, Path], Outcome | None]) -> Callable[[Bench], Trial]:
    """A file of a finished store is cut to nothing: the run says so, and what it advises mends it."""

    def check(bench: Bench) -> Trial:
        store = bench.new_store()
        bench.run(store)
        (store / name).write_bytes(b"")
        met = bench.run(store)
        problems = judged(met, codes)
        mended = mend(bench, store)
        if mended is not None:
            problems += judged(mended, {0})
        resumed = bench.run(store)
        problems += [*judged(resumed, {FINISHED}), *bench.compared(store)]
        return Trial(tuple(problems), bench.lost(store))

    return check


def _repair(bench: Bench, store: Path) -> Outcome:
    return bench.forks.run(f"store={store}", "repair=true", module="plmjac.verify")


def _delete_manifest(bench: Bench, store: Path) -> None:
    (store / "manifest.parquet").unlink()


def _refused(store: str, says: str) -> Callable[[Bench], Trial]:
    """A store that cannot be: exit code 2, a sentence, and nothing made."""

    def check(bench: Bench) -> Trial:
        outcome = bench.forks.run(*bench.arguments, f"store={store}")
        problems = judged(outcome, {2})
        if says not in outcome.said:
            problems.append(f"it does not say {says!r}: {outcome.said[-200:]}")
        return Trial(tuple(problems))

    return check


def _input(content: bytes, wanted: list[tuple[str, str]], code: int) -> Callable[[Bench], Trial]:
    """A FASTA file of these bytes; every record is computed or rejected."""

    def check(bench: Bench) -> Trial:
        store = bench.new_store()
        path = store.with_suffix(".fasta")
        path.write_bytes(content)
        outcome = bench.forks.run("+dataset=fasta", f"dataset.path={path}", *bench.arguments[2:], f"store={store}")
        problems = judged(outcome, {code})
        if (store / "zarr.json").exists() and statuses(store) != wanted:
            problems.append(f"the manifest says {statuses(store)[:5]}")
        return Trial(tuple(problems))

    return check


def _pipe(bench: Bench) -> Trial:
    pipe = bench.folder / "pipe.fasta"
    os.mkfifo(pipe)
    arguments = ("+dataset=fasta", f"dataset.path={pipe}", *bench.arguments[2:], f"store={bench.new_store()}")
    outcome = bench.forks.run(*arguments, timeout=20)
    pipe.unlink()
    return Trial(tuple(judged(outcome, {2})))


def _poison(bench: Bench) -> Trial:
    """Protein b kills its process: done last at the third start, failed at the fourth, tried again when asked."""
    store, problems = bench.new_store(), []
    for _ in range(3):
        problems += judged(bench.run(store, condition="killed_in_forward", FAULT_LENGTH="22"), {KILLED})
    done = {row.id for row in read_manifest(store) if (store / "proteins" / row.key).exists()}
    if done != {"a", "c"}:
        problems.append(f"after three deaths there are {done}")
    problems += judged(bench.run(store, condition="killed_in_forward", FAULT_LENGTH="22"), {FINISHED})
    status = {row.id: (row.status, row.reason) for row in read_manifest(store)}
    if status["b"][0] != "failed" or "died" not in status["b"][1] or status["copy_of_a"][0] != "done":
        problems.append(f"the manifest says {status}")
    (store / "pending/deaths.json").unlink(missing_ok=True)
    trial = bench.after(store, Outcome(FINISHED, "", {}, 0.0), {FINISHED})
    return Trial((*problems, *trial.problems), trial.lost)


def _shards(fault: Fault | None, order: tuple[int, ...]) -> Callable[[Bench], Trial]:
    """Two shards, the first of them disturbed, then each in this order; together the bytes of one run."""

    def check(bench: Bench) -> Trial:
        store, problems = bench.new_store(), []
        if fault is not None:
            here = Fault(fault.operation, fault.number, fault.action, str(store))
            problems += judged(bench.run(store, f"shard={order[0]}/2", fault=here), {KILLED, 75, 2})
        for number in order:
            problems += judged(bench.run(store, f"shard={number}/2"), {3 if number == 1 else 0})
        problems += bench.compared(store)
        return Trial(tuple(problems), bench.lost(store))

    return check


def _shared(fault: Fault | None, order: tuple[int, ...]) -> Callable[[Bench], Trial]:
    """Protein b costs more than the fair share of four shards: its rows are shared, and the last puts it together."""

    def check(bench: Bench) -> Trial:
        store, problems = bench.new_store(), []
        if fault is not None:
            here = Fault(fault.operation, fault.number, fault.action, str(store))
            problems += judged(bench.run(store, f"shard={order[0]}/4", fault=here), {KILLED})
        for shard in order:
            problems += judged(bench.run(store, f"shard={shard}/4"), {3 if shard == 1 else 0})
        problems += bench.compared(store)
        return Trial(tuple(problems), bench.lost(store))

    return check


def _moved(bench: Bench) -> Trial:
    """A killed store is moved to another place and goes on there."""
    store = bench.new_store()
    killed = bench.run(store, fault=Fault("rename", 12, "kill", str(store)))
    there = bench.new_store()
    shutil.move(store, there)
    return bench.after(there, killed, {KILLED})


def _another_plmjac(bench: Bench) -> Trial:
    """A lease of a machine that is no more, without flock: refused with the file's name, free when deleted."""
    store = bench.new_store()
    first = bench.run(store, fault=Fault("rename", 9, "kill", str(store)))
    lease = store / "pending/lease.run"
    lease.write_text(json.dumps({"host": "elsewhere", "process": 1, "token": "0"}))
    refused = bench.run(store, condition="no_flock")
    problems = judged(refused, {2})
    if str(lease) not in refused.said:
        problems.append(f"it does not name the lease: {refused.said[-200:]}")
    lease.unlink()
    trial = bench.after(store, first, {KILLED}, condition="no_flock")
    return Trial((*problems, *trial.problems), trial.lost)


def _damaged_protein(bench: Bench) -> Trial:
    """A flipped byte: found, put back, computed again."""
    store = bench.new_store()
    bench.run(store)
    chunk = store / "proteins/a/contacts/c/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    problems = judged(bench.forks.run(f"store={store}", module="plmjac.verify"), {1})
    problems += judged(_repair(bench, store), {0})
    problems += [*judged(bench.run(store), {FINISHED}), *bench.compared(store)]
    return Trial(tuple(problems), bench.lost(store))


def _two_at_once(bench: Bench) -> Trial:
    """A second run beside the first is refused in a sentence and changes nothing."""
    from plmjac.store import lock

    store = bench.new_store()
    first = bench.run(store, fault=Fault("rename", 9, "kill", str(store)))
    held, before = lock(store), tree(store)
    second = bench.run(store)
    problems = judged(second, {2})
    if tree(store) != before:
        problems.append("the second run wrote")
    held.release()
    trial = bench.after(store, first, {KILLED})
    return Trial((*problems, *trial.problems), trial.lost)


MANY = b"".join(b">protein\nMKV\n" for _ in range(3000))
SURROUNDINGS: dict[str, Callable[[Bench], Trial]] = {
    "no file may be larger than 100 bytes": _under("small_files", {75}),
    "sixteen open files at most": _under("few_handles", {75, 2, FINISHED}),
    "the folder it was started in is gone": _under("cwd_deleted", {2, 75, FINISHED}),
    "no HOME and no cache": _under("no_home", {FINISHED}),
    "nobody reads its output": _under("stdout_closed", {FINISHED}),
    "the store is deleted under the run": _under("store_deleted", {75, 2, FINISHED}),
    "a file system without flock": _under("no_flock", {FINISHED}),
    "killed on a file system without flock": _without_flock,
    "a lease of a machine that is no more": _another_plmjac,
    "two runs at once": _two_at_once,
    "a protein that kills its process": _poison,
    "temporary files of killed writers": _left(
        "proteins/.zarr.json.77.tmp", "proteins/.tmp-0123-zarr.json", ".tmp-1-x"
    ),
    "files of a file browser (.DS_Store)": _left("proteins/.DS_Store", "proteins/a/.DS_Store"),
    "a flipped byte, repaired": _damaged_protein,
    "an empty manifest": _spoilt("manifest.parquet", {2}, _delete_manifest),
    "an empty manifest, repaired": _spoilt("manifest.parquet", {2}, _repair),
    "an empty proteins/zarr.json, repaired": _spoilt("proteins/zarr.json", {FINISHED}, _repair),
    "an empty zarr.json of a protein, repaired": _spoilt("proteins/a/zarr.json", {FINISHED, 2}, _repair),
    "store= an object store": _refused("s3://bucket/run.zarr", "s3://"),
    "store= a name that is too long": _refused("/tmp/" + "x" * 300, "store"),
    "store= under a file": _refused("/etc/passwd/run.zarr", "written"),
    "store= where nothing can be made": _refused("/proc/run.zarr", "written"),
    "a store moved after a kill": _moved,
    "a named pipe as input": _pipe,
    "Latin-1 ids that differ in one letter": _input(
        b">p\xe9\nMKV\n>p\xe8\nMKVL\n", [("p\xe9", "done"), ("p\xe8", "done")], 0
    ),
    "control characters in an id": _input(b">a\x1b[31m\x07\nMKV\n", [("a\\x1b[31m\\x07", "done")], 0),
    "3,000 records of one name": _input(MANY, [("protein", "done")] * 3000, 0),
    "an empty file as input": _input(b"", [], 2),
    "a shard killed, then both": _shards(Fault("rename", 9, "kill", ""), (2, 1)),
    "a shard on a full disk, then both": _shards(Fault("write", 14, "ENOSPC", ""), (1, 2)),
    "shards one after the other, backwards": _shards(None, (2, 1)),
    "a shared protein, its shards backwards": _shared(None, (4, 3, 2, 1)),
    "a shared protein, a shard killed over its rows": _shared(Fault("rename", 9, "kill", ""), (1, 2, 3, 4)),
}
