"""How much memory of its device a run needs at its peak, known before it starts: weights, a forward, the Jacobian.

Adds up the tensors that are alive together in `Esm2Fast`, in fair-esm's module and in the loop; the tests hold it to
what PyTorch allocates. Gives up what is no tensor (Python and its libraries take 0.5 GB, a CUDA context as much) and
what torch.compile plans for itself.
"""

from collections.abc import Collection
from dataclasses import dataclass

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.inference.background import CAPACITY
from plmjac.jacobian import BLOCK_BYTES, mutants_per_forward
from plmjac.models import Architecture, Precision
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


@dataclass(frozen=True)
class Forward:
    """What runs: an ESM-2 of a size, by which path, in which precision, on which kind of device."""

    architecture: Architecture
    fast: bool
    precision: Precision
    kind: str

    @property
    def weights(self) -> int:
        """Bytes of the weights: in fp16 the matrices of the layers have two bytes a number and all the rest four."""
        matrices = 12 * self.architecture.num_layers * self.architecture.width**2
        return 4 * (self.architecture.num_parameters - matrices) + self._item * matrices

    def of_logits(self, batch: int, length: int) -> int:
        """Bytes of a forward of `batch` mutants beside the weights, its logits and what is subtracted included."""
        from plmjac.models.esm2_fast import CPU_TOKENS

        d, heads, tokens = self.architecture.width, self.architecture.num_heads, length + 2
        number = batch * tokens
        if not self.fast:  # GELU in four passes, or two maps of attention beside queries, keys, values
            return number * max(78 * d, 23 * d + 8 * heads * tokens)
        together = min(number, max(1, CPU_TOKENS // tokens) * tokens) if self.kind == "cpu" else number
        # The stream, and the larger of: hidden channels, norm and attended values (in fp16: queries and keys in both
        # precisions) of what goes through a layer together; norm and dense channels of the head; its logits.
        layer = (24 if self._item == 4 else 18) * d + 4 * heads
        return 4 * d * number + max(layer * together, 8 * d * number, 3 * ROW_BYTES * number)

    def of_maps(self, length: int, *, every_head: bool) -> int:
        """Bytes of the wild type's forward with attention maps: of one layer at a time, or of all of them."""
        maps = 4 * self.architecture.num_heads * (length + 2) ** 2
        layers = self.architecture.num_layers
        if not self.fast:
            return 6 * maps * layers
        return 3 * maps * (layers if every_head else 1)

    @property
    def _item(self) -> int:
        return 2 if self.precision == "fp16" else 4


def forecast(
    forward: Forward,
    length: int,
    substitutions: Substitutions,
    keep: Collection[str],
    max_tokens: int,
    rows_per_chunk: int | None = None,
) -> Memory:
    """The memory of a run whose longest protein has `length` residues, with forwards of `max_tokens` tokens."""
    letters = substitutions.num_letters
    wild_type = forward.of_logits(1, length)
    if {"contact_head", "attention", "attention_heads"} & set(keep):
        wild_type = max(wild_type, forward.of_maps(length, every_head="attention_heads" in keep))
    if not letters:
        return Memory(forward.weights + wild_type, forward.weights, wild_type, 0)
    rows = min(length, rows_per_chunk or rows_per_chunk_for(length, letters))
    row = ROW_BYTES * letters * length

    def computing(number: int) -> int:
        """A block of so many rows and the forwards that fill it."""
        return row * number + forward.of_logits(min(mutants_per_forward(length, max_tokens), number * letters), length)

    held, reduction = 0, row * ((length - 1) % rows + 1)
    if "contacts" in keep:
        whole = ROW_BYTES * (NUM_AMINO_ACIDS if substitutions.keeps_letters else letters) * length**2
        in_place = rows >= length and not substitutions.keeps_letters
        held = 0 if in_place else whole
        reduction += 2 * min(BLOCK_BYTES, whole)
    # In float16: on a CPU what the queue may hold and what is at its two ends, on a GPU until it is copied.
    waiting = min(row * length, row * rows * (CAPACITY + 2 if forward.kind == "cpu" else 2)) // 2
    held += waiting if "jacobian" in keep else 0
    # What is held is there from the end of the first block on; the second may be the last, and smaller.
    later = held + max(computing(min(rows, length - rows)) if rows < length else 0, reduction)
    peak = forward.weights + max(wild_type, computing(rows), later)
    return Memory(peak, forward.weights, max(wild_type, computing(rows) - row * rows), row * length)
