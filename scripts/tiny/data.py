"""Families of aligned sequences as ESM-2 tokens, and masked batches of them as a function of seed and step alone.

Nothing but the step has to be saved to go on with a run, and no worker is needed: drawing a batch takes a hundredth of
a step. What it gives up: everything is in memory, and sequences come as they stand in the columns of the family's
query, gaps as tokens, without residues before or after.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.coevolution import GAP, columns_of_query, read_alignment

CLS, PAD, EOS, FIRST_AMINO_ACID, GAP_TOKEN, MASK_TOKEN = 0, 1, 2, 4, 30, 32
"""Tokens of ESM-2's alphabet; the 20 amino acids are 4 to 23 in the order of AMINO_ACIDS."""

EVALUATION_RATE = 0.15
"""Share of residues selected in held-out sequences, as in ESM-2's training."""

IGNORED = -100
"""Target of a place in a batch that counts for nothing."""


@dataclass(frozen=True)
class Family:
    """The sequences of one family in its query's columns as ESM-2 tokens, gaps kept, and the query itself."""

    name: str
    structure: str
    query: str
    train: Int64[np.ndarray, "N L"]
    held_out: Int64[np.ndarray, "M L"]


class Batch(NamedTuple):
    """Corrupted sequences and what was there: at flat index `selected[k]` token `targets[k]`, in column `columns[k]`.

    Columns are counted through all families of the corpus. `clean` are the sequences before masking.
    """

    tokens: Int64[Tensor, "B T"]
    selected: Int64[Tensor, " K"]
    targets: Int64[Tensor, " K"]
    columns: Int64[Tensor, " K"]
    clean: Int64[Tensor, "B T"]


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


def frame(rows: list[Int64[np.ndarray, " _"]], width: int) -> Int64[np.ndarray, "B T"]:
    """BOS, the row, EOS, padding."""
    tokens = np.full((len(rows), width), PAD, dtype=np.int64)
    for line, row in zip(tokens, rows, strict=True):
        line[: len(row) + 2] = np.concatenate([[CLS], row, [EOS]])
    return tokens


def is_residue(tokens: Int64[np.ndarray, "*B"]) -> Bool[np.ndarray, "*B"]:
    """Whether a token is one of the 20 amino acids."""
    return (tokens >= FIRST_AMINO_ACID) & (tokens < FIRST_AMINO_ACID + NUM_AMINO_ACIDS)


def mutate(
    tokens: Int64[np.ndarray, "B T"], rng: np.random.Generator, rate: float
) -> tuple[Int64[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """Set `rate` of the residues to random amino acids; returns the tokens and which those are."""
    mutated = is_residue(tokens) & (rng.random(tokens.shape) < rate)
    random = rng.integers(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS, tokens.shape)
    return np.where(mutated, random, tokens), mutated


def corrupt(
    tokens: Int64[np.ndarray, "B T"],
    rng: np.random.Generator,
    rate: float,
    mutated: Bool[np.ndarray, "B T"] | None = None,
) -> tuple[Int64[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """ESM-2's scheme: select `rate` of the residues; 80 % become MASK, 10 % a random amino acid, 10 % stay.

    Returns the corrupted tokens and which were selected. Gaps are never selected: where a sequence has none is no
    amino acid, and costs the loss of one. Nor are `mutated` residues, which are not the family's.
    """
    selected = is_residue(tokens) & (rng.random(tokens.shape) < rate)
    if mutated is not None:
        selected &= ~mutated
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
    def first_columns(self) -> dict[str, int]:
        """The number of each family's first column."""
        lengths = [family.train.shape[1] for family in self.families]
        firsts = np.cumsum([0, *lengths[:-1]]).tolist()
        return dict(zip([family.name for family in self.families], firsts, strict=True))

    @property
    def num_columns(self) -> int:
        """Columns of all families together."""
        return sum(family.train.shape[1] for family in self.families)

    def drawn(self, step: int) -> list[Family]:
        """The family of each sequence in the batch of this step."""
        turn, group = divmod(step, len(self.groups))
        families = self.groups[group]
        return [families[(turn * self.batch_size + k) % len(families)] for k in range(self.batch_size)]

    def batch(self, step: int, mutation_rate: float = 0.0) -> Batch:
        """The batch of this step. The families of a group take turns, so that over a few steps all have equal shares.

        Width and number of targets depend on the group only, for the compiler's sake.
        """
        rng = np.random.default_rng((self.seed, step))
        families, drawn = self.groups[step % len(self.groups)], self.drawn(step)
        rows = [family.train[rng.integers(len(family.train))] for family in drawn]
        tokens = frame(rows, max(family.train.shape[1] for family in families) + 2)
        mutated = None
        if mutation_rate:
            tokens, mutated = mutate(tokens, rng, mutation_rate)
        corrupted, selected = corrupt(tokens, rng, self.rate, mutated)
        residues = np.mean([(family.train != GAP_TOKEN).sum() / len(family.train) for family in families])
        number = max(1, int(self.batch_size * residues * self.rate))
        return self._of_size(number, drawn, tokens, corrupted, rng.permutation(np.flatnonzero(selected)))

    def held_out(self, per_family: int = 32) -> Batch:
        """Held-out sequences, 15 % of the residues selected: the same batch whatever the options."""
        rng = np.random.default_rng(0)
        drawn = [family for family in self.families for _ in range(per_family)]
        rows = [family.held_out[k % per_family % len(family.held_out)] for k, family in enumerate(drawn)]
        tokens = frame(rows, max(len(row) for row in rows) + 2)
        corrupted, selected = corrupt(tokens, rng, EVALUATION_RATE)
        where = np.flatnonzero(selected)
        return self._of_size(len(where), drawn, tokens, corrupted, where)

    def _of_size(
        self,
        number: int,
        drawn: list[Family],
        tokens: Int64[np.ndarray, "B T"],
        corrupted: Int64[np.ndarray, "B T"],
        selected: Int64[np.ndarray, " S"],
    ) -> Batch:
        """A batch of `number` targets: surplus ones are dropped, missing ones made up by ones that are ignored."""
        kept = selected[:number]
        where, targets, columns = (np.full(number, value, dtype=np.int64) for value in (0, IGNORED, IGNORED))
        where[: len(kept)] = kept
        targets[: len(kept)] = tokens.ravel()[kept]
        row, place = np.divmod(kept, tokens.shape[1])
        firsts = np.array([self.first_columns[family.name] for family in drawn])
        columns[: len(kept)] = firsts[row] + place - 1
        return Batch(*(torch.from_numpy(array) for array in (corrupted, where, targets, columns, tokens)))
