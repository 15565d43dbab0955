"""The baselines scored beside a store: the same residues and pairs for all, a reason for what is missing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import SHARED, composed
from written_store import written_store

from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution import coevolution
from plmjac.coevolution.baselines import BASELINES
from plmjac.evaluate import evaluate as command
from plmjac.evaluation.base import EvaluationError, Inputs, Store
from plmjac.evaluation.linear_baselines import MEASURES, Settings, evaluate
from plmjac.records import Coordinates, Protein

CORE, FLANK = 40, "MMKKM"
RNG = np.random.default_rng(0)


def _settings(alignments: Path, **changes: object) -> Settings:
    config = composed("evaluate", "+evaluation=linear_baselines", f"evaluation.alignments={alignments}")
    assert isinstance(config["evaluation"], dict)
    return Settings.model_validate({**config["evaluation"], "maps": None, "bootstrap": 10, **changes})


def _protein(identifier: str, sequence: str) -> Protein:
    """A random coil of 3.8 A steps, one residue of it unresolved."""
    steps = np.random.default_rng(len(sequence)).normal(size=(len(sequence), 3))
    xyz = np.cumsum(2.5 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)
    xyz[20] = np.nan
    return Protein(identifier, sequence, structure=Coordinates(xyz, xyz))


@pytest.fixture
def family(tmp_path: Path) -> tuple[Path, Protein, np.ndarray]:
    """A folder with one alignment, a protein with flanks around its columns, and the alignment's states."""
    states = RNG.integers(0, 20, (60, CORE)).astype(np.int8)
    rows = ["".join(AMINO_ACIDS[state] for state in row) for row in states]
    folder = tmp_path / "alignments"
    folder.mkdir()
    (folder / "P1.a3m").write_text("".join(f">s{n}\n{row}\n" for n, row in enumerate(rows)), encoding="utf-8")
    return folder, _protein("P1", FLANK + rows[0] + FLANK), states


def _table(folder: Path, proteins: list[Protein], stores: tuple[Store, ...] = (), **changes: object) -> pd.DataFrame:
    outcome = evaluate(Inputs(stores, lambda: proteins), _settings(folder, **changes))
    return outcome.tables["linear_baselines"]


def _brute_force(scores: np.ndarray, protein: Protein, low: int, high: float, divisor: int) -> float:
    """Precision of the top L / divisor pairs of the core, whose map `scores` is, L being its length."""
    assert isinstance(protein.structure, Coordinates)
    xyz = protein.structure.beta[len(FLANK) : len(FLANK) + CORE]
    pairs = []
    for i in range(CORE):
        for j in range(i + 1, CORE):
            if low <= j - i < high and np.isfinite(xyz[[i, j]]).all():
                pairs.append((-scores[i, j], i, j, np.linalg.norm(xyz[i] - xyz[j]) < 8))
    return float(np.mean([pair[3] for pair in sorted(pairs)[: max(1, CORE // divisor)]]))


def test_scores_are_those_of_the_columns_alone(family: tuple[Path, Protein, np.ndarray]) -> None:
    folder, protein, states = family
    table = _table(folder, [protein], iterations=3)
    assert list(table["method"].unique()) == ["inverse_covariance", "partial_correlation", "mrf"]
    assert (table["residues"] == CORE + 10).all()
    assert (table["length"] == CORE).all()
    assert (table["resolved"] == CORE - 1).all()
    assert (table["identity"] == 1).all()
    assert (table["sequences"] == 60).all()
    assert (table["neff"] == 60).all()
    scores = coevolution(states)[1].astype(np.float32)
    found = table[table["method"] == "inverse_covariance"].set_index("range")
    for label, low, high in [("all", 6, np.inf), ("short", 6, 12), ("medium", 12, 24), ("long", 24, np.inf)]:
        expected = [_brute_force(scores, protein, low, high, divisor) for divisor in (1, 2, 5)]
        assert found.loc[label, MEASURES].tolist() == pytest.approx(expected)


def test_the_maps_of_a_store_are_scored_on_the_same_pairs(
    family: tuple[Path, Protein, np.ndarray], tmp_path: Path
) -> None:
    folder, protein, _ = family
    contacts = RNG.normal(size=(CORE + 10, CORE + 10))
    arrays = {"P1": {"contacts": contacts + contacts.T}, "alone": {"contacts": np.zeros((3, 3))}}
    store = written_store(tmp_path / "p.zarr", arrays, sequences={"P1": protein.sequence})
    table = _table(folder, [protein, _protein("later", "MKVMKVMKVMKV" * 3)], (store,), methods=("inverse_covariance",))
    part = slice(len(FLANK), len(FLANK) + CORE)
    scores = store.opened["P1"].contacts[part, part]
    found = table[(table["method"] == "contacts") & (table["range"] == "all")]
    assert found[MEASURES].iloc[0].tolist() == pytest.approx(
        [_brute_force(scores, protein, 6, np.inf, divisor) for divisor in (1, 2, 5)]
    )
    counts = table[table["protein"] == "P1"].groupby("range")[["pairs", "contacts", "length"]].nunique()
    assert (counts == 1).all(axis=None)
    reasons = table.set_index("protein")["reason"]
    assert (reasons["alone"], reasons["later"]) == ("no structure to compare with", "not in the store")
    assert table.loc[table["protein"] != "P1", MEASURES].isna().all(axis=None)


def test_every_reason_is_a_row_without_numbers(family: tuple[Path, Protein, np.ndarray]) -> None:
    folder, protein, _ = family
    (folder / "single.a3m").write_text(f">q\n{protein.sequence}\n", encoding="utf-8")
    other = protein.sequence[:12] + "".join(RNG.permutation(list(protein.sequence[12:])))
    (folder / "other.a3m").write_text(f">q\n{protein.sequence}\n>h\n{protein.sequence}\n", encoding="utf-8")
    proteins = [
        protein,
        _protein("single", protein.sequence),
        _protein("other", other),
        _protein("none", protein.sequence),
        Protein("flat", protein.sequence),
    ]
    table = _table(folder, proteins, methods=("inverse_covariance", "mrf"), memory_limit=0.03)
    reasons = table.set_index(["protein", "method"])["reason"].to_dict()
    assert reasons["P1", "inverse_covariance"] == ""
    assert "40 columns need 0.032 GB, above memory_limit=0.03" in reasons["P1", "mrf"]
    assert "the alignment has 1" in reasons["single", "inverse_covariance"]
    wrong = {name: reason for (name, method), reason in reasons.items() if pd.isna(method)}
    assert "residues of 'q' are the protein's, below evaluation.min_identity=0.9" in wrong["other"]
    assert "no alignment none.a3m" in wrong["none"]
    assert wrong["flat"] == "no structure to compare with"
    assert table.loc[table["reason"] != "", MEASURES].isna().all(axis=None)
    assert set(table["protein"]) == {"P1", "single", "other", "none", "flat"}
    with pytest.raises(EvaluationError, match="does not exist"):
        _table(folder / "missing", proteins)


def test_a_second_run_computes_nothing(
    family: tuple[Path, Protein, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, protein, _ = family
    first = _table(folder, [protein], maps=tmp_path / "maps", iterations=3)
    for name in BASELINES:
        monkeypatch.setitem(BASELINES, name, lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(_table(folder, [protein], maps=tmp_path / "maps", iterations=3), first)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/covariation")
def test_published_numbers_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inverse covariance of three families as in the data's own README, which has two digits."""
    data = SHARED / "covariation"
    config = composed(
        "evaluate", "+evaluation=linear_baselines", "+dataset=pdb", f"dataset.path={data / 'structures'}",
        "dataset.ids=[1TEN_A,3GQS_A,2PND_A]", f"evaluation.alignments={data / 'alignments'}",
        f"evaluation.queries={data / 'queries.fasta'}", "evaluation.methods=[inverse_covariance]",
        "evaluation.maps=null", f"out={tmp_path}",
    )  # fmt: skip
    assert command(config) == 0
    assert "inverse_covariance  3" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "linear_baselines.parquet")
    found = table[table["range"] == "all"].set_index("protein")[["P@L/5", "P@L/2", "P@L"]].round(2)
    assert found.loc["1TEN_A"].tolist() == [0.75, 0.75, 0.65]
    assert found.loc["3GQS_A"].tolist() == [1.00, 0.88, 0.72]
    assert found.loc["2PND_A"].tolist() == pytest.approx([0.57, 0.33, 0.24])
