"""Architecture of an ESM-2 and its costs: parameters, operations, bytes. Loads no weights.

Bytes are the sum of the tensors that are alive together in `Esm2Fast` and in fair-esm's module; tests compare them with
what PyTorch allocates. Not counted: what is no tensor (a CUDA context), and what torch.compile allocates for itself.
"""

from dataclasses import dataclass, field

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.models.base import ModelSize, Precision

VOCABULARY_SIZE = 33
"""Size of ESM's vocabulary with special tokens and padding; the same for every ESM-2."""

CPU_TOKENS = 1024
"""Tokens that pass a layer of `Esm2Fast` together on a CPU; activations of more do not fit its cache."""


@dataclass(frozen=True)
class Architecture:
    """The three numbers that define an ESM-2; the rest (feed-forward width of 4 x width, 33 tokens) never changes."""

    num_layers: int
    width: int
    num_heads: int
    layer_norm_eps: float = field(default=1e-5, compare=False)
    """1e-5 in every published ESM-2; the default of transformers differs."""

    def __post_init__(self) -> None:
        if min(self.num_layers, self.width, self.num_heads) < 1:
            raise ValueError(f"an ESM-2 has at least one layer, channel and head, this is {self}")
        if self.width % (2 * self.num_heads):
            raise ValueError(f"rotary heads need a width that is an even multiple of the number of heads: {self}")

    def __str__(self) -> str:
        return f"{self.num_layers} layers of width {self.width} with {self.num_heads} heads"

    @property
    def head_width(self) -> int:
        """Channels of one attention head."""
        return self.width // self.num_heads

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters with the contact head; the output matrix is the embedding and counts once."""
        d = self.width
        layer = 12 * d * d + 13 * d
        head = d * d + 3 * d + VOCABULARY_SIZE
        return VOCABULARY_SIZE * d + self.num_layers * layer + 2 * d + head + self.num_layers * self.num_heads + 1

    def flops(self, length: int) -> int:
        """Floating point operations of one forward of one sequence of `length` residues.

        Matrix products only, a multiply-add counts as two: T [n (24 d^2 + 4 T d) + 2 d^2 + 66 d] with T = length + 2.
        """
        tokens, d = length + 2, self.width
        per_layer = 24 * d * d + 4 * tokens * d
        return tokens * (self.num_layers * per_layer + 2 * d * d + 2 * VOCABULARY_SIZE * d)


@dataclass(frozen=True)
class Esm2Size(ModelSize):
    """Cost of an ESM-2 on the fast path or fair-esm's module, in a precision, on a kind of device (cpu, cuda)."""

    architecture: Architecture
    fast: bool
    precision: Precision
    kind: str

    def __str__(self) -> str:
        return str(self.architecture)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return self.architecture.num_layers

    @property
    def num_heads(self) -> int:
        """Number of attention heads per layer."""
        return self.architecture.num_heads

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters with the contact head."""
        return self.architecture.num_parameters

    def flops(self, length: int) -> int:
        """Floating point operations of one forward of `length` residues, the same on both paths."""
        return self.architecture.flops(length)

    @property
    def weights(self) -> int:
        """Bytes of the weights: in fp16 two bytes a number for the matrices of the layers, four for the rest."""
        matrices = 12 * self.architecture.num_layers * self.architecture.width**2
        return 4 * (self.architecture.num_parameters - matrices) + self._item * matrices

    def of_logits(self, batch: int, length: int) -> int:
        """Bytes of a forward of `batch` mutants without the weights, including the logits and their changes."""
        d, heads, tokens = self.architecture.width, self.architecture.num_heads, length + 2
        number = batch * tokens
        if not self.fast:  # GELU in four passes, or two maps of attention beside queries, keys, values
            return number * max(78 * d, 23 * d + 8 * heads * tokens)
        together = min(number, max(1, CPU_TOKENS // tokens) * tokens) if self.kind == "cpu" else number
        # The residual stream, plus the largest of: hidden channels, norm and attended values (in fp16 also queries and
        # keys in both precisions) of the sequences in a layer together; norm and dense channels of the head; logits.
        layer = (24 if self._item == 4 else 18) * d + 4 * heads
        return 4 * d * number + max(layer * together, 8 * d * number, 3 * 4 * NUM_AMINO_ACIDS * number)

    def of_maps(self, length: int, *, every_head: bool) -> int:
        """Bytes of the wild type's forward with attention maps of one layer at a time, or of all layers."""
        maps = 4 * self.architecture.num_heads * (length + 2) ** 2
        layers = self.architecture.num_layers
        if not self.fast:
            return 6 * maps * layers
        return 3 * maps * (layers if every_head else 1)

    @property
    def _item(self) -> int:
        return 2 if self.precision == "fp16" else 4
