"""Approximate maps against the full one: each number by a brute force, and a reason for each that cannot be."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plmjac.datasets import build
from plmjac.evaluation.approximations import Settings, evaluate
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.plots import save
from plmjac.records import Protein
from plmjac.store import open_store

KINDS = {"all": [], "mask": [], "subset": ["substitutions.k=2", "substitutions.choose=GK"]}
IDS = ("1GUU_A", "1BXY_A")


@pytest.fixture
def stores(predict: Callable[..., int], tmp_path: Path) -> dict[str, Store]:
    """Two domains of the demo under the debug model; the mask-only store has one of them."""
    made = {}
    for name, keys in KINDS.items():
        ids = ",".join(IDS if name != "mask" else IDS[:1])
        path = tmp_path / f"{name}.zarr"
        assert predict(
            "+dataset=demo", f"dataset.ids=[{ids}]", "model=debug", "threads=1", f"substitutions={name}", *keys,
            f"store={path}",
        ) == 0  # fmt: skip
        made[name] = Store(name, open_store(path))
    return made


def outcome(stores: list[Store], truth: dict[str, Protein], **changes: object) -> Outcome:
    keys = {"name": "approximations", "atom": "cb", "cutoff": 8.0, "range": "medium", "bootstrap": 200, "seed": 0}
    return evaluate(Inputs(tuple(stores), truth.values), Settings.model_validate({**keys, **changes}))


def test_every_number_is_the_brute_force(stores: dict[str, Store], tmp_path: Path) -> None:
    truth = {protein.id: protein for protein in build("demo") if isinstance(protein, Protein)}
    found = outcome([stores["mask"], stores["subset"], stores["all"]], truth)
    table = found.tables["approximations"].set_index(["store", "protein"])
    assert len(table) == 6
    assert table.loc[("mask", "1BXY_A"), "reason"] == "not in mask"
    for (name, identifier), row in table[table["forwards"].notna()].iterrows():
        some, full = (stores[kind].opened[identifier].contacts.tolist() for kind in (name, "all"))
        sequence = stores["all"].opened[identifier].sequence
        contacts = truth[identifier].structure.contacts("cb", 8.0)  # type: ignore[union-attr]
        length = len(sequence)
        each = {"all": 19 * length, "mask": length, "subset": 2 * length - sequence.count("G") - sequence.count("K")}
        assert row["forwards"] == 1 + each[name]
        pairs = [(i, j) for i in range(length) for j in range(i + 12, min(length, i + 24))]
        ours, theirs = ([scores[i][j] for i, j in pairs] for scores in (some, full))
        assert row["pearson"] == pytest.approx(np.corrcoef(ours, theirs)[0, 1], abs=1e-6)
        tops = [
            set(sorted(pairs, key=lambda pair: -scores[pair[0]][pair[1]])[: length // 2]) for scores in (some, full)
        ]  # fmt: skip
        assert row["overlap"] == pytest.approx(len(tops[0] & tops[1]) / (length // 2))
        known = [pair for pair in pairs if contacts.resolved[list(pair)].all()]
        precisions = []
        for scores in (some, full):
            best = sorted(known, key=lambda pair: -scores[pair[0]][pair[1]])[: length // 2]
            precisions.append(sum(bool(contacts.pairs[pair]) for pair in best) / len(best))
        assert row["P@L/2"] == pytest.approx(precisions[0])
        assert row["loss"] == pytest.approx(precisions[1] - precisions[0])
    same = table.loc["all"]
    assert (same["overlap"] == 1).all() and (same["loss"] == 0).all() and np.allclose(same["pearson"], 1)
    costs = found.tables["approximations_summary"].set_index("store")
    assert costs.loc["all", "fewer"] == 1 and 9 < costs.loc["subset", "fewer"] < 11 and costs.loc["mask", "fewer"] > 18
    assert costs.loc["subset", "loss"] == pytest.approx(table.loc["subset", "loss"].mean())
    assert costs.loc["subset", ["loss_low", "loss_high"]].isna().all()  # too few proteins for an interval
    assert "not in mask" in found.text
    save(found.figures["approximations"](), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_what_cannot_be_scored_has_a_reason(stores: dict[str, Store]) -> None:
    table = outcome([stores["all"], stores["subset"]], {}).tables["approximations"]
    assert (table["reason"] == "no structure to compare with").all() and table["loss"].isna().all()
    assert table["pearson"].notna().all()
    long = outcome([stores["all"], stores["subset"]], {}, range="long").tables["approximations_summary"]
    assert math.isnan(long["loss"].iloc[1])


def test_stores_that_do_not_belong_together_are_refused(
    stores: dict[str, Store], predict: Callable[..., int], tmp_path: Path
) -> None:
    for wrong in ([stores["all"]], [stores["mask"], stores["subset"]], [stores["all"], stores["all"]], []):
        with pytest.raises(EvaluationError, match="store"):
            outcome(wrong, {})
    other = tmp_path / "other.zarr"
    assert predict(
        "+dataset=demo", "dataset.ids=[1GUU_A]", "model=debug", "seed=1", "substitutions=mask", f"store={other}"
    ) == 0  # fmt: skip
    with pytest.raises(EvaluationError, match="another model"):
        outcome([stores["all"], Store("other", open_store(other))], {})
