"""Fingerprints: planted blocks are found in a Jacobian, by cluster, by pattern, and as not contact-like."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import composed
from written_store import sequence_of, written_store

from plmjac.coevolution.amino_acid_energies import patterns
from plmjac.evaluation.base import Inputs, Outcome, Store
from plmjac.evaluation.fingerprints import Settings, evaluate
from plmjac.records import ContactList, Contacts, Protein

LENGTH = 30
LIKE = [(i, i + 15) for i in range(8)]
"""Pairs with the Miyazawa-Jernigan pattern."""
ODD = [(9, 26), (10, 28)]
"""Pairs with its opposite."""
CHARGED = [(0, 29)]


def _jacobian(seed: int = 0) -> np.ndarray:
    """Small noise, and patterns in the blocks of the planted pairs, in both directions as a symmetric model has it."""
    source = np.random.default_rng(seed)
    jacobian = source.normal(scale=0.02, size=(LENGTH, 20, LENGTH, 20))
    known = patterns()
    for pairs, name, sign in ((LIKE, "Miyazawa-Jernigan", 1), (ODD, "Miyazawa-Jernigan", -1), (CHARGED, "charge", 1)):
        block = sign * known[name] / np.linalg.norm(known[name]) * 5
        for i, j in pairs:
            jacobian[i, :, j, :] += block
            jacobian[j, :, i, :] += block.T
    return jacobian


def _settings(**changes: object) -> Settings:
    config = composed("evaluate", "+evaluation=fingerprints")
    assert isinstance(config["evaluation"], dict)
    return Settings.model_validate({**config["evaluation"], "pairs": 11 / LENGTH + 0.001, **changes})


def _run(store: Store, *proteins: Protein, **changes: object) -> Outcome:
    return evaluate(Inputs((store,), lambda: proteins), _settings(**changes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    arrays = {"p": {"jacobian": _jacobian()}, "q": {"jacobian": _jacobian(1)}}
    return written_store(tmp_path / "p.zarr", arrays, sequences={"q": sequence_of(LENGTH, 1)})


def test_planted_fingerprints_are_found(store: Store) -> None:
    outcome = _run(store, strong=11 / LENGTH + 0.001)
    table = outcome.tables["fingerprints"]
    pairs = list(zip(table["i"], table["j"], strict=True))
    assert sorted(set(pairs)) == sorted(LIKE + ODD + CHARGED)
    assert len(table) == 22
    by_pair = table[table["protein"] == "p"].set_index(["i", "j"])
    like, odd, charged = by_pair.loc[LIKE], by_pair.loc[ODD], by_pair.loc[CHARGED]
    assert (like["cluster"] == 1).all()
    assert like["reference"].min() > 0.95
    assert like["Miyazawa-Jernigan"].min() > 0.95
    assert like["contact_like"].all()
    assert odd["cluster"].nunique() == 1
    assert odd["cluster"].min() > 1
    assert odd["reference"].max() < -0.95
    assert charged["charge"].min() > 0.95
    assert charged["most like"].tolist() == ["charge"]
    unlike = outcome.tables["not_contact_like"]
    assert set(ODD) <= set(zip(unlike["i"], unlike["j"], strict=True)) <= set(ODD + CHARGED)
    assert "not contact-like" in outcome.text
    assert outcome.figures["fingerprints"]() is not None


def test_blocks_are_those_of_the_store(store: Store) -> None:
    """Cosines by hand from `couplings(i, j)`."""
    table = _run(store).tables["fingerprints"]
    known = patterns()
    for row in table.head(5).to_dict("records"):
        block = store.opened[row["protein"]].couplings(row["i"], row["j"])
        for name in known:
            expected = (block * known[name]).sum() / np.linalg.norm(block) / np.linalg.norm(known[name])
            assert row[name] == pytest.approx(expected, abs=1e-4)


def test_structures_judge_both_kinds(store: Store) -> None:
    touching = np.zeros((LENGTH, LENGTH), dtype=bool)
    for i, j in LIKE[:6]:
        touching[i, j] = touching[j, i] = True
    contacts = Contacts(touching, np.ones(LENGTH, dtype=bool))
    protein = Protein("p", store.opened["p"].sequence, structure=ContactList({("cb", 8.0): contacts}))
    outcome = _run(store, protein, threshold=0.5)
    table = outcome.tables["fingerprints"]
    assert table.loc[table["protein"] == "q", "contact"].isna().all()
    row = outcome.tables["fingerprints_summary"].iloc[0]
    assert row["precision of these"] == pytest.approx(6 / 8)
    assert row["of the others"] == 0
    assert row["contact-like"] == pytest.approx(16 / 22)


def test_what_cannot_be_compared_is_said(tmp_path: Path, store: Store) -> None:
    maps = written_store(tmp_path / "m.zarr", {"p": {"contacts": np.zeros((9, 9))}})
    assert _run(maps).scored == 0 and "p: its Jacobian was not kept" in _run(maps).text
    tensors = {"p": _jacobian(), "few": np.zeros((9, 5, 9, 20)), "tiny": np.zeros((3, 20, 3, 20))}
    mixed = written_store(tmp_path / "x.zarr", {name: {"jacobian": tensor} for name, tensor in tensors.items()})
    outcome = _run(mixed)
    assert isinstance(outcome.tables["fingerprints"], pd.DataFrame)
    assert "few of x: couplings need all 20 amino acids" in outcome.text
    assert "tiny of x: no pair of its 3 residues" in outcome.text
