"""Costs of a forward measured by counting its operations and bytes, for models without formulas.

A forward on fake tensors computes nothing and needs no weights, so forecasts are quick at any size.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.models.base import ModelSize

COUNTED_LENGTHS = (8, 16, 32)
"""Operations are a polynomial of degree two in the number of tokens, so three lengths determine all others."""


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the peak of bytes held by tensors made within its context, sampled after every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        for tensor in tree_leaves(made):
            # An input that is returned, such as a weight, was not allocated here.
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in given:
                storage = tensor.untyped_storage()
                self._known[_key(tensor)] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self._known = {key: each for key, each in self._known.items() if not each[0].expired()}  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self._known.values()))
        return made


def operations(forward: Callable[[], Any]) -> int:
    """Count the floating point operations of the matrix products of a forward."""
    counter = FlopCounterMode(display=False, custom_mapping=_ALSO_COUNTED)
    with counter:
        forward()
    flops: int = counter.get_total_flops()
    return flops


def _of_addmm(_added: Any, one: Any, other: Any, **_: Any) -> int:
    return int(2 * one[0] * one[1] * other[1])


def _of_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


_ALSO_COUNTED = {
    torch.ops.aten.addmm_: _of_addmm,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _of_attention,
}
"""Matrix products that PyTorch's counter leaves out."""


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class CountedSize(ModelSize):
    """Costs counted in `forward(batch, length, maps)`, a forward with or without attention maps.

    `longest` is the longest sequence that the model takes. `weights` are bytes.
    """

    def __init__(
        self,
        forward: Callable[[int, int, bool], Any],
        *,
        description: str,
        num_parameters: int,
        weights: int,
        num_layers: int = 0,
        num_heads: int = 0,
        longest: int | None = None,
    ) -> None:
        self._forward, self._description, self._longest = forward, description, longest
        self._numbers = num_parameters, weights, num_layers, num_heads
        self._flops: dict[int, int] = {}
        self._bytes = lru_cache(maxsize=None)(self._count_bytes)

    def __str__(self) -> str:
        return self._description

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CountedSize) and (str(self), self._numbers) == (str(other), other._numbers)

    def __hash__(self) -> int:
        return hash((str(self), self._numbers))

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return self._numbers[0]

    @property
    def weights(self) -> int:
        """Bytes of the weights on the device."""
        return self._numbers[1]

    @property
    def max_length(self) -> int | None:
        """Largest number of residues that the model can take; None without a limit."""
        return self._longest

    @property
    def num_layers(self) -> int:
        """Number of layers whose attention can be read out."""
        return self._numbers[2]

    @property
    def num_heads(self) -> int:
        """Number of attention heads per layer."""
        return self._numbers[3]

    def flops(self, length: int) -> int:
        """Floating point operations of one forward of `length` residues, interpolated from three counts (Lagrange)."""
        total = Fraction(0)
        counted = self._counted_flops()
        for at, value in counted.items():
            term = Fraction(value)
            for other in counted:
                if other != at:
                    term *= Fraction(length - other, at - other)
            total += term
        return round(total)

    def of_logits(self, batch: int, length: int) -> int:
        """Bytes of a forward of `batch` mutants without the weights, at least those of the logits and their changes."""
        return max(self._bytes(batch, length, False), 3 * 4 * NUM_AMINO_ACIDS * batch * length)

    def of_maps(self, length: int, *, every_head: bool) -> int:
        """Bytes of the wild type's forward with the attention maps of all layers at once."""
        return self._bytes(1, length, True)

    def _counted_flops(self) -> dict[int, int]:
        if not self._flops:
            self._flops = {length: self._count_flops(length) for length in COUNTED_LENGTHS}
        return self._flops

    def _count_flops(self, length: int) -> int:
        return operations(lambda: self._forward(1, length, False))

    def _count_bytes(self, batch: int, length: int, maps: bool) -> int:
        """Peak bytes counted for one or two sequences of at most the longest length, and scaled up from there."""
        few, short = min(batch, 2), min(length, self._longest or length)
        with Allocated() as counted:
            self._forward(few, short, maps)
        return round(float(counted.most) * (batch / few) * (length / short))
