"""Every page of CONTRIBUTING.md: the code on it is run as it stands, and what it adds works."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from support import ROOT

import plmjac
from plmjac.datasets import DATASETS
from plmjac.evaluation.base import Evaluation
from plmjac.evaluation.inputs import inputs_of
from plmjac.inference.tasks import TASKS
from plmjac.models import load_model, registry
from plmjac.readouts import READOUTS
from plmjac.schedules import Schedule
from plmjac.store import open_store, verify

Predict = Callable[..., int]
Page = Callable[[str], dict[str, Any]]
PAGES = dict(re.findall(r"^## Add an? (\w+)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S))


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    with patch.dict(READOUTS), patch.dict(DATASETS), patch.dict(TASKS):
        yield


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs the Python of a page, each block as a module, and gives the names that the first has."""
    return lambda name: run(name, monkeypatch)


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    modules = []
    for code in re.findall(r"```python\n(.*?)```", PAGES[name], re.S):
        modules.append(ModuleType(f"page_{name}"))
        monkeypatch.setitem(sys.modules, modules[-1].__name__, modules[-1])  # where pydantic looks names up
        exec(compile(code, "CONTRIBUTING.md", "exec"), vars(modules[-1]))
    return vars(modules[0])


def test_there_is_a_page_for_each() -> None:
    assert set(PAGES) == {"model", "readout", "dataset", "schedule", "evaluation"}


def test_a_model_conforms_and_runs(page: Page, predict: Predict, fasta: Path, tmp_path: Path) -> None:
    page("model")
    store = tmp_path / "a.zarr"
    assert predict(
        "+dataset=fasta", f"dataset.path={fasta}", "model=neighbours", "model.strength=2", "threads=1",
        f"store={store}", "keep=[contacts,jacobian]",
    ) == 0  # fmt: skip
    opened = open_store(store)
    assert opened.attributes["model"]["strength"] == 2
    jacobian = plmjac.categorical_jacobian(load_model("neighbours", strength=2), opened["d"].sequence)
    np.testing.assert_allclose(opened["d"].jacobian, jacobian, atol=1e-2)
    assert float(jacobian[3, :, 6].abs().max()) == 0 < float(jacobian[3, :, 4].abs().max())


def test_a_readout_of_a_dataset_by_an_evaluation(page: Page, predict: Predict, tmp_path: Path) -> None:
    page("readout"), page("dataset")
    store = tmp_path / "a.zarr"
    assert predict(
        "+dataset={name:repeats,unit:AEKLG}", "model=debug", "threads=1", f"store={store}",
        "keep=[contacts,jacobian,strongest]",
    ) == 3  # fmt: skip
    opened = open_store(store)
    assert list(opened) == ["AEKLG_1", "AEKLG_2", "AEKLG_3"]
    assert [row.reason for row in opened.rows if row.status == "failed"] == ["no copy is no protein"]
    protein = opened["AEKLG_3"]
    np.testing.assert_allclose(protein.strongest, np.abs(protein.jacobian.astype("f4")).max(axis=(1, 3)), rtol=1e-3)
    assert not any(damages for _, damages in verify(opened, deep=True))
    module = ModuleType("best_pair")
    vars(module).update(page("evaluation"))
    assert isinstance(module, Evaluation)
    outcome = module.evaluate(inputs_of([store], None), module.Settings(name="best_pair", min_separation=6))
    assert outcome.scored == 3 and not outcome.figures
    row = outcome.tables["best_pair"].iloc[2]
    assert row["score"] == protein.contacts[row["i"], row["j"]] == np.triu(protein.contacts, 6).max()


def test_a_schedule(page: Page, predict: Predict, tmp_path: Path) -> None:
    made = page("schedule")["FromStart"]
    assert isinstance(made(name="from_start", stride=1, max_step=None), Schedule)
    store = tmp_path / "a.zarr"
    keys = ["segments.size=12", "segments.margin=3", "segments.threshold=0", "segments.per_protein=1"]
    assert predict(
        "+dataset=demo", "dataset.ids=[1GUU_A]", "model=debug", "threads=1", *keys, "schedule=flanking",
        "schedule.name=from_start", "~schedule.direction", "schedule.stride=4", f"store={store}",
    ) == 0  # fmt: skip
    protein = open_store(store)["1GUU_A"]
    start, stop, *_ = protein.segments[0]
    assert protein.step.tolist() == list(range(0, start + 1, 4)) and protein.outcomes == ("the segment is reached",)
    for step, shown in zip(protein.step, protein.visible, strict=True):
        assert np.flatnonzero(shown).tolist() == sorted({*range(step), *range(start, stop)})
