"""Relatives on one structure: maps are carried to the right residues, means beat their parts, sums are brute force."""

from pathlib import Path

import numpy as np
import pytest
from support import composed
from written_store import written_store

from plmjac.alphabet import AMINO_ACIDS
from plmjac.datasets import build
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.evaluation.relatives import Settings, evaluate, mean_map
from plmjac.records import ContactList, Contacts, Protein

LENGTH = 40
SOURCE = np.random.default_rng(2)
SEQUENCE = "".join(SOURCE.choice(list(AMINO_ACIDS), LENGTH))
PAIRS = [(i, 39 - i) for i in range(14)]


def _protein(sequence: str = SEQUENCE, offset: int = 0) -> Protein:
    touching = np.zeros((len(sequence), len(sequence)), dtype=bool)
    for i, j in PAIRS:
        touching[i + offset, j + offset] = touching[j + offset, i + offset] = True
    contacts = Contacts(touching, np.ones(len(sequence), dtype=bool))
    return Protein("S_A", sequence, structure=ContactList({("cb", 8.0): contacts}))


def _run(alignment: Path, store: Store, protein: Protein, **changes: object) -> Outcome:
    config = composed("evaluate", "+evaluation=relatives", f"evaluation.alignment={alignment}")
    assert isinstance(config["evaluation"], dict)
    settings = Settings.model_validate({**config["evaluation"], "draws": 20, **changes})
    return evaluate(Inputs((store,), lambda: [protein]), settings)


def _scores(pairs: list[tuple[int, int]], length: int) -> np.ndarray:
    scores = np.zeros((length, length))
    for i, j in pairs:
        scores[i, j] = scores[j, i] = 1
    return scores


def test_maps_are_carried_through_gaps_and_insertions(tmp_path: Path) -> None:
    """A relative without residues 3 to 5 and with five more after residue 20; the structure with two more in front."""
    alignment = tmp_path / "f.a3m"
    alignment.write_text(f">ref\n{SEQUENCE}\n>rel\n{SEQUENCE[:3]}---{SEQUENCE[6:20]}ggggg{SEQUENCE[20:]}\n")

    def place(i: int) -> int:
        return i - (3 if i >= 6 else 0) + (5 if i >= 20 else 0)

    relative = (SEQUENCE[:3] + SEQUENCE[6:20] + "GGGGG" + SEQUENCE[20:]).upper()
    known = [(i, j) for i, j in PAIRS if i not in (3, 4, 5)]
    maps = {
        "ref": {"contacts": _scores(PAIRS[:7], LENGTH)},
        "rel": {"contacts": _scores([(place(i), place(j)) for i, j in known], LENGTH + 2)},
        "stranger": {"contacts": np.zeros((30, 30))},
    }
    store = written_store(tmp_path / "f.zarr", maps, sequences={"ref": SEQUENCE, "rel": relative})
    table = _run(alignment, store, _protein("MS" + SEQUENCE, offset=2)).tables["relatives"].set_index("protein")
    assert table.loc["rel", "contacts"] == len(known)
    assert table.loc["rel", "P@L/5"] == 1
    assert table.loc["rel", "P@L/2"] == len(known) / (LENGTH // 2)
    assert table.loc["rel", "identity"] == 1
    assert table.loc["rel", "coverage"] == 37 / 40
    assert table.loc["ref", "r"] == pytest.approx(1)
    assert 0 < table.loc["rel", "r"] < 1
    assert table.loc["stranger", "reason"] == "its sequence is no row of f.a3m"


def test_the_mean_of_noisy_relatives_is_better_than_each(tmp_path: Path) -> None:
    """Sixteen maps of signal 1 in noise of 1: the mean has noise of 1/4 and finds nearly all."""
    source = np.random.default_rng(4)
    sequences, maps = {}, {}
    for number in range(16):
        letters = list(SEQUENCE)
        for place in source.permutation(LENGTH)[: 2 * number]:
            letters[place] = source.choice([letter for letter in AMINO_ACIDS if letter != SEQUENCE[place]])
        noise = source.normal(size=(LENGTH, LENGTH)) / np.sqrt(2)
        sequences[f"r{number}"] = "".join(letters)
        maps[f"r{number}"] = {"contacts": _scores(PAIRS, LENGTH) * 2 + noise + noise.T}
    alignment = tmp_path / "f.a3m"
    alignment.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    store = written_store(tmp_path / "f.zarr", maps, sequences=sequences)
    outcome = _run(alignment, store, _protein())
    means = outcome.tables["relatives_mean"].set_index("relatives")
    assert list(means.index) == [1, 2, 4, 8, 16]
    assert (np.diff(means["P@L/2 mean"]) >= 0).all()
    assert means.loc[16, "P@L/2 mean"] == pytest.approx(14 / 20)  # all contacts there are
    assert means.loc[1, "P@L/2 mean"] < 0.6
    table = outcome.tables["relatives"].set_index("protein")
    assert table.loc["r0", "identity"] == 1
    assert table.loc["r10", "identity"] == pytest.approx(0.5)
    assert "16 of them" in outcome.text
    assert outcome.figures["relatives"]() is not None


def test_a_mean_over_those_that_have_a_pair() -> None:
    first, second = np.array([[0.0, 2.0], [2.0, np.nan]]), np.array([[4.0, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(mean_map([first, second]), [[2, 2], [2, np.nan]])


def test_the_dataset_and_the_evaluation_fit(tmp_path: Path) -> None:
    """The evaluation finds the relatives drawn by `dataset=alignment`, whatever their names."""
    alignment = tmp_path / "f.a3m"
    other = SEQUENCE[:10] + SEQUENCE[10:].translate(str.maketrans("LA", "IV"))
    alignment.write_text(f">x\n{SEQUENCE}\n>x\n{other}\n")
    records = [each for each in build("alignment", path=str(alignment)) if isinstance(each, Protein)]
    assert [each.id for each in records] == ["x", "x_row2"]
    maps = {each.id: {"contacts": _scores(PAIRS, LENGTH)} for each in records}
    store = written_store(tmp_path / "f.zarr", maps, sequences={each.id: each.sequence for each in records})
    table = _run(alignment, store, _protein()).tables["relatives"]
    assert (table["P@L/5"] == 1).all()


def test_which_structure(tmp_path: Path) -> None:
    alignment = tmp_path / "f.a3m"
    alignment.write_text(f">ref\n{SEQUENCE}\n>ref2\n{SEQUENCE[::-1]}\n")
    store = written_store(tmp_path / "f.zarr", {"ref": {"contacts": np.zeros((40, 40))}}, sequences={"ref": SEQUENCE})
    with pytest.raises(EvaluationError, match="no such structure; did you mean 'S_A'"):
        _run(alignment, store, _protein(), structure="S_B")
    with pytest.raises(EvaluationError, match=r"residues are those of S_A, below evaluation.min_identity"):
        _run(alignment, store, _protein(SEQUENCE[::-1]))
    outcome = _run(alignment, store, _protein(), map="attention")
    assert outcome.scored == 0 and "keep=[attention]" in outcome.text
