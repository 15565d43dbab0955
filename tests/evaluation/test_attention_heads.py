"""From the maps of every head to a choice of a few, and from that to a stored map: each step against plain loops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import SHARED, composed

from plmjac.alphabet import encode
from plmjac.attention import HeadChoice, attention_map, attention_scores, read_heads
from plmjac.config import UsageError
from plmjac.datasets.demo import DemoDataset
from plmjac.evaluate import evaluate
from plmjac.evaluation.attention_heads import best_heads, spread_over_lengths
from plmjac.models import load_model
from plmjac.store import open_store, verify

Predict = Callable[..., int]
IDS = ["1GUU_A", "1BXY_A", "2O9S_A"]
SMALL = ("+dataset=demo", f"dataset.ids=[{','.join(IDS)}]", "model=debug", "threads=1")


def brute_map(attention: np.ndarray) -> np.ndarray:
    """One head's contact map by the words of the paper: mean with the transpose, APC, zero diagonal."""
    length = len(attention)
    mean = (attention.astype(np.float64) + attention.T) / 2
    return np.array(
        [
            [0.0 if i == j else mean[i, j] - mean[i].sum() * mean[:, j].sum() / mean.sum() for j in range(length)]
            for i in range(length)
        ]
    )


def brute_precision(scores: np.ndarray, pairs: np.ndarray, low: int, top: int) -> float:
    """P@top of the pairs i < j at least `low` apart, ties in their order."""
    length = len(scores)
    ranked = sorted((-scores[i, j], i, j) for i in range(length) for j in range(i + low, length))
    return float(np.mean([pairs[i, j] for _, i, j in ranked[:top]]))


def test_scores_of_a_head_are_as_the_paper_makes_them() -> None:
    maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = np.array([brute_map(each.numpy()) for each in maps])
    np.testing.assert_allclose(attention_scores(maps), expected, atol=1e-6)
    np.testing.assert_allclose(attention_map(maps), expected.mean(axis=0), atol=1e-6)
    assert torch.equal(attention_map(maps), attention_map(maps).T)


def test_ties_are_ranked_in_the_order_of_the_heads() -> None:
    assert best_heads(np.array([[0.1, 0.3], [0.3, 0.2]])) == [(0, 1), (1, 0), (1, 1), (0, 0)]


def test_proteins_are_spread_over_the_lengths_as_in_the_paper() -> None:
    if not SHARED.is_dir():
        pytest.skip("the real data beside the project (../shared/data) are not here")
    split = json.loads((SHARED / "cameo_pta" / "cameo_pta_split.json").read_text())
    names = [key for key in split if "select" in key.lower()]
    text = (SHARED / "cameo_pta" / "sequences.fasta").read_text()
    records = [record.split("\n", 1) for record in text.split(">")[1:]]
    lengths = [(len(sequence.replace("\n", "")), header.split()[0]) for header, sequence in records]
    long = [each for each in lengths if each[0] >= 75]
    assert len(long) == 39
    assert sorted(spread_over_lengths(long, 10)) == sorted(split[names[0]])
    assert spread_over_lengths([(5, "b"), (3, "a")], 7) == ["a", "b"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


def heads_file(predict: Predict, folder: Path) -> Path:
    """Store the maps of every head of the debug model, once, and choose five heads."""
    store = folder / "heads.zarr"
    if not store.exists():
        assert predict(*SMALL, "keep=attention_heads", "substitutions=none", f"store={store}") == 0
        chosen = ("evaluation.k=5", "evaluation.sweep=[1,3,8,20]", "evaluation.range=all")
        assert evaluate(composed("evaluate", "+evaluation=attention_heads", f"store={store}", *chosen)) == 0
    return folder / "heads.zarr-evaluation" / "attention_heads.json"


def test_every_number_is_the_brute_force(predict: Predict, stores: Path) -> None:
    file = heads_file(predict, stores)
    document, opened = json.loads(file.read_text()), open_store(stores / "heads.zarr")
    truth = {protein.id: protein.structure.contacts("cb", 8.0) for protein in DemoDataset(ids=IDS)}  # type: ignore[union-attr]
    plain, stored, precision = load_model("debug", fast=False), {}, {}
    for name in IDS:
        length, tokens = len(opened[name]), torch.from_numpy(encode(opened[name].sequence))
        assert truth[name].resolved.all()
        stored[name] = opened[name].array("attention_heads")
        assert stored[name].shape == (2, 4, length, length) and stored[name].dtype == np.float16
        attention = plain.read(tokens[None], ["attention"])["attention"][0].numpy()
        expected = [[brute_map(each) for each in layer] for layer in attention]
        np.testing.assert_allclose(stored[name], expected, atol=1e-3)
        precision[name] = [
            [brute_precision(each, truth[name].pairs, 6, length // 2) for each in layer] for layer in stored[name]
        ]
    mean = np.mean(list(precision.values()), axis=0)
    order = sorted((-mean[place], place) for place in np.ndindex(2, 4))
    assert [(layer, head) for layer, head, _ in document["heads"]] == [place for _, place in order[:5]]
    assert [score for *_, score in document["heads"]] == pytest.approx([-score for score, _ in order[:5]])
    assert (document["k"], document["model"], document["proteins"]) == (5, "debug", sorted(IDS))
    sweep = pd.read_parquet(file.parent / "attention_sweep.parquet").set_index("k")["P@L/2"]
    assert sorted(sweep.index) == [1, 3, 8]  # there are eight heads, not twenty
    for k in sweep.index:
        maps = {name: np.mean([stored[name][at].astype(np.float32) for _, at in order[:k]], axis=0) for name in IDS}
        each = [brute_precision(maps[name], truth[name].pairs, 6, len(maps[name]) // 2) for name in IDS]
        assert sweep[k] == pytest.approx(np.mean(each))


def test_predict_stores_the_mean_map_of_the_chosen_heads(predict: Predict, stores: Path, tmp_path: Path) -> None:
    file, store = heads_file(predict, stores), tmp_path / "s.zarr"
    arguments = (*SMALL, "substitutions=none", "keep=[attention,contact_head]", f"store={store}")
    assert predict(*arguments, f"heads={file}") == 0
    opened, plain = open_store(store), load_model("debug", fast=False)
    chosen = read_heads(file, plain.weights_sha256, "debug").heads
    assert opened.attributes["heads"] == [list(head) for head in chosen]
    for name in IDS:
        tokens = torch.from_numpy(encode(opened[name].sequence))
        attention = plain.read(tokens[None], ["attention"])["attention"][0].numpy()
        expected = np.mean([brute_map(attention[head]) for head in chosen], axis=0)
        np.testing.assert_allclose(opened[name].array("attention"), expected, atol=1e-5)
    assert not any(damage for _, damage in verify(opened, deep=True))
    other = tmp_path / "other.json"
    document = json.loads(file.read_text())
    other.write_text(json.dumps({**document, "k": 2, "heads": document["heads"][:2]}))
    with pytest.raises(UsageError, match="heads"):  # another choice is another store
        predict(*arguments, f"heads={other}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keep=[contacts,attention]"], "heads=FILE.json"),
        (["keep=contacts", "heads=x.json"], "add attention to keep"),
        (["keep=[contacts,attention,attention_heads]", "heads=x.json"], "not both"),
        (["keep=[contacts,attention]", "heads=nowhere.json"], "cannot be read .*evaluation=attention_heads"),
        (["keep=[contacts,attention]", "heads=FILE", "model.seed=1"], "chosen for debug with weights"),
        (["keep=[contacts,attention]", "heads=BROKEN"], "no choice of attention heads"),
        (["keep=logits"], "substitutions=none"),
        (["keep=contacts", "substitutions=none"], "makes no mutants, and contacts need them"),
    ],
)
def test_what_does_not_fit_says_what_to_do(
    predict: Predict, stores: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"kind": "plmjac attention heads"}')
    files = {"heads=FILE": f"heads={heads_file(predict, stores)}", "heads=BROKEN": f"heads={broken}"}
    with pytest.raises(UsageError, match=words):
        predict(*SMALL, f"store={tmp_path / 's.zarr'}", *(files.get(each, each) for each in arguments))


def test_some_proteins_are_held_out(predict: Predict, stores: Path, tmp_path: Path) -> None:
    heads_file(predict, stores)
    keys: dict[str, Any] = {"k": 2, "sweep": "[2]", "range": "all", "select": "[1GUU_A]"}
    job = ["+evaluation=attention_heads", f"store={stores / 'heads.zarr'}", f"out={tmp_path}"]
    assert evaluate(composed("evaluate", *job, *(f"evaluation.{key}={value}" for key, value in keys.items()))) == 0
    sweep = pd.read_parquet(tmp_path / "attention_sweep.parquet")
    assert dict(zip(sweep["set"], sweep["n"], strict=True)) == {"chosen on": 1, "held out": 2}
    assert json.loads((tmp_path / "attention_heads.json").read_text())["proteins"] == ["1GUU_A"]
    for key, value, words in (("select", "[nobody]", "no protein nobody"), ("k", 9, "has 8 heads")):
        wrong = {**keys, key: value}
        with pytest.raises(UsageError, match=words):
            evaluate(composed("evaluate", *job, *(f"evaluation.{name}={each}" for name, each in wrong.items())))


def test_a_choice_survives_its_file(tmp_path: Path) -> None:
    choice = HeadChoice("tiny", "abc", ((2, 3), (0, 1)), (0.5, 0.25), ("p", "q"), {"range": "long"})
    (tmp_path / "heads.json").write_bytes(choice.to_json())
    assert read_heads(tmp_path / "heads.json", "abc", "tiny") == choice
    with pytest.raises(ValueError, match="each once"):
        HeadChoice("tiny", "abc", ((0, 1), (0, 1)), (0.5, 0.5))
