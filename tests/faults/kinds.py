"""Every kind of fault that is tried, under the name that the table of `make test-faults` gives it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from faults.bench import Bench, Trial
from faults.surroundings import SURROUNDINGS

AT_OPERATIONS: dict[str, tuple[str, ...]] = {
    "kill": ("open", "write", "rename", "mkdir", "remove", "fsync"),
    "kill after": ("open", "rename", "mkdir", "remove", "fsync"),
    "torn": ("open", "write"),
    "power cut": ("rename", "fsync", "remove", "mkdir"),
    "ENOSPC": ("open", "write", "rename", "mkdir", "fsync"),
    "EDQUOT": ("write", "mkdir"),
    "EIO": ("open", "write", "rename", "remove", "fsync", "read", "list"),
    "EACCES": ("open", "rename", "mkdir", "remove"),
    "EROFS": ("open", "mkdir"),
    "ESTALE": ("open", "rename", "fsync", "read", "list"),
    "EMFILE": ("open", "read"),
    "ENAMETOOLONG": ("open", "mkdir"),
    "ENOENT": ("open", "rename", "read"),
    "SIGTERM": ("rename",),
    "SIGINT": ("write",),
    "SIGHUP": ("rename",),
    "SIGUSR1": ("write",),
}
IN_WORDS = {
    "kill": "killed before the n-th {}", "kill after": "killed after the n-th {}",
    "torn": "killed in the n-th {}, rubbish left", "power cut": "power cut at the n-th {}",
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of fault; `trials` makes one or, in the long form, several of it."""

    name: str
    trials: Callable[[Bench, int], Iterator[Trial]]


def kinds() -> list[Kind]:
    """All of them, in the order of the table."""
    found = []
    for action, operations in AT_OPERATIONS.items():
        for operation in operations:
            name = IN_WORDS.get(action, action + " at the n-th {}").format(operation)
            found.append(Kind(name, _at(operation, action)))
    found.append(Kind("EXDEV at every rename from the n-th on", _at("rename", "EXDEV", lasting=True)))
    found.append(Kind("ENOSPC at every write from the n-th on", _at("write", "ENOSPC", lasting=True)))
    found.append(Kind("EIO at every fsync from the n-th on", _at("fsync", "EIO", lasting=True)))
    found.append(Kind("killed at five places, one after the other", _in_a_row))
    return [*found, *(Kind(name, _once(check)) for name, check in SURROUNDINGS.items())]


def _once(check: Callable[[Bench], Trial]) -> Callable[[Bench, int], Iterator[Trial]]:
    def trials(bench: Bench, _number: int) -> Iterator[Trial]:
        yield check(bench)

    return trials


def _at(operation: str, action: str, lasting: bool = False) -> Callable[[Bench, int], Iterator[Trial]]:
    def trials(bench: Bench, number: int) -> Iterator[Trial]:
        for place in _places(bench.counts[operation], number, f"{operation} {action}"):
            yield bench.at(operation, place, action, lasting)

    return trials


def _places(count: int, number: int, seed: str) -> list[int]:
    """So many of the places from 1 to `count`, one from each of as many equal parts; the same ones every time."""
    chance = random.Random(seed)
    number = min(count, number)
    return [1 + int((part + chance.random()) * count / number) for part in range(number)]


def _in_a_row(bench: Bench, number: int) -> Iterator[Trial]:
    from faults.injection import Fault

    for seed in range(max(1, number // 3)):
        store, chance = bench.new_store(), random.Random(seed)
        outcome = None
        for _ in range(5):
            operation = chance.choice(("open", "write", "rename", "mkdir", "remove", "fsync"))
            place = 1 + chance.randrange(bench.counts[operation] // 2)
            outcome = bench.run(store, fault=Fault(operation, place, "kill", str(store)))
        assert outcome is not None
        yield bench.after(store, outcome, {-9, 3})
