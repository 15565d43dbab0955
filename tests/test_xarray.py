"""Stores for others: xarray opens them by name, and a store of before there were names goes on without."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
from written_store import written_store

from plmjac.readouts import READOUTS
from plmjac.store import PendingProtein, StoreWriter, open_store, read_manifest, verify, write_manifest
from plmjac.store.layout import group_document, read_group_document
from plmjac.workplan import ManifestRow

LENGTHS = {"L": 5, "R": 5, "A": 20, "P": 3, "S": 2, "N": 4, "W": 2, "layers": 2, "heads": 3, "rows": 5}


def values_of(name: str) -> np.ndarray:
    shape = [int(axis) if axis.isdigit() else LENGTHS[axis] for axis in READOUTS[name].shape]
    return np.random.default_rng(len(name)).integers(0, 3, shape).astype(READOUTS[name].dtype)


def arrays_of(kind: str) -> list[str]:
    later = ("segments", "reference", "segment", "step", "repeat", "visible", "recovery", "blocks")
    return [name for name in READOUTS if (name in later) == (kind == "recovery")]


@pytest.fixture(autouse=True)
def no_warnings() -> None:
    warnings.simplefilter("error")


@pytest.mark.parametrize("kind", ["jacobian", "recovery"])
def test_every_array_of_a_protein_opens_with_xarray(tmp_path: Path, kind: str) -> None:
    arrays = {name: values_of(name) for name in arrays_of(kind)}
    if kind == "recovery":
        arrays["contacts"] = np.zeros((LENGTHS["N"], LENGTHS["L"], LENGTHS["L"]), dtype=np.float32)
    store = written_store(
        tmp_path / "run.zarr", {"one": arrays, "two": arrays}, sequences={"one": "MKTAY", "two": "MKTAY"}
    )
    data = xarray.open_zarr(store.path / "proteins/one", consolidated=False)
    assert set(data.data_vars) == set(arrays) and data.attrs["sequence"] == "MKTAY"
    for name, values in arrays.items():
        assert data[name].dtype == READOUTS[name].dtype
        assert np.array_equal(data[name].values, values)
    if kind == "jacobian":
        assert data.jacobian.dims == ("i", "a", "j", "b") and data.contacts.dims == ("i", "j")
        assert data.couplings.dims == ("pair", "a", "b") and data.logits.dims == ("i", "b")
    else:
        assert data.contacts.dims == ("context", "i", "j") and data.blocks.dims == ("context", "u", "v")
    tree = xarray.open_datatree(store.path / "proteins", engine="zarr", consolidated=False)
    assert set(tree.children) == {"one", "two"}
    assert np.array_equal(tree["two/contacts"].values, arrays["contacts"])


def test_a_store_of_before_goes_on_without_names(tmp_path: Path) -> None:
    """Proteins of one store are alike, and what was written before is read and verified as it was."""
    contacts = np.zeros((5, 5), dtype=np.float32)
    path = written_store(tmp_path / "run.zarr", {"named": {"contacts": contacts}}).path
    assert "dimension_names" in json.loads((path / "proteins/named/contacts/zarr.json").read_bytes())
    before = {key: value for key, value in read_group_document(path / "zarr.json").items() if key != "dimension_names"}
    (path / "zarr.json").write_bytes(group_document({**before, "keep": ["contacts"]}))
    for name in ("one", "two"):
        protein: PendingProtein = StoreWriter(path).begin(name, sequence="MKTAY", identifier=name)
        protein.write("contacts", contacts)
        protein.commit()
    write_manifest(
        path, [*read_manifest(path), *(ManifestRow(n, n, 5, "MKTAY", status="done") for n in ("one", "two"))]
    )
    assert "dimension_names" not in json.loads((path / "proteins/two/contacts/zarr.json").read_bytes())
    store = open_store(path)
    assert np.array_equal(store["one"].contacts, contacts)
    assert not any(damages for _, damages in verify(store, deep=True))
    assert repr(store) == f"<store {path}: 3 proteins of 3 records; handmade; contacts>"
    assert repr(store["one"]) == "<protein one: 5 residues; contacts>"
