"""False discovery rates: by definition, near 1 for random weights, near 0 for couplings that are there."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import composed
from written_store import written_store

from plmjac.coevolution import fit_pseudolikelihood, sequence_weights
from plmjac.evaluation import best_pairs
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.evaluation.false_discovery import Settings, evaluate, false_discovery_rates
from plmjac.evaluation.inputs import inputs_of
from plmjac.jacobian import contact_map
from plmjac.records import ContactList, Contacts, Protein
from plmjac.report import report

NULL = {"name": "demo", "control": "shuffle", "control_seed": 0}


def _settings(**changes: object) -> Settings:
    config = composed("evaluate", "+evaluation=false_discovery")
    assert isinstance(config["evaluation"], dict)
    return Settings.model_validate({**config["evaluation"], **changes})


def _run(stores: tuple[Store, ...], *proteins: Protein, **changes: object) -> Outcome:
    return evaluate(Inputs(stores, lambda: proteins), _settings(**changes))


def test_rates_are_those_of_the_definition() -> None:
    """Every threshold counted out, with ties."""
    source = np.random.default_rng(0)
    scores, null = source.integers(0, 30, 60).astype(float), source.integers(0, 20, 150).astype(float)
    expected = []
    for score in scores:
        rates = [
            min(1.0, (1 + (null >= cut).sum()) / 151 * 60 / (scores >= cut).sum())
            for cut in set(scores)
            if cut <= score
        ]
        expected.append(min(rates))
    np.testing.assert_allclose(false_discovery_rates(scores, null), expected)


def test_the_null_itself_is_no_discovery() -> None:
    """Scores of the null's own distribution have rates near 1; of ten far above it the last has 1/10."""
    source = np.random.default_rng(1)
    null = source.normal(size=5000)
    assert np.median(false_discovery_rates(source.normal(size=1000), null)) > 0.8
    scores = np.concatenate([source.normal(size=990), np.full(10, 50.0)])
    rates = false_discovery_rates(scores, null)
    assert rates[-10:] == pytest.approx([1 / 5001 * 1000 / 10] * 10)


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Maps of a Markov random field fitted to 800 sequences with eight coupled pairs, and to them with each column
    shuffled, where nothing is coupled."""
    source = np.random.default_rng(3)
    states = source.integers(0, 20, (800, 24))
    pairs = [(i, i + 12) for i in range(8)]
    for i, j in pairs:
        follows = source.random(800) < 0.7
        states[follows, j] = (states[follows, i] + 3) % 20
    null = np.stack([source.permutation(column) for column in states.T], axis=1)
    maps = []
    for each in (states.astype(np.int8), null.astype(np.int8)):
        field = fit_pseudolikelihood(each, sequence_weights(each), iterations=10)
        maps.append(contact_map(field.couplings).numpy())
    return maps[0], maps[1], pairs


def test_a_markov_field_stands_out_of_its_null(
    planted: tuple[np.ndarray, np.ndarray, list[tuple[int, int]]], tmp_path: Path
) -> None:
    plain, null, pairs = planted
    store = written_store(tmp_path / "p.zarr", {"p": {"contacts": plain}})
    nulls = written_store(tmp_path / "n.zarr", {"p": {"contacts": null}}, dataset=NULL)
    touching = np.zeros((24, 24), dtype=bool)
    for i, j in pairs:
        touching[i, j] = touching[j, i] = True
    structure = ContactList({("cb", 8.0): Contacts(touching, np.ones(24, dtype=bool))})
    outcome = _run((store, nulls), Protein("p", store.opened["p"].sequence, structure=structure), rates=(0.2,))
    table = outcome.tables["false_discovery"]
    best = table.head(8)
    assert sorted(zip(best["i"], best["j"], strict=True)) == pairs
    number = len(np.triu_indices(24, 6)[0])
    assert best["fdr"].max() <= 1 / (number + 1) * number / 8 + 1e-9  # no null pair reaches any of them
    assert table["fdr"].iloc[20:].min() > 0.4
    assert (best["contact"] == 1).all()
    rates = outcome.tables["false_discovery_rates"].iloc[0]
    assert rates["pairs / L"] >= 8 / 24
    assert rates["known"] == (table["fdr"] <= 0.2).sum()
    assert rates["no contact"] == pytest.approx(1 - 8 / rates["known"])
    assert outcome.figures["false_discovery"]() is not None


def test_random_weights_show_nothing_that_a_shuffled_sequence_does_not(
    tmp_path: Path, predict: Callable[..., int]
) -> None:
    """`debug`, by the commands: the experiment makes the null, the evaluation finds which store is which."""
    path = tmp_path / "three.fasta"
    source = np.random.default_rng(6)
    sequences = ["".join(source.choice(list("LAGVSERTIDPKQNFYMHWC"), 30)) for _ in range(3)]
    path.write_text("".join(f">p{n}\n{sequence}\n" for n, sequence in enumerate(sequences)))
    common = ("+dataset=fasta", f"dataset.path={path}", "model=debug")
    assert predict(*common, f"store={tmp_path}/plain.zarr") == 0
    stores = [tmp_path / "plain.zarr"]
    for seed in (0, 1):
        stores.append(tmp_path / f"null{seed}.zarr")
        assert predict(*common, "+experiment=null_shuffle", f"dataset.control_seed={seed}", f"store={stores[-1]}") == 0
    outcome = evaluate(inputs_of(stores, None), _settings())
    proteins = outcome.tables["false_discovery_proteins"]
    assert proteins["nulls"].tolist() == [2, 2, 2]
    assert proteins["median fdr of L/2"].median() > 0.6
    table = outcome.tables["false_discovery"]
    assert table["contact"].isna().all()
    assert (
        table["residue_i"] == [sequences[int(row["protein"][1])][row["i"]] for row in table.to_dict("records")]
    ).all()


def test_best_pairs_and_the_report_have_the_same_rates(tmp_path: Path) -> None:
    """In the table, in EVcouplings' CSV and in the page's list; a store without a null map of its model has none."""
    source = np.random.default_rng(2)
    maps = [each + each.transpose(0, 2, 1) for each in source.normal(size=(4, 2, 30, 30))]
    maps[0][:, range(9), range(20, 29)] = maps[0][:, range(20, 29), range(9)] = source.normal(6, 1, (2, 9))
    kept = [{"p": {"contacts": each[0], "representation": each[1]}} for each in maps]
    written_store(tmp_path / "p.zarr", {**kept[0], "alone": {"contacts": maps[0][1]}})
    for number in (1, 2):
        written_store(tmp_path / f"n{number}.zarr", kept[number], dataset=NULL)
    written_store(tmp_path / "o.zarr", kept[3], dataset=NULL, model="another")
    stores = [tmp_path / f"{name}.zarr" for name in ("p", "n1", "o", "n2")]
    expected = {
        name: _run(inputs_of(stores, None).stores, map=name, pairs=1.0)
        .tables["false_discovery"]
        .query("protein == 'p'")
        for name in ("contacts", "representation")
    }
    chosen = composed("evaluate", "+evaluation=best_pairs")["evaluation"]
    outcome = best_pairs.evaluate(inputs_of(stores, None), best_pairs.Settings.model_validate(chosen))
    table = outcome.tables["best_pairs"]
    assert set(table["store"]) == {"p"} and table.query("protein == 'alone'")["fdr"].isna().all()
    for name, rows in expected.items():
        assert rows["fdr"].min() < 0.2 < rows["fdr"].max()
        found = table[(table["protein"] == "p") & (table["map"] == name)]
        assert found[["i", "j", "fdr"]].to_numpy().tolist() == rows[["i", "j", "fdr"]].to_numpy().tolist()
        csv = pd.read_csv(io.BytesIO(outcome.files[f"pairs/p.{name}.evcouplings.csv"]))
        np.testing.assert_allclose(csv["fdr"], rows["fdr"], rtol=1e-3)
    assert "fdr" in outcome.text and b"fdr" not in outcome.files["pairs/alone.contacts.evcouplings.csv"]
    assert (
        report({**composed("report", "store=x", f"out={tmp_path}/r.html"), "store": [str(each) for each in stores]})
        == 0
    )
    found = re.search(r'id="data">(.*?)</script>', (tmp_path / "r.html").read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    for protein in json.loads(found[1])["proteins"]:
        for name, shown in protein["maps"].items():
            rates = expected[name]["fdr"] if protein["id"] == "p" else []
            np.testing.assert_allclose(shown["fdr"], rates, rtol=1e-3)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((20, 20))
    store = written_store(tmp_path / "p.zarr", {"p": {"contacts": scores}, "q": {"contacts": scores}})
    nulls = written_store(tmp_path / "n.zarr", {"p": {"contacts": scores}}, dataset=NULL)
    other = written_store(tmp_path / "o.zarr", {"p": {"contacts": scores}}, dataset=NULL, model="another")
    with pytest.raises(EvaluationError, match="experiment=null_shuffle"):
        _run((store,))
    with pytest.raises(EvaluationError, match="none of the null stores is of its model, handmade"):
        _run((store, other))
    proteins = _run((store, nulls, other)).tables["false_discovery_proteins"].set_index("protein")
    assert proteins.loc["p", "reason"] == ""
    assert "no null store has a map of it" in proteins.loc["q", "reason"]
    assert isinstance(proteins, pd.DataFrame)
