"""Soft targets for the first part of training: what a Markov random field of the family expects at each residue.

A masked residue says of the 20 amino acids only which one it was; a pseudolikelihood model of the same alignment says
how likely each was, given all the rest, at every position at once (distillation, Hinton et al. 2015). No structure is
used, and no sequence that is held out. What it gives up: while it teaches, the couplings are not found by masked
language modelling alone; the last part of training has no teacher.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.coevolution import GAP, NUM_STATES, fit_pseudolikelihood, sequence_weights
from tiny.data import FIRST_AMINO_ACID, GAP_TOKEN, Batch, Family

MAX_SEQUENCES = 8000
"""A field is fitted to this many sequences at most."""

FILLED = 0.95
"""Places a lesson has, as a share of the residues that a batch has on average."""


class Lesson(NamedTuple):
    """At flat index `places[k]` of a batch the shares of the 20 amino acids should be `wanted[k]`.

    Where the residue can be seen it is left out of the shares (`seen`): what its neighbours say of the others is what
    is to be learnt, and not that it is there.
    """

    places: Int64[Tensor, " P"]
    wanted: Float[Tensor, "P 20"]
    seen: Bool[Tensor, "P 20"]


class Teacher:
    """A Markov random field for each family, fitted to its training sequences or read from `folder`."""

    def __init__(self, families: list[Family], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.fields = {family.name: _field(family, folder / f"{family.name}.pt") for family in families}

    def conditionals(self, name: str, states: Int64[Tensor, "B L"]) -> Float[Tensor, "B L 20"]:
        """Logits of the 20 amino acids at each position given the states 0 to 20 of all the others."""
        fields, pairs = self.fields[name]
        length = len(fields)
        rows = states + NUM_STATES * torch.arange(length)
        fed = F.embedding_bag(rows, pairs.reshape(length * NUM_STATES, -1), mode="sum")
        return (fed.view(len(states), length, NUM_STATES) + fields)[..., :NUM_AMINO_ACIDS]

    def lesson(self, batch: Batch, drawn: list[Family], group: list[Family], rng: np.random.Generator) -> Lesson:
        """What the fields expect at the residues of a batch, masked or seen.

        `drawn` are the families of its sequences, `group` those that they are drawn from: the number of places depends
        on the group only, for the compiler's sake.
        """
        expected = torch.zeros(*batch.clean.shape, NUM_AMINO_ACIDS)
        for family in {member.name: member for member in drawn}.values():
            rows = torch.tensor([row for row, member in enumerate(drawn) if member.name == family.name])
            inside = batch.clean[rows, 1 : family.train.shape[1] + 1]
            states = torch.where(inside == GAP_TOKEN, GAP, inside - FIRST_AMINO_ACID)
            expected[rows, 1 : family.train.shape[1] + 1] = self.conditionals(family.name, states)
        residues = torch.from_numpy(rng.permutation(np.flatnonzero(_is_residue(batch.clean).numpy())))
        share = np.mean([(member.train != GAP_TOKEN).sum() / len(member.train) for member in group])
        number = int(FILLED * share * len(drawn))
        places = residues.repeat(1 + number // len(residues))[:number]
        tokens = batch.tokens.view(-1)[places]
        seen = _is_residue(tokens)[:, None] & (tokens[:, None] - FIRST_AMINO_ACID == torch.arange(NUM_AMINO_ACIDS))
        logits = expected.view(-1, NUM_AMINO_ACIDS)[places].masked_fill(seen, -torch.inf)
        return Lesson(places, torch.softmax(logits, dim=-1), seen)


def _is_residue(tokens: Int64[Tensor, "*B"]) -> Bool[Tensor, "*B"]:
    return (tokens >= FIRST_AMINO_ACID) & (tokens < FIRST_AMINO_ACID + NUM_AMINO_ACIDS)


def _field(family: Family, path: Path) -> tuple[Float[Tensor, "L 21"], Float[Tensor, "L 21 L 21"]]:
    """Fields and couplings; kept with a digest of the sequences, since a run that goes on must be taught the same."""
    tokens = family.train[:MAX_SEQUENCES]
    digest = hashlib.sha256(np.ascontiguousarray(tokens).tobytes()).hexdigest()
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["digest"] == digest:
            return kept["fields"], kept["pairs"]
    states = np.where(tokens == GAP_TOKEN, GAP, tokens - FIRST_AMINO_ACID).astype(np.int8)
    field = fit_pseudolikelihood(states, sequence_weights(states))
    torch.save({"digest": digest, "fields": field.fields, "pairs": field.pairs}, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
    return field.fields, field.pairs
