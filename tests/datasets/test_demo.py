"""The shipped domains: sound in themselves, and what the structures say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plmjac.alphabet import AMINO_ACIDS
from plmjac.datasets import InputError, build
from plmjac.datasets.demo import DEFINITIONS, pack_pairs, unpack_pairs
from plmjac.records import Protein


def domains() -> list[Protein]:
    return [record for record in build("demo") if isinstance(record, Protein)]


def test_the_domains_are_sound() -> None:
    assert len(domains()) == len({domain.id for domain in domains()}) == 10
    assert {"1TEN_A", "2EVB_A", "2X1B_A"} <= {domain.id for domain in domains()}
    for domain in domains():
        assert 47 <= len(domain) <= 87 and set(domain.sequence) <= set(AMINO_ACIDS)
        assert domain.structure is not None and "PF0" in domain.source
        for atom, cutoff in DEFINITIONS.values():
            contacts = domain.structure.contacts(atom, cutoff)
            assert (contacts.pairs == contacts.pairs.T).all() and not contacts.pairs.diagonal().any()
            assert not contacts.pairs[~contacts.resolved].any()
            far = np.triu(contacts.pairs, 6).sum()
            assert len(domain) / 2 < far < 6 * len(domain)
        with pytest.raises(ValueError, match="ca < 10"):
            domain.structure.contacts("cb", 6.0)


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
        for definition in DEFINITIONS.values():
            ours, theirs = domain.structure.contacts(*definition), protein.structure.contacts(*definition)
            assert (ours.pairs == theirs.pairs[part, part]).all() and (ours.resolved == theirs.resolved[part]).all()


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.booleans(), min_size=n * n, max_size=n * n)))
def test_packed_pairs_come_back(bits: list[bool]) -> None:
    length = int(len(bits) ** 0.5)
    upper = np.triu(np.array(bits).reshape(length, length), 1)
    pairs = upper | upper.T
    assert (unpack_pairs(pack_pairs(pairs), length) == pairs).all()
