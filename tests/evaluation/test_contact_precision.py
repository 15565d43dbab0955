"""Every number of contact_precision against a brute force, and a reason for every number that cannot be."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from written_store import sequence_of, written_store

from plmjac.evaluation.base import EvaluationError, Inputs, Store
from plmjac.evaluation.contact_precision import Settings, contact_precision, evaluate
from plmjac.evaluation.structures import Structures
from plmjac.plots import save
from plmjac.records import ContactList, Contacts, Coordinates, Protein

RANGES = {"all": (6, None), "short": (6, 12), "medium": (12, 24), "long": (24, None)}


def settings(**changes: Any) -> Settings:
    keys = {"atom": "cb", "cutoff": 8.0, "min_separation": 6, "range": "all", "lengths": [], "bootstrap": 50, "seed": 0}
    return Settings.model_validate({"name": "contact_precision", **keys, **changes})


def structure(length: int, seed: int = 1) -> Coordinates:
    """A random cloud with some residues unresolved, in C-alpha and C-beta apart."""
    generator = np.random.default_rng(seed)
    alpha = generator.normal(scale=7.0, size=(length, 3))
    beta = alpha + generator.normal(scale=0.8, size=(length, 3))
    alpha[generator.random(length) < 0.1] = np.nan
    beta[generator.random(length) < 0.15] = np.nan
    return Coordinates(alpha, beta)


def symmetric(length: int, seed: int, levels: int = 12) -> np.ndarray:
    """A map with many ties."""
    scores = np.random.default_rng(seed).integers(0, levels, (length, length)).astype(float)
    return np.triu(scores, 1) + np.triu(scores, 1).T


def brute_force(scores: np.ndarray, xyz: np.ndarray, cutoff: float, low: int, high: int | None, top: int) -> float:
    """P@top of unordered pairs, with nothing but loops; ties in the order of the pairs."""
    pairs = []
    for i in range(len(xyz)):
        for j in range(i + low, len(xyz) if high is None else min(len(xyz), i + high)):
            if not np.isnan(xyz[[i, j]]).any():
                pairs.append((-scores[i, j], i, j, math.dist(xyz[i], xyz[j]) < cutoff))
    best = [touch for *_, touch in sorted(pairs)][: max(1, top)]
    return sum(best) / len(best)


def brute_force_ordered(scores: np.ndarray, xyz: np.ndarray, cutoff: float) -> float:
    """The paper's "P@L": all ordered pairs of resolved residues, |i - j| >= 24, stable sort, top L entries."""
    known = [i for i in range(len(xyz)) if not np.isnan(xyz[i]).any()]
    pairs = [(i, j) for i in known for j in known if abs(i - j) >= 24]
    pairs.sort(key=lambda pair: -scores[pair])
    return sum(math.dist(xyz[i], xyz[j]) < cutoff for i, j in pairs[: len(xyz)]) / len(xyz)


def test_every_number_is_the_brute_force(tmp_path: Path) -> None:
    length, truth = 61, structure(61)
    maps = {
        "contacts": symmetric(length, 2),
        "contact_head": symmetric(length, 3),
        "attention": symmetric(length, 4, 900),
    }
    store = written_store(tmp_path / "run.zarr", {"one": {**maps, "logits": np.zeros((length, 20))}})
    protein = Protein("one", sequence_of(length), structure=truth)
    outcome = evaluate(Inputs((store,), lambda: [protein]), settings(atom=["cb", "ca"], cutoff=[8, 10]))
    table = outcome.tables["contact_precision"]
    assert len(table) == 3 * 2 * 4 and set(table["map"]) == set(maps)
    for row in table.to_dict("records"):
        xyz = truth.beta if row["atom"] == "cb" else truth.alpha
        assert row["resolved"] == np.isfinite(xyz[:, 0]).sum() < length
        for name, part in {"P@L": 1, "P@L/2": 2, "P@L/5": 5}.items():
            for column, size in ((name, length), (f"{name} resolved", row["resolved"])):
                expected = brute_force(maps[row["map"]], xyz, row["cutoff"], *RANGES[row["range"]], size // part)
                assert row[column] == pytest.approx(expected), (row["map"], column)
        everything = brute_force(maps[row["map"]], xyz, row["cutoff"], *RANGES[row["range"]], length**2)
        assert row["chance"] == pytest.approx(everything)
        if row["range"] == "long":
            assert row["P@L/2 ordered"] == pytest.approx(brute_force_ordered(maps[row["map"]], xyz, row["cutoff"]))


@pytest.mark.parametrize("length", [60, 61])
def test_ordered_pairs_are_the_closed_form(tmp_path: Path, length: int) -> None:
    """Without ties: the precision of the top L/2; for odd L twice its hits and the next pair's, over L."""
    scores, truth = np.zeros((length, length)), structure(length)
    scores[np.triu_indices(length, 1)] = np.random.default_rng(5).permutation(length * (length - 1) // 2)
    scores += scores.T
    store = written_store(tmp_path / "run.zarr", {"one": {"contacts": scores}})
    table = contact_precision([store], Structures([Protein("one", sequence_of(length), structure=truth)]))[0]
    row = table[table["range"] == "long"].iloc[0]
    hits = round(brute_force(scores, truth.beta, 8.0, 24, None, length // 2) * (length // 2))
    more = round(brute_force(scores, truth.beta, 8.0, 24, None, length // 2 + 1) * (length // 2 + 1)) - hits
    assert row["P@L/2 ordered"] == pytest.approx((2 * hits + (more if length % 2 else 0)) / length)


def test_min_separation_is_that_of_the_range_all(tmp_path: Path) -> None:
    scores, truth = symmetric(30, 6, 999), structure(30)
    store = written_store(tmp_path / "run.zarr", {"one": {"contacts": scores}})
    protein = Protein("one", sequence_of(30), structure=truth)
    table = evaluate(Inputs((store,), lambda: [protein]), settings(min_separation=3)).tables["contact_precision"]
    by_range = table.set_index("range")["P@L"]
    assert by_range["all"] == pytest.approx(brute_force(scores, truth.beta, 8.0, 3, None, 30))
    assert by_range["short"] == pytest.approx(brute_force(scores, truth.beta, 8.0, 6, 12, 30))


def test_what_cannot_be_scored_has_a_reason(tmp_path: Path) -> None:
    none = ContactList({("cb", 8.0): Contacts(np.zeros((30, 30), bool), np.ones(30, bool))})
    hidden = Coordinates(np.full((30, 3), np.nan), np.full((30, 3), np.nan))
    short = structure(20)
    arrays = {name: {"contacts": symmetric(30, 1)} for name in ("empty", "hidden", "naked", "stranger", "only_ca")}
    arrays |= {"short": {"contacts": symmetric(20, 1)}, "unmapped": {"logits": np.zeros((30, 20))}}
    store = written_store(
        tmp_path / "run.zarr",
        arrays,
        bad=("broken",),
        sequences={"naked": sequence_of(30, 9), "stranger": sequence_of(30, 8)},
    )
    only_ca = ContactList({("ca", 8.0): Contacts(np.ones((30, 30), bool), np.ones(30, bool))})
    sequence = sequence_of(30)
    truth = [
        Protein("empty", sequence, structure=none),
        Protein("hidden", sequence, structure=hidden),
        Protein("stranger", "MKV", structure=none),
        Protein("only_ca", sequence, structure=only_ca),
        Protein("short", sequence_of(20), structure=short),
        Protein("unmapped", sequence, structure=none),
        Protein("elsewhere", "MKV", structure=none),
    ]
    outcome = evaluate(Inputs((store,), lambda: truth), settings(range="long"))
    table = outcome.tables["contact_precision"]
    reasons = (
        table[table["range"].isin(["long", None]) | table["range"].isna()].set_index("protein")["reason"].to_dict()
    )
    expected = {
        "empty": "no contact in this range",
        "hidden": "no pair of resolved residues",
        "naked": "no structure",
        "stranger": "another sequence",
        "only_ca": "there are ca < 8",
        "short": "no pair of resolved residues in this range",
        "unmapped": "keeps no contact map",
        "elsewhere": "not in the store",
        "broken": "failed: no residue",
    }
    assert set(reasons) == set(expected)
    for name, words in expected.items():
        assert words in reasons[name]
        assert name in outcome.text and words in outcome.text
    assert table.loc[table["range"] == "long", "P@L"].isna().all()
    assert (
        outcome.scored == 0
        and "nothing could be scored" in outcome.text
        and not outcome.figures
        and not outcome.metrics
    )
    scored = table[(table["protein"] == "short") & (table["range"] == "short")].iloc[0]
    assert scored["P@L"] == pytest.approx(brute_force(symmetric(20, 1), short.beta, 8.0, 6, 12, 20))


def two_stores(tmp_path: Path) -> tuple[list[Store], list[Protein]]:
    """Good has the contacts with some noise, bad noise alone; one protein is in bad only."""
    proteins = [Protein(f"p{k}", sequence_of(40 + k), structure=structure(40 + k, seed=k)) for k in range(8)]
    noise = {protein.id: np.abs(symmetric(len(protein), 9, 10**6)) / 10**6 for protein in proteins}
    maps = {
        protein.id: {"contacts": protein.structure.contacts("cb", 8.0).pairs + noise[protein.id]}  # type: ignore[union-attr]
        for protein in proteins
    }
    good = written_store(tmp_path / "good.zarr", {name: maps[name] for name in list(maps)[:7]}, model="large")
    bad = written_store(tmp_path / "bad.zarr", {name: {"contacts": noise[name]} for name in maps}, model="small")
    return [good, bad], proteins


def test_stores_side_by_side(tmp_path: Path) -> None:
    stores, proteins = two_stores(tmp_path)
    outcome = evaluate(Inputs(tuple(stores), lambda: proteins), settings(lengths=[44], bootstrap=500))
    table, means, differences = (outcome.tables[name] for name in ("contact_precision", "summary", "differences"))
    assert set(zip(table["store"], table["model"], strict=True)) == {("good", "large"), ("bad", "small")}
    here = means[(means["range"] == "all") & (means["measure"] == "P@L/5")].set_index(["method", "lengths"])
    scored = table[(table["range"] == "all") & (table["store"] == "good") & table["P@L/5"].notna()]
    assert here.loc[("good contacts", "all"), "mean"] == pytest.approx(scored["P@L/5"].mean()) and len(scored) == 7
    in_bin = scored[scored["length"] < 44]["P@L/5"]
    assert here.loc[("good contacts", "<44"), ["n", "mean"]].tolist() == [len(in_bin), pytest.approx(in_bin.mean())]
    row = differences[(differences["range"] == "all") & (differences["measure"] == "P@L/2")].iloc[0]
    wide = table[table["range"] == "all"].pivot(index="protein", columns="store", values="P@L/2")
    assert (row["first"], row["second"], row["n"]) == ("good contacts", "bad contacts", 7)
    assert row["difference"] == pytest.approx((wide["good"] - wide["bad"]).mean())
    assert row["low"] <= row["difference"] <= row["high"] and row["better"] == 7 and row["p"] == pytest.approx(2 / 2**7)
    assert "large (good), small (bad)" in outcome.text and "not scored: p7: not in the store" in outcome.text
    assert outcome.metrics["good contacts/P@L/5"] == pytest.approx(scored["P@L/5"].mean())
    curve = outcome.tables["precision_curves"]
    at_half = curve[
        (curve["method"] == "bad contacts") & (curve["range"] == "all") & np.isclose(curve["pairs / L"], 0.5)
    ]
    even = table[(table["store"] == "bad") & (table["range"] == "all")]
    rounded = [
        brute_force(stores[1].opened[p.id].contacts, p.structure.beta, 8.0, 6, None, round(0.5 * len(p)))  # type: ignore[union-attr]
        for p in proteins
    ]
    assert at_half["precision"].item() == pytest.approx(np.mean(rounded)) and at_half["n"].item() == len(even) == 8
    for name, draw in outcome.figures.items():
        save(draw(), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    assert set(outcome.figures) == {"contact_maps", "precision_curves", "per_protein"}


def test_one_more_store_changes_no_other_number(tmp_path: Path) -> None:
    stores, proteins = two_stores(tmp_path)
    alone = evaluate(Inputs((stores[1],), lambda: proteins), settings()).tables["summary"]
    both = evaluate(Inputs(tuple(stores), lambda: proteins), settings()).tables["summary"]
    both = both[both["method"] == "bad contacts"].assign(method="contacts")
    pd.testing.assert_frame_equal(alone, both.reset_index(drop=True))


def test_definitions_in_step() -> None:
    assert settings(atom="cb", cutoff=[6, 8]).definitions == [("cb", 6.0), ("cb", 8.0)]
    assert settings(atom=["cb", "ca"], cutoff=[8, 10]).definitions == [("cb", 8.0), ("ca", 10.0)]
    with pytest.raises(EvaluationError, match="as many of one"):
        _ = settings(atom=["cb", "ca"], cutoff=[6, 8, 10]).definitions


def test_without_a_store_the_remedy_is_said() -> None:
    with pytest.raises(EvaluationError, match="store is needed"):
        evaluate(Inputs((), lambda: []), settings())
