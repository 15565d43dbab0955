"""Contacts between chains against loops over pairs, and a reason for every complex that cannot be scored."""

import math
from pathlib import Path

import numpy as np
import pytest
from written_store import sequence_of

from plmjac.evaluation.base import Inputs, Store
from plmjac.evaluation.interchain import BLOCK_APC, Settings, block_apc, evaluate
from plmjac.plots import save
from plmjac.records import Chains, Coordinates, Protein
from plmjac.store import StoreWriter, create_or_check, open_store, write_manifest
from plmjac.workplan import ManifestRow

SETTINGS = Settings(name="interchain", atom="cb", cutoff=8.0)
CHAINS = Chains(((0, 9), (12, 20), (20, 27)))
LENGTH = 27
GENERATOR = np.random.default_rng(3)


def walk(length: int, seed: int) -> Coordinates:
    generator = np.random.default_rng(seed)
    xyz = np.cumsum(generator.normal(scale=2.0, size=(length, 3)), axis=0)
    xyz[[2, 14]] = np.nan
    xyz[9:12] = np.nan  # the linker
    return Coordinates(xyz, xyz)


def symmetric(length: int) -> np.ndarray:
    scores = np.triu(GENERATOR.integers(0, 9, (length, length)), 1).astype(np.float32)  # with ties
    return scores + scores.T


def store_of(path: Path, proteins: dict[str, tuple[str, Chains | None, dict[str, np.ndarray]]]) -> Store:
    create_or_check(path, {"kind": "jacobian", "model": {"name": "handmade"}}, {"config": {}})
    rows = [ManifestRow("lost", "lost", 0, "", status="failed", reason="no residue")]
    for name, (sequence, chains, arrays) in proteins.items():
        pending = StoreWriter(path).begin(name, sequence=sequence, identifier=name, chains=chains)
        for array, values in arrays.items():
            pending.write(array, values)
        pending.commit()
        rows.append(ManifestRow(name, name, len(sequence), sequence, status="done", chains=str(chains or "")))
    write_manifest(path, rows)
    return Store(path.stem, open_store(path))


def brute_force(scores: np.ndarray, xyz: np.ndarray, first: range, second: range) -> tuple[list[bool], int]:
    """Mask of the pairs of two chains in contact, best first, and their number."""
    pairs = []
    for i in first:
        for j in second:
            if not np.isnan(xyz[[i, j]]).any():
                pairs.append((-scores[i, j], i, j, math.dist(xyz[i], xyz[j]) < 8.0))
    touching = [touch for *_, touch in sorted(pairs)]
    return touching, sum(touching)


def test_every_number_is_the_brute_force(tmp_path: Path) -> None:
    sequence, structure = sequence_of(LENGTH), walk(LENGTH, 1)
    maps = {"contacts": symmetric(LENGTH), "contact_head": symmetric(LENGTH)}
    store = store_of(tmp_path / "s.zarr", {"x": (sequence, CHAINS, maps)})
    outcome = evaluate(Inputs((store,), lambda: [Protein("x", sequence, structure=structure, chains=CHAINS)]), SETTINGS)
    table = outcome.tables["interchain"].set_index(["map", "chains"])
    assert len(table) == 7 and table["P@K"].notna().sum() >= 4  # 2 maps of 3 pairs of chains, and the failed record
    for name, scores in maps.items():
        for label, one, two in (("1-2", 0, 1), ("1-3", 0, 2), ("2-3", 1, 2)):
            first, second = range(*CHAINS.spans[one]), range(*CHAINS.spans[two])
            touching, k = brute_force(scores, structure.beta, first, second)
            row, size = table.loc[(name, label)], len(first) + len(second)
            assert row["K"] == k and row["length1"] == len(first)
            if not k:
                assert (
                    row[["P@K", "P@10", "chance"]].isna().all() and row["reason"] == "no contact between these chains"
                )
                continue
            for measure, top in (("P@K", k), ("P@10", 10), ("P@L/5", size // 5), ("P@L/10", size // 10)):
                assert row[measure] == pytest.approx(np.mean(touching[:top]))
            assert row["chance"] == pytest.approx(np.mean(touching))
    assert "failed: no residue" in outcome.text
    save(outcome.figures["interchain_maps"](), tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 10_000


def test_block_apc_is_made_from_the_block_alone(tmp_path: Path) -> None:
    chains, length = Chains(((0, 7), (7, 12))), 12
    jacobian = GENERATOR.normal(size=(length, 20, length, 20)).astype(np.float32)
    structure = Coordinates(*(np.cumsum(GENERATOR.normal(scale=1.5, size=(length, 3)), axis=0),) * 2)
    sequence = sequence_of(length)
    store = store_of(
        tmp_path / "s.zarr", {"x": (sequence, chains, {"contacts": symmetric(length), "jacobian": jacobian})}
    )
    outcome = evaluate(Inputs((store,), lambda: [Protein("x", sequence, structure=structure, chains=chains)]), SETTINGS)
    table = outcome.tables["interchain"]
    (row,) = table[table["map"] == BLOCK_APC].to_dict("records")
    centered = store.opened["x"].jacobian.astype(np.float64)
    for axis in range(4):
        centered = centered - centered.mean(axis=axis, keepdims=True)
    both = (centered + centered.transpose(2, 3, 0, 1)) / 2
    norms = np.sqrt((both**2).sum(axis=(1, 3)))[:7, 7:]
    expected = np.array(
        [[f - norms[i].sum() * norms[:, j].sum() / norms.sum() for j, f in enumerate(norms[i])] for i in range(7)]
    )
    np.testing.assert_allclose(block_apc(norms), expected)
    whole = np.zeros((length, length))
    whole[:7, 7:] = expected
    touching, k = brute_force(whole, structure.beta, range(7), range(7, 12))
    assert 0 < k < 30 and row["P@K"] == pytest.approx(np.mean(touching[:k]))
    assert np.abs(block_apc(np.zeros((3, 2)))).max() == 0


def test_what_cannot_be_scored_says_why(tmp_path: Path) -> None:
    sequence, far = sequence_of(LENGTH), walk(LENGTH, 1)
    contacts = {"contacts": symmetric(LENGTH)}
    apart = Coordinates(*(np.arange(LENGTH)[:, None] * np.array([100.0, 0, 0]),) * 2)
    hidden = Coordinates(*(np.full((LENGTH, 3), np.nan),) * 2)
    two = Chains(((0, 20), (20, LENGTH)))
    whole = {name: (sequence, CHAINS, contacts) for name in ("apart", "hidden", "unknown", "other_chains", "bare")}
    whole["bare"] = (sequence, CHAINS, {"logits": np.zeros((LENGTH, 20), dtype=np.float32)})
    own = {name: sequence_of(LENGTH, seed) for seed, name in enumerate(("unknown", "other_chains"), start=5)}
    whole |= {name: (letters, *whole[name][1:]) for name, letters in own.items()}
    store = store_of(tmp_path / "s.zarr", {**whole, "alone": (sequence, None, contacts)})
    proteins = {"apart": (apart, CHAINS), "hidden": (hidden, CHAINS), "other_chains": (far, two), "bare": (far, CHAINS),
                "alone": (far, None), "absent": (far, CHAINS)}  # fmt: skip
    truth = [
        Protein(name, own.get(name, sequence), structure=known, chains=chains)
        for name, (known, chains) in proteins.items()
    ]
    outcome = evaluate(Inputs((store,), lambda: truth), SETTINGS)
    reasons = outcome.tables["interchain"].groupby("protein")["reason"].first().to_dict()
    assert reasons == {
        "apart": "no contact between these chains",
        "hidden": "a chain without resolved residues",
        "unknown": "no structure to compare with",
        "other_chains": "the structure has another sequence, or other chains, than the store",
        "bare": "the store keeps no contact map of it; run predict with keep=[contacts]",
        "alone": "a single chain; complexes are computed with +dataset=complex",
        "absent": "not in the store",
        "lost": "failed: no residue",
    }
    assert outcome.tables["interchain"]["P@K"].isna().all() and not outcome.figures


def test_a_store_without_complexes_scores_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    sequence = sequence_of(LENGTH)
    store = store_of(path, {"alone": (sequence, None, {"contacts": symmetric(LENGTH)})})
    outcome = evaluate(Inputs((store,), lambda: [Protein("alone", sequence, structure=walk(LENGTH, 1))]), SETTINGS)
    assert outcome.scored == 0 and "alone: a single chain; complexes are computed with +dataset=complex" in outcome.text
