"""Two structures of one sequence: planted maps are recognised, counts are those of brute force, the null is exact."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom
from support import SHARED, composed
from written_store import written_store

from plmjac.alphabet import AMINO_ACIDS
from plmjac.evaluate import evaluate as command
from plmjac.evaluation.base import EvaluationError, Inputs, Store
from plmjac.evaluation.conformations import BOTH, ONLY_A, ONLY_B, Settings, evaluate, two_structures
from plmjac.records import ContactList, Contacts, Protein

LENGTH = 40
SEQUENCE = "".join(np.random.default_rng(5).choice(list(AMINO_ACIDS), LENGTH))


def _settings(**changes: object) -> Settings:
    config = composed("evaluate", "+evaluation=conformations", "evaluation.a=A", "evaluation.b=B")
    assert isinstance(config["evaluation"], dict)
    return Settings.model_validate({**config["evaluation"], "maps": None, **changes})


def _structure(pairs: set[tuple[int, int]], unresolved: tuple[int, ...] = (), length: int = LENGTH) -> ContactList:
    touching = np.zeros((length, length), dtype=bool)
    for i, j in pairs:
        touching[i, j] = touching[j, i] = True
    resolved = np.ones(length, dtype=bool)
    resolved[list(unresolved)] = False
    return ContactList({("cb", 8.0): Contacts(touching, resolved)})


IN_BOTH = {(i, i + 10) for i in range(8)}
IN_A = {(i, 39 - i) for i in range(10)}
IN_B = {(i, i + 20) for i in range(3, 15)}


@pytest.fixture
def structures() -> dict[str, Protein]:
    """A and B of one sequence; residue 7 is unresolved in B."""
    return {
        "A": Protein("A", SEQUENCE, structure=_structure(IN_BOTH | IN_A)),
        "B": Protein("B", SEQUENCE, structure=_structure(IN_BOTH | IN_B, unresolved=(7,))),
    }


def _table(proteins: dict[str, Protein], store: Store, **changes: object) -> pd.DataFrame:
    return evaluate(Inputs((store,), lambda: proteins.values()), _settings(**changes)).tables["conformations"]


def _map_of(pairs: set[tuple[int, int]]) -> np.ndarray:
    """Small noise, and ten for the given pairs."""
    scores = np.random.default_rng(0).random((LENGTH, LENGTH))
    scores = scores + scores.T
    for i, j in pairs:
        scores[i, j] = scores[j, i] = 10
    return scores


def test_a_map_of_one_structure_is_recognised(structures: dict[str, Protein], tmp_path: Path) -> None:
    store = written_store(tmp_path / "p.zarr", {"p": {"contacts": _map_of(IN_A | IN_BOTH)}}, sequences={"p": SEQUENCE})
    table = _table(structures, store).set_index(["top", "class"])
    resolved_a = [pair for pair in IN_A if 7 not in pair]
    both = [pair for pair in IN_BOTH if 7 not in pair]
    assert table.loc[("L", "only A"), "contacts"] == len(resolved_a)
    assert table.loc[("L", "both"), "contacts"] == len(both)
    assert table.loc[("L", "only A"), "recall"] == 1
    assert table.loc[("L", "both"), "recall"] == 1
    assert table.loc[("L", "only A"), "precision"] == len(resolved_a) / LENGTH
    assert table.loc[("L", "only A"), "p"] < 0.01
    assert table.loc[("L", "only A"), "p of score"] < 0.01
    assert table.loc[("L", "only A"), "mean score"] > 3 > table.loc[("L", "only B"), "mean score"]


def test_counts_are_those_of_brute_force(structures: dict[str, Protein], tmp_path: Path) -> None:
    scores = _map_of(set(list(IN_A)[:4]) | set(list(IN_B)[:2]))
    store = written_store(tmp_path / "p.zarr", {"p": {"contacts": scores}}, sequences={"p": SEQUENCE})
    table = _table(structures, store).set_index(["top", "class"])
    stored = store.opened["p"].contacts
    pairs = [(i, j) for i in range(LENGTH) for j in range(i + 6, LENGTH) if 7 not in (i, j)]
    ranked = sorted(pairs, key=lambda pair: (-stored[pair], pair))
    values = np.array([stored[pair] for pair in pairs], dtype=np.float64)
    members = {"both": IN_BOTH & set(pairs), "only A": IN_A & set(pairs), "only B": IN_B & set(pairs)}
    for top, count in (("L/2", 20), ("L", 40), ("2L", 80)):
        for name, pairs_of_class in members.items():
            hits = len(pairs_of_class.intersection(ranked[:count]))
            row = table.loc[(top, name)]
            assert (row["hits"], row["contacts"]) == (hits, len(pairs_of_class))
            assert row["precision"] == pytest.approx(hits / count)
            assert row["recall"] == pytest.approx(hits / len(pairs_of_class))
            mean = np.mean([stored[pair] for pair in pairs_of_class])
            assert row["mean score"] == pytest.approx((mean - values.mean()) / values.std(), abs=1e-6)


def test_the_null_is_the_hypergeometric_one(structures: dict[str, Protein], tmp_path: Path) -> None:
    scores = _map_of(set(list(IN_A)[:6]) | set(list(IN_B)[:3]))
    store = written_store(tmp_path / "p.zarr", {"p": {"contacts": scores}}, sequences={"p": SEQUENCE})
    table = _table(structures, store, shuffles=20000).set_index(["top", "class"])
    rows = [table.loc[("L", name)] for name in ("only A", "only B")]
    total = int(sum(row["hits"] for row in rows))
    exact = hypergeom(int(sum(row["contacts"] for row in rows)), int(rows[0]["contacts"]), total)
    hits = int(rows[0]["hits"])
    expected = min(1.0, 2 * min(exact.cdf(hits), exact.sf(hits - 1)))
    assert rows[0]["p"] == pytest.approx(expected, abs=0.02)
    assert rows[1]["p"] == pytest.approx(expected, abs=0.02)
    assert rows[0]["null high"] * rows[0]["contacts"] == pytest.approx(exact.ppf(0.975), abs=1)
    assert rows[0]["null low"] * rows[0]["contacts"] == pytest.approx(exact.ppf(0.025), abs=1)


def test_structures_and_maps_of_other_sequences_are_aligned(tmp_path: Path) -> None:
    """B and the stored protein have more residues in front and a mutation; the numbers are those of the same pairs."""
    mutated = SEQUENCE[:30] + ("A" if SEQUENCE[30] != "A" else "V") + SEQUENCE[31:]
    shifted = _structure({(i + 3, j + 3) for i, j in IN_B | IN_BOTH}, length=LENGTH + 3)
    structures = {
        "A": Protein("A", SEQUENCE, structure=_structure(IN_A | IN_BOTH)),
        "B": Protein("B", "MGS" + mutated, structure=shifted),
    }
    _, both = two_structures(structures, _settings())
    assert {(i, j) for i, j in zip(*np.nonzero(both.pairs(ONLY_B)), strict=True) if i < j} == IN_B
    assert {(i, j) for i, j in zip(*np.nonzero(both.pairs(ONLY_A)), strict=True) if i < j} == IN_A
    assert {(i, j) for i, j in zip(*np.nonzero(both.pairs(BOTH)), strict=True) if i < j} == IN_BOTH
    scores = np.zeros((LENGTH + 3, LENGTH + 3))
    scores[3:, 3:] = _map_of(IN_B)
    arrays = {"p": {"contacts": scores}, "other": {"contacts": np.zeros((30, 30))}}
    store = written_store(tmp_path / "p.zarr", arrays, sequences={"p": "MGS" + mutated})
    table = _table(structures, store)
    assert set(table["protein"]) == {"p"}
    assert table.set_index(["top", "class"]).loc[("L", "only B"), "recall"] == 1


def test_what_cannot_be_compared_is_said(structures: dict[str, Protein], tmp_path: Path) -> None:
    store = written_store(tmp_path / "p.zarr", {"p": {"contacts": np.zeros((30, 30))}})
    table = _table(structures, store)
    assert table["reason"].tolist() == ["no protein of the store has 80% of the residues of A"]
    inputs = Inputs((store,), lambda: structures.values())
    with pytest.raises(EvaluationError, match=r"evaluation.b=C: the dataset has no such record; there are: A, B"):
        evaluate(inputs, _settings(b="C"))
    with pytest.raises(EvaluationError, match="nothing to score"):
        evaluate(Inputs((), lambda: structures.values()), _settings())
    with pytest.raises(EvaluationError, match=r"clusters has no effect without evaluation\.alignment"):
        evaluate(inputs, _settings(clusters=3))
    with pytest.raises(EvaluationError, match=r"evaluation\.a and evaluation\.b are both A"):
        evaluate(inputs, _settings(b="A"))
    other = {**structures, "B": Protein("B", SEQUENCE[::-1], structure=_structure(IN_B))}
    with pytest.raises(EvaluationError, match=r"residues are those of A, below evaluation.min_identity=0.8"):
        evaluate(Inputs((store,), lambda: other.values()), _settings())


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/kaib")
def test_kaib_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole family prefers the fold-switched structure: 5JYT has far more of its own contacts among the top."""
    data = SHARED / "kaib"
    config = composed(
        "evaluate", "+evaluation=conformations", "+dataset=pdb", f"dataset.path={data}", "evaluation.a=2qkeE_E",
        "evaluation.b=5jytA_A", f"evaluation.alignment={data / '2QKEE_colabfold.a3m'}", "evaluation.maps=null",
        "evaluation.methods=[inverse_covariance]", "evaluation.max_sequences=2000", f"out={tmp_path}",
    )  # fmt: skip
    assert command(config) == 0
    assert "both 53, only A 99, only B 102" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "conformations.parquet").set_index(["top", "class"])
    assert table.loc[("L", "only B"), "recall"] > table.loc[("L", "only A"), "recall"]
    assert (tmp_path / "conformations.png").stat().st_size > 10_000
