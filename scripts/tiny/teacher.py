"""The teacher: of each family a Markov random field, and of that the couplings that stand out from the background.

Three lessons follow from it: how likely each amino acid is at every residue of a wild type, how that changes in its
mutants, and which columns each column is coupled to most, which is where attention should look. No structure is used,
and no sequence that is held out (distillation, Hinton et al. 2015).

Nearly all of a field's couplings are background: hundreds of weak ones a column, which hold little of the contacts (the
average product correction takes them away) and drown the rest. The share of each pair's coupling that survives the
correction is kept, the rest goes into the fields on average. On the ten families of the demo 2 to 8 % of the squared
couplings are left, and find contacts as well as all of them do.

What it gives up: what the background says of a residue is left to masked language modelling.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.coevolution import GAP, NUM_STATES, fit_pseudolikelihood, sequence_weights
from plmjac.coevolution.pseudolikelihood import zero_sum
from tiny.data import FIRST_AMINO_ACID, Batch, Family

MAX_SEQUENCES = 8000
"""A field is fitted to this many sequences at most."""

GAIN = 1.5
"""Weight of the couplings that survive the correction, but never more than the whole coupling."""

SEPARATIONS = (6, 1)
"""The two layers that are shown where to look: at partners |i - j| >= 6, and at the best of all that are left."""


class Lesson(NamedTuple):
    """The teacher's answers for a batch: W wild types, M mutants, H heads in each of the two layers that are shown.

    `expected` are the conditionals of the wild types as logits, `change` how they differ in the mutants, centred over
    the amino acids. `taught` places are residues in a column of the family; `moved` ones as well, and neither masked
    nor mutated. Head h of layer l should give, from a `taught` place of a wild type, `strength[l][w, h, place]` of its
    attention to place `look[l][w, h, place]` and the rest to BOS: all of it where the family's column has no such
    partner or the sequence none in it.
    """

    expected: Float[Tensor, "W T 20"]
    taught: Bool[Tensor, "W T"]
    change: Float[Tensor, "M T 20"]
    moved: Bool[Tensor, "M T"]
    look: Int64[Tensor, "2 W H T"]
    strength: Float[Tensor, "2 W H T"]


@dataclass(frozen=True)
class Couplings:
    """Fields and the couplings that stand out, and for each of two layers the partners of every column, one a head.

    `partners` are columns in ascending order, -1 where there are fewer; `strengths` are their shares of attention.
    """

    fields: Float[Tensor, "L 21"]
    pairs: Float[Tensor, "L 21 L 21"]
    partners: Int64[Tensor, "2 L H"]
    strengths: Float[Tensor, "2 L H"]


class Teacher:
    """Couplings of each family, from fields that are fitted to its training sequences or read from `folder`."""

    def __init__(self, families: list[Family], folder: Path, heads: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.couplings = []
        for family in families:
            fields, pairs = _field(family, folder / f"{family.name}.pt")
            fields, pairs = stand_out(fields, pairs, _states(family))
            self.couplings.append(Couplings(fields, pairs, *partners(pairs, heads)))

    def lesson(self, batch: Batch, wild_types: int) -> Lesson:
        """The teacher's answers for a batch whose first `wild_types` rows have mutants."""
        number = len(batch.tokens) - len(batch.family)
        rows = [self._of_wild_type(batch, row) for row in range(wild_types)]
        each = number // wild_types
        changes = [self._of_mutant(batch, len(batch.family) + k, k // each) for k in range(number)]
        expected, taught, look, strength = (torch.stack(part) for part in zip(*rows, strict=True))
        change, moved = (torch.stack(part) for part in zip(*changes, strict=True))
        return Lesson(expected, taught, change, moved, look.transpose(0, 1), strength.transpose(0, 1))

    def _of_wild_type(self, batch: Batch, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        taught_by = self.couplings[int(batch.family[row])]
        column, length = batch.column[row], len(taught_by.fields)
        inside = column >= 0
        states = torch.full((length,), GAP)
        states[column[inside]] = batch.residue[row][inside]
        fed = taught_by.pairs[torch.arange(length), states].sum(dim=0) + taught_by.fields
        expected = torch.zeros(len(column), NUM_AMINO_ACIDS)
        expected[inside] = fed[column[inside], :NUM_AMINO_ACIDS]
        place = torch.full((length + 1,), -1)
        place[column[inside]] = torch.nonzero(inside)[:, 0]
        look = torch.zeros(2, taught_by.partners.shape[2], len(column), dtype=torch.int64)
        strength = torch.zeros(look.shape)
        at = place[taught_by.partners[:, column[inside]]].transpose(1, 2)
        look[:, :, inside] = at.clamp(min=0)
        strength[:, :, inside] = taught_by.strengths[:, column[inside]].transpose(1, 2) * (at >= 0)
        return expected, inside, look, strength

    def _of_mutant(self, batch: Batch, row: int, wild_type: int) -> tuple[Tensor, Tensor]:
        taught_by, column = self.couplings[int(batch.family[wild_type])], batch.column[wild_type]
        before, after = batch.tokens[wild_type], batch.tokens[row]
        mutated = before != after
        at, old, new = column[mutated], before[mutated] - FIRST_AMINO_ACID, after[mutated] - FIRST_AMINO_ACID
        change = (taught_by.pairs[at, new] - taught_by.pairs[at, old]).sum(dim=0)[:, :NUM_AMINO_ACIDS]
        change = change - change.mean(dim=1, keepdim=True)
        seen = (before >= FIRST_AMINO_ACID) & (before < FIRST_AMINO_ACID + NUM_AMINO_ACIDS)
        moved = seen & (column >= 0) & ~mutated
        return torch.where(moved[:, None], change[column.clamp(min=0)], 0.0), moved


def stand_out(
    fields: Float[Tensor, "L 21"], pairs: Float[Tensor, "L 21 L 21"], states: Int64[Tensor, "N L"]
) -> tuple[Float[Tensor, "L 21"], Float[Tensor, "L 21 L 21"]]:
    """The field with each pair's coupling scaled to the share of its norm that the average product correction leaves.

    What the couplings lose is added to the fields as its mean over the sequences.
    """
    strengths = coupling_norms(pairs)
    background = strengths.sum(0, keepdim=True) * strengths.sum(1, keepdim=True) / strengths.sum()
    kept = (GAIN * (1 - background / strengths.clamp(min=1e-6)).clamp(min=0)).clamp(max=1).fill_diagonal_(0)
    scaled = pairs * kept[:, None, :, None]
    length = len(fields)
    rows = states + NUM_STATES * torch.arange(length)
    lost = F.embedding_bag(rows, (pairs - scaled).reshape(length * NUM_STATES, -1), mode="sum")
    return fields + lost.view(-1, length, NUM_STATES).mean(dim=0), scaled


def coupling_norms(pairs: Float[Tensor, "L 21 L 21"]) -> Float[Tensor, "L L"]:
    """Frobenius norm of each pair's coupling in the zero-sum gauge, gaps left out."""
    couplings = zero_sum(pairs[:, :NUM_AMINO_ACIDS, :, :NUM_AMINO_ACIDS])
    return couplings.square().sum(dim=(1, 3)).sqrt().fill_diagonal_(0)


def partners(pairs: Float[Tensor, "L 21 L 21"], heads: int) -> tuple[Int64[Tensor, "2 L H"], Float[Tensor, "2 L H"]]:
    """For each of `SEPARATIONS` the `heads` columns that each column is coupled to most, and how much (0 to 1).

    How much is the norm of the coupling over that of a column's strongest one (the median over columns), at most 1.
    Attention that is all or nothing would not tell a column's first partner from its eighth, and a contact head reads
    nothing but attention.

    In ascending order, so that neighbouring columns, whose partners are neighbours too, have them at the same heads. A
    column that one layer is shown is not shown to the next.
    """
    strengths = coupling_norms(pairs)
    length = len(strengths)
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    free = strengths > 0
    found, weights = [], []
    for separation in SEPARATIONS:
        score = strengths.masked_fill(~free | (distance < separation), 0.0)
        value, column = score.topk(min(heads, length), dim=1)
        free = free.scatter(1, torch.where(value > 0, column, torch.arange(length)[:, None]), False)
        order = torch.where(value > 0, column, length).argsort(dim=1)
        value, column = value.gather(1, order), torch.where(value > 0, column, -1).gather(1, order)
        missing = (0, heads - column.shape[1])
        found.append(F.pad(column, missing, value=-1))
        weights.append(F.pad(value, missing))
    strongest = strengths.amax(dim=1).median().clamp(min=1e-6)
    return torch.stack(found), (torch.stack(weights) / strongest).clamp(max=1)


def _states(family: Family) -> Int64[Tensor, "N L"]:
    return torch.from_numpy(family.train[:MAX_SEQUENCES][:, family.columns].astype(np.int64))


def _field(family: Family, path: Path) -> tuple[Float[Tensor, "L 21"], Float[Tensor, "L 21 L 21"]]:
    """Fields and couplings; kept with a digest of the sequences, since a run that goes on must be taught the same."""
    states = np.ascontiguousarray(_states(family).numpy().astype(np.int8))
    digest = hashlib.sha256(states.tobytes()).hexdigest()
    if path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["digest"] == digest:
            return kept["fields"], kept["pairs"]
    field = fit_pseudolikelihood(states, sequence_weights(states))
    torch.save({"digest": digest, "fields": field.fields, "pairs": field.pairs}, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
    return field.fields, field.pairs
