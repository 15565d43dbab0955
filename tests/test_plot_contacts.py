"""plmjac.plot_contacts: any map, any structure, any name; and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from written_store import sequence_of, written_store

import plmjac
from plmjac.records import ContactList, Contacts, Protein

LENGTH = 40
SEQUENCE = sequence_of(LENGTH)


def known() -> Protein:
    pairs = np.zeros((LENGTH, LENGTH), dtype=bool)
    pairs[3, 20] = pairs[20, 3] = True
    numbers = tuple(str(number) for number in range(100, 100 + LENGTH))
    contacts = ContactList({("cb", 8.0): Contacts(pairs, np.ones(LENGTH, dtype=bool))})
    return Protein("p$^$", SEQUENCE, structure=contacts, residue_numbers=numbers)


def scores() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(LENGTH, LENGTH))
    values[3, 20] = values[20, 3] = 99
    return values + values.T


def test_right_and_wrong_pairs_are_told_apart(tmp_path: Path) -> None:
    figure = plmjac.plot_contacts(scores(), known(), sequence=SEQUENCE, path=tmp_path / "map.png")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["best 40 pairs: in contact (1)", "best 40 pairs: not in contact (39)"]
    right, wrong = figure.axes[0].collections
    assert right.get_offsets().tolist() == [[3, 20]] and len(wrong.get_offsets()) == 39
    assert figure.axes[0].xaxis.get_major_formatter()(3, 0) == "103"
    assert "chance" in figure.legends[0].get_title().get_text()
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_a_stored_protein_without_a_structure_and_with_any_name(tmp_path: Path) -> None:
    store = written_store(tmp_path / "s.zarr", {"p$^$_{x": {"contacts": scores()}}, sequences={"p$^$_{x": SEQUENCE})
    figure = plmjac.plot_contacts(store.opened["p$^$_{x"], path=tmp_path / "map.svg", pairs=0.5)
    assert figure.axes[0].get_title() == "p$^$_{x"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["best 20 pairs: not known (20)"]


def test_what_does_not_fit_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="shape"):
        plmjac.plot_contacts(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="a map of 40 residues and a sequence of 3"):
        plmjac.plot_contacts(scores(), sequence="MKV")
    with pytest.raises(ValueError, match="no structure to compare with"):
        plmjac.plot_contacts(scores(), known(), sequence=sequence_of(LENGTH, 5))
