"""A fast ESM-2 in plain PyTorch: the same weights and, up to rounding, the same results as `esm2.Esm2`.

It saves time by scaled_dot_product_attention, which forms no attention map; one matrix product for queries, keys and
values, with the layer norm's scale and shift folded into the weights; rotation as one complex product of paired
channels; a table of 33 tokens for the first layer's queries, keys and values; residual sums inside the matrix product;
batches small enough for the CPU's cache; 20 output columns at L positions instead of 33 at L + 2. Attention maps are
formed only where they are read out, one layer at a time.

Precision: fp32 (without TF32), tf32, or fp16: matrix products and attention in half precision, and residual stream,
layer norms, rotation, softmax and head in float32.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor, nn

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.models.architecture import CPU_TOKENS, Architecture
from plmjac.models.attention_kernels import attend
from plmjac.models.base import Precision
from plmjac.models.esm2 import Esm2Adapter
from plmjac.models.layouts import CONTACT_HEAD, rotary_frequencies

MASK_RATIO_TRAIN = 0.15 * 0.8
"""Fraction of tokens masked in ESM-2's training; token dropout rescales embeddings to it."""


class FastLayer(nn.Module):
    """One transformer layer with queries, keys and values in one projection."""

    def __init__(
        self, tensors: Mapping[str, Tensor], number: int, architecture: Architecture, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.heads, self.head_width = architecture.num_heads, architecture.head_width
        self.eps = architecture.layer_norm_eps
        get = _getter(tensors, f"layers.{number}.")
        pairs = _pairs(self.heads, self.head_width)
        weights = [get(f"self_attn.{part}_proj.weight") for part in "qkv"]
        biases = [get(f"self_attn.{part}_proj.bias") for part in "qkv"]
        weight = torch.cat([weights[0][pairs], weights[1][pairs], weights[2]])
        bias = torch.cat([biases[0][pairs], biases[1][pairs], biases[2]])
        qkv = _fold(get("self_attn_layer_norm.weight"), get("self_attn_layer_norm.bias"), weight, bias)
        up = _fold(
            get("final_layer_norm.weight"), get("final_layer_norm.bias"), get("fc1.weight"), get("fc1.bias")
        )  # fmt: skip
        for name, tensor in (
            ("qkv_weight", qkv[0]), ("qkv_bias", qkv[1]), ("up_weight", up[0]), ("up_bias", up[1]),
            ("out_weight", get("self_attn.out_proj.weight")), ("out_bias", get("self_attn.out_proj.bias")),
            ("down_weight", get("fc2.weight")), ("down_bias", get("fc2.bias")),
        ):  # fmt: skip
            self.register_buffer(name, tensor.to(dtype))

    qkv_weight: Tensor
    qkv_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    down_weight: Tensor
    down_bias: Tensor

    def project(self, x: Float32[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        """Queries, keys and values of the normalised channels, in one array."""
        return F.linear(self.normalised(x), self.qkv_weight, self.qkv_bias)

    def heads_of(
        self, qkv: Float[Tensor, "B T E"], turn: Complex64[Tensor, "T 1 1 P"]
    ) -> tuple[Float[Tensor, "B H T W"], Float[Tensor, "B H T W"], Float[Tensor, "B H T W"]]:
        """Queries and keys rotated by their position, and values, by head. `qkv` may be overwritten."""
        batch, length, _ = qkv.shape
        parts = qkv.view(batch, length, 3, self.heads, self.head_width)
        turned = parts[:, :, :2].float().view(batch, length, 2, self.heads, self.head_width // 2, 2)
        torch.view_as_complex(turned).mul_(turn)
        query, key = turned.flatten(-2).to(qkv.dtype).permute(2, 0, 3, 1, 4)
        return query, key, parts[:, :, 2].transpose(1, 2)

    def attend(self, qkv: Float[Tensor, "B T E"], turn: Complex64[Tensor, "T 1 1 P"]) -> Float[Tensor, "B H T W"]:
        """Attended values by head; no attention map is formed. `qkv` may be overwritten."""
        return attend(*self.heads_of(qkv, turn))

    def finish(self, x: Float32[Tensor, "B T D"], attended: Float[Tensor, "B H T W"]) -> None:
        """Output projection and feed-forward block; the layer's output overwrites the contiguous `x`."""
        rows = x.view(-1, x.shape[-1])
        _add_linear(rows, attended.transpose(1, 2).reshape(rows.shape), self.out_weight, self.out_bias)
        hidden = F.linear(self.normalised(rows), self.up_weight, self.up_bias)
        _add_linear(rows, torch.ops.aten.gelu_(hidden), self.down_weight, self.down_bias)

    def normalised(self, x: Float32[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Layer norm in float32 without scale and shift (folded into the weights), cast to the dtype of the weights."""
        return F.layer_norm(x, x.shape[-1:], eps=self.eps).to(self.qkv_weight.dtype)

    def added(self, x: Float32[Tensor, "*B D"], change: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Add `change` to `x` in place and return the normalised sum."""
        x += change
        return self.normalised(x)


def _add_linear(
    rows: Float32[Tensor, "M D"], inputs: Float[Tensor, "M K"], weight: Float[Tensor, "D K"], bias: Float[Tensor, " D"]
) -> None:
    """rows += linear(inputs), in one matrix product if all is float32."""
    if weight.dtype != rows.dtype:
        rows += F.linear(inputs, weight, bias)
        return
    rows += bias
    rows.addmm_(inputs, weight.t())


class Esm2Fast(Esm2Adapter):
    """An ESM-2 in eval mode on the fast path, in a given precision."""

    fast = True

    def __init__(
        self,
        *,
        tensors: Mapping[str, Tensor],
        architecture: Architecture,
        precision: Precision = "fp32",
        **options: Any,
    ) -> None:
        super().__init__(tensors=tensors, architecture=architecture, **options)
        self.precision = precision
        get = _getter(tensors, "")
        dtype = torch.float16 if precision == "fp16" else torch.float32
        self.layers = nn.ModuleList(
            FastLayer(tensors, number, architecture, dtype) for number in range(architecture.num_layers)
        )
        self.register_buffer("embedding", get("embed_tokens.weight"))
        dense = _fold(
            get("emb_layer_norm_after.weight"), get("emb_layer_norm_after.bias"), get("lm_head.dense.weight"),
            get("lm_head.dense.bias"),
        )  # fmt: skip
        columns = self._esm_ids[:NUM_AMINO_ACIDS]
        output = _fold(
            get("lm_head.layer_norm.weight"), get("lm_head.layer_norm.bias"), self.embedding[columns],
            get("lm_head.bias")[columns],
        )  # fmt: skip
        self.register_buffer("dense_weight", dense[0])
        self.register_buffer("dense_bias", dense[1])
        self.register_buffer("output_weight", output[0])
        self.register_buffer("output_bias", output[1])
        self.register_buffer("norm_weight", get("emb_layer_norm_after.weight"))
        self.register_buffer("norm_bias", get("emb_layer_norm_after.bias"))
        self.register_buffer("frequencies", _frequencies(tensors, architecture))
        if "contact_head" in self.readouts:
            self.register_buffer("contact_weight", get(CONTACT_HEAD[0]).view(architecture.num_layers, -1))
            self.register_buffer("contact_bias", get(CONTACT_HEAD[1]))
        self.eval().requires_grad_(False)

    embedding: Tensor
    dense_weight: Tensor
    dense_bias: Tensor
    output_weight: Tensor
    output_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    frequencies: Tensor
    contact_weight: Tensor
    contact_bias: Tensor

    def _forward(
        self,
        ids: Int64[Tensor, "B T"],
        indices: Int64[Tensor, " T"],
        readouts: frozenset[str],
        heads: list[tuple[int, int]] | None,
    ) -> dict[str, Tensor]:
        x, table = self._start(ids)
        turn = self._turn(indices)
        results: dict[str, Tensor] = {}
        if readouts & {"contact_head", "attention"}:
            results = self._with_maps(x, turn, readouts, self.wanted_heads(heads))
        else:
            self._without_maps(ids, x, table, turn)
        if "attention" in readouts and heads is None:
            maps, shape = results["attention"], (self.architecture.num_layers, self.architecture.num_heads)
            results["attention"] = maps.view(len(maps), *shape, *maps.shape[2:])
        if "logits" in readouts:
            results["logits"] = self._logits(x[:, 1:-1])
        if "representation" in readouts:
            results["representation"] = F.layer_norm(
                x[:, 1:-1], x.shape[-1:], self.norm_weight, self.norm_bias, self.architecture.layer_norm_eps
            )
        return results

    def _without_maps(
        self,
        ids: Int64[Tensor, "B T"],
        x: Float32[Tensor, "B T D"],
        table: Float[Tensor, "V E"] | None,
        turn: Complex64[Tensor, "T 1 1 P"],
    ) -> None:
        """Apply all layers to `x` in place, a few sequences at a time."""
        size = sequences_together(x)
        blocks = list(zip(torch.split(ids, size), torch.split(x, size), strict=True))
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, FastLayer)
            tabled = table is not None and number == 0
            for tokens, block in blocks:
                layer.finish(
                    block,  # no name holds the projections, so that their memory is free again after attention
                    layer.attend(F.embedding(tokens, table) if tabled else layer.project(block), turn),  # type: ignore[arg-type]
                )

    def _with_maps(
        self,
        x: Float32[Tensor, "B T D"],
        turn: Complex64[Tensor, "T 1 1 P"],
        readouts: frozenset[str],
        wanted: list[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Apply all layers to `x` in place; returns the contact head and the wanted attention maps (B, K, L, L)."""
        maps: dict[tuple[int, int], Tensor] = {}
        evidence: Tensor | float = 0.0
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, FastLayer)
            query, key, value = layer.heads_of(layer.project(x), turn)
            heads = sorted({head for at, head in wanted if at == number}) if "attention" in readouts else []
            if "contact_head" in readouts:
                heads = list(range(layer.heads))
            if heads:
                some = slice(None) if len(heads) == layer.heads else heads  # a slice copies nothing
                scores = query[:, some].float() @ key[:, some].float().transpose(-1, -2)
                weights = torch.softmax(scores * layer.head_width**-0.5, dim=-1)
                if "attention" in readouts:
                    inner = weights[..., 1:-1, 1:-1]
                    maps |= {pair: inner[:, heads.index(pair[1])].clone() for pair in wanted if pair[0] == number}
                if "contact_head" in readouts:
                    evidence = evidence + _evidence(self.contact_weight[number], weights)
                del scores, weights
            if number + 1 < len(self.layers) or readouts & {"logits", "representation"}:
                layer.finish(x, F.scaled_dot_product_attention(query, key, value))
        results: dict[str, Tensor] = {}
        if "contact_head" in readouts:
            results["contact_head"] = torch.sigmoid(evidence + self.contact_bias)
        if "attention" in readouts:
            results["attention"] = torch.stack([maps[pair] for pair in wanted], dim=1)
        return results

    def _start(self, ids: Int64[Tensor, "B T"]) -> tuple[Float32[Tensor, "B T D"], Float[Tensor, "V E"] | None]:
        """Embeddings with token dropout, and the first layer's projections of every token if one scale serves all."""
        first = self.layers[0]
        assert isinstance(first, FastLayer)
        table = self.embedding
        if self.token_dropout:
            table = table.clone()
            table[self._mask_id] = 0.0
            masked = (ids == self._mask_id).sum(dim=1)
            scale = (1 - MASK_RATIO_TRAIN) / (1 - masked / ids.shape[1])
            if bool((masked != masked[0]).any()):  # a scale for each sequence, so no table
                return table[ids] * scale[:, None, None], None
            table = table * scale[0]
        return F.embedding(ids, table), first.project(table)

    def _turn(self, indices: Int64[Tensor, " T"]) -> Complex64[Tensor, "T 1 1 P"]:
        """Rotation of each position index, always in float32."""
        angles = indices.float()[:, None] * self.frequencies
        return torch.polar(torch.ones_like(angles), angles)[:, None, None, :]

    def _logits(self, x: Float32[Tensor, "B L D"]) -> Float32[Tensor, "B L 20"]:
        eps = self.architecture.layer_norm_eps
        hidden = F.gelu(F.linear(F.layer_norm(x, x.shape[-1:], eps=eps), self.dense_weight, self.dense_bias))
        return F.linear(F.layer_norm(hidden, hidden.shape[-1:], eps=eps), self.output_weight, self.output_bias)

    def _embedding(self) -> Tensor:
        return self.embedding


def sequences_together(x: Float32[Tensor, "B T D"]) -> int:
    """Number of sequences that pass a layer together: on a CPU as many as its cache holds, elsewhere all."""
    return max(1, CPU_TOKENS // x.shape[1]) if x.device.type == "cpu" else len(x)


def _getter(tensors: Mapping[str, Tensor], prefix: str) -> Any:
    return lambda name: tensors[prefix + name].to("cpu", torch.float32, copy=True)


def _frequencies(tensors: Mapping[str, Tensor], architecture: Architecture) -> Float32[Tensor, " P"]:
    """Rotary frequencies of the file, rounded as they were in training, or else those of the formula."""
    names = [f"layers.{layer}.self_attn.rot_emb.inv_freq" for layer in range(architecture.num_layers)]
    known = [tensors[name].to("cpu", torch.float32, copy=True) for name in names if name in tensors]
    if any(not torch.equal(each, known[0]) for each in known):
        raise ValueError("the layers of this checkpoint have different rotary frequencies; use fast=false")
    return known[0] if known else rotary_frequencies(architecture)


def _fold(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Fold a layer norm's scale and shift into the linear map behind it, in float64."""
    wide = weight.double()
    return (wide * scale.double()).float(), (bias.double() + wide @ shift.double()).float()


def _pairs(heads: int, width: int) -> Int64[Tensor, " D"]:
    """Order of channels that puts those rotated together (c and c + width / 2) next to each other, head by head."""
    within = torch.arange(width).view(2, width // 2).T.reshape(-1)
    return (torch.arange(heads)[:, None] * width + within).reshape(-1)


def _evidence(weight: Float32[Tensor, " H"], maps: Float32[Tensor, "B H T T"]) -> Float32[Tensor, "B L L"]:
    """Contribution of one layer to the contact head's logits: symmetrised maps, APC, weighted sum (Rao et al. 2021).

    BOS and EOS are left out. Heads are summed first, so that no second tensor of the maps' size is formed.
    """
    summed = torch.einsum("h,bhij->bij", weight, maps)[:, 1:-1, 1:-1]
    inner = maps[..., 1:-1, 1:-1]
    margins = inner.sum(-1) + inner.sum(-2)  # of the maps plus their transposes
    scaled = margins * (weight[:, None] / margins.sum(-1, keepdim=True))
    return summed + summed.transpose(-1, -2) - torch.einsum("bhi,bhj->bij", scaled, margins)
