"""The device memory of a Jacobian run at its peak, forecast: weights, a forward (`ModelSize`), the Jacobian.

Adds up the tensors that are alive together in the loop; tests compare it with what PyTorch allocates. What is no tensor
is left out: Python and its libraries take 0.5 GB, a CUDA context as much.
"""

from collections.abc import Collection
from dataclasses import dataclass

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
