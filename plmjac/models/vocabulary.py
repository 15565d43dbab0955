"""Vocabulary of a tokenizer: the tokens of residues and mask, and those before and after a sequence."""

from dataclasses import dataclass
from typing import Any

from plmjac.alphabet import AMINO_ACIDS, NONCANONICAL


@dataclass(frozen=True)
class Vocabulary:
    """Ids of our 26 tokens, and of the tokens before and after a sequence. `strangers` are letters without a token."""

    ids: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    strangers: str


def vocabulary_of(tokenizer: Any, where: str) -> Vocabulary:
    """Determine the ids of residues, mask and ends from a tokenizer.

    Raises ValueError if an amino acid has no token of its own, or its token depends on its neighbours.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise ValueError(f"the tokenizer of {where} has no mask token: it is not that of a masked language model")
    refusals = []
    for between in ("", " "):
        try:
            ids = _ids_of_letters(tokenizer, between)
        except ValueError as error:
            refusals.append(str(error))
            continue
        before, after = _ends(tokenizer, between.join(AMINO_ACIDS), [ids[letter] for letter in AMINO_ACIDS])
        others = {letter: tokenizer.encode(letter, add_special_tokens=False) for letter in NONCANONICAL}
        own = {
            letter: each[0] for letter, each in others.items() if len(each) == 1 and each[0] not in _special(tokenizer)
        }
        own = {letter: each for letter, each in own.items() if each not in ids.values()}
        unknown = own.get("X", tokenizer.unk_token_id if tokenizer.unk_token_id is not None else mask)
        tokens = [*ids.values(), *(own.get(letter, unknown) for letter in NONCANONICAL), mask]
        strangers = "".join(letter for letter in NONCANONICAL if letter not in own)
        return Vocabulary(tuple(tokens), before, after, strangers)
    raise ValueError(
        f"the tokenizer of {where} does not fit residue by residue: {refusals[0]} without spaces between the letters, "
        f"{refusals[1]} with spaces"
    )


def _ids_of_letters(tokenizer: Any, between: str) -> dict[str, int]:
    """Id of each amino acid. Raises ValueError if it has none, or if the id depends on its neighbours."""

    def encoded(letters: str) -> list[int]:
        ids = list(tokenizer.encode(between.join(letters), add_special_tokens=False))
        if len(ids) != len(letters):
            raise ValueError(f"{len(letters)} residues become {len(ids)} tokens")
        return ids

    ids = dict(zip(AMINO_ACIDS, encoded(AMINO_ACIDS), strict=True))
    if unknown := [letter for letter, token in ids.items() if token in _special(tokenizer)]:
        raise ValueError(f"{unknown[0]} has no token")
    if len(set(ids.values())) < len(ids):
        raise ValueError("two amino acids have one token")
    for text in (AMINO_ACIDS[::-1], AMINO_ACIDS[::2] + AMINO_ACIDS[1::2], "".join(a + a for a in AMINO_ACIDS)):
        if encoded(text) != [ids[letter] for letter in text]:
            raise ValueError("the token of a residue depends on its neighbours")
    return ids


def _special(tokenizer: Any) -> set[int]:
    return set(tokenizer.all_special_ids)


def _ends(tokenizer: Any, text: str, body: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens before and after a sequence."""
    whole = list(tokenizer.encode(text, add_special_tokens=True))
    for at in range(len(whole) - len(body) + 1):
        if whole[at : at + len(body)] == body:
            return tuple(whole[:at]), tuple(whole[at + len(body) :])
    raise ValueError("the tokenizer puts special tokens between residues")
