"""What every protein language model offers to the rest of plmjac, whatever it is inside.

Our tokens go in and our twenty columns come out; BOS, EOS, vocabulary ids and token dropout never leave the adapter.
All sequences of a batch have one length, so there is no padding and no attention mask.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

Readout = Literal["logits", "contact_head", "attention", "representation"]
"""What one forward can give: `logits` (B, L, 20), `contact_head` (B, L, L) probabilities, `attention`
(B, layers, heads, L, L) weights between residues (rows sum to less than 1: what went to BOS and EOS is left out),
`representation` (B, L, D) the last hidden state, after the final layer norm."""

BosEos = Literal["keep", "mask"]
"""What stands at the two ends of the input: ESM's <cls> and <eos>, or <mask> in their place."""

Precision = Literal["fp32", "tf32", "fp16"]
"""What matrix products are computed in. Residual stream, norms, softmax, head and all that follows are float32."""

READOUTS: tuple[Readout, ...] = get_args(Readout)

VOCABULARY_SIZE = 33
"""Letters, special tokens and the padding of ESM's vocabulary; the same for every ESM-2."""


@dataclass(frozen=True)
class Architecture:
    """The three numbers that make an ESM-2: everything else (FFN of 4 x width, 33 tokens) is the same at every size."""

    num_layers: int
    width: int
    num_heads: int
    layer_norm_eps: float = field(default=1e-5, compare=False)
    """1e-5 in every published ESM-2; transformers' own default for new models is another."""

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
        """Trained numbers, with the contact head; the output matrix is the embedding and counts once."""
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


@runtime_checkable
class LanguageModel(Protocol):
    """A masked protein language model in eval mode, implemented by a `torch.nn.Module`.

    `name` and `weights_sha256` say exactly which weights these are; `readouts` says what `read` can give
    (`contact_head` only where trained regression weights are there).
    """

    name: str
    weights_sha256: str
    architecture: Architecture
    readouts: frozenset[str]

    @property
    def device(self) -> torch.device:
        """Where the weights are; tokens have to be there too."""
        ...

    def logits(
        self, tokens: Int64[Tensor, "B L"], positions: Int64[Tensor, " L"] | None = None
    ) -> Float32[Tensor, "B L 20"]:
        """Raw logits (not log-probabilities) of the 20 amino acids in our order at every residue.

        `positions` are increasing residue indices, 0 .. L - 1 if None: a step of more than one is a gap between chains.
        BOS stands one before the first, EOS one after the last. Only differences count. Raises ValueError for indices
        that do not increase or are not one per residue.
        """
        ...

    def read(
        self,
        tokens: Int64[Tensor, "B L"],
        readouts: Collection[str],
        positions: Int64[Tensor, " L"] | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """Everything asked for from one and the same forward, by name; shapes as in `Readout`.

        With `heads`, pairs (layer, head) from 0, `attention` is (B, K, L, L) of these alone, in their order. Raises
        ValueError with the remedy for a readout or a head that this model does not have.
        """
        ...
