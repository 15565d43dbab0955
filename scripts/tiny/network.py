"""fair-esm's ESM2, small: how its weights start, a faster equivalent of its forward, and the losses of training.

The weights are exactly those of fair-esm's ESM2 and a test holds the two forwards equal; this one fuses projections,
computes the logits of the amino acids only, and tells how far attention is from where it should look. What it gives up:
token dropout as in training is always on.
"""

from typing import Any, NamedTuple

import esm
import torch
import torch.nn.functional as F
from esm.model.esm2 import ESM2
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from plmjac.alphabet import NUM_AMINO_ACIDS
from tiny.data import FIRST_AMINO_ACID, MASK_TOKEN, PAD, Batch
from tiny.teacher import Lesson

Tables = tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]]
"""Cosines and sines of the rotary embedding."""

AMINO_ACIDS = slice(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS)
"""Those of the 33 tokens that are amino acids."""

COLUMN_LAYER, LOOKING_LAYERS = -3, (-2, -1)
"""The layer that columns are read off, counted from the end, and the two behind it that are shown where to look."""

NEAR, FAR = (1, 2, 3, 4), (5, 9, 14, 22)
"""Distances in residues at which the heads of the first and second layer look when training starts."""

SHARPNESS = 4.5
"""Of that look: what each rotary frequency adds to an attention logit at its best."""


class Weights(NamedTuple):
    """Weights of the parts of the loss."""

    masked: float = 1.0
    divergence: float = 1.0
    change: float = 30.0
    column: float = 0.5
    attention: float = 1.0


class Losses(NamedTuple):
    """The parts of the loss, and the mean square of the change that was to be learnt (`change` is what is left of it).

    `masked`: cross-entropy of masked residues. `divergence`: from the teacher's shares at the residues of wild types, a
    residue that is seen left out. `change`: squared difference from the teacher's change of the centred logits, summed
    over amino acids. `column`: cross-entropy of the column. `attention`: divergence of attention from the teacher's.
    """

    masked: Tensor
    divergence: Tensor
    change: Tensor
    column: Tensor
    attention: Tensor
    to_change: Tensor


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
        for layer, offsets in zip(model.layers, (NEAR, FAR), strict=False):
            look_around(layer.self_attn, heads, offsets)
    return model


def look_around(attention: Any, heads: int, offsets: tuple[int, ...]) -> None:
    """Set biases of queries and keys so that heads look `offsets` residues back and forth in turn, whatever is there.

    A query turned by an angle of d residues agrees most with a key d residues away. Frequencies too fast for a far look
    are left out, so that it is wide. From its neighbours a residue's column can be told wherever the domain begins;
    weights that start at random find the ends of the sequence first, and count from there.
    """
    size = attention.q_proj.bias.shape[0] // heads
    frequencies = 1.0 / (10000 ** (torch.arange(0, size, 2).float() / size))
    query, key = torch.zeros(heads, 2, size // 2), torch.zeros(heads, 2, size // 2)
    for head in range(heads):
        offset = offsets[head // 2 % len(offsets)] * (-1) ** head
        used = (frequencies * abs(offset) <= max(NEAR)) * (SHARPNESS * size**0.5) ** 0.5
        query[head] = used * torch.stack([(offset * frequencies).cos(), (offset * frequencies).sin()])
        key[head, 0] = used
    attention.q_proj.bias.copy_(query.flatten())
    attention.k_proj.bias.copy_(key.flatten())


class ColumnHead(nn.Module):
    """Reads family and column, or that there is none, off a layer's output; used in training only, and not shipped.

    A layer that must tell which column of which family each residue is gives the next ones something to attend by.
    """

    def __init__(self, width: int, num_columns: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_columns + 1)

    def forward(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B C"]:
        """Logits of the columns of all families, and last of none of them."""
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


def _queries_keys_values(
    attention: Any, x: Float[Tensor, "N D"], real: Int64[Tensor, " N"], shape: torch.Size, heads: int, tables: Tables
) -> tuple[Float[Tensor, "B H T E"], Float[Tensor, "B H T E"], Float[Tensor, "B H T E"]]:
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([projection.weight for projection in projections])
    bias = torch.cat([projection.bias for projection in projections])
    q, k, v = _spread(F.linear(x, weight, bias), real, shape).view(*shape, 3, heads, -1).permute(2, 0, 3, 1, 4)
    return _rotate(q, tables), _rotate(k, tables), v


def _looking_loss(
    q: Float[Tensor, "W H T E"], k: Float[Tensor, "W H T E"], keys: Float[Tensor, "W 1 1 T"],
    look: Int64[Tensor, "W H T"], strength: Float[Tensor, "W H T"], taught: Bool[Tensor, "W T"],
) -> Float[Tensor, ""]:  # fmt: skip
    """Divergence of attention at `taught` places from `strength` at the place to look at and the rest at BOS."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + keys
    shares = scores.log_softmax(dim=-1)
    at, rest = shares.gather(-1, look[..., None])[..., 0], shares[..., 0]
    missed = torch.xlogy(strength, strength) - strength * at + torch.xlogy(1 - strength, 1 - strength)
    missed = (missed - (1 - strength) * rest) * taught[:, None]
    loss: Tensor = missed.sum() / (taught.sum() * look.shape[1])
    return loss


def hidden_states(
    model: ESM2,
    tokens: Int64[Tensor, "B T"],
    tables: Tables | None = None,
    lesson: Lesson | None = None,
    layers: int | None = None,
) -> tuple[list[Float[Tensor, "B T D"]], list[Float[Tensor, ""]]]:
    """The output of each layer of fair-esm's ESM2.forward before the last layer norm, and the losses of attention.

    Of the first `layers` only, if that is given. `tables` are those of `rotary_tables`, which are made anew where they
    are not given. There is a loss of attention for each of `LOOKING_LAYERS` if there is a lesson, over the first rows
    of the tokens, which it is about.
    """
    heads = model.attention_heads
    tables = rotary_tables(tokens.shape[1], model.embed_dim // heads) if tables is None else tables
    keys = torch.zeros(len(tokens), 1, 1, tokens.shape[1]).masked_fill((tokens == PAD)[:, None, None], -1e9)
    real = torch.nonzero((tokens != PAD).flatten())[:, 0]
    x = _embed(model, tokens).flatten(0, 1)[real]
    states, losses = [], []
    for number, layer in enumerate(model.layers[:layers], start=-len(model.layers)):
        q, k, v = _queries_keys_values(
            layer.self_attn, layer.self_attn_layer_norm(x), real, tokens.shape, heads, tables
        )
        if lesson is not None and number in LOOKING_LAYERS:
            look, strength = (part[LOOKING_LAYERS.index(number)] for part in (lesson.look, lesson.strength))
            shown = slice(len(look))
            losses.append(_looking_loss(q[shown], k[shown], keys[shown], look, strength, lesson.taught))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keys).transpose(1, 2).flatten(2).flatten(0, 1)
        x = x + layer.self_attn.out_proj(mixed[real])
        x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        states.append(_spread(x, real, tokens.shape))
    return states, losses


def _spread(x: Float[Tensor, "N D"], real: Int64[Tensor, " N"], shape: torch.Size) -> Float[Tensor, "B T D"]:
    """Rows of the places that are no padding, back at their places, zeros between them."""
    return x.new_zeros(shape.numel(), x.shape[-1]).index_copy(0, real, x).view(*shape, -1)


def fast_logits(model: ESM2, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T 20"]:
    """Those of `model(tokens)["logits"]` that are of amino acids, faster."""
    return _lm_head(model, hidden_states(model, tokens)[0][-1])


def _lm_head(model: ESM2, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T 20"]:
    head = model.lm_head
    x = head.layer_norm(F.gelu(head.dense(model.emb_layer_norm_after(hidden))))
    return F.linear(x, model.embed_tokens.weight[AMINO_ACIDS], head.bias[AMINO_ACIDS])


def masked_loss(model: ESM2, tokens: Int64[Tensor, "S T"], residue: Int64[Tensor, "S T"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the amino acids, in nats, of the residues (-1: none) at the masked places."""
    return _masked_loss(fast_logits(model, tokens), tokens, residue)


def _masked_loss(
    logits: Float[Tensor, "S T 20"], tokens: Int64[Tensor, "S T"], residue: Int64[Tensor, "S T"]
) -> Float[Tensor, ""]:
    target = torch.where(tokens == MASK_TOKEN, residue, -1)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-1)


def training_losses(
    model: ESM2, head: ColumnHead, batch: Batch, lesson: Lesson, first_columns: Int64[Tensor, " F"], tables: Tables
) -> Losses:
    """All parts of the loss of a batch; `first_columns` is the number of each family's first column."""
    states, attention = hidden_states(model, batch.tokens, tables, lesson)
    logits = _lm_head(model, states[-1])
    drawn, wild_types = len(batch.family), len(lesson.expected)
    change = logits[drawn:] - logits[:wild_types].repeat_interleave(len(lesson.change) // wild_types, dim=0)
    change = change - change.mean(dim=-1, keepdim=True)
    moved = lesson.moved.sum()
    return Losses(
        _masked_loss(logits[:drawn], batch.tokens[:drawn], batch.residue),
        _divergence(logits[:wild_types], batch.tokens[:wild_types], lesson),
        ((change - lesson.change).square().sum(dim=-1) * lesson.moved).sum() / moved,
        column_loss(head, states[COLUMN_LAYER], batch, first_columns),
        torch.stack(attention).mean(),
        (lesson.change.square().sum(dim=-1) * lesson.moved).sum() / moved,
    )


def column_loss(
    head: ColumnHead, states: Float[Tensor, "R T D"], batch: Batch, first_columns: Int64[Tensor, " F"]
) -> Float[Tensor, ""]:
    """Cross-entropy of family and column, or of none in flanks, over the sequences that were drawn."""
    column = torch.where(batch.column >= 0, batch.column + first_columns[batch.family][:, None], -1)
    column[batch.flank] = head.linear.out_features - 1
    asked = column >= 0
    return F.cross_entropy(head(states[: len(column)][asked]), column[asked])


def _divergence(logits: Float[Tensor, "W T 20"], tokens: Int64[Tensor, "W T"], lesson: Lesson) -> Float[Tensor, ""]:
    """Of the model's shares from the teacher's; that of the residue that is seen is left out of both.

    What its neighbours say of the other residues is what is to be learnt, and not that it is there.
    """
    seen = (tokens - FIRST_AMINO_ACID)[..., None] == torch.arange(NUM_AMINO_ACIDS)
    ours = torch.log_softmax(logits.masked_fill(seen, -1e4), dim=-1)
    theirs = torch.log_softmax(lesson.expected.masked_fill(seen, -1e4), dim=-1)
    return ((theirs.exp() * (theirs - ours)).sum(dim=-1) * lesson.taught).sum() / lesson.taught.sum()
