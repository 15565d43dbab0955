"""The device memory of a Jacobian run at its peak, forecast: weights, a forward (`ModelSize`), the Jacobian; and what
is at hand.

Adds up the tensors that are alive together in the loop; tests compare it with what PyTorch allocates. What is no tensor
is left out: Python and its libraries take 0.5 GB, a CUDA context as much.
"""

import contextlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.inference.background import CAPACITY
from plmjac.jacobian import BLOCK_BYTES, mutants_per_forward
from plmjac.models import ModelSize
from plmjac.substitutions import Substitutions
from plmjac.workplan import rows_per_chunk_for

ROW_BYTES = 4 * NUM_AMINO_ACIDS
"""Of one row of a Jacobian and one position j: its 20 float32."""


@dataclass(frozen=True)
class Memory:
    """Bytes on the device of one rank: the most at any time, and its largest parts, which need not meet."""

    peak: int
    weights: int
    forward: int
    jacobian: int


def forecast(
    size: ModelSize,
    length: int,
    substitutions: Substitutions,
    keep: Collection[str],
    max_tokens: int,
    rows_per_chunk: int | None = None,
    *,
    kind: str,
    mutated: int | None = None,
) -> Memory:
    """Memory of a run on a cpu or cuda whose longest protein has `length` residues, with forwards of `max_tokens`.

    `mutated` is the number of residues that are mutated; None for all.
    """
    mutated = mutated or length
    letters = substitutions.num_letters
    wild_type = size.of_logits(1, length)
    if {"contact_head", "attention", "attention_heads"} & set(keep):
        wild_type = max(wild_type, size.of_maps(length, every_head="attention_heads" in keep))
    if not letters:
        return Memory(size.weights + wild_type, size.weights, wild_type, 0)
    rows = min(mutated, rows_per_chunk or rows_per_chunk_for(length, letters))
    row = ROW_BYTES * letters * length

    def computing(number: int) -> int:
        """A block of so many rows and the forwards that fill it."""
        return row * number + size.of_logits(min(mutants_per_forward(length, max_tokens), number * letters), length)

    held, reduction = 0, row * ((mutated - 1) % rows + 1)
    if {"contacts", "couplings"} & set(keep):
        whole = ROW_BYTES * (NUM_AMINO_ACIDS if substitutions.keeps_letters else letters) * mutated * length
        in_place = rows >= mutated and not substitutions.keeps_letters
        held = 0 if in_place else whole
        reduction += 2 * min(BLOCK_BYTES, whole)
    # In float16: on a CPU as many as the queue holds and one at each of its two ends, on a GPU until it is copied.
    waiting = min(row * mutated, row * rows * (CAPACITY + 2 if kind == "cpu" else 2)) // 2
    held += waiting if "jacobian" in keep else waiting // 2 if "jacobian_int8" in keep else 0
    # It is held from the end of the first block on; the second may be the last, and smaller.
    later = held + max(computing(min(rows, mutated - rows)) if rows < mutated else 0, reduction)
    peak = size.weights + max(wild_type, computing(rows), later)
    return Memory(peak, size.weights, max(wild_type, computing(rows) - row * rows), row * mutated)


class Peaks:
    """The memory that proteins take at their peak by `peak(length)`, asked for as few lengths as decide."""

    def __init__(self, peak: Callable[[int], int]) -> None:
        self._peak = peak
        self._known: dict[int, int] = {}

    def over(self, limit: int, length: int) -> int:
        """The bytes that a protein of so many residues takes, where these are over the limit; 0 where they are not.

        A protein that is no longer than one that fits is taken to fit.
        """
        if any(known >= length and peak <= limit for known, peak in self._known.items()):
            return 0
        if length not in self._known:
            self._known[length] = self._peak(length)
        return self._known[length] if self._known[length] > limit else 0


_CACHE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)


def at_hand(device: torch.device) -> int | None:
    """Bytes that this process can still take on a device: free, or within the limit of its cgroup. None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return memory_of_machine()


def memory_of_machine(root: Path = Path("/")) -> int | None:
    """Main memory that is available on Linux, by its kernel and by every cgroup that this process is in."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                found += _left_in_cgroups(root / "sys/fs/cgroup" / controllers, path)
    return min(found, default=None)


def _left_in_cgroups(mount: Path, path: str) -> list[int]:
    """Bytes that a cgroup and those it is in leave of their limits, version 1 or 2; file cache is free."""
    found, folder = [], mount / path.lstrip("/")
    for each in (folder, *folder.parents):
        if each != mount and mount not in each.parents:
            break
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                most, used = int((each / limit).read_text()), int((each / usage).read_text())
                text = (each / "memory.stat").read_text()
                cache = max((int(number) for number in _CACHE.findall(text)), default=0)
                found.append(max(0, most - max(0, used - cache)))
    return found
