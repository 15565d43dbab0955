"""Families of aligned sequences, and batches of wild types, their mutants and masked sequences, by seed and step alone.

Nothing but the step has to be saved to go on with a run, and no worker is needed: drawing a batch takes a hundredth of
a step. A sequence is drawn without its gaps, as a model will see it; which column of the family each residue stands in
goes along with it. What it gives up: everything is in memory.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int8, Int64
from torch import Tensor

from plmjac.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS
from plmjac.coevolution import GAP, columns_of_query, read_alignment

CLS, PAD, EOS, FIRST_AMINO_ACID, MASK_TOKEN = 0, 1, 2, 4, 32
"""Tokens of ESM-2's alphabet; the 20 amino acids are 4 to 23 in the order of AMINO_ACIDS."""

EVALUATION_RATE = 0.15
"""Share of residues masked in held-out sequences, as in ESM-2's training."""

MAX_FLANK, SHORT_FLANK = 40, 14
"""Residues before the family's, and after, at most; two thirds of all flanks are short, as in crystal structures."""

TAGS = ("GS", "GSHM", "GPLGS", "HHHHHH", "LEHHHHHH", "MGSSHHHHHHSSGLVPRGSH", "GSSGSSG", "M")
"""Purification tags, as they stand at the ends of many crystallised chains."""


@dataclass(frozen=True)
class Family:
    """The rows of one alignment as states 0 to 20, all columns, and which of them the query has a residue in.

    `columns` are the family's columns in everything else: numbered 0 to L - 1, L the length of the query.
    """

    name: str
    structure: str
    query: str
    columns: Int64[np.ndarray, " L"]
    train: Int8[np.ndarray, "N C"]
    held_out: Int8[np.ndarray, "M C"]


class Batch(NamedTuple):
    """Sequences as tokens: W wild types, masked sequences without mutants, then the mutants, wild type by wild type.

    The first S rows are the sequences that were drawn: `family` by number, `residue` the amino acid 0 to 19 at each
    place (before masking) and `column` its column in the family, both -1 where there is none: at BOS, EOS and padding,
    and in flanks, which are no part of the family. Columns of insertions are -1 as well. `flank` places are of flanks.
    `whole` sequences have not been cut short.
    """

    tokens: Int64[Tensor, "R T"]
    family: Int64[Tensor, " S"]
    residue: Int64[Tensor, "S T"]
    column: Int64[Tensor, "S T"]
    flank: Bool[Tensor, "S T"]
    whole: Bool[Tensor, " S"]


def read_queries(folder: Path) -> dict[str, tuple[str, str]]:
    """Structure name and aligned query of each family, from `queries.fasta`."""
    path, queries = folder / "queries.fasta", {}
    if not path.is_file():
        raise SystemExit(f"train_tiny: there is no {path}; the folder needs alignments/, structures/ and queries.fasta")
    for record in path.read_text(encoding="utf-8").split(">")[1:]:
        title, *lines = record.splitlines()
        structure, family = title.split()
        queries[family] = (structure, "".join(lines).strip())
    return queries


def load_families(folder: Path, names: list[str], held_out: float = 0.1) -> list[Family]:
    """Read families and set a tenth of each aside; which sequences these are does not depend on the run's seed."""
    queries = read_queries(folder)
    families = []
    for name in names or sorted(queries):
        if name not in queries:
            raise SystemExit(f"train_tiny: no family {name} in {folder / 'queries.fasta'}")
        structure, query = queries[name]
        rows = read_alignment(folder / "alignments" / f"{name}.fasta")
        rows = rows[np.random.default_rng(0).permutation(len(rows))]
        number = max(1, int(len(rows) * held_out))
        families.append(
            Family(name, structure, query.replace("-", ""), columns_of_query(query), rows[number:], rows[:number])
        )
    return families


def load_strangers(folder: Path, families: list[str], each: int = 300) -> list[Int64[np.ndarray, " _"]]:
    """Sequences of the families that are not taught, for flanks; none where the folder has no others."""
    strangers = []
    for name in sorted(set(read_queries(folder)) - set(families)):
        rows = read_alignment(folder / "alignments" / f"{name}.fasta", each)
        strangers += [row[row < GAP].astype(np.int64) for row in rows]
    return strangers


@dataclass(frozen=True)
class Corpus:
    """Batches as a function of seed and step.

    Each has `per_family` wild types of every family with `mutants` mutants each, in which `mutations` residues are set
    at random, and `masked` further sequences, of the families in turn, most of whose residues are masked. In half of
    the wild types up to 15 % are masked, and the same in their mutants. A share `flanked` of the sequences has residues
    before or after or both, some of them are cut short, and none is longer than `tokens` with BOS and EOS.
    """

    families: list[Family]
    strangers: list[Int64[np.ndarray, " _"]]
    per_family: int
    mutants: int
    mutations: int
    masked: int
    tokens: int
    flanked: float
    seed: int

    @property
    def num_wild_types(self) -> int:
        """Rows of a batch that mutants are made of."""
        return self.per_family * len(self.families)

    @cached_property
    def first_columns(self) -> Int64[Tensor, " F"]:
        """The number of each family's first column when those of all families are counted on."""
        return torch.tensor(np.cumsum([0, *(len(family.columns) for family in self.families[:-1])]))

    @property
    def num_columns(self) -> int:
        """Columns of all families together."""
        return sum(len(family.columns) for family in self.families)

    def batch(self, step: int) -> Batch:
        """The batch of a step, as wide as its longest sequence."""
        rng = np.random.default_rng((self.seed, step))
        turn = np.arange(self.masked) + step * self.masked
        family = np.concatenate([np.repeat(np.arange(len(self.families)), self.per_family), turn % len(self.families)])
        drawn = [self.families[k].train[rng.integers(len(self.families[k].train))] for k in family]
        tokens, residue, column, whole = self._placed(drawn, family, rng, self.flanked)
        flank = is_residue(tokens) & (residue < 0)
        number, width = self.num_wild_types, tokens.shape[1]
        masked = rng.random(residue.shape) < _mask_rates(rng, number, self.masked)
        some = np.arange(number, len(family))[rng.random(self.masked) < 0.4]
        masked[some] = ~_windows(rng, (tokens[some] != PAD).sum(axis=1) - 2, width)
        tokens[masked & is_residue(tokens)] = MASK_TOKEN
        mutants = self._mutants(tokens[:number], column[:number], rng)
        arrays = (np.concatenate([tokens, mutants]), family, residue, column, flank, whole)
        return Batch(*(torch.from_numpy(array) for array in arrays))

    def held_out(self, per_family: int = 32) -> tuple[Int64[Tensor, "S T"], Int64[Tensor, "S T"]]:
        """Held-out sequences without flanks, 15 % masked, and what was there (-1 elsewhere); always the same."""
        rng = np.random.default_rng(0)
        family = np.repeat(np.arange(len(self.families)), per_family)
        rows = [member.held_out[n % len(member.held_out)] for member in self.families for n in range(per_family)]
        tokens, residue, *_ = self._placed(rows, family, rng, flanked=0.0)
        masked = is_residue(tokens) & (rng.random(tokens.shape) < EVALUATION_RATE)
        tokens[masked] = MASK_TOKEN
        return torch.from_numpy(tokens), torch.from_numpy(np.where(masked, residue, -1))

    def _placed(
        self, rows: list[Int8[np.ndarray, " C"]], family: Int64[np.ndarray, " S"], rng: np.random.Generator,
        flanked: float,
    ) -> tuple[
        Int64[np.ndarray, "S T"], Int64[np.ndarray, "S T"], Int64[np.ndarray, "S T"], Bool[np.ndarray, " S"]
    ]:  # fmt: skip
        """Tokens, residues and columns of aligned rows, gaps taken out, flanks put on; and which are whole."""
        tokens, residue, column = (np.full((len(rows), self.tokens), value) for value in (PAD, -1, -1))
        whole = np.ones(len(rows), dtype=bool)
        numbers = [np.full(member.train.shape[1], -1) for member in self.families]
        for number, member in zip(numbers, self.families, strict=True):
            number[member.columns] = np.arange(len(member.columns))
        for line, (row, k) in enumerate(zip(rows, family, strict=True)):
            where, before, after = np.flatnonzero(row != GAP), _NOTHING, _NOTHING
            if rng.random() < flanked:
                if rng.random() < 0.1:
                    lost = (rng.random(2) * 0.35 * len(where)).astype(np.int64)
                    where = where[lost[0] : len(where) - lost[1]]
                before, after = self._flanks(rng, self.tokens - 2 - len(where))
            where = where[: self.tokens - 2]
            whole[line] = len(where) == (row != GAP).sum()
            residues = np.concatenate([before, row[where].astype(np.int64), after])
            inside = slice(1 + len(before), 1 + len(before) + len(where))
            tokens[line, : len(residues) + 2] = [CLS, *(FIRST_AMINO_ACID + residues), EOS]
            residue[line, inside], column[line, inside] = row[where], numbers[k][where]
        width = int((tokens != PAD).sum(axis=1).max())
        return tokens[:, :width], residue[:, :width], column[:, :width], whole

    def _flanks(self, rng: np.random.Generator, room: int) -> tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]:
        """Residues before and after, which together are no more than `room`, and in three of ten cases a tag."""
        most = np.where(rng.random(2) < 0.67, SHORT_FLANK, MAX_FLANK)
        before, after = (self._piece(rng, int(n)) for n in (most + 1) * rng.random(2) * (rng.random(2) < 0.85))
        if rng.random() < 0.3:
            tag = np.array([AMINO_ACIDS.index(letter) for letter in TAGS[rng.integers(len(TAGS))]])
            first = rng.random() < 0.7
            before, after = (np.append(tag, before), after) if first else (before, np.append(after, tag))
        return before[: max(0, room)], after[: max(0, room - len(before))]

    def _piece(self, rng: np.random.Generator, length: int) -> Int64[np.ndarray, " _"]:
        """A piece of a protein that is not taught, at most its length, or noise of the usual composition."""
        if self.strangers and rng.random() < 0.6:
            stranger = self.strangers[rng.integers(len(self.strangers))]
            start = rng.integers(max(1, len(stranger) - length))
            return stranger[start : start + length]
        return rng.choice(NUM_AMINO_ACIDS, size=length, p=self._composition)

    @cached_property
    def _composition(self) -> np.ndarray:
        counts = sum(np.bincount(family.train[family.train < GAP], minlength=GAP) for family in self.families)
        return np.asarray(counts / np.sum(counts))

    def _mutants(
        self, wild_types: Int64[np.ndarray, "W T"], column: Int64[np.ndarray, "W T"], rng: np.random.Generator
    ) -> Int64[np.ndarray, "M T"]:
        """Copies in which `mutations` residues, in columns of the family and not masked, are set at random."""
        tokens = np.repeat(wild_types, self.mutants, axis=0)
        free = np.repeat(is_residue(wild_types) & (column >= 0), self.mutants, axis=0)
        order = np.argsort(np.where(free, rng.random(tokens.shape), 2.0), axis=1)[:, : self.mutations]
        random = rng.integers(FIRST_AMINO_ACID, FIRST_AMINO_ACID + NUM_AMINO_ACIDS, order.shape)
        rows = np.arange(len(tokens))[:, None]
        tokens[rows, order] = np.where(free[rows, order], random, tokens[rows, order])
        return tokens


_NOTHING: Int64[np.ndarray, " _"] = np.zeros(0, dtype=np.int64)


def is_residue(tokens: Int64[np.ndarray, "*B"]) -> Bool[np.ndarray, "*B"]:
    """True for tokens of the 20 amino acids."""
    return (tokens >= FIRST_AMINO_ACID) & (tokens < FIRST_AMINO_ACID + NUM_AMINO_ACIDS)


def _mask_rates(rng: np.random.Generator, wild_types: int, masked: int) -> np.ndarray:
    """The share of residues to mask in each row: 0 to 15 % in half of the wild types, 15 to 95 % where no mutant is."""
    few = 0.15 * rng.random(wild_types) * (rng.random(wild_types) < 0.5)
    return np.concatenate([few, 0.15 + 0.8 * rng.random(masked)])[:, None]


def _windows(rng: np.random.Generator, lengths: Int64[np.ndarray, " K"], width: int) -> Bool[np.ndarray, "K T"]:
    """Two stretches of 8 to 47 places in each row, which may overlap: all that is not masked of it."""
    starts = (rng.random((2, len(lengths))) * lengths).astype(np.int64)[..., None]
    sizes = rng.integers(8, 48, size=(2, len(lengths)))[..., None]
    places = np.arange(width)
    inside: Bool[np.ndarray, "K T"] = ((places > starts) & (places <= starts + sizes)).any(axis=0)
    return inside
