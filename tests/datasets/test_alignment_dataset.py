"""Relatives from an alignment: rows as proteins, identities by hand, even draws that a seed fixes."""

from pathlib import Path

import numpy as np
import pytest

from plmjac.alphabet import AMINO_ACIDS
from plmjac.datasets import InputError, build
from plmjac.datasets.alignment import identity_and_coverage, read_aligned
from plmjac.records import Protein, Rejected


def test_identity_and_coverage_by_hand() -> None:
    assert identity_and_coverage("MKVL-A", "MRV--A") == (3 / 4, 4 / 5)
    assert identity_and_coverage("MKVL", "----") == (0.0, 0.0)
    assert identity_and_coverage("MKVL", "MKVL") == (1.0, 1.0)


def test_insertions_are_residues_of_the_relative_and_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.a3m"
    path.write_text(">ref x\nMKVL\n>one\nM-VgghL\n>two\n.MRVL\n")
    rows = read_aligned(path)
    assert [(row.id, row.columns, row.residues) for row in rows] == [
        ("ref", "MKVL", "MKVL"),
        ("one", "M-VL", "MVGGHL"),
        ("two", "MRVL", "MRVL"),
    ]
    assert [row.places for row in rows] == [(0, 1, 2, 3), (0, -1, 1, 5), (0, 1, 2, 3)]
    path.write_text(">ref\nMK-VL\n>one\nmkgv-\n")
    assert [(row.columns, row.residues) for row in read_aligned(path)] == [("MK-VL", "MKVL"), ("MKGV-", "MKGV")]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference of 50 residues, then 400 rows of which k have every identity k/50 there is, in random order."""
    source = np.random.default_rng(0)
    reference = source.choice(list(AMINO_ACIDS), 50)
    rows = []
    for number in range(400):
        row = reference.copy()
        for place in source.permutation(50)[: number % 45]:
            row[place] = source.choice([letter for letter in AMINO_ACIDS if letter != reference[place]])
        rows.append("".join(row))
    path = tmp_path_factory.mktemp("family") / "family.a3m"
    text = "".join(f">r{n}\n{row}\n" for n, row in enumerate(source.permutation(rows)))
    path.write_text(f">ref\n{''.join(reference)}\n>gappy\n{'-' * 20}{''.join(reference)[20:]}\n{text}")
    return path


def test_every_bin_gives_as_many(family: Path) -> None:
    reference, *relatives = build("alignment", path=str(family), per_bin=4)
    assert isinstance(reference, Protein)
    assert reference.id == "ref"
    identities = [
        sum(a == b for a, b in zip(reference.sequence, record.sequence, strict=True)) / 50
        for record in relatives
        if isinstance(record, Protein)
    ]
    bins = np.digitize(identities, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert bins.tolist() == sorted(bins, reverse=True)
    assert np.bincount(bins).tolist() == [0, *([4] * 8)]
    assert max(identities) < 1  # copies of the reference are not drawn again
    assert "gappy" not in {record.id for record in relatives}
    notes = [record.note for record in relatives if isinstance(record, Protein)]
    assert notes[0] == f"{identities[0]:.0%} identical to ref"


def test_the_seed_decides(family: Path) -> None:
    def ids(**arguments: int) -> list[str]:
        return [record.id for record in build("alignment", path=str(family), **arguments)]

    assert ids() == ids()
    assert ids() != ids(seed=1)
    assert set(ids(per_bin=2)) < set(ids(per_bin=3))


def test_what_is_no_alignment_or_no_bins(tmp_path: Path, family: Path) -> None:
    path = tmp_path / "plain.fasta"
    path.write_text(">a\nMKVL\n>b\nMKV\n")
    with pytest.raises(InputError, match="'b' has 3 columns and the first 4"):
        list(build("alignment", path=str(path)))
    path.write_text(">a\nMKVL\n>b\nM?VL\n>c\nMRVL\n")
    records = {record.id: record for record in build("alignment", path=str(path))}
    assert isinstance(records["b"], Rejected)
    assert isinstance(records["c"], Protein)
    for bins in ([0.5, 0.2], [-1.0, 0.5], [0.5, 1.5]):
        with pytest.raises(InputError, match="rising, from 0 to 1"):
            build("alignment", path=str(family), bins=bins)
    with pytest.raises(InputError, match="is no file"):
        build("alignment", path=str(tmp_path))
