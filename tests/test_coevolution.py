"""The inverse-covariance baseline: reading alignments, known answers, and the published averages of the data set."""

import csv
from pathlib import Path

import numpy as np
import pytest

from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution import (
    GAP,
    coevolution,
    columns_of_query,
    coupling_map,
    inverse_covariance,
    one_hot,
    read_alignment,
)

DATA = Path(__file__).parents[2] / "shared" / "data" / "covariation"


def test_a3m_insertions_and_unknown_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.a3m"
    path.write_text(">query\nLAG\nV\n>hit\nLa.bX-\nV\n", encoding="utf-8")
    alignment = read_alignment(path)
    assert alignment.tolist() == [[0, 1, 2, 3], [0, GAP, GAP, 3]]


def test_unaligned_and_empty_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(">one\nLAG\n>two\nLA\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'two' has 2 columns"):
        read_alignment(path)
    path.write_text("LAG\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no FASTA record"):
        read_alignment(path)
    with pytest.raises(ValueError, match="two sequences"):
        inverse_covariance(np.zeros((1, 3), dtype=np.int8))


def test_columns_of_query() -> None:
    assert columns_of_query("-LA.G-V").tolist() == [1, 2, 4, 6]


def test_equals_the_formula_written_out() -> None:
    rng = np.random.default_rng(0)
    alignment = rng.integers(0, 21, (50, 4)).astype(np.int8)
    couplings = inverse_covariance(alignment)
    covariance = np.cov(one_hot(alignment), rowvar=False) + 4.5 / np.sqrt(50) * np.eye(84)
    expected = -np.linalg.inv(covariance)
    for i, a, j, b in [(0, 0, 1, 0), (3, 19, 2, 7), (1, 5, 1, 5)]:
        assert couplings[i, a, j, b] == pytest.approx(expected[i * 21 + a, j * 21 + b], rel=1e-9)


def test_couplings_leave_indirect_correlation_behind() -> None:
    """In a chain 0 - 1 - 2 the ends correlate only through the middle; the direct pairs must score higher."""
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, 20, 4000)]
    for _ in range(2):
        columns.append(np.where(rng.random(4000) < 0.7, columns[-1], rng.integers(0, 20, 4000)))
    columns += [rng.integers(0, 20, 4000) for _ in range(3)]
    couplings, contacts = coevolution(np.stack(columns, axis=1).astype(np.int8))
    assert min(contacts[0, 1], contacts[1, 2]) > 3 * contacts[0, 2]
    assert couplings[0, 4, 1, 4] > 0 > couplings[0, 4, 1, 5]
    np.testing.assert_allclose(contacts, contacts.T)
    assert not contacts.diagonal().any()


def test_map_of_no_couplings_is_zero() -> None:
    assert not coupling_map(np.zeros((3, 20, 3, 20))).any()


def _published(rows: list[dict[str, str]]) -> list[tuple[float, float]]:
    """P@L/2 and chance of inverse covariance, parsed here with gemmi and no other code of plmjac."""
    import gemmi

    scores = []
    queries = (DATA / "queries.fasta").read_text(encoding="utf-8").split(">")[1:]
    aligned = {record.split()[1]: "".join(record.split()[2:]) for record in queries}
    for row in rows:
        query = aligned[row["pfam"]]
        chain = gemmi.read_structure(str(DATA / "structures" / f"{row['pdb']}.pdb"))[0][0]
        residues = [r for r in chain if gemmi.find_tabulated_residue(r.name).is_amino_acid() and r.find_atom("CA", "*")]
        letters = "".join(gemmi.find_tabulated_residue(r.name).one_letter_code.upper() for r in residues)
        start = letters.index(query.replace("-", ""))
        inside = residues[start : start + len(columns_of_query(query))]
        atoms = np.array([(r.find_atom("CB", "*") or r.find_atom("CA", "*")).pos.tolist() for r in inside])
        close = np.linalg.norm(atoms[:, None] - atoms[None], axis=-1) < 8
        alignment = read_alignment(DATA / "alignments" / f"{row['pfam']}.fasta")[:8000, columns_of_query(query)]
        contacts = coevolution(alignment)[1]
        i, j = np.triu_indices(len(close), 6)
        best = np.argsort(-contacts[i, j], kind="stable")[: len(close) // 2]
        scores.append((float(close[i, j][best].mean()), float(close[i, j].mean())))
    return scores


@pytest.mark.skipif(not DATA.exists(), reason=f"needs the alignments and structures of {DATA.name}/ in ../shared/data")
def test_short_families_reach_their_known_precision() -> None:
    with (DATA / "domains.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["pfam"] in ("PF00018", "PF00327", "PF00498")]
    assert [round(score, 2) for score, _ in _published(rows)] == pytest.approx([0.73, 0.83, 0.88], abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"needs the alignments and structures of {DATA.name}/ in ../shared/data")
def test_mean_over_all_families_is_the_published_one() -> None:
    with (DATA / "domains.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = _published(rows)
    assert len(scores) == 36
    assert np.mean([score for score, _ in scores]) == pytest.approx(0.63, abs=0.01)


def test_states_are_in_the_order_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "a.fasta"
    path.write_text(f">all\n{AMINO_ACIDS}-\n", encoding="utf-8")
    assert read_alignment(path)[0].tolist() == list(range(21))
