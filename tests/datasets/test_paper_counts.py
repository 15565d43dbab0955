"""Numbers of the paper follow from its lists: sizes, budgets, reference precisions.

The counts of segments and of their forwards are in test_schedules.py.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plmjac.datasets import build
from plmjac.inference.launch import DEFAULT_MAX_TOKENS
from plmjac.records import Protein
from plmjac.workplan import forwards


@pytest.fixture
def folder(shared_data: Path) -> Path:
    return shared_data / "zhang2024"


def lengths(folder: Path, selected: bool) -> np.ndarray:
    records = list(build("zhang2024", path=str(folder), selected=selected))
    assert all(isinstance(record, Protein) for record in records)
    return np.array([len(record) for record in records if isinstance(record, Protein)])


def loaded(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_lengths_of_the_selected_chains(folder: Path) -> None:
    found = lengths(folder, selected=True)
    assert (len(found), found.sum(), (found**2).sum()) == (1431, 466_608, 163_727_212)
    assert (found.min(), found.max(), round(found.mean(), 1)) == (201, 599, 326.1)
    assert np.percentile(found, [10, 25, 50, 75, 90]) == pytest.approx([220, 254, 311, 383, 455], abs=0.5)


def test_lengths_of_all_chains(folder: Path) -> None:
    found = lengths(folder, selected=False)
    assert (len(found), found.sum()) == (2170, 620_251)
    assert (found.min(), found.max(), np.median(found), round(found.mean(), 1)) == (52, 1305, 266, 285.8)


def test_letters_that_are_no_amino_acid(folder: Path) -> None:
    sequences = {r.id: r.sequence for r in build("zhang2024", path=str(folder)) if isinstance(r, Protein)}
    assert {name: s.count("X") for name, s in sequences.items() if "X" in s} == {"2OMKA": 1, "4MAMA": 1}
    every = [r.sequence for r in build("zhang2024", path=str(folder), selected=False) if isinstance(r, Protein)]
    assert sum(bool(set(sequence) - set("ACDEFGHIKLMNPQRSTVWY")) for sequence in every) == 3
    structures = loaded(folder, "ss_dict.json")
    shorter = {
        name: len(sequences[name.removesuffix(".pdb")]) - len(states)
        for name, states in structures.items()
        if len(states) != len(sequences[name.removesuffix(".pdb")])
    }
    assert len(structures) == 1431 and shorter == {"2OMKA.pdb": 1, "4MAMA.pdb": 1}


def test_the_budget_of_a_full_run(folder: Path) -> None:
    """20 L + 1 forwards a chain for the authors, 19 L + 1 for us; tokens of theirs and of masking alone; bytes."""
    found = [int(length) for length in lengths(folder, selected=True)]
    assert sum(forwards(length, 20) for length in found) == 9_333_591
    assert sum(forwards(length) for length in found) == 19 * 466_608 + 1431
    assert sum(forwards(length, 20) * (length + 2) for length in found) == pytest.approx(3.29e9, rel=2e-3)
    assert sum(forwards(length, 1) * (length + 2) for length in found) == pytest.approx(1.65e8, rel=2e-3)
    assert sum((20 * length) ** 2 * 2 for length in found) == pytest.approx(131e9, rel=1e-3)
    assert max(found) + 2 <= min(DEFAULT_MAX_TOKENS.values())


def test_lists_of_segments(folder: Path) -> None:
    """Numbers of chains and segments of each list, segments per chain, and distances of pairs."""
    single = loaded(folder, "reproduce_single_recovery_w_bos_eos.json")
    assert (len(single), {len(starts) for starts in single.values()}) == (1431, {3})
    close = loaded(folder, "revision_close_distance_seg_reproduce.json")
    assert (len(close), sum(map(len, close.values()))) == (1429, 4277)
    for name, chains, pairs, counts, nearest, farthest, median in (
        ("100", 266, 304, [0, 232, 30, 4], 101, 369, 134),
        ("50_100", 821, 1273, [0, 466, 258, 97], 51, 100, 65),
    ):
        listed = loaded(folder, f"reproduce_pair_recovery_{name}_w_bos_eos.json")
        apart = [second - first for each in listed.values() for first, second in each]
        assert (len(listed), len(apart)) == (chains, pairs)
        assert np.bincount([len(each) for each in listed.values()]).tolist() == counts
        assert (min(apart), max(apart), np.median(apart)) == (nearest, farthest, median)


def test_reference_precisions_are_of_ordered_pairs(folder: Path) -> None:
    """Each is a whole number over L, an even one where L is even: L ordered pairs, which is P@L/2."""
    with (folder / "reference_P_at_L2_1000proteins.csv").open() as file:
        rows = list(csv.DictReader(file))
    length = np.array([int(row["L"]) for row in rows])
    means = {
        "cj_esm2_3B": 0.8021,
        "inverse_cov_msa_preprint": 0.6104,
        "esm2_contact_head": 0.8706,
        "esmfold_contacts": 0.9952,
    }
    known = {r.id: len(r) for r in build("zhang2024", path=str(folder)) if isinstance(r, Protein)}
    assert len(rows) == 1000 and all(known[row["chain"]] == int(row["L"]) for row in rows)
    for method, mean in means.items():
        values = np.array([float(row[method]) for row in rows])
        assert values.mean() == pytest.approx(mean, abs=5e-5)
        if method == "esmfold_contacts":
            continue
        hits = values * length
        assert np.allclose(hits, hits.round(), atol=1e-6)
        assert (hits.round()[length % 2 == 0] % 2 == 0).all()
    jacobian = np.array([float(row["cj_esm2_3B"]) for row in rows])
    for low, high, mean in ((200, 300, 0.803), (300, 400, 0.807), (400, 600, 0.791)):
        assert jacobian[(length >= low) & (length < high)].mean() == pytest.approx(mean, abs=6e-4)
