"""Tokens: one order, nothing lost on the way, and refusals that say what to do."""

import numpy as np
import pytest

from plmjac.alphabet import AMINO_ACIDS, MASK, NONCANONICAL, clean, decode, encode


def test_the_order_is_esms() -> None:
    assert AMINO_ACIDS == "LAGVSERTIDPKQNFYMHWC"
    assert sorted(AMINO_ACIDS) == sorted("ACDEFGHIKLMNPQRSTVWY")


def test_round_trip() -> None:
    letters = AMINO_ACIDS + NONCANONICAL
    assert np.array_equal(encode(letters), np.arange(25))
    assert decode(encode(letters)) == letters
    assert decode(np.array([0, MASK])) == "L#"


def test_encode_names_the_letter_and_its_position() -> None:
    with pytest.raises(ValueError, match="position 3 holds 'J'"):
        encode("ACJ")


@pytest.mark.parametrize(
    ("given", "expected", "note"),
    [("acdX", "ACDX", ""), ("ACD*", "ACD", "trailing"), ("AJJ", "AXX", "2 J")],
)
def test_clean_mends(given: str, expected: str, note: str) -> None:
    sequence, said = clean(given)
    assert sequence == expected
    assert note in said
    assert bool(note) == bool(said)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "empty"), ("*", "empty"), ("A-C", "gaps"), ("A.C", "gaps"), ("A*C", "stop codon"), ("A C", "white space"),
        ("A<mask>C", "special tokens"), ("A:C", "dataset=complex"), ("AÉ", "residues are"), ("A1", "residues are"),
    ],
)  # fmt: skip
def test_clean_refuses(given: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        clean(given)
