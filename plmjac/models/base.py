"""Base classes of protein language models and of their costs.

A model takes our 26 tokens and gives logits of our 20 amino acids; BOS, EOS, vocabulary ids and token dropout are its
own affair. All sequences of a batch have the same length, so there is no padding and no attention mask.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Literal, get_args

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

Readout = Literal["logits", "contact_head", "attention", "representation"]
"""A result of one forward: `logits` (B, L, 20); `contact_head` (B, L, L), probabilities; `attention`
(B, layers, heads, L, L), weights between residues (rows sum to less than 1, since BOS and EOS are left out);
`representation` (B, L, D), the last hidden state after the final layer norm."""

BosEos = Literal["keep", "mask"]
"""The two ends of the input: ESM's <cls> and <eos>, or <mask> in their place."""

Precision = Literal["fp32", "tf32", "fp16"]
"""Arithmetic of the matrix products. Residual stream, norms, softmax, head and everything after are float32."""

READOUTS: tuple[Readout, ...] = get_args(Readout)


class ModelSize(ABC):
    """Cost of a model on one kind of device, for forecasts; known without loading weights.

    `num_layers` and `num_heads` count attention maps: 0 for a model without any. `str(size)` describes the model.
    """

    @property
    def num_layers(self) -> int:
        """Number of layers whose attention can be read out."""
        return 0

    @property
    def num_heads(self) -> int:
        """Number of attention heads per layer."""
        return 0

    @property
    def max_length(self) -> int | None:
        """Largest number of residues that the model can take; None without a limit."""
        return None

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of trained parameters; tied ones count once."""

    @property
    @abstractmethod
    def weights(self) -> int:
        """Bytes of the weights on the device."""

    @abstractmethod
    def flops(self, length: int) -> int:
        """Floating point operations of one forward of `length` residues (matrix products; a multiply-add is two)."""

    @abstractmethod
    def of_logits(self, batch: int, length: int) -> int:
        """Bytes of a forward of `batch` mutants without the weights, including the logits and their changes."""

    @abstractmethod
    def of_maps(self, length: int, *, every_head: bool) -> int:
        """Bytes of the wild type's forward with attention maps; `every_head` if the maps of all heads are kept."""


class LanguageModel(nn.Module):
    """A masked protein language model in eval mode.

    A subclass defines `read` and sets `name`, `weights_sha256` (the identity of the weights) and `readouts`, the
    results that `read` can give (`contact_head` only with trained regression weights). A model with attention maps also
    defines `size`, which says how many there are.
    """

    name: str
    weights_sha256: str
    readouts: frozenset[str]
    max_length: int | None = None
    """Largest number of residues that the model can take; None without a limit."""
    facts: Mapping[str, str] = MappingProxyType({})
    """Additional entries of a store's identity, such as the revision of a repository."""

    @property
    def device(self) -> torch.device:
        """Device of the weights, where tokens have to be as well."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def size(self) -> ModelSize:
        """Costs on the device that the model is on; counted in a forward unless a subclass has formulas."""
        return _counted(self)

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return self.size.num_parameters

    def flops(self, length: int) -> int:
        """Floating point operations of one forward of one sequence of `length` residues."""
        return self.size.flops(length)

    def logits(
        self, tokens: Int64[Tensor, "B L"], positions: Int64[Tensor, " L"] | None = None
    ) -> Float32[Tensor, "B L 20"]:
        """Raw logits (not log-probabilities) of the 20 amino acids in our order at every residue.

        `positions` are increasing residue indices, 0 .. L - 1 if None; a step of more than one is a gap between chains.
        BOS comes one before the first, EOS one after the last. Only differences matter. Raises ValueError for indices
        that do not increase or are not one per residue.
        """
        return self.read(tokens, ("logits",), positions)["logits"]

    def read(
        self,
        tokens: Int64[Tensor, "B L"],
        readouts: Collection[str],
        positions: Int64[Tensor, " L"] | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """All requested readouts from one forward, by name; shapes as in `Readout`.

        With `heads`, pairs (layer, head) counted from 0, `attention` is (B, K, L, L) of these heads in this order. The
        tensors may be changed in place. Raises ValueError with the remedy for a readout or head that this model does
        not have.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def use_compiled(self, wanted: bool) -> bool:
        """Choose between the compiled and the ordinary forward, if a model has both; True if it is compiled now."""
        return False

    def take(self, names: Collection[str] | None) -> list[str]:
        """Use these candidates for a faster forward (None: those measured faster on this GPU); returns those in use."""
        return []

    def check_readouts(self, readouts: Collection[str]) -> None:
        """Raise ValueError for a readout that this model does not have."""
        for readout in readouts:
            if readout not in READOUTS:
                raise ValueError(f"there is no readout {readout!r}; choose from {', '.join(READOUTS)}")
            if readout not in self.readouts:
                raise ValueError(self.why_not(readout))

    def why_not(self, readout: str) -> str:
        """Sentence that says why the model lacks a readout, and the remedy."""
        only = " and ".join(name for name in READOUTS if name in self.readouts)
        return f"{self.name} has {only} only, not {readout}"

    def wanted_heads(self, heads: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
        """The heads whose attention is read out: those given, or all. Raises ValueError for a head that is missing."""
        layers, width = self.size.num_layers, self.size.num_heads
        everything = [(layer, head) for layer in range(layers) for head in range(width)]
        if heads is None:
            return everything
        if wrong := [head for head in heads if tuple(head) not in set(everything)]:
            raise ValueError(
                f"{self.name} has no head {wrong[0]}; there are (layer, head) (0, 0) to ({layers - 1}, {width - 1})"
            )
        return list(heads)


def _counted(model: LanguageModel) -> ModelSize:
    from plmjac.models.counting import CountedSize  # noqa: PLC0415 - it counts what this module defines

    tensors = list({id(each): each for each in chain(model.parameters(), model.buffers())}.values())
    return CountedSize(
        lambda batch, length, _maps: model.logits(torch.zeros(batch, length, dtype=torch.int64, device=model.device)),
        description=type(model).__name__,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        longest=model.max_length,
    )


def indices_of(length: int, positions: Int64[Tensor, " L"] | None, device: torch.device) -> Int64[Tensor, " T"]:
    """Position index of each token, BOS and EOS included: BOS 0, the first residue 1, EOS one after the last.

    Counting from BOS keeps rotary angles small, and a constant shift of `positions` has no effect. Raises ValueError
    for `positions` that do not increase or are not one per residue.
    """
    if length == 0:
        raise ValueError("a sequence of no residues has no logits")
    if positions is None:
        return torch.arange(length + 2, device=device)
    if len(positions) != length:
        raise ValueError(f"{length} residues need {length} positions, these are {len(positions)}")
    inner = positions.to(device) - positions[0].to(device) + 1
    if bool((inner.diff() < 1).any()):
        raise ValueError("positions are residue indices from N to C terminus: they must increase")
    return torch.cat([inner.new_zeros(1), inner, inner[-1:] + 1])


@contextmanager
def kernels(precision: Precision, device: torch.device) -> Iterator[None]:
    """Set a GPU's arithmetic within the context: TF32 for tf32 and never otherwise, and no cuDNN attention.

    cuDNN plans its attention anew for each shape, which costs a protein more than it gains. Raises ValueError for tf32
    on a CPU.
    """
    if device.type != "cuda":
        if precision == "tf32":
            raise ValueError(f"tf32 exists on NVIDIA GPUs only, this model is on {device}; use fp32")
        yield
        return
    choose: Callable[[str], None] = torch.set_float32_matmul_precision
    with_tf32, without = "high", "highest"
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the process used PyTorch's newer attribute, beside which it refuses to read the older
        before, with_tf32, without = torch.backends.cuda.matmul.fp32_precision, "tf32", "ieee"
        choose = partial(setattr, torch.backends.cuda.matmul, "fp32_precision")
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    choose(with_tf32 if precision == "tf32" else without)
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        choose(before)
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
