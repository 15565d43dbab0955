"""ESM-2 as fast as PyTorch goes on one device: the same weights, protocol and results as `esm2.Esm2`.

What is saved, all of it exact but for rounding: scaled_dot_product_attention, which never forms an attention map; one
matrix product for queries, keys and values, with the layer norm's scale and shift folded in; rotation as one complex
product, for which query and key channels are put in pairs; the first layer's queries, keys and values from a table of
33 tokens; 20 output columns at L positions instead of 33 at L + 2. It gives up readability of the weights: they are no
longer fair-esm's tensors. Attention maps are formed only where they are read out, one layer at a time.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float32, Int64
from torch import Tensor, nn

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.models.base import Architecture
from plmjac.models.esm2 import Esm2Adapter
from plmjac.models.layouts import CONTACT_HEAD, rotary_frequencies

MASK_RATIO_TRAIN = 0.15 * 0.8
"""Share of masked tokens in ESM-2's training, which token dropout scales to."""


class FastLayer(nn.Module):
    """One transformer layer with fused projections; its buffers follow the model from device to device."""

    def __init__(self, tensors: Mapping[str, Tensor], number: int, architecture: Architecture) -> None:
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
            self.register_buffer(name, tensor)

    qkv_weight: Tensor
    qkv_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    down_weight: Tensor
    down_bias: Tensor

    def project(self, x: Float32[Tensor, "*B D"]) -> Float32[Tensor, "*B E"]:
        """Queries, keys and values of normalised channels, one after another."""
        return F.linear(F.layer_norm(x, x.shape[-1:], eps=self.eps), self.qkv_weight, self.qkv_bias)

    def heads_of(
        self, qkv: Float32[Tensor, "B T E"], turn: Complex64[Tensor, "T 1 1 P"]
    ) -> tuple[Float32[Tensor, "B H T W"], Float32[Tensor, "B H T W"], Float32[Tensor, "B H T W"]]:
        """Queries and keys turned by their position, and values, by head. `qkv` is overwritten."""
        batch, length, _ = qkv.shape
        parts = qkv.view(batch, length, 3, self.heads, self.head_width)
        turned = parts[:, :, :2].view(batch, length, 2, self.heads, self.head_width // 2, 2)
        torch.view_as_complex(turned).mul_(turn)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        return query, key, value

    def finish(self, x: Float32[Tensor, "B T D"], attended: Float32[Tensor, "B H T W"]) -> Float32[Tensor, "B T D"]:
        """From attended values to the layer's output: `x` is overwritten and returned."""
        x += F.linear(attended.transpose(1, 2).flatten(2), self.out_weight, self.out_bias)
        hidden = F.linear(F.layer_norm(x, x.shape[-1:], eps=self.eps), self.up_weight, self.up_bias)
        x += F.linear(F.gelu(hidden), self.down_weight, self.down_bias)
        return x


class Esm2Fast(Esm2Adapter):
    """An ESM-2 in eval mode and float32 for throughput; implements `plmjac.models.base.LanguageModel`."""

    def __init__(self, *, tensors: Mapping[str, Tensor], architecture: Architecture, **options: Any) -> None:
        super().__init__(tensors=tensors, architecture=architecture, **options)
        get = _getter(tensors, "")
        self.layers = nn.ModuleList(
            FastLayer(tensors, number, architecture) for number in range(architecture.num_layers)
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
    frequencies: Tensor
    contact_weight: Tensor
    contact_bias: Tensor

    def read(self, tokens: Int64[Tensor, "B L"], readouts: Collection[str]) -> dict[str, Tensor]:
        """Everything asked for from one forward; attention maps are formed one layer at a time, if at all."""
        self._check_readouts(readouts)
        ids = self._to_esm(tokens)
        with torch.inference_mode():
            results = self._forward(ids, frozenset(readouts))
        return {name: value.clone() for name, value in results.items()}  # ordinary tensors, free to be changed

    def _forward(self, ids: Int64[Tensor, "B T"], readouts: frozenset[str]) -> dict[str, Tensor]:
        x, qkv = self._start(ids)
        turn = self._turn(ids.shape[1])
        with_maps = bool(readouts & {"contact_head", "attention"})
        maps: list[Tensor] = []
        evidence: Tensor | float = 0.0
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, FastLayer)
            query, key, value = layer.heads_of(layer.project(x) if number else qkv, turn)
            if with_maps:
                weights = torch.softmax(query @ key.transpose(-1, -2) * layer.head_width**-0.5, dim=-1)
                inner = weights[..., 1:-1, 1:-1]
                if "attention" in readouts:
                    maps.append(inner)
                if "contact_head" in readouts:
                    evidence = evidence + torch.einsum("h,bhij->bij", self.contact_weight[number], _corrected(inner))
                attended = weights @ value
            else:
                attended = F.scaled_dot_product_attention(query, key, value)
            x = layer.finish(x, attended)
        results: dict[str, Tensor] = {}
        if "logits" in readouts:
            results["logits"] = self._logits(x[:, 1:-1])
        if "contact_head" in readouts:
            results["contact_head"] = torch.sigmoid(evidence + self.contact_bias)
        if "attention" in readouts:
            results["attention"] = torch.stack(maps, dim=1)
        return results

    def _start(self, ids: Int64[Tensor, "B T"]) -> tuple[Float32[Tensor, "B T D"], Float32[Tensor, "B T E"]]:
        """Embeddings under token dropout, and the first layer's projections, from a table where all share one scale."""
        first = self.layers[0]
        assert isinstance(first, FastLayer)
        table = self.embedding
        scale: Tensor | float = 1.0
        if self.token_dropout:
            table = table.clone()
            table[self._mask_id] = 0.0
            masked = (ids == self._mask_id).sum(dim=1)
            scale = (1 - MASK_RATIO_TRAIN) / (1 - masked / ids.shape[1])
            if bool((masked != masked[0]).any()):  # every sequence its own scale: no table
                x = table[ids] * scale[:, None, None]
                return x, first.project(x)
            table = table * scale[0]
        return F.embedding(ids, table), F.embedding(ids, first.project(table))

    def _turn(self, length: int) -> Complex64[Tensor, "T 1 1 P"]:
        """The rotation of each position, in float32 whatever the precision of the rest."""
        angles = torch.arange(length, device=self.frequencies.device, dtype=torch.float32)[:, None] * self.frequencies
        return torch.polar(torch.ones_like(angles), angles)[:, None, None, :]

    def _logits(self, x: Float32[Tensor, "B L D"]) -> Float32[Tensor, "B L 20"]:
        eps = self.architecture.layer_norm_eps
        hidden = F.gelu(F.linear(F.layer_norm(x, x.shape[-1:], eps=eps), self.dense_weight, self.dense_bias))
        return F.linear(F.layer_norm(hidden, hidden.shape[-1:], eps=eps), self.output_weight, self.output_bias)

    def _weights(self) -> Tensor:
        return self.embedding


def _getter(tensors: Mapping[str, Tensor], prefix: str) -> Any:
    return lambda name: tensors[prefix + name].to("cpu", torch.float32, copy=True)


def _frequencies(tensors: Mapping[str, Tensor], architecture: Architecture) -> Float32[Tensor, " P"]:
    """The file's rotary frequencies, which are rounded as they were in training, or else the formula's."""
    names = [f"layers.{layer}.self_attn.rot_emb.inv_freq" for layer in range(architecture.num_layers)]
    known = [tensors[name].to("cpu", torch.float32, copy=True) for name in names if name in tensors]
    if any(not torch.equal(each, known[0]) for each in known):
        raise ValueError("the layers of this checkpoint have different rotary frequencies; use fast=false")
    return known[0] if known else rotary_frequencies(architecture)


def _fold(scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A linear map after a layer norm's scale and shift, as one linear map; summed in float64."""
    wide = weight.double()
    return (wide * scale.double()).float(), (bias.double() + wide @ shift.double()).float()


def _pairs(heads: int, width: int) -> Int64[Tensor, " D"]:
    """Channels of each head so that those which rotate together (c and c + width / 2) are neighbours."""
    within = torch.arange(width).view(2, width // 2).T.reshape(-1)
    return (torch.arange(heads)[:, None] * width + within).reshape(-1)


def _corrected(maps: Float32[Tensor, "B H L L"]) -> Float32[Tensor, "B H L L"]:
    """Attention maps as the contact head takes them: plus transpose, APC (Rao et al. 2021)."""
    maps = maps + maps.transpose(-1, -2)
    rows, columns = maps.sum(-1, keepdim=True), maps.sum(-2, keepdim=True)
    return maps - rows * columns / maps.sum((-1, -2), keepdim=True)
