"""The shipped domains: sound in themselves, and what the structures say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plmjac.alphabet import AMINO_ACIDS
from plmjac.datasets import InputError, build
from plmjac.datasets.demo import pack, unpack
from plmjac.records import Atom, Coordinates, Protein

DEFINITIONS: tuple[tuple[Atom, float], ...] = (("cb", 8.0), ("ca", 8.0), ("ca", 10.0), ("cb", 12.0))


def domains() -> list[Protein]:
    return [record for record in build("demo") if isinstance(record, Protein)]


def test_the_domains_are_sound() -> None:
    assert len(domains()) == len({domain.id for domain in domains()}) == 10
    assert {"1TEN_A", "2EVB_A", "2X1B_A"} <= {domain.id for domain in domains()}
    for domain in domains():
        assert 47 <= len(domain) <= 87 and set(domain.sequence) <= set(AMINO_ACIDS)
        assert domain.structure is not None and "PF0" in domain.source
        for atom, cutoff in DEFINITIONS[:3]:
            contacts = domain.structure.contacts(atom, cutoff)
            assert (contacts.pairs == contacts.pairs.T).all() and not contacts.pairs.diagonal().any()
            assert not contacts.pairs[~contacts.resolved].any()
            far = np.triu(contacts.pairs, 6).sum()
            assert len(domain) / 2 < far < 6 * len(domain)
        assert isinstance(domain.structure, Coordinates)
        steps = np.linalg.norm(np.diff(domain.structure.alpha, axis=0), axis=1)
        assert (abs(steps - 3.8) < 0.15).all()
        bonds = np.linalg.norm(domain.structure.beta - domain.structure.alpha, axis=1)
        is_glycine = np.array(list(domain.sequence)) == "G"
        assert (bonds[is_glycine] == 0).all() and (abs(bonds[~is_glycine] - 1.54) < 0.1).all()


def test_ids() -> None:
    assert [record.id for record in build("demo", ids=["1TEN_A", "2evb_A"])] == ["2EVB_A", "1TEN_A"]
    with pytest.raises(InputError, match="did you mean '1TEN_A'"):
        build("demo", ids=["1TEN_B"])


def test_contacts_are_those_of_the_structures(shared_data: Path) -> None:
    for domain in domains():
        (protein,) = build("pdb", path=str(shared_data / "covariation" / "structures" / f"{domain.id}.pdb"))
        assert isinstance(protein, Protein) and protein.structure is not None and domain.structure is not None
        assert protein.id == domain.id
        (start,) = (k for k in range(len(protein)) if protein.sequence.startswith(domain.sequence, k))
        assert f"residues {start + 1} to {start + len(domain)} of PDB {domain.id}" in domain.source
        part = slice(start, start + len(domain))
        for definition in DEFINITIONS:
            ours, theirs = domain.structure.contacts(*definition), protein.structure.contacts(*definition)
            assert (ours.pairs == theirs.pairs[part, part]).all() and (ours.resolved == theirs.resolved[part]).all()


@given(st.lists(st.tuples(st.booleans(), st.booleans(), *[st.integers(-99999, 99999)] * 6), min_size=1, max_size=9))
def test_packed_positions_come_back(residues: list[tuple[bool, ...]]) -> None:
    numbers = np.array([residue[2:] for residue in residues]) / 1000
    alpha, beta = numbers[:, :3], numbers[:, 3:]
    for row, (is_resolved, is_glycine, *_) in enumerate(residues):
        alpha[row] = alpha[row] if is_resolved else np.nan
        beta[row] = alpha[row] if is_glycine or not is_resolved else beta[row]
    found = unpack(pack(Coordinates(alpha, beta)))
    np.testing.assert_array_equal(found.alpha, alpha)
    np.testing.assert_array_equal(found.beta, beta)
