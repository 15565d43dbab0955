"""ESM-2 on fair-esm's own module: the reference that every faster path is tested against.

It is slow: every layer forms its attention maps, 13 of the 33 output columns are computed for nothing, and the contact
head holds all maps at once (layers x heads x L^2 numbers).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from plmjac.models.architecture import Architecture, Esm2Size
from plmjac.models.base import BosEos
from plmjac.models.fair_esm import EsmAdapter, NoDrawing, import_fair_esm
from plmjac.models.layouts import CONTACT_HEAD, check_tensors, rotary_frequencies


class Esm2Adapter(EsmAdapter):
    """Base of the reference and the fast ESM-2; `tensors` have fair-esm's names and are copied."""

    fast = False

    def __init__(
        self,
        *,
        name: str,
        architecture: Architecture,
        tensors: Mapping[str, Tensor],
        weights_sha256: str,
        token_dropout: bool = True,
        bos_eos: BosEos = "keep",
    ) -> None:
        super().__init__(
            name=name,
            weights_sha256=weights_sha256,
            token_dropout=token_dropout,
            bos_eos=bos_eos,
            has_contact_head=set(CONTACT_HEAD) <= set(tensors),
        )
        check_tensors(tensors, architecture, name)
        embedding = tensors["embed_tokens.weight"]
        if not torch.equal(tensors.get("lm_head.weight", embedding), embedding):
            raise ValueError("the output matrix of this checkpoint is not its embedding; every ESM-2 ties the two")
        self.architecture = architecture

    @property
    def size(self) -> Esm2Size:
        """Costs on the device that the model is on."""
        return Esm2Size(self.architecture, self.fast, self.precision, self.device.type)


class Esm2(Esm2Adapter):
    """An ESM-2 in eval mode and float32 on fair-esm's module."""

    def __init__(self, *, tensors: Mapping[str, Tensor], architecture: Architecture, **options: Any) -> None:
        super().__init__(tensors=tensors, architecture=architecture, **options)
        esm = import_fair_esm()
        alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
        self.esm: Any = _build(esm, architecture, alphabet, self.token_dropout)
        _fill(self.esm, architecture, tensors)
        self.eval().requires_grad_(False)

    @contextmanager
    def _placed_at(self, indices: Int64[Tensor, " T"]) -> Iterator[None]:
        """Put cos and sin of these indices into the cache from which fair-esm's module rotates queries and keys.

        Computed as fair-esm does, so that indices 0 .. T - 1 give the same bits; the cache is emptied afterwards.
        """
        rotaries = [layer.self_attn.rot_emb for layer in self.esm.layers]
        for rotary in rotaries:
            angles = torch.einsum("i,j->ij", indices.type_as(rotary.inv_freq), rotary.inv_freq)
            angles = torch.cat((angles, angles), dim=-1)
            rotary._seq_len_cached = len(indices)
            rotary._cos_cached, rotary._sin_cached = angles.cos()[None], angles.sin()[None]
        try:
            yield
        finally:
            for rotary in rotaries:
                rotary._seq_len_cached = rotary._cos_cached = rotary._sin_cached = None


def _build(esm: ModuleType, architecture: Architecture, alphabet: Any, token_dropout: bool) -> Any:
    """Build fair-esm's module without weights, leaving the global random state untouched."""
    with torch.device("meta"), NoDrawing():
        module = esm.model.esm2.ESM2(
            num_layers=architecture.num_layers,
            embed_dim=architecture.width,
            attention_heads=architecture.num_heads,
            alphabet=alphabet,
            token_dropout=token_dropout,
        )
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = architecture.layer_norm_eps
    return module


def _fill(module: Any, architecture: Architecture, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a module on the meta device, in float32."""
    state = {name: tensor.to("cpu", torch.float32, copy=True) for name, tensor in tensors.items()}
    state["lm_head.weight"] = state["embed_tokens.weight"]
    for name in CONTACT_HEAD:
        # NaN where there are no trained weights, so that noise can never pass for contacts.
        width = architecture.num_layers * architecture.num_heads
        state.setdefault(name, torch.full((1, width) if name.endswith("weight") else (1,), torch.nan))
    for layer in range(architecture.num_layers):
        # The published models were trained with frequencies rounded to float16: those of the file take precedence.
        state.setdefault(f"layers.{layer}.self_attn.rot_emb.inv_freq", rotary_frequencies(architecture))
    module.load_state_dict(state, strict=True, assign=True)
    module.lm_head.weight = module.embed_tokens.weight
