"""The correlation against loops and scipy, on a store and alignments made for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from written_store import written_store

from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution import coupling_map, inverse_covariance, read_alignment
from plmjac.evaluation.base import EvaluationError, Inputs, Store
from plmjac.evaluation.coupling_correlation import Settings, evaluate
from plmjac.plots import save

LENGTH = 14


def settings(folder: Path, **changes: Any) -> Settings:
    keys = {"alignments": folder, "queries": None, "max_sequences": None, "min_identity": 0.9, "memory_limit": 1,
            "sigmas": [0, 1, 2], "protein": None, "pair": None, "bootstrap": 50, "seed": 0}  # fmt: skip
    return Settings.model_validate({"name": "coupling_correlation", **keys, **changes})


def family(path: Path, seed: int) -> str:
    """An alignment of 80 sequences of a few letters, some pairs of columns alike; returns the first sequence."""
    generator = np.random.default_rng(seed)
    states = generator.integers(0, 4, (80, LENGTH))
    states[:, 9] = states[:, 2]
    states[:, 12] = np.where(generator.random(80) < 0.8, states[:, 4], states[:, 12])
    rows = ["".join("AVKE"[state] for state in row) for row in states]
    path.write_text("".join(f">{number}\n{row}\n" for number, row in enumerate(rows)))
    return rows[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Alignments of one and two, the second with a residue before the columns in the store; and a short one."""
    folder = tmp_path / "msa"
    folder.mkdir()
    return folder


def jacobian_of(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, 20, length, 20)).astype(np.float16)


def centred(jacobian: np.ndarray) -> np.ndarray:
    values = jacobian.astype(np.float64)
    for axis in range(4):
        values = values - values.mean(axis=axis, keepdims=True)
    return (values + values.transpose(2, 3, 0, 1)) / 2


def by_loops(jacobian: np.ndarray, covariance: np.ndarray, sigma: float) -> tuple[float, int]:
    """Science of the paper, pair by pair: top L by APC score, couplings above sigma, Spearman."""
    scores = coupling_map(covariance)
    pairs = sorted((-scores[i, j], i, j) for i in range(LENGTH) for j in range(i + 1, LENGTH))[:LENGTH]
    both = [(covariance[i, a, j, b], jacobian[i, a, j, b]) for _, i, j in pairs for a in range(20) for b in range(20)]
    root = np.sqrt(np.mean([theirs**2 for theirs, _ in both]))
    kept = [(theirs, ours) for theirs, ours in both if abs(theirs) > sigma * root]
    return float(spearmanr(*zip(*kept, strict=True)).statistic), len(kept)


def two(tmp_path: Path, folder: Path) -> Store:
    one, other = family(folder / "one.a3m", 0), family(folder / "two.a3m", 1)
    arrays = {
        "one": {"contacts": np.zeros((LENGTH, LENGTH)), "jacobian": jacobian_of(LENGTH, 3)},
        "two": {"contacts": np.zeros((LENGTH + 1, LENGTH + 1)), "jacobian": jacobian_of(LENGTH + 1, 4)},
        "mask": {"contacts": np.zeros((LENGTH, LENGTH)), "jacobian": jacobian_of(LENGTH, 5)[:, :1]},
        "map": {"contacts": np.zeros((LENGTH, LENGTH))},
        "orphan": {"contacts": np.zeros((LENGTH, LENGTH)), "jacobian": jacobian_of(LENGTH, 6)},
        "other_family": {"contacts": np.zeros((LENGTH, LENGTH)), "jacobian": jacobian_of(LENGTH, 7)},
    }
    family(folder / "mask.a3m", 0)
    family(folder / "other_family.a3m", 5)
    sequences = {"one": one, "two": "W" + other, "mask": one, "other_family": "W" * 8 + one[:6]}
    return written_store(tmp_path / "run.zarr", arrays, sequences=sequences)


def test_every_correlation_is_the_one_by_loops(tmp_path: Path, folder: Path) -> None:
    store = two(tmp_path, folder)
    outcome = evaluate(Inputs((store,), lambda: []), settings(folder, pair=[5, 3], protein="two"))
    table = outcome.tables["coupling_correlation"]
    for name, start in (("one", 0), ("two", 1)):
        ours = centred(store.opened[name].jacobian)[start:, :, start:]
        theirs = inverse_covariance(read_alignment(folder / f"{name}.a3m"))
        for row in table[table["protein"] == name].to_dict("records"):
            rho, count = by_loops(ours, theirs, row["sigma"])
            assert row["spearman"] == pytest.approx(rho, abs=2e-5) and row["couplings"] == count
            assert row["columns"] == LENGTH and row["identity"] == 1.0 and row["sequences"] == 80
    assert len(table.dropna(subset="spearman")) == 2 * 3
    reasons = table[table["spearman"].isna()].set_index("protein")["reason"].to_dict()
    assert set(reasons) == {"mask", "map", "orphan", "other_family"}
    assert "substitutions=all" in reasons["mask"] and "keep=[contacts,jacobian]" in reasons["map"]
    assert "no alignment" in reasons["orphan"] and "min_identity" in reasons["other_family"]
    assert all(f"not scored: {name}" in outcome.text for name in reasons)
    means = outcome.tables["coupling_correlation_summary"].set_index("sigma")
    assert means.loc[1, "mean"] == pytest.approx(table[table["sigma"] == 1]["spearman"].mean())
    block = outcome.tables["pair"]
    a, b = AMINO_ACIDS.index("K"), AMINO_ACIDS.index("E")
    row = block[(block["first"] == "K") & (block["second"] == "E")].iloc[0]
    assert row["jacobian"] == pytest.approx(store.opened["two"].couplings(5, 3)[a, b], abs=1e-5)
    assert row["inverse covariance"] == pytest.approx(
        inverse_covariance(read_alignment(folder / "two.a3m"))[4, a, 2, b]
    )
    for name, draw in outcome.figures.items():
        save(draw(), tmp_path / f"{name}.png")
    assert set(outcome.figures) == {"coupling_correlation", "pair"}


def test_the_sign_matters(tmp_path: Path, folder: Path) -> None:
    """A store whose Jacobian is the inverse covariance, but for its gauge: near 1; with the other sign, minus that."""
    sequence = family(folder / "one.a3m", 0)
    family(folder / "minus.a3m", 0)
    couplings = inverse_covariance(read_alignment(folder / "one.a3m"))
    gauge = centred(couplings)
    arrays = {name: {"jacobian": sign * gauge} for name, sign in (("one", 1), ("minus", -1))}
    store = written_store(tmp_path / "run.zarr", arrays, sequences=dict.fromkeys(arrays, sequence))
    table = evaluate(Inputs((store,), lambda: []), settings(folder, sigmas=[2])).tables["coupling_correlation"]
    rho = table.set_index("protein")["spearman"]
    assert rho["one"] > 0.8 and rho["minus"] == pytest.approx(-rho["one"], abs=1e-3)


def test_what_cannot_be_done_is_a_sentence(tmp_path: Path, folder: Path) -> None:
    store = two(tmp_path, folder)
    with pytest.raises(EvaluationError, match="does not exist"):
        evaluate(Inputs((store,), lambda: []), settings(tmp_path / "nowhere"))
    for pair in ([0, 5], [3, 3], [3, 99]):
        with pytest.raises(EvaluationError, match="counted from 0; the columns hold 1 to 14"):
            evaluate(Inputs((store,), lambda: []), settings(folder, protein="two", pair=pair))
    with pytest.raises(EvaluationError, match=r"protein has no effect without evaluation\.pair"):
        evaluate(Inputs((store,), lambda: []), settings(folder, protein="two"))
    with pytest.raises(EvaluationError, match="none of the stores"):
        evaluate(Inputs((store,), lambda: []), settings(folder, protein="9ABC", pair=[1, 2]))
    maps = written_store(tmp_path / "maps.zarr", {"one": {"contacts": np.zeros((9, 9))}})
    outcome = evaluate(Inputs((maps,), lambda: []), settings(folder))
    assert outcome.scored == 0 and "not kept; run predict with keep=[contacts,jacobian]" in outcome.text
