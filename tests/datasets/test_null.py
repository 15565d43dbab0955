"""Null datasets: what is kept, what is gone, and an inverse covariance that a relabelled alphabet does not change."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from plmjac.alphabet import AMINO_ACIDS, encode
from plmjac.coevolution import coevolution, read_alignment
from plmjac.datasets import InputError, build
from plmjac.datasets.null import NullDataset, permutation, relabelled
from plmjac.records import Chains, Protein, Rejected


def _proteins(**arguments: object) -> list[Protein]:
    return [record for record in build("demo", ids=["1TEN_A", "2O9S_A"], **arguments) if isinstance(record, Protein)]


def test_a_shuffled_sequence_keeps_its_composition_and_no_order() -> None:
    for plain, null in zip(_proteins(), _proteins(control="shuffle"), strict=True):
        assert Counter(null.sequence) == Counter(plain.sequence)
        same = np.mean([a == b for a, b in zip(plain.sequence, null.sequence, strict=True)])
        assert same < 0.25
        assert (null.id, null.source) == (plain.id, plain.source)
        assert plain.structure is not None and null.structure is not None
        assert (null.structure.contacts("cb", 8.0).pairs == plain.structure.contacts("cb", 8.0).pairs).all()
    first, other = _proteins(control="shuffle", control_seed=3), _proteins(control="shuffle", control_seed=4)
    assert [each.sequence for each in first] == [each.sequence for each in _proteins(control="shuffle", control_seed=3)]
    assert first[0].sequence != other[0].sequence


def test_relabelling_is_one_permutation_without_fixed_points() -> None:
    for seed in range(20):
        order = permutation(seed)
        assert sorted(order) == list(range(20))
        assert (order != np.arange(20)).all()
    names = dict(zip(AMINO_ACIDS, relabelled(5), strict=True))
    for plain, null in zip(_proteins(), _proteins(control="relabel", control_seed=5), strict=True):
        assert null.sequence == "".join(names.get(letter, letter) for letter in plain.sequence)
        assert (encode(null.sequence) == permutation(5)[encode(plain.sequence)]).all()


def test_inverse_covariance_does_not_see_the_names_of_amino_acids(tmp_path: Path) -> None:
    """The contact map of an alignment and of the relabelled one, rows as the null dataset gives them."""
    source = np.random.default_rng(0)
    states = source.integers(0, 20, (300, 12))
    states[:, 7] = (states[:, 2] + source.integers(0, 2, 300)) % 20
    rows = [Protein(f"s{n}", "".join(AMINO_ACIDS[state] for state in row)) for n, row in enumerate(states)]
    maps = []
    for name, proteins in (("plain", rows), ("null", list(NullDataset(rows, "relabel", 1)))):
        path = tmp_path / f"{name}.fasta"
        path.write_text("".join(f">{each.id}\n{each.sequence}\n" for each in proteins if isinstance(each, Protein)))
        maps.append(coevolution(read_alignment(path))[1])
    assert not (read_alignment(tmp_path / "plain.fasta") == read_alignment(tmp_path / "null.fasta")).any()
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-9 * np.abs(maps[0]).max())
    assert np.unravel_index(maps[0].argmax(), maps[0].shape) == (2, 7)


def test_chains_are_shuffled_within_themselves() -> None:
    protein = Protein("c", "A" * 20 + "G" * 5 + "MKVL" * 5, chains=Chains(((0, 20), (25, 45))))
    (null,) = NullDataset(
        [
            protein,
        ],
        "shuffle",
    )
    assert isinstance(null, Protein)
    assert null.sequence[:25] == protein.sequence[:25]
    assert Counter(null.sequence[25:]) == Counter("MKVL" * 5)
    assert null.sequence[25:] != protein.sequence[25:]


def test_other_records_pass_and_wrong_keys_are_said(tmp_path: Path) -> None:
    path = tmp_path / "f.fasta"
    path.write_text(">a\nMKVL\n>b\nMK1\n")
    records = list(build("fasta", path=str(path), control="shuffle"))
    assert [type(record) for record in records] == [Protein, Rejected]
    with pytest.raises(InputError, match="control_seed has no effect without"):
        build("demo", control_seed=1)
    with pytest.raises(InputError, match=r"dataset.control must be .*not 'shufle'"):
        build("demo", control="shufle")
