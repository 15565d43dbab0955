"""Substitutions of each position: all 20 amino acids, MASK alone, or a few chosen ones.

Every class gives a table of letters (L, A): position i is set to letters[i, 0], letters[i, 1], ... The paper sets every
position to all 20. The others save forwards; they lose part of the couplings and some of the contact map
(`evaluation=approximations` measures how much). Imports no torch, so that checking a configuration is quick.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int64
from pydantic import BaseModel, ConfigDict, Field, model_validator

from plmjac.alphabet import AMINO_ACIDS, MASK, NUM_AMINO_ACIDS, decode
from plmjac.draws import generator

RULES = ("random", "likely", "unlikely")
"""Ways to choose amino acids position by position; any other choice is the letters themselves, for all positions."""


class SubstitutionSettings(BaseModel):
    """Base of the four: immutable, and no other keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def identity(self) -> dict[str, Any]:
        """The settings that determine the numbers, for the store."""
        return self.model_dump()


class AllSubstitutions(SubstitutionSettings):
    """Each of the 20 amino acids, as in the paper: 19 forwards a residue."""

    name: Literal["all"] = "all"

    num_letters: ClassVar[int] = NUM_AMINO_ACIDS
    forwards_per_residue: ClassVar[int] = NUM_AMINO_ACIDS - 1
    keeps_letters: ClassVar[bool] = False

    def letters(
        self, tokens: Int64[np.ndarray, " L"], wild_type: Float[np.ndarray, "L 20"]
    ) -> Int64[np.ndarray, "L 20"]:
        """The 20 amino acids at every position."""
        return np.tile(np.arange(NUM_AMINO_ACIDS), (len(tokens), 1))


class NoSubstitutions(SubstitutionSettings):
    """None: one forward a protein, for what the wild type alone gives (logits, contact_head, attention)."""

    name: Literal["none"] = "none"

    num_letters: ClassVar[int] = 0
    forwards_per_residue: ClassVar[int] = 0
    keeps_letters: ClassVar[bool] = False

    def letters(
        self, tokens: Int64[np.ndarray, " L"], wild_type: Float[np.ndarray, "L 20"]
    ) -> Int64[np.ndarray, "L 0"]:
        """No letter at any position."""
        return np.zeros((len(tokens), 0), dtype=np.int64)


class MaskOnly(SubstitutionSettings):
    """MASK alone, 1 forward a residue: the `fast` mode of ColabBio's and gLM2's notebooks."""

    name: Literal["mask"] = "mask"

    num_letters: ClassVar[int] = 1
    forwards_per_residue: ClassVar[int] = 1
    keeps_letters: ClassVar[bool] = False

    def letters(
        self, tokens: Int64[np.ndarray, " L"], wild_type: Float[np.ndarray, "L 20"]
    ) -> Int64[np.ndarray, "L 1"]:
        """MASK at every position."""
        return np.full((len(tokens), 1), MASK)


class Subset(SubstitutionSettings):
    """`k` amino acids at every position, k forwards a residue.

    `choose` is one of `RULES`: drawn at random by position, sequence and seed, or the most or least likely ones by the
    wild type's logits, the residue itself left out; or it is the letters themselves, the same at every position (where
    the residue is one of them its row is zero and is not run). For the contact map the other letters have the mean of
    these rows (`jacobian.among_all`).
    """

    name: Literal["subset"] = "subset"
    k: int = Field(ge=1, le=NUM_AMINO_ACIDS - 1)
    choose: str
    seed: int = Field(0, ge=0)
    symmetrized: Literal["tensor"] = "tensor"
    """Part of the identity, since maps of stores that do not have it were made otherwise (docs/format.md)."""

    keeps_letters: ClassVar[bool] = True

    @model_validator(mode="after")
    def _known_choice(self) -> "Subset":
        if self.choose in RULES:
            return self
        if wrong := sorted(set(self.choose) - set(AMINO_ACIDS)):
            rules = ", ".join(RULES)
            raise ValueError(
                f"choose={self.choose}: {wrong[0]!r} is no amino acid; give {rules}, or letters: choose=EYVR"
            )
        if len(set(self.choose)) != len(self.choose):
            raise ValueError(f"choose={self.choose} names an amino acid twice")
        if len(self.choose) != self.k:
            raise ValueError(
                f"choose={self.choose} names {len(self.choose)} amino acids and k is {self.k}; set the two alike"
            )
        return self

    @property
    def num_letters(self) -> int:
        """A: how many letters each position is set to."""
        return self.k

    @property
    def forwards_per_residue(self) -> int:
        """Forwards for each residue (fewer where a residue is among the letters)."""
        return self.k

    def letters(
        self, tokens: Int64[np.ndarray, " L"], wild_type: Float[np.ndarray, "L 20"]
    ) -> Int64[np.ndarray, "L A"]:
        """The chosen amino acids of each position, in the order of the alphabet; `wild_type` are the logits."""
        if self.choose not in RULES:
            return np.tile(sorted(AMINO_ACIDS.index(letter) for letter in self.choose), (len(tokens), 1))
        if self.choose == "random":
            rank = generator(("substitutions", self.seed, decode(tokens))).random((len(tokens), NUM_AMINO_ACIDS))
        else:
            rank = wild_type.astype(np.float64) * (-1 if self.choose == "likely" else 1)
        rank[tokens[:, None] == np.arange(NUM_AMINO_ACIDS)] = np.inf
        return np.sort(np.argsort(rank, axis=1, kind="stable")[:, : self.k], axis=1)

    def identity(self) -> dict[str, Any]:
        """The settings that determine the numbers; the seed only where something is drawn."""
        return self.model_dump(exclude=set() if self.choose == "random" else {"seed"})


Substitutions = AllSubstitutions | MaskOnly | Subset | NoSubstitutions
"""Any of them; all have `letters`, `num_letters`, `forwards_per_residue` and `keeps_letters` (in the store)."""
