"""fair-esm's ESM2, small: how its weights start, a faster equivalent of its forward, and the losses of training.

The weights are exactly those of fair-esm's ESM2 and a test holds the two forwards equal; this one fuses projections
and computes logits only where a loss is taken. What it gives up: token dropout as in training is always on, and there
is no readout of attention (fair-esm's own forward gives that).
"""

from typing import Any

import esm
import torch
import torch.nn.functional as F
from esm.model.esm2 import ESM2
from jaxtyping import Float, Int64
from torch import Tensor, nn

from plmjac.alphabet import NUM_AMINO_ACIDS
from tiny.data import FIRST_AMINO_ACID, MASK_TOKEN, PAD

Tables = tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]]
"""Cosines and sines of the rotary embedding."""

AMINO_ACID_COLUMNS = slice(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS)
"""Those of the 33 logits that are of amino acids."""


def new_model(layers: int, width: int, heads: int, seed: int) -> ESM2:
    """A fair-esm ESM2 with small embeddings and small outputs of every block."""
    torch.manual_seed(seed)
    model = ESM2(layers, width, heads, esm.data.Alphabet.from_architecture("ESM-1b"))
    generator = torch.Generator().manual_seed(seed)
    scale = width**-0.5
    with torch.no_grad():
        model.embed_tokens.weight.normal_(0, 0.3, generator=generator)
        model.embed_tokens.weight[PAD] = 0
        for layer in model.layers:
            attention = layer.self_attn
            for projection, gain in ((attention.q_proj, 0.7), (attention.k_proj, 0.7), (attention.v_proj, 1.0)):
                projection.weight.normal_(0, scale * gain, generator=generator)
                projection.bias.zero_()
            for linear, std in ((attention.out_proj, 0.3 * scale), (layer.fc1, scale), (layer.fc2, 0.15 * scale)):
                linear.weight.normal_(0, std, generator=generator)
                linear.bias.zero_()
        model.lm_head.dense.weight.normal_(0, scale, generator=generator)
        model.lm_head.dense.bias.zero_()
    return model


class ColumnHead(nn.Module):
    """Reads family and column off the first layer's output; used in training only, and not shipped.

    A layer that must tell which column of which family each residue is gives the next ones something to attend by.
    """

    def __init__(self, width: int, num_columns: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_columns)

    def forward(self, hidden: Float[Tensor, "K D"]) -> Float[Tensor, "K C"]:
        """Logits of the columns of all families."""
        logits: Tensor = self.linear(self.norm(hidden))
        return logits


def rotary_tables(length: int, size: int) -> Tables:
    """Cosines and sines of ESM-2's rotary embedding for heads of `size`."""
    frequencies = 1.0 / (10000 ** (torch.arange(0, size, 2).float() / size))
    angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(x: Float[Tensor, "B H T D"], tables: Tables) -> Float[Tensor, "B H T D"]:
    half = x.shape[-1] // 2
    return x * tables[0] + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * tables[1]


def _embed(model: ESM2, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """Embeddings with ESM-2's token dropout: MASK is zero, the rest scaled for the share of masks."""
    masked, padded = tokens == MASK_TOKEN, tokens == PAD
    observed = masked.sum(dim=1) / (~padded).sum(dim=1)
    scale = (~masked & ~padded) * ((1 - 0.15 * 0.8) / (1 - observed))[:, None]
    return F.embedding(tokens, model.embed_tokens.weight) * scale[..., None]


def _attend(
    attention: Any, x: Float[Tensor, "N D"], shape: tuple[int, int, int], keys: Float[Tensor, "B 1 1 T"],
    tables: Tables,
) -> Float[Tensor, "N D"]:  # fmt: skip
    """Self-attention with one projection for queries, keys and values."""
    batch, length, heads = shape
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([projection.weight for projection in projections])
    bias = torch.cat([projection.bias for projection in projections])
    q, k, v = F.linear(x, weight, bias).view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(_rotate(q, tables), _rotate(k, tables), v, attn_mask=keys)
    joined = mixed.transpose(1, 2).reshape(batch * length, -1)
    return F.linear(joined, attention.out_proj.weight, attention.out_proj.bias)


def hidden_states(
    model: ESM2, tokens: Int64[Tensor, "B T"], tables: Tables | None = None
) -> list[Float[Tensor, "N D"]]:
    """The output of each layer of fair-esm's ESM2.forward before the last layer norm, all tokens in one axis.

    `tables` are those of `rotary_tables`; compiled code that is not given them computes every cosine anew, each time.
    """
    batch, length = tokens.shape
    width, heads = model.embed_dim, model.attention_heads
    tables = rotary_tables(length, width // heads) if tables is None else tables
    keys = torch.zeros(batch, 1, 1, length).masked_fill((tokens == PAD)[:, None, None], -1e9)
    x = _embed(model, tokens).view(batch * length, width)
    states = []
    for layer in model.layers:
        x = x + _attend(layer.self_attn, layer.self_attn_layer_norm(x), (batch, length, heads), keys, tables)
        x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        states.append(x)
    return states


def fast_logits(model: ESM2, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T 33"]:
    """`model(tokens)["logits"]`, faster."""
    return _lm_head(model, hidden_states(model, tokens)[-1]).view(*tokens.shape, -1)


def _lm_head(model: ESM2, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N 33"]:
    head = model.lm_head
    x = head.layer_norm(F.gelu(head.dense(model.emb_layer_norm_after(hidden))))
    return F.linear(x, model.embed_tokens.weight, head.bias)


def masked_loss(model: ESM2, tokens: Tensor, selected: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, at the selected positions only."""
    return F.cross_entropy(_lm_head(model, hidden_states(model, tokens)[-1][selected]), targets)


def training_losses(
    model: ESM2, head: ColumnHead, weight: float, tables: Tables,
    tokens: Tensor, selected: Tensor, targets: Tensor, columns: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss that is minimised, and `masked_loss` as the greater part of it.

    The other part is `weight` times the cross-entropy of the column, read off the first layer at the same positions:
    that layer then soon tells what each residue is, and the later ones can attend to what it touches.
    """
    states = hidden_states(model, tokens, tables)
    masked = F.cross_entropy(_lm_head(model, states[-1][selected]), targets)
    return masked + weight * F.cross_entropy(head(states[0][selected]), columns), masked


def taught_losses(
    model: ESM2, head: ColumnHead, weight: float, teacher_weight: float, tables: Tables,
    tokens: Tensor, selected: Tensor, targets: Tensor, columns: Tensor,
    places: Tensor, wanted: Tensor, seen: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`training_losses`, plus `teacher_weight` times the divergence from what the teacher expects (tiny.teacher)."""
    states = hidden_states(model, tokens, tables)
    logits = _lm_head(model, states[-1])
    masked = F.cross_entropy(logits[selected], targets)
    column = F.cross_entropy(head(states[0][selected]), columns)
    shares = torch.log_softmax(logits[places][:, AMINO_ACID_COLUMNS].masked_fill(seen, -1e4), dim=-1)
    divergence = (wanted * (torch.log(wanted + 1e-9) - shares)).sum(dim=-1).mean()
    return masked + weight * column + teacher_weight * divergence, masked
