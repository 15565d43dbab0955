"""Segments against the rules written as loops over every window, and against the authors' own choices."""

import json
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from pydantic import ValidationError
from support import SHARED

from plmjac.records import Coordinates, Protein, Segment
from plmjac.secondary_structure import fitted, secondary_structure
from plmjac.segments import ClosePairs, Evidence, Listed, Pairs, Single, close_pair, diagonal, pair_around

LENGTH = 140
SINGLE: dict[str, Any] = {"name": "single", "size": 22, "margin": 10, "threshold": 15, "per_protein": None}
CLOSE: dict[str, Any] = {
    "name": "close_pairs", "size": 11, "gap": 5, "margin": 0, "threshold": 10, "per_protein": None,
}  # fmt: skip
PAIRS: dict[str, Any] = {
    "name": "pairs", "size": 11, "min_separation": 50, "max_separation": 100, "min_strand": 4, "min_helix": 8,
    "margin": 10, "threshold": 10, "per_protein": None, "secondary_structure": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def contacts() -> Float[np.ndarray, "L L"]:
    """A symmetric map of probabilities with dense and empty regions."""
    random = np.random.default_rng(0)
    smooth = np.kron(random.random((14, 14)) ** 3, np.ones((10, 10)))
    values = smooth * random.random((LENGTH, LENGTH))
    return ((values + values.T) / 2).astype(np.float32)


def total(contacts: Float[np.ndarray, "L L"], segment: Segment) -> float:
    rows, columns = range(segment.start1, segment.stop1), range(segment.start2, segment.stop2)
    return sum(float(contacts[i, j]) for i in rows for j in columns)


def test_single_windows(contacts: Float[np.ndarray, "L L"]) -> None:
    """Starts 10 < i < L - 22 - 10 whose whole patch sums to more than the threshold (Zhang et al., notebook 01)."""
    sums = {i: total(contacts, diagonal(i, 22)) for i in range(LENGTH - 22)}
    for threshold in (60, 100):
        chosen = Single(**{**SINGLE, "threshold": threshold}).choose(Evidence(LENGTH, contacts), (0, "a"))
        expected = [i for i in sums if 10 < i < LENGTH - 22 - 10 and sums[i] > threshold]
        assert [s.start1 for s in chosen] == expected and 0 < len(expected) < LENGTH - 43
        assert all(s.is_diagonal and s.size == 22 for s in chosen)


def test_close_pairs(contacts: Float[np.ndarray, "L L"]) -> None:
    """seg1 = [i, i+11), seg2 = [i+16, i+27), with min(i, L - (i+27) - 1) > 0."""
    sums = {i: total(contacts, Segment(i, i + 11, i + 16, i + 27)) for i in range(LENGTH - 27)}
    chosen = ClosePairs(**CLOSE).choose(Evidence(LENGTH, contacts), (0, "a"))
    assert [(s.start1, s.stop1, s.start2, s.stop2) for s in chosen] == [
        (i, i + 11, i + 16, i + 27) for i in sums if min(i, LENGTH - (i + 27) - 1) > 0 and sums[i] > 10
    ]
    assert 0 < len(chosen) < 112


def test_three_close_pairs_are_far_from_one_another(contacts: Float[np.ndarray, "L L"]) -> None:
    """Greedy farthest point: no other choice than the last one lies farther from the first two."""
    every = [s.start1 for s in ClosePairs(**CLOSE).choose(Evidence(LENGTH, contacts), (0, "a"))]
    for seed in range(5):
        three = [
            s.start1 for s in ClosePairs(**{**CLOSE, "per_protein": 3}).choose(Evidence(LENGTH, contacts), (seed, "a"))
        ]
        assert len(three) == 3 and set(three) <= set(every) and three == sorted(three)
        gaps = [min(abs(a - b) for b in three if b != a) for a in three]
        rest = [min(abs(a - b) for b in three) for a in every if a not in three]
        assert max(rest) <= max(gaps)


def test_pairs_around_strands_and_helices(contacts: Float[np.ndarray, "L L"]) -> None:
    letters = list("-" * LENGTH)
    runs = {(18, 22): "E", (30, 33): "E", (40, 48): "H", (55, 62): "H", (80, 85): "E", (110, 121): "H", (122, 128): "E"}
    for (start, stop), letter in runs.items():
        letters[start:stop] = letter * (stop - start)
    choice = Pairs(**{**PAIRS, "threshold": 5})
    centers = [20, 44, 82, 115, 125]  # (start + stop) // 2 of strands over 3 and helices over 7
    assert choice.centers("".join(letters)) == centers
    expected = [
        (a, b)
        for a in centers
        for b in centers
        if 50 < b - a <= 100
        and min(a - 5, LENGTH - (b + 6) - 1) > 10
        and total(contacts, Segment(a - 5, a + 6, b - 5, b + 6)) > 5
    ]
    chosen = choice.choose(Evidence(LENGTH, contacts, "".join(letters)), (0, "a"))
    assert [(s.start1 + 5, s.start2 + 5) for s in chosen] == expected and len(expected) >= 2
    far = Pairs(**{**PAIRS, "min_separation": 90, "max_separation": None, "threshold": 0})
    assert [(s.start1 + 5, s.start2 + 5) for s in far.candidates("".join(letters), LENGTH)] == [(20, 115), (20, 125)][
        :1
    ]


def test_draws_hang_on_seed_and_protein_alone(contacts: Float[np.ndarray, "L L"]) -> None:
    choice, known = Single(**{**SINGLE, "threshold": 60, "per_protein": 3}), Evidence(LENGTH, contacts)
    first = choice.choose(known, (0, "a"))
    assert len(first) == 3 and first == choice.choose(known, (0, "a")) == sorted(first)
    others = [tuple(choice.choose(known, key)) for key in ((1, "a"), (2, "a"), (0, "b"), (0, "c"))]
    assert len({tuple(first), *others}) == 5
    assert Single(**{**SINGLE, "threshold": 1e9}).choose(known, (0, "a")) == []
    assert Single(**SINGLE).choose(Evidence(10, contacts[:10, :10]), (0, "a")) == []


@pytest.mark.parametrize("length", [43, 44, 90, 200])
def test_no_protein_has_better_segments_than_those_of_a_forecast(length: int) -> None:
    everywhere = np.ones((length, length))
    letters = "EEEE-" * (length // 5) + "-" * (length % 5)
    for choice in (
        Single(**{**SINGLE, "per_protein": 3}), ClosePairs(**{**CLOSE, "per_protein": 3}),
        Pairs(**{**PAIRS, "min_separation": 20, "per_protein": 3}),
    ):  # fmt: skip
        chosen = choice.choose(Evidence(length, everywhere, letters), (0, "a"))
        possible = choice.possible(length, None)
        assert len(chosen) <= len(possible) <= 3
        room = [sorted(min(s.start1, length - s.stop2) for s in segments) for segments in (chosen, possible)]
        assert all(a <= b for a, b in zip(room[0][::-1], room[1][::-1], strict=False))


def test_lists() -> None:
    single = Listed(name="list", path="a.json", kind="single", size=None, gap=None)
    assert single.choose(Evidence(90, listed=[30, 4]), (0, "a")) == [diagonal(30, 22), diagonal(4, 22)]
    assert single.choose(Evidence(90, listed=None), (0, "a")) == []
    pairs = Listed(name="list", path="a.json", kind="pairs", size=None, gap=None)
    assert (
        pairs.choose(Evidence(90, listed=[[20, 71]]), (0, "a"))
        == [Segment(15, 26, 66, 77)]
        == [pair_around(20, 71, 11)]
    )
    close = Listed(name="list", path="a.json", kind="close_pairs", size=9, gap=2)
    assert close.choose(Evidence(90, listed=[20]), (0, "a")) == [Segment(20, 29, 31, 40)] == [close_pair(20, 9, 2)]
    for wrong, listed in ((single, [[20, 71]]), (pairs, [20]), (single, [2.5]), (pairs, [[1, 2, 3]])):
        with pytest.raises(ValueError, match=r"a\.json.*kind="):
            wrong.choose(Evidence(90, listed=listed), (0, "a"))
    with pytest.raises(ValidationError, match="gap has no effect"):
        Listed(name="list", path="a.json", kind="single", size=None, gap=5)


def test_what_is_needed_and_not_known_is_said(contacts: Float[np.ndarray, "L L"]) -> None:
    with pytest.raises(ValueError, match=r"segments\.secondary_structure"):
        Pairs(**PAIRS).choose(Evidence(LENGTH, contacts), (0, "a"))
    with pytest.raises(ValueError, match="for 140 residues"):
        Pairs(**PAIRS).choose(Evidence(LENGTH, contacts, "HHH"), (0, "a"))
    with pytest.raises(ValueError, match="segments=list"):
        Single(**SINGLE).choose(Evidence(LENGTH), (0, "a"))


def test_the_authors_pairs_are_among_ours() -> None:
    """Every released pair has centres that our reading of their secondary structures gives."""
    folder = SHARED / "zhang2024"
    if not folder.exists():
        pytest.skip(f"the authors' lists are not here ({folder})")
    structures, sequences = (json.loads((folder / name).read_text()) for name in ("ss_dict.json", "full_seq_dict.json"))
    for name, limits in (("50_100", (50, 100)), ("100", (100, None))):
        listed = json.loads((folder / f"reproduce_pair_recovery_{name}_w_bos_eos.json").read_text())
        choice = Pairs(**{**PAIRS, "min_separation": limits[0], "max_separation": limits[1]})
        for chain, pairs in list(listed.items())[::7]:
            letters = structures[f"{chain}.pdb"]
            candidates = choice.candidates(letters, len(sequences[chain]))
            assert {pair_around(a, b, 11) for a, b in pairs} <= set(candidates)


# ---------------------------------------------------------------- secondary structure


def test_an_ideal_helix_is_one() -> None:
    """Twenty residues of an ideal alpha helix, built from its cylinder coordinates; a gap in it bonds nothing."""
    atoms = {"N": (1.55, -28.0, -0.90), "CA": (2.28, 0.0, 0.0), "C": (1.68, 26.0, 1.06), "O": (2.03, 22.0, 2.25)}
    backbone = np.empty((20, 4, 3))
    for residue in range(20):
        for number, (radius, angle, rise) in enumerate(atoms.values()):
            turn = np.radians(angle + 100.0 * residue)
            backbone[residue, number] = radius * np.cos(turn), radius * np.sin(turn), rise + 1.5 * residue
    letters = secondary_structure(backbone)
    assert letters.strip("-") == "H" * 18 and len(letters) == 20
    backbone[9:11] = np.nan
    assert secondary_structure(backbone)[9:11] == "--" and "H" in secondary_structure(backbone)
    assert secondary_structure(np.full((20, 4, 3), np.nan)) == "-" * 20 and secondary_structure(backbone[:4]) == "----"


def test_letters_without_unknown_residues_are_brought_to_length() -> None:
    assert fitted("HHEE", "MXKVX") == "HHEE"  # neither 5 letters nor 3: told by its length, where it is used
    assert fitted("HHE", "MXKVX") == "H-HE-" and fitted("HHEE-", "MKKVX") == "HHEE-"


def test_real_structures() -> None:
    """Ubiquitin-like 1TEN is all strands, 1GUU (Myb) all helices; the reader gives their backbone."""
    folder = SHARED / "covariation" / "structures"
    if not folder.exists():
        pytest.skip(f"the real structures are not here ({folder})")
    from plmjac.datasets import build

    found = {}
    for record in build("pdb", path=[str(folder / name) for name in ("1TEN_A.pdb", "1GUU_A.pdb")]):
        assert isinstance(record, Protein) and isinstance(record.structure, Coordinates)
        assert record.structure.backbone is not None and len(record.structure.backbone) == len(record)
        found[record.id] = secondary_structure(record.structure.backbone)
    assert found["1TEN_A"].count("E") > 40 and "H" not in found["1TEN_A"]
    assert found["1GUU_A"].count("H") > 25 and "E" not in found["1GUU_A"]
