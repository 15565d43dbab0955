"""Costs of a forward by counting: operations and bytes of whatever it does, for models without formulas.

A forward on fake tensors computes nothing and needs no weights, so a forecast of any size is quick.
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
"""Operations are a polynomial of second degree in the number of tokens, so that three lengths give all others."""


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors held at once which were made under it, looked at after every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        for tensor in tree_leaves(made):
            # What an operation was given and gives back, a weight for instance, was there before.
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in given:
                storage = tensor.untyped_storage()
                self._known[_key(tensor)] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self._known = {key: each for key, each in self._known.items() if not each[0].expired()}  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self._known.values()))
        return made


def operations(forward: Callable[[], Any]) -> int:
    """Floating point operations of the matrix products of a forward, counted."""
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
"""Matrix products that PyTorch's counter passes over."""


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class CountedSize(ModelSize):
    """Costs counted by `forward(batch, length, maps)`, a forward of so many sequences, with attention maps or without.

    `longest` is the longest sequence that it takes. `weights` are bytes.
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
        """Trained numbers."""
        return self._numbers[0]

    @property
    def weights(self) -> int:
        """Bytes of the weights on the device."""
        return self._numbers[1]

    @property
    def max_length(self) -> int | None:
        """Residues that the model can take, None without a limit."""
        return self._longest

    @property
    def num_layers(self) -> int:
        """Layers whose attention can be read out."""
        return self._numbers[2]

    @property
    def num_heads(self) -> int:
        """Attention heads of a layer."""
        return self._numbers[3]

    def flops(self, length: int) -> int:
        """Operations of one forward of `length` residues, from those counted at three lengths (Lagrange)."""
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
        """Bytes of a forward of `batch` mutants besides the weights, or of its logits and their changes."""
        return max(self._bytes(batch, length, False), 3 * 4 * NUM_AMINO_ACIDS * batch * length)

    def of_maps(self, length: int, *, every_head: bool) -> int:
        """Bytes of the wild type's forward with attention maps, all of which are there at once."""
        return self._bytes(1, length, True)

    def _counted_flops(self) -> dict[int, int]:
        if not self._flops:
            self._flops = {length: self._count_flops(length) for length in COUNTED_LENGTHS}
        return self._flops

    def _count_flops(self, length: int) -> int:
        return operations(lambda: self._forward(1, length, False))

    def _count_bytes(self, batch: int, length: int, maps: bool) -> int:
        """Counted for one or two sequences of at most the longest length, and carried on from there."""
        few, short = min(batch, 2), min(length, self._longest or length)
        with Allocated() as counted:
            self._forward(few, short, maps)
        return round(float(counted.most) * (batch / few) * (length / short))
