"""Train the bundled model `tiny`: a small ESM-2 on a folder of protein family alignments, from data to shipped file.

    python scripts/train_tiny.py train ../shared/data/covariation --out runs/tiny --families PF00076 PF00018
    python scripts/train_tiny.py finish ../shared/data/covariation --run runs/tiny --export tiny.safetensors

`train` is masked language modelling with Lightning. It writes `last.ckpt` and `loss.csv`; run the same command again
and it goes on from the checkpoint, to the same loss curve as without the interruption. `finish` fits the contact head
(Rao et al. 2021) on the structures of some of the families, measures contacts on all, and writes the safetensors file.

The folder holds `alignments/<family>.fasta`, and for the columns and for `finish` `queries.fasta` (records named
`<structure> <family>`, aligned to the family) and `structures/<structure>.pdb`.

What it gives up: the weights are exactly those of fair-esm's ESM2, but the forward is a faster equivalent (fused
projections, scaled_dot_product_attention, logits only where a loss is taken); a test holds the two equal. Batches are
a function of seed and step alone, so nothing but the step has to be saved, and workers are not needed: drawing one
takes a hundredth of a step. Made for one CPU core and a model of less than a million parameters; nothing here scales.
"""

import argparse
import csv
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import esm
import gemmi
import lightning as pl
import numpy as np
import torch
import torch.nn.functional as F
from esm.model.esm2 import ESM2
from jaxtyping import Bool, Float, Float64, Int64
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset

from plmjac.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from plmjac.coevolution import GAP, coevolution, columns_of_query, read_alignment
from plmjac.jacobian import categorical_jacobian, contact_map

CLS, PAD, EOS, FIRST_AMINO_ACID, GAP_TOKEN, MASK_TOKEN = 0, 1, 2, 4, 30, 32
"""Tokens of ESM-2's alphabet; the 20 amino acids are 4 to 23 in the order of AMINO_ACIDS."""

MIN_SEPARATION = 6
CONTACT_ANGSTROM = 8.0
MAX_SEQUENCES = 8000
"""Alignments are cut to this many sequences for inverse covariance, as in the published averages of the data set."""


# The data: families, crops and flanks, masks.


@dataclass(frozen=True)
class Family:
    """The sequences of one family in its query's columns as ESM-2 tokens, gaps kept, and the query itself."""

    name: str
    structure: str
    query: str
    train: Int64[np.ndarray, "N L"]
    held_out: Int64[np.ndarray, "M L"]


class Batch(NamedTuple):
    """Corrupted sequences and what was there: `targets[k]` is the true token at flat index `selected[k]`."""

    tokens: Int64[Tensor, "B T"]
    selected: Int64[Tensor, " K"]
    targets: Int64[Tensor, " K"]


def read_queries(folder: Path) -> dict[str, tuple[str, str]]:
    """Structure name and aligned query of each family, from `queries.fasta`."""
    queries = {}
    for record in (folder / "queries.fasta").read_text(encoding="utf-8").split(">")[1:]:
        title, *lines = record.splitlines()
        structure, family = title.split()
        queries[family] = (structure, "".join(lines).strip())
    return queries


def family_alignment(folder: Path, name: str, query: str) -> Int64[np.ndarray, "N L"]:
    """The family's alignment in the columns where the query has a residue, as states 0 to 20."""
    return read_alignment(folder / "alignments" / f"{name}.fasta")[:, columns_of_query(query)].astype(np.int64)


def load_families(folder: Path, names: list[str], held_out: float = 0.1) -> list[Family]:
    """Read families and set a tenth of each aside; which sequences these are does not depend on the run's seed."""
    queries = read_queries(folder)
    families = []
    for name in names or sorted(queries):
        if name not in queries:
            raise SystemExit(f"train_tiny: no family {name} in {folder / 'queries.fasta'}")
        structure, query = queries[name]
        states = family_alignment(folder, name, query)
        tokens = np.where(states == GAP, GAP_TOKEN, states + FIRST_AMINO_ACID)
        tokens = tokens[np.random.default_rng(0).permutation(len(tokens))]
        number = max(1, int(len(tokens) * held_out))
        families.append(Family(name, structure, query.replace("-", ""), tokens[number:], tokens[:number]))
    return families


def background(families: list[Family]) -> Float64[np.ndarray, " 20"]:
    """Frequencies of the 20 amino acids, for flanks."""
    counts = sum(
        np.bincount(family.train[family.train != GAP_TOKEN] - FIRST_AMINO_ACID, minlength=NUM_AMINO_ACIDS)
        for family in families
    )
    return np.asarray(counts / np.sum(counts), dtype=np.float64)


@dataclass(frozen=True)
class Augmentation:
    """How a sequence of an alignment is made to look like that of a structure; each with its probability."""

    ungap: float
    flank: float
    crop: float
    max_flank: int
    max_crop: int = 6

    def __call__(
        self, row: Int64[np.ndarray, " L"], rng: np.random.Generator, frequencies: Float64[np.ndarray, " 20"], room: int
    ) -> Int64[np.ndarray, " M"]:
        """Perhaps cut the ends, perhaps drop the gaps, perhaps add random residues, to no more than `room` in all."""
        crop, ungap, flank = rng.random(3) < (self.crop, self.ungap, self.flank)
        if crop:
            left, right = rng.integers(0, self.max_crop + 1, 2)
            row = row[left : len(row) - right]
        if ungap:
            row = row[row != GAP_TOKEN]
        if flank:
            sizes = rng.integers(0, self.max_flank + 1, 2)
            while len(row) + sizes.sum() > room:
                sizes = rng.integers(0, self.max_flank + 1, 2)
            before, after = (rng.choice(NUM_AMINO_ACIDS, size, p=frequencies) + FIRST_AMINO_ACID for size in sizes)
            row = np.concatenate([before, row, after])
        return row


def pad(rows: list[Int64[np.ndarray, " _"]], width: int) -> Int64[np.ndarray, "B T"]:
    """BOS, the row, EOS, padding."""
    tokens = np.full((len(rows), width), PAD, dtype=np.int64)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row) + 2] = np.concatenate([[CLS], row, [EOS]])
    return tokens


def corrupt(
    tokens: Int64[np.ndarray, "B T"], rng: np.random.Generator, rate: float, *, with_gaps: bool
) -> tuple[Int64[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """ESM-2's scheme: select `rate` of the residues; 80 % become MASK, 10 % a random amino acid, 10 % stay.

    Returns the corrupted tokens and which were selected. Gaps are selected like residues if `with_gaps`.
    """
    eligible = (tokens >= FIRST_AMINO_ACID) & (tokens < FIRST_AMINO_ACID + NUM_AMINO_ACIDS)
    if with_gaps:
        eligible |= tokens == GAP_TOKEN
    selected = eligible & (rng.random(tokens.shape) < rate)
    kind = rng.random(tokens.shape)
    corrupted = np.where(selected & (kind < 0.8), MASK_TOKEN, tokens)
    random = rng.integers(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS, tokens.shape)
    return np.where(selected & (kind >= 0.9), random, corrupted), selected


@dataclass(frozen=True)
class Corpus:
    """Batches as a function of seed and step: families in equal shares, sequences at random.

    The families are split by length into `num_groups` groups of one size, and steps take the groups in turn: a batch of
    similar lengths wastes little on padding.
    """

    families: list[Family]
    batch_size: int
    rate: float
    augmentation: Augmentation
    seed: int
    num_groups: int = 2

    @cached_property
    def groups(self) -> list[list[Family]]:
        """Families from short to long, in as many groups as their number can be divided into."""
        by_length = sorted(self.families, key=lambda family: (family.train.shape[1], family.name))
        enough = len(by_length) >= 4 and len(by_length) % self.num_groups == 0
        number = self.num_groups if enough else 1
        size = len(by_length) // number
        return [by_length[start : start + size] for start in range(0, len(by_length), size)]

    @cached_property
    def frequencies(self) -> Float64[np.ndarray, " 20"]:
        """Of the amino acids of flanks."""
        return background(self.families)

    def batch(self, step: int) -> Batch:
        """The batch of this step. The families of a group take turns, so that over a few steps all have equal shares.

        Width and number of targets depend on the group only, for the compiler's sake.
        """
        rng = np.random.default_rng((self.seed, step))
        turn, group = divmod(step, len(self.groups))
        families = self.groups[group]
        room = max(family.train.shape[1] for family in families) + self.augmentation.max_flank
        rows = []
        for k in range(self.batch_size):
            family = families[(turn * self.batch_size + k) % len(families)]
            row = family.train[rng.integers(len(family.train))]
            rows.append(self.augmentation(row, rng, self.frequencies, room))
        tokens = pad(rows, room + 2)
        corrupted, selected = corrupt(tokens, rng, self.rate, with_gaps=True)
        mean_length = np.mean([family.train.shape[1] for family in families])
        num_targets = int(self.batch_size * mean_length * self.rate)
        return _of_size(num_targets, tokens, corrupted, rng.permutation(np.flatnonzero(selected)))

    def held_out(self, per_family: int = 32) -> Batch:
        """Held-out sequences with 15 % selected, gaps never, no augmentation: the same batch whatever the options."""
        rng = np.random.default_rng(0)
        rows = [family.held_out[k % len(family.held_out)] for family in self.families for k in range(per_family)]
        tokens = pad(rows, max(len(row) for row in rows) + 2)
        corrupted, selected = corrupt(tokens, rng, 0.15, with_gaps=False)
        where = np.flatnonzero(selected)
        return Batch(torch.from_numpy(corrupted), torch.from_numpy(where), torch.from_numpy(tokens.ravel()[where]))


def _of_size(
    number: int,
    tokens: Int64[np.ndarray, "B T"],
    corrupted: Int64[np.ndarray, "B T"],
    selected: Int64[np.ndarray, " S"],
) -> Batch:
    """A batch of `number` targets: surplus ones are dropped, missing ones made up by ones that are ignored (-100)."""
    targets = np.full(number, -100, dtype=np.int64)
    where = np.zeros(number, dtype=np.int64)
    kept = selected[:number]
    where[: len(kept)] = kept
    targets[: len(kept)] = tokens.ravel()[kept]
    return Batch(torch.from_numpy(corrupted), torch.from_numpy(where), torch.from_numpy(targets))


# The model: fair-esm's ESM2, a start that suits rotary heads, and a faster forward.


def new_model(layers: int, width: int, heads: int, seed: int, sharpness: float = 0.0) -> ESM2:
    """A fair-esm ESM2 with small embeddings and, if `sharpness` is not 0, heads that each look at one offset.

    With a sharpness, query and key biases are set so that the rotary kernel of a head peaks at an offset: +-1, +-2, ...
    in the first layer, farther in the others. The loss then falls in fewer steps, but the map of the Jacobian shows
    those offsets as bands and no contacts for thousands of steps (docs/tiny.md), so the shipped file has none of it.
    """
    torch.manual_seed(seed)
    model = ESM2(layers, width, heads, esm.data.Alphabet.from_architecture("ESM-1b"))
    generator = torch.Generator().manual_seed(seed)
    scale = width**-0.5
    with torch.no_grad():
        model.embed_tokens.weight.normal_(0, 0.3, generator=generator)
        model.embed_tokens.weight[PAD] = 0
        for index, layer in enumerate(model.layers):
            attention = layer.self_attn
            gain_qk = 0.2 if sharpness else 0.7
            for projection, gain in ((attention.q_proj, gain_qk), (attention.k_proj, gain_qk), (attention.v_proj, 1.0)):
                projection.weight.normal_(0, scale * gain, generator=generator)
                projection.bias.zero_()
            for linear, std in ((attention.out_proj, 0.3 * scale), (layer.fc1, scale), (layer.fc2, 0.15 * scale)):
                linear.weight.normal_(0, std, generator=generator)
                linear.bias.zero_()
            for head in range(heads):
                _point_head(attention, head, heads, *_start_offset(index, head, heads, sharpness))
        model.lm_head.dense.weight.normal_(0, scale, generator=generator)
        model.lm_head.dense.bias.zero_()
    return model


_NEAR = (-1, 1, -2, 2, -3, 3, -4, 4, -5, 5, -7, 7)
_FAR = (8, -8, 12, -12, 17, -17, 24, -24, 33, -33, 10, -10, 14, -14, 20, -20, 28, -28, 40, -40)


def _start_offset(layer: int, head: int, heads: int, sharpness: float) -> tuple[int, float]:
    """The offset a head starts at and how sharply; later layers softer, for content to have a say."""
    if layer == 0:
        return _NEAR[head % len(_NEAR)], sharpness
    return _FAR[((layer - 1) * heads + head) % len(_FAR)], 0.8 * sharpness


def _point_head(attention: Any, head: int, heads: int, offset: int, sharpness: float) -> None:
    """Set the biases so that head's score of position j for i is `sharpness` x sum_f cos(f (j - i - offset)).

    Frequencies whose period is beyond any domain are left out: they would only add a constant.
    """
    size = attention.q_proj.weight.shape[0] // heads
    frequencies = 1.0 / (10000 ** (torch.arange(0, size, 2).float() / size))
    amplitude = (frequencies > 0.015) * math.sqrt(sharpness * math.sqrt(size))
    rows = slice(head * size, (head + 1) * size)
    phase = offset * frequencies
    attention.q_proj.bias[rows] = torch.cat([amplitude * phase.cos(), amplitude * phase.sin()])
    attention.k_proj.bias[rows] = torch.cat([amplitude, torch.zeros_like(amplitude)])


def rotary_tables(length: int, size: int) -> tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]]:
    """Cosines and sines of ESM-2's rotary embedding for heads of `size`."""
    frequencies = 1.0 / (10000 ** (torch.arange(0, size, 2).float() / size))
    angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(
    x: Float[Tensor, "B H T D"], tables: tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]]
) -> Float[Tensor, "B H T D"]:
    half = x.shape[-1] // 2
    return x * tables[0] + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * tables[1]


def embed(model: ESM2, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """Embeddings with ESM-2's token dropout: MASK is zero, the rest scaled for the share of masks."""
    masked, padded = tokens == MASK_TOKEN, tokens == PAD
    observed = masked.sum(dim=1) / (~padded).sum(dim=1)
    scale = (~masked & ~padded) * ((1 - 0.15 * 0.8) / (1 - observed))[:, None]
    return F.embedding(tokens, model.embed_tokens.weight) * scale[..., None]


def attend(
    attention: Any, x: Float[Tensor, "N D"], shape: tuple[int, int, int], keys: Float[Tensor, "B 1 1 T"],
    tables: tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]],
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


def fast_hidden(model: ESM2, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "N D"]:
    """The last hidden states of fair-esm's ESM2.forward, all tokens in one axis."""
    batch, length = tokens.shape
    width, heads = model.embed_dim, model.attention_heads
    tables = rotary_tables(length, width // heads)
    keys = torch.zeros(batch, 1, 1, length).masked_fill((tokens == PAD)[:, None, None], -1e9)
    x = embed(model, tokens).view(batch * length, width)
    for layer in model.layers:
        x = x + attend(layer.self_attn, layer.self_attn_layer_norm(x), (batch, length, heads), keys, tables)
        x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
    return model.emb_layer_norm_after(x)  # type: ignore[no-any-return]


def fast_logits(model: ESM2, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T 33"]:
    """`model(tokens)["logits"]`, faster."""
    return _lm_head(model, fast_hidden(model, tokens)).view(*tokens.shape, -1)


def _lm_head(model: ESM2, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N 33"]:
    head = model.lm_head
    x = head.layer_norm(F.gelu(head.dense(hidden)))
    return F.linear(x, model.embed_tokens.weight, head.bias)


def masked_loss(model: ESM2, tokens: Tensor, selected: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, at the selected positions only."""
    return F.cross_entropy(_lm_head(model, fast_hidden(model, tokens)[selected]), targets)


# The optimiser: Muon for matrices inside the network, Adam for the rest.


class MuonAdam(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for groups with `matrices=True`, Adam for the others, in one optimiser.

    Muon replaces the update of a matrix by the nearest orthogonal one: all singular directions learn at one rate, the
    noise of small batches included. Matrices of one shape are orthogonalised in one batch. Fewer steps to a loss than
    AdamW, each a fifth dearer at batch 24; not what the shipped file was trained with.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__(groups, {"lr": 1e-3, "matrices": False, "weight_decay": 0.0})
        self.momentum, self.betas = momentum, betas

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; gradients must be there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["matrices"]:
                self._muon(parameters, group["lr"], group["weight_decay"])
            else:
                self._adam(parameters, group["lr"])
        return loss

    def _muon(self, parameters: list[Tensor], lr: float, decay: float) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in parameters:
            by_shape.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
        for members in by_shape.values():
            updates = []
            for parameter in members:
                gradient = parameter.grad
                assert gradient is not None
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(gradient, 1 - self.momentum)
                update = gradient.lerp(state["momentum"], self.momentum)
                updates.append(update if update.shape[0] <= update.shape[1] else update.T)
            for parameter, update in zip(members, orthogonalize(torch.stack(updates)), strict=True):
                rows, columns = parameter.shape
                parameter.mul_(1 - lr * decay)
                parameter.add_(update if rows <= columns else update.T, alpha=-lr * max(1.0, rows / columns) ** 0.5)

    def _adam(self, parameters: list[Tensor], lr: float) -> None:
        fast, slow = self.betas
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if not state:
                state.update(count=torch.tensor(0.0), mean=torch.zeros_like(parameter))
                state["square"] = torch.zeros_like(parameter)
            state["count"] += 1
            count = float(state["count"])
            state["mean"].lerp_(gradient, 1 - fast)
            state["square"].lerp_(gradient.square(), 1 - slow)
            denominator = (state["square"] / (1 - slow**count)).sqrt_().add_(1e-8)
            parameter.addcdiv_(state["mean"], denominator, value=-lr / (1 - fast**count))


def orthogonalize(matrices: Float[Tensor, "K R C"], iterations: int = 4) -> Float[Tensor, "K R C"]:
    """Bring all singular values to about 1 by Newton-Schulz iterations with Muon's coefficients (R <= C)."""
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (2.0315 * (gram @ gram) - 4.7750 * gram) @ x
    return x


def make_optimizer(settings: "Settings", model: ESM2) -> torch.optim.Optimizer:
    """MuonAdam, or plain AdamW for everything at Adam's rate."""
    s = settings
    if s.optimizer == "muon":
        return MuonAdam(parameter_groups(model, s.lr, s.adam_lr, s.weight_decay))
    values = [value for name, value in model.named_parameters() if not name.startswith("contact_head")]
    return torch.optim.AdamW(values, lr=s.adam_lr, betas=(0.9, 0.98), weight_decay=s.weight_decay)


def parameter_groups(model: ESM2, lr: float, adam_lr: float, decay: float) -> list[dict[str, Any]]:
    """Matrices between hidden states go to Muon; embeddings, biases and norms to Adam; the contact head to neither."""
    named = [(name, value) for name, value in model.named_parameters() if not name.startswith("contact_head")]
    inside = [value for name, value in named if value.ndim == 2 and value is not model.embed_tokens.weight]
    others = [value for _, value in named if value.ndim != 2 or value is model.embed_tokens.weight]
    return [
        {"params": inside, "lr": lr, "matrices": True, "weight_decay": decay},
        {"params": others, "lr": adam_lr},
    ]


def rate_factor(step: int, steps: int, decay_steps: int, warmup: int = 100) -> float:
    """Learning rate relative to its plateau: linear warm-up, constant, linear to zero over the last `decay_steps`.

    Before the decay it does not depend on `steps`, so a run may be given more steps later without a difference.
    """
    return min(1.0, (step + 1) / warmup, (steps - step) / max(1, decay_steps))


# Training.


@dataclass(frozen=True)
class Settings:
    """Everything that the loss curve depends on, besides the data; saved in the checkpoint and in the file's header."""

    families: list[str]
    layers: int
    width: int
    heads: int
    steps: int
    decay_steps: int
    batch_size: int
    mask_rate: float
    optimizer: str
    sharpness: float
    lr: float
    adam_lr: float
    weight_decay: float
    ungap: float
    flank: float
    crop: float
    max_flank: int
    seed: int


class Steps(IterableDataset[int]):
    """The step numbers from `start` on; what a batch holds is the corpus' business."""

    def __init__(self, corpus: Corpus, start: int, stop: int) -> None:
        self.corpus, self.start, self.stop = corpus, start, stop

    def __iter__(self) -> Iterator[Any]:
        return (self.corpus.batch(step) for step in range(self.start, self.stop))


class TinyModule(pl.LightningModule):
    """A masked language model with the fast forward."""

    def __init__(self, settings: Settings, *, compiled: bool) -> None:
        super().__init__()
        self.settings = settings
        self.model = new_model(settings.layers, settings.width, settings.heads, settings.seed, settings.sharpness)
        self._loss = torch.compile(masked_loss) if compiled else masked_loss

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross-entropy at the selected positions."""
        loss: Tensor = self._loss(self.model, *batch)
        return loss

    def configure_optimizers(self) -> Any:
        """The optimiser of the settings under the schedule of `rate_factor`."""
        s = self.settings
        optimizer = make_optimizer(s, self.model)
        schedule = LambdaLR(optimizer, lambda step: rate_factor(step, s.steps, s.decay_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """The checkpoint's learning rate is that of its own `steps`, which may have changed since."""
        for group in self.trainer.optimizers[0].param_groups:
            factor = rate_factor(self.global_step, self.settings.steps, self.settings.decay_steps)
            group["lr"] = group["initial_lr"] * factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the settings beside the weights, for `finish`."""
        checkpoint["settings"] = asdict(self.settings)


class Journal(pl.Callback):
    """The loss curve as CSV, a line on the screen, and the checkpoint that a new start goes on from."""

    def __init__(self, corpus: Corpus, out: Path, every: int) -> None:
        self.corpus, self.out, self.every = corpus, out, every
        self.held_out = corpus.held_out()
        self.losses: list[float] = []
        self.began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows of the CSV that are later than the checkpoint: they will be written again."""
        self.began, self.first = time.monotonic(), trainer.global_step
        path = self.out / "loss.csv"
        rows = list(csv.reader(path.open(encoding="utf-8"))) if path.exists() and self.first else []
        kept = [row for row in rows[1:] if int(row[0]) <= self.first]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["step", "train_loss", "held_out_loss"], *kept])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Every `every` steps: mean training loss since the last row, held-out loss, checkpoint."""
        self.losses.append(float(outputs["loss"]))
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps:
            self._row(trainer, pl_module, step)
            self.losses.clear()

    def _row(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        with torch.no_grad():
            held_out = float(masked_loss(pl_module.model, *self.held_out))
        train = sum(self.losses) / len(self.losses)
        save_checkpoint(trainer, self.out / "last.ckpt")
        with (self.out / "loss.csv").open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([step, f"{train:.6f}", f"{held_out:.6f}"])
        seconds = (time.monotonic() - self.began) / max(1, step - self.first)
        left = (trainer.max_steps - step) * seconds / 60
        print(f"step {step:6d}  train {train:.4f}  held out {held_out:.4f}  {seconds * 1e3:.0f} ms/step  "
              f"{left:.0f} min left", flush=True)  # fmt: skip


def save_checkpoint(trainer: pl.Trainer, path: Path) -> None:
    """Write beside, then rename: a kill at any instant leaves the old checkpoint or the new one."""
    temporary = path.with_suffix(".part")
    trainer.save_checkpoint(temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this script, tensors and plain values only."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def train(folder: Path, out: Path, settings: Settings, *, every: int = 200, compiled: bool = True) -> None:
    """Train to `settings.steps`, going on from `out/last.ckpt` where there is one.

    Steps and decay may differ from those of the checkpoint; any other difference ends the program, for the curve
    would be that of no settings at all.
    """
    out.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(folder, settings)
    last = out / "last.ckpt"
    start = 0
    if last.exists():
        checkpoint = load_checkpoint(last)
        start = int(checkpoint["global_step"])
        free = {"steps", "decay_steps"}
        changed = {key for key, value in asdict(settings).items() if checkpoint["settings"][key] != value} - free
        if changed:
            raise SystemExit(f"train_tiny: {last} was made with other {', '.join(sorted(changed))}; take another --out")
    if start >= settings.steps:
        print(f"{last} has {start} steps already")
        return
    trainer = pl.Trainer(
        max_steps=settings.steps, max_epochs=-1, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Journal(corpus, out, every)], default_root_dir=out,
    )  # fmt: skip
    loader = DataLoader(Steps(corpus, start, settings.steps), batch_size=None)
    trainer.fit(TinyModule(settings, compiled=compiled), loader, ckpt_path=last if last.exists() else None)


def corpus_of(folder: Path, settings: Settings) -> Corpus:
    """The data as these settings see it."""
    augmentation = Augmentation(settings.ungap, settings.flank, settings.crop, settings.max_flank)
    families = load_families(folder, settings.families)
    return Corpus(families, settings.batch_size, settings.mask_rate, augmentation, settings.seed)


# Contacts: structures, the contact head, the table.


@dataclass(frozen=True)
class Domain:
    """A crystal structure's chain and the part of it that is the family's domain."""

    family: str
    structure: str
    sequence: str
    start: int
    stop: int
    contacts: Bool[np.ndarray, "L L"]
    inverse_covariance: Float64[np.ndarray, "L L"]


def read_chain(path: Path) -> tuple[str, Float64[np.ndarray, "L 3"]]:
    """Sequence and C-beta (C-alpha of glycine) positions, in angstrom, of the first chain's resolved residues."""
    chain = gemmi.read_structure(str(path))[0][0]
    letters, positions = [], []
    for residue in chain:
        info = gemmi.find_tabulated_residue(residue.name)
        atom = residue.find_atom("CB", "*") or residue.find_atom("CA", "*")
        if info.is_amino_acid() and atom is not None:
            letters.append(info.one_letter_code.upper())
            positions.append(atom.pos.tolist())
    return "".join(letters), np.array(positions)


def load_domain(folder: Path, name: str) -> Domain:
    """Structure, contacts of the domain, and inverse covariance of the family's alignment."""
    structure, aligned = read_queries(folder)[name]
    query = aligned.replace("-", "")
    sequence, positions = read_chain(folder / "structures" / f"{structure}.pdb")
    start = sequence.find(query)
    if start < 0:
        raise SystemExit(f"train_tiny: the query of {name} is no part of the chain of {structure}")
    inside = positions[start : start + len(query)]
    contacts = np.linalg.norm(inside[:, None] - inside[None], axis=-1) < CONTACT_ANGSTROM
    baseline = coevolution(family_alignment(folder, name, aligned)[:MAX_SEQUENCES].astype(np.int8))[1]
    return Domain(name, structure, sequence, start, start + len(query), contacts, baseline)


def precision(scores: Float[np.ndarray, "L L"], contacts: Bool[np.ndarray, "L L"], divisor: float = 2) -> float:
    """Share of contacts among the L / divisor best pairs of |i - j| >= 6."""
    first, second = np.triu_indices(len(contacts), MIN_SEPARATION)
    best = np.argsort(-scores[first, second], kind="stable")[: max(1, int(len(contacts) // divisor))]
    return float(contacts[first, second][best].mean())


def esm_tokens(sequence: str) -> Int64[Tensor, " T"]:
    """BOS, the 20 amino acids as ESM-2 tokens (anything else X), EOS."""
    letters = [
        FIRST_AMINO_ACID + (AMINO_ACIDS + "X").find(letter if letter in AMINO_ACIDS else "X") for letter in sequence
    ]
    return torch.tensor([CLS, *letters, EOS])


@torch.no_grad()
def jacobian_map(model: ESM2, sequence: str) -> Float64[np.ndarray, "L L"]:
    """The categorical Jacobian's contact map of a sequence."""
    ends = torch.tensor([[CLS], [EOS]])

    def logits(tokens: Tensor) -> Tensor:
        number = len(tokens)
        framed = torch.cat([ends[:1].expand(number, 1), tokens + FIRST_AMINO_ACID, ends[1:].expand(number, 1)], dim=1)
        return fast_logits(model, framed)[:, 1:-1, FIRST_AMINO_ACID : FIRST_AMINO_ACID + NUM_AMINO_ACIDS]

    jacobian = categorical_jacobian(logits, esm_tokens(sequence)[1:-1] - FIRST_AMINO_ACID)
    return contact_map(jacobian, overwrite=True).double().numpy()


@torch.no_grad()
def attention_features(model: ESM2, sequence: str) -> Float[np.ndarray, "L L F"]:
    """APC-corrected symmetrised attention of all layers and heads, layer the slow axis, BOS and EOS cut off.

    The input of ESM-2's contact head (`esm.modules.ContactPredictionHead`).
    """
    attentions = model(esm_tokens(sequence)[None], need_head_weights=True)["attentions"][0, :, :, 1:-1, 1:-1]
    maps = attentions.flatten(0, 1)
    maps = maps + maps.transpose(1, 2)
    expected = maps.sum(dim=1, keepdim=True) * maps.sum(dim=2, keepdim=True) / maps.sum(dim=(1, 2), keepdim=True)
    features: Float[np.ndarray, "L L F"] = (maps - expected).permute(1, 2, 0).numpy()
    return features


def fit_contact_head(model: ESM2, domains: list[Domain], seed: int) -> tuple[Float64[np.ndarray, " F"], float]:
    """Weights and bias of the contact head by the protocol of Rao et al. 2021.

    L1-penalised logistic regression (C = 0.15, liblinear) over the pairs |i - j| >= 6 of all `domains`.
    """
    from sklearn.linear_model import LogisticRegression

    rows, labels = [], []
    for domain in domains:
        features = attention_features(model, domain.sequence[domain.start : domain.stop])
        first, second = np.triu_indices(len(domain.contacts), MIN_SEPARATION)
        rows.append(features[first, second])
        labels.append(domain.contacts[first, second])
    regression = LogisticRegression(penalty="l1", C=0.15, solver="liblinear", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn 1.8 renamed `penalty` to what 1.4 does not know
        regression.fit(np.concatenate(rows), np.concatenate(labels))
    return regression.coef_[0].astype(np.float64), float(regression.intercept_[0])


def table(
    model: ESM2, domains: list[Domain], head: tuple[Float64[np.ndarray, " F"], float], fitted: set[str]
) -> list[dict[str, Any]]:
    """P@L/2 per family of the Jacobian (domain alone, and in the whole chain), head, inverse covariance, chance."""
    rows = []
    for domain in domains:
        part = slice(domain.start, domain.stop)
        features = attention_features(model, domain.sequence[part])
        maps = {
            "jacobian": jacobian_map(model, domain.sequence[part]),
            "jacobian_in_chain": jacobian_map(model, domain.sequence)[part, part],
            "contact_head": features @ head[0] + head[1],
            "inverse_covariance": domain.inverse_covariance,
        }
        upper = domain.contacts[np.triu_indices(len(domain.contacts), MIN_SEPARATION)]
        scores = {name: round(precision(scores, domain.contacts), 4) for name, scores in maps.items()}
        rows.append(
            {"family": domain.family, "structure": domain.structure, "length": domain.stop - domain.start, **scores,
             "chance": round(float(upper.mean()), 4), "head_fitted_here": domain.family in fitted}
        )  # fmt: skip
    return rows


def finish(folder: Path, run: Path, export: Path, fit_families: list[str]) -> list[dict[str, Any]]:
    """Fit the contact head, measure, and write the shipped file; the table comes from that file's float16 weights."""
    checkpoint = load_checkpoint(run / "last.ckpt")
    settings = Settings(**checkpoint["settings"])
    model = new_model(settings.layers, settings.width, settings.heads, settings.seed)
    model.load_state_dict(as_shipped(checkpoint["state_dict"]))
    model.eval()
    corpus = corpus_of(folder, settings)
    with torch.no_grad():
        loss = float(masked_loss(model, *corpus.held_out()))
    names = [family.name for family in corpus.families]
    domains = [load_domain(folder, name) for name in names]
    fitted = set(fit_families or names[::2])
    weights, bias = fit_contact_head(model, [domain for domain in domains if domain.family in fitted], settings.seed)
    with torch.no_grad():
        model.contact_head.regression.weight.copy_(torch.from_numpy(weights)[None])
        model.contact_head.regression.bias.fill_(bias)
    rows = table(model, domains, (weights, bias), fitted)
    facts = {**checkpoint["settings"], "steps_done": int(checkpoint["global_step"]), "held_out_loss": round(loss, 4),
             "contact_head_fitted_on": sorted(fitted)}  # fmt: skip
    write_file(model, export, facts)
    write_table(rows, run / "contacts.csv")
    return rows


def as_shipped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as float16 leaves them, in float32; not the rotary frequencies, which are computed anew."""
    named = {name.removeprefix("model."): value for name, value in state.items()}
    return {name: value if name.endswith("inv_freq") else value.half().float() for name, value in named.items()}


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """The table as CSV, and on the screen with its means."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text(encoding="utf-8"))
    for name in ("jacobian", "jacobian_in_chain", "contact_head", "inverse_covariance", "chance"):
        print(f"mean {name}: {np.mean([row[name] for row in rows]):.3f}")
    unseen = [row["contact_head"] for row in rows if not row["head_fitted_here"]]
    if unseen:
        print(f"mean contact_head where it was not fitted: {np.mean(unseen):.3f}")


# The file: names of Hugging Face's EsmForMaskedLM.

_LAYER_NAMES = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}


def hugging_face_name(name: str) -> str | None:
    """The name in EsmForMaskedLM of a tensor of fair-esm's ESM2; None for what that computes or ties itself."""
    if name.endswith("inv_freq") or name == "lm_head.weight":
        return None
    if name.startswith("layers."):
        _, index, rest = name.split(".", 2)
        stem, kind = rest.rsplit(".", 1)
        return f"esm.encoder.layer.{index}.{_LAYER_NAMES[stem]}.{kind}"
    if name == "embed_tokens.weight":
        return "esm.embeddings.word_embeddings.weight"
    if name.startswith("emb_layer_norm_after"):
        return f"esm.encoder.{name}"
    return f"esm.{name}" if name.startswith("contact_head") else name


def hugging_face_config(model: ESM2) -> dict[str, Any]:
    """What EsmConfig needs to build this model."""
    return {
        "model_type": "esm", "num_hidden_layers": model.num_layers, "hidden_size": model.embed_dim,
        "num_attention_heads": model.attention_heads, "intermediate_size": 4 * model.embed_dim, "vocab_size": 33,
        "pad_token_id": PAD, "mask_token_id": MASK_TOKEN, "token_dropout": True, "layer_norm_eps": 1e-5,
        "position_embedding_type": "rotary", "emb_layer_norm_before": False, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 1026,
    }  # fmt: skip


def write_file(model: ESM2, path: Path, facts: dict[str, Any]) -> None:
    """Write float16 safetensors with config and training facts in the header; readers never see half a file."""
    tensors = {}
    for name, value in model.state_dict().items():
        if (renamed := hugging_face_name(name)) is not None:
            tensors[renamed] = value.half().contiguous().clone()
    metadata = {"format": "pt", "config": json.dumps(hugging_face_config(model)), "training": json.dumps(facts)}
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, metadata=metadata)
    os.replace(temporary, path)


# The command line.


def parser() -> argparse.ArgumentParser:
    """All options with their defaults, which are those of the shipped file."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    help_format = argparse.ArgumentDefaultsHelpFormatter
    fit = commands.add_parser("train", help="train, or go on training", formatter_class=help_format)
    fit.add_argument("folder", type=Path, help="folder with alignments/ and queries.fasta")
    fit.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder for last.ckpt and loss.csv")
    fit.add_argument("--families", nargs="*", default=[], help="names of alignments; none means all")
    fit.add_argument("--layers", type=int, default=3, help="transformer layers")
    fit.add_argument("--width", type=int, default=96, help="hidden size; the feed-forward part is 4 times as wide")
    fit.add_argument("--heads", type=int, default=4, help="attention heads a layer")
    fit.add_argument(
        "--steps", type=int, default=15000, help="optimiser steps in all, those of earlier starts included"
    )
    fit.add_argument(
        "--decay-steps", type=int, default=12000, help="the last steps, in which the learning rate falls to 0"
    )
    fit.add_argument("--batch-size", type=int, default=24, help="sequences a step")
    fit.add_argument("--mask-rate", type=float, default=0.15, help="share of positions selected")
    fit.add_argument("--optimizer", choices=("adam", "muon"), default="adam", help="adam takes no notice of --lr")
    fit.add_argument("--sharpness", type=float, default=0.0, help="how sharply heads look at one offset at the start")
    fit.add_argument("--lr", type=float, default=0.02, help="Muon's learning rate, for matrices")
    fit.add_argument(
        "--adam-lr", type=float, default=3e-3, help="Adam's learning rate, for embeddings, biases and norms"
    )
    fit.add_argument(
        "--weight-decay",
        type=float,
        default=0.01,
        help="decoupled weight decay, times lr each step; of the matrices only for muon",
    )
    fit.add_argument("--ungap", type=float, default=0.0, help="share of sequences whose gaps are dropped")
    fit.add_argument("--flank", type=float, default=0.0, help="share of sequences with random residues at both ends")
    fit.add_argument("--crop", type=float, default=0.0, help="share of sequences cut by up to 6 residues at both ends")
    fit.add_argument("--max-flank", type=int, default=0, help="most residues added at each end")
    fit.add_argument("--seed", type=int, default=0, help="of weights, batches and masks")
    fit.add_argument("--every", type=int, default=200, help="steps between rows of loss.csv and checkpoints")
    fit.add_argument(
        "--no-compile", action="store_true", help="skip torch.compile (saves a minute, costs a third in speed)"
    )
    end = commands.add_parser("finish", help="contact head, table, export", formatter_class=help_format)
    end.add_argument("folder", type=Path, help="folder with alignments/, structures/ and queries.fasta")
    end.add_argument("--run", type=Path, default=Path("runs/tiny"), help="folder with last.ckpt")
    end.add_argument("--export", type=Path, default=Path("plmjac/models/tiny.safetensors"), help="file to write")
    end.add_argument("--fit-families", nargs="*", default=[], help="for the contact head; none means every other one")
    return top


def main() -> None:
    """Run one of the two commands."""
    arguments = vars(parser().parse_args())
    command, folder = arguments.pop("command"), arguments.pop("folder")
    if command == "finish":
        finish(folder, arguments["run"], arguments["export"], arguments["fit_families"])
        return
    out, every, compiled = arguments.pop("out"), arguments.pop("every"), not arguments.pop("no_compile")
    train(folder, out, Settings(**arguments), every=every, compiled=compiled)


if __name__ == "__main__":
    main()
