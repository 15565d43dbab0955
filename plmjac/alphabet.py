"""The one order of amino acids in plmjac, and the only tokens that anything but a model adapter sees.

Twenty amino acids in ESM order, then the five letters that ESM-2 also knows but that are never a substitution, then
MASK. No BOS, EOS or padding: those are a model's own business, and one protein per batch needs no padding.
"""

import numpy as np
from jaxtyping import Int64

AMINO_ACIDS = "LAGVSERTIDPKQNFYMHWC"
"""Axis order of every 20-long axis: substitutions `a` and logits `b` of `jacobian[i, a, j, b]`."""

NONCANONICAL = "XBUZO"
"""Letters a wild type may hold: unknown, Asx, selenocysteine, Glx, pyrrolysine. They have no row of their own among the
20, so such a position is set to all 20 amino acids and none of its rows is zero by definition."""

NUM_AMINO_ACIDS = len(AMINO_ACIDS)
MASK = len(AMINO_ACIDS) + len(NONCANONICAL)
NUM_TOKENS = MASK + 1

_TOKEN_OF = {letter: token for token, letter in enumerate(AMINO_ACIDS + NONCANONICAL)}


def encode(sequence: str) -> Int64[np.ndarray, " L"]:
    """Turn a clean sequence into tokens, one per residue.

    Raises ValueError naming the first letter that is not a token; `clean` says what to do about it.
    """
    try:
        return np.array([_TOKEN_OF[letter] for letter in sequence], dtype=np.int64)
    except KeyError as error:
        position = sequence.index(error.args[0]) + 1
        raise ValueError(f"position {position} holds {error.args[0]!r}, which is not an amino acid") from None


def decode(tokens: Int64[np.ndarray, " L"]) -> str:
    """Turn tokens back into letters; MASK becomes `#`, so that no masked sequence passes for a real one."""
    return "".join("#" if token == MASK else (AMINO_ACIDS + NONCANONICAL)[token] for token in tokens)


def clean(sequence: str) -> tuple[str, str]:
    """Bring a sequence as people write it to the letters above, and say what was changed.

    Lower case (soft masking) is raised, one trailing `*` (stop) is dropped, `J` (Leu or Ile) becomes `X`. Everything
    else that is not a letter of the alphabet is refused, because a wrong length shifts every contact.

    Returns the sequence and a note, empty if nothing but the case was changed. Raises ValueError with a remedy.
    """
    if not isinstance(sequence, str):
        raise ValueError(f"a sequence is text, this is of type {type(sequence).__name__}")
    notes = []
    letters = sequence.upper()
    if letters.endswith("*"):
        letters = letters[:-1]
        notes.append("trailing * dropped")
    if not letters:
        raise ValueError("the sequence is empty")
    if _TOKEN_OF.keys() >= set(letters):  # nearly every sequence of a proteome
        return letters, "; ".join(notes)
    for position, letter in enumerate(letters, start=1):
        if letter in _TOKEN_OF or letter == "J":
            continue
        if letter in "-.":
            remedy = "is this an aligned file? Remove the gaps first"
        elif letter == "*":
            remedy = "a stop codon inside the sequence: is this a translated reading frame?"
        elif letter.isspace() or letter in "<>":
            remedy = "white space and special tokens such as <mask> are not residues"
        elif letter == ":":
            remedy = "for the chains of a complex use +dataset=complex"
        else:
            remedy = f"residues are the letters {AMINO_ACIDS}{NONCANONICAL}"
        raise ValueError(f"position {position} holds {letter!r}; {remedy}")
    if "J" in letters:
        notes.append(f"{letters.count('J')} J (Leu or Ile) read as X")
        letters = letters.replace("J", "X")
    return letters, "; ".join(notes)
