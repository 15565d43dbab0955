"""The paper's number to the last digit, and planted couplings found among noise."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_store import written_store

from plmjac.evaluation.base import Inputs
from plmjac.evaluation.capacity import Settings, above_noise, evaluate, full_capacity, sparse_capacity
from plmjac.plots import save


def settings(**changes: Any) -> Settings:
    keys = {"families": 20_000, "length": 256, "states": 20, "contacts_per_position": 4, "min_separation": 6,
            "false_discovery_rate": 0.05, "bootstrap": 50, "seed": 0}  # fmt: skip
    return Settings.model_validate({"name": "capacity", **keys, **changes})


def test_the_papers_numbers() -> None:
    assert full_capacity(20_000, 256) == 261_120_000_000
    assert sparse_capacity(20_000, 256) == 4.096e9
    pairs = sum(1 for i in range(30) for j in range(30) if i < j)
    assert full_capacity(7, 30, 5) == 7 * pairs * 25
    outcome = evaluate(Inputs((), lambda: []), settings())
    assert "261,120,000,000" in outcome.text and "4,096,000,000" in outcome.text
    assert set(outcome.tables) == {"capacity"} and set(outcome.figures) == {"capacity"}


def test_above_noise_is_benjamini_and_hochberg() -> None:
    from scipy.stats import false_discovery_control

    generator = np.random.default_rng(0)
    noise, values = (
        generator.normal(size=5000),
        np.concatenate([generator.normal(size=300), generator.normal(4, 1, 40)]),
    )
    p = np.array([(1 + (noise >= value).sum()) / 5001 for value in values])
    expected = false_discovery_control(p) <= 0.05
    assert np.array_equal(above_noise(values, noise, 0.05), expected) and 20 < expected.sum() < 50
    assert not above_noise(np.zeros(10), np.zeros(0), 0.05).any()


def planted(length: int, number: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """A map and a Jacobian of noise, with `number` strong pairs of 40 strong couplings each, which centring leaves."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(length, length))
    i, j = np.triu_indices(length, 6)
    chosen = generator.choice(len(i), number, replace=False)
    pairs = [(int(i[k]), int(j[k])) for k in chosen]
    jacobian = generator.normal(size=(length, 20, length, 20))
    for a, b in pairs:
        noise[a, b] = noise[b, a] = 30
        strong = np.zeros((20, 20))
        for k in range(10):  # ten squares of which rows and columns add up to zero
            strong[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = 15 * generator.choice([-1, 1]) * np.array([[1, -1], [-1, 1]])
        jacobian[a, :, b, :] += strong
        jacobian[b, :, a, :] += strong.T
    return np.triu(noise, 1) + np.triu(noise, 1).T, jacobian, pairs


def test_planted_couplings_are_counted(tmp_path: Path) -> None:
    contacts, jacobian, _ = planted(40, 60, 1)
    nothing, quiet, _ = planted(40, 0, 2)
    store = written_store(
        tmp_path / "run.zarr",
        {
            "planted": {"contacts": contacts, "jacobian": jacobian},
            "noise": {"contacts": nothing, "jacobian": quiet},
            "flat": {"contacts": np.zeros((40, 40)), "jacobian": np.zeros((40, 20, 40, 20))},
            "maps_only": {"contacts": contacts},
            "mask": {"contacts": contacts, "jacobian": jacobian[:, :1]},
            "short": {"contacts": np.zeros((12, 12))},
            "again": {"contacts": contacts},
        },
    )
    outcome = evaluate(Inputs((store,), lambda: []), settings())
    found = outcome.tables["couplings_above_noise"].set_index("protein")
    assert 60 <= found.loc["planted", "pairs above noise"] <= 66
    assert 60 * 40 <= found.loc["planted", "couplings above noise"] <= 60 * 40 * 1.1
    assert found.loc["noise", "pairs above noise"] == 0 and found.loc["noise", "couplings above noise"] == 0
    assert found.loc["flat", "pairs above noise"] == 0
    assert found.loc["maps_only", "pairs above noise"] == found.loc["planted", "pairs above noise"]
    assert np.isnan(found.loc["maps_only", "couplings above noise"]) and "not kept" in found.loc["maps_only", "reason"]
    assert "1 substitutions of 20" in found.loc["mask", "reason"] and "fewer than 50" in found.loc["short", "reason"]
    assert np.isnan(found.loc["short", "pairs above noise"])
    mean = found["pairs / residue"].mean()
    estimates = outcome.tables["capacity"].set_index("estimate")["parameters"]
    assert estimates["measured pairs, run"] == pytest.approx(20_000 * 256 * mean * 400)
    assert "not scored: short" in outcome.text and "measured pairs, run" in outcome.text
    save(outcome.figures["capacity"](), tmp_path / "capacity.png")
    assert (tmp_path / "capacity.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("model", "count", "said"), [("tiny", 8, "knows no others"), ("other", 5, "5 proteins say nothing")]
)
def test_nothing_is_concluded_from_too_little(model: str, count: int, said: str, tmp_path: Path) -> None:
    contacts, _, _ = planted(40, 60, 1)
    arrays = {f"p{number}": {"contacts": contacts} for number in range(count)}
    outcome = evaluate(Inputs((written_store(tmp_path / "run.zarr", arrays, model=model),), lambda: []), settings())
    assert set(outcome.tables["capacity"]["estimate"]) == {"full", "sparse"}
    assert "no estimate from run: " in outcome.text and said in outcome.text and outcome.scored == count


def test_a_measured_estimate_has_two_digits_and_an_interval(tmp_path: Path) -> None:
    arrays = {f"p{number}": {"contacts": planted(40, 40 + 5 * number, number)[0]} for number in range(7)}
    outcome = evaluate(Inputs((written_store(tmp_path / "run.zarr", arrays),), lambda: []), settings())
    row = outcome.tables["capacity"].set_index("estimate").loc["measured pairs, run"]
    assert 0 < row["low"] < row["parameters"] < row["high"]
    shown = re.search(r"([0-9,]+) \[([0-9,]+), ([0-9,]+)\]", outcome.text)
    assert shown and all(len(each.replace(",", "").rstrip("0")) <= 2 for each in shown.groups())
