"""The inverse-covariance baseline: known answers, and the published averages of the data set."""

import csv

import numpy as np
import pytest
import torch
from support import SHARED

from plmjac.coevolution import (
    coevolution,
    columns_of_query,
    coupling_map,
    inverse_covariance,
    one_hot,
    partial_correlation,
    read_alignment,
)
from plmjac.jacobian import center, contact_map, symmetrize

DATA = SHARED / "covariation"


def test_one_sequence_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="two sequences"):
        inverse_covariance(np.zeros((1, 3), dtype=np.int8))


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


def test_map_is_that_of_the_jacobian_without_the_centring() -> None:
    """For couplings that are symmetric and centred already the two ways to a map are one."""
    raw = torch.from_numpy(np.random.default_rng(2).normal(size=(6, 20, 6, 20)))
    couplings = symmetrize(center(raw))
    np.testing.assert_allclose(coupling_map(couplings), contact_map(couplings).numpy(), atol=1e-12)


def test_partial_correlation_is_that_of_regressing_all_else_out() -> None:
    rng = np.random.default_rng(3)
    alignment = rng.integers(0, 21, (40, 3)).astype(np.int8)
    covariance = np.cov(one_hot(alignment), rowvar=False) + 4.5 / np.sqrt(40) * np.eye(63)
    correlations = partial_correlation(inverse_covariance(alignment))
    for (i, a), (j, b) in [((0, 3), (1, 7)), ((2, 19), (0, 0)), ((1, 4), (1, 5))]:
        pair = [21 * i + a, 21 * j + b]
        rest = [k for k in range(63) if k not in pair]
        left = covariance[np.ix_(pair, pair)] - covariance[np.ix_(pair, rest)] @ np.linalg.solve(
            covariance[np.ix_(rest, rest)], covariance[np.ix_(rest, pair)]
        )
        assert correlations[i, a, j, b] == pytest.approx(left[0, 1] / np.sqrt(left[0, 0] * left[1, 1]), abs=1e-10)


def test_float32_ranks_pairs_like_float64() -> None:
    alignment = np.random.default_rng(4).integers(0, 21, (300, 12)).astype(np.int8)
    wide, narrow = (coupling_map(inverse_covariance(alignment, dtype=dtype)) for dtype in (np.float64, np.float32))
    assert np.abs(wide - narrow).max() < 1e-4 * np.abs(wide).max()


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
