"""A part of a protein: positions=START:STOP mutates only these residues, in the context of the whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from support import composed, jacobian_in_float32, tree

import plmjac
from plmjac.config import UsageError
from plmjac.limit import Limit, parse_positions
from plmjac.metrics import ranking
from plmjac.models import load_model
from plmjac.plan import plan
from plmjac.store import StoreError, open_store, read_manifest
from plmjac.verify import verify
from plmjac.workplan import ManifestRow, work_items

Predict = Callable[..., int]
SEQUENCE = "".join("ACDEFGHIKLMNPQRSTVWY"[k * k % 19] for k in range(40))
KEEP = "keep=[contacts,logits,jacobian,representation]"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "two.fasta"
    path.write_text(f">long\n{SEQUENCE}\n>short\n{SEQUENCE[:12]}\n")
    return path


def line(fasta: Path, store: Path, *more: str) -> tuple[str, ...]:
    keep = [] if any(word.startswith("keep") for word in more) else [KEEP]
    return ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", f"store={store}", *keep, *more)


def map_of_rows(jacobian: np.ndarray, first: int) -> np.ndarray:
    """The map of the rows from `first` on, element by element, with the other direction where it is there."""
    raw = torch.from_numpy(jacobian).double()
    for axis in (1, 2, 3):
        raw = raw - raw.mean(dim=axis, keepdim=True)
    rows, length = len(raw), raw.shape[2]
    raw = raw - raw.sum(dim=0) / length
    norms = np.zeros((rows, length))
    for r in range(rows):
        for j in range(length):
            block = raw[r, :, j]
            if first <= j < first + rows:
                block = (block + raw[j - first, :, first + r].T) / 2
            norms[r, j] = 0 if first + r == j else float(block.square().sum().sqrt())
    scores = norms - np.outer(norms.sum(1), norms.sum(0)) / norms.sum()
    whole = np.full((length, length), np.nan)
    for r in range(rows):
        for j in range(length):
            both = [scores[r, j]] + ([scores[j - first, first + r]] if first <= j < first + rows else [])
            whole[first + r, j] = whole[j, first + r] = 0 if first + r == j else np.mean(both)
    return whole


@pytest.mark.parametrize("rows", [5, 100])
def test_the_rows_are_those_of_the_whole_and_the_map_is_theirs(
    predict: Predict, fasta: Path, tmp_path: Path, rows: int
) -> None:
    whole, part = tmp_path / "whole.zarr", tmp_path / "part.zarr"
    with jacobian_in_float32():
        assert predict(*line(fasta, whole, f"rows_per_chunk={rows}")) == 0
        words = line(fasta, part, "positions=8:21", f"rows_per_chunk={rows}")
        assert predict(*words) == 3  # the short one has no residue 20
        assert {row.id: (row.status, row.reason) for row in read_manifest(part)} == {
            "long": ("done", "mutated at 8:21 of 40 residues"),
            "short": ("skipped", "positions=8:21 end behind its 12 residues, which count from 0"),
        }
        full, some = open_store(whole)["long"], open_store(part)["long"]
        assert some.positions == (8, 21) and some.jacobian.shape == (13, 20, 40, 20)
        np.testing.assert_allclose(some.jacobian, full.jacobian[8:21], atol=1e-5 * float(np.abs(full.jacobian).max()))
        np.testing.assert_array_equal(some.logits, full.logits)
        expected = map_of_rows(full.jacobian[8:21], 8)
        np.testing.assert_allclose(some.contacts, expected, atol=1e-4 * np.nanmax(np.abs(expected)))
        assert some.contacts.shape == (40, 40) and np.isnan(some.contacts[0, 39]) and np.isfinite(some.contacts[0, 8])
        assert np.isnan(some.representation).sum() == np.isnan(some.contacts).sum() == (40 - 13) ** 2
        first, second = ranking(some.contacts)
        assert ((first >= 8) & (first < 21) | (second >= 8) & (second < 21)).all()
        assert verify(composed("verify", f"store={part}", "deep=true")) == 0
        data = xarray.open_zarr(part / "proteins/long", consolidated=False)
        assert data.jacobian.dims == ("row", "a", "j", "b") and data.logits.dims == ("i", "b")
        api = plmjac.categorical_jacobian(load_model("debug"), SEQUENCE, positions=(8, 21))
        np.testing.assert_allclose(api, some.jacobian, atol=1e-5 * float(api.abs().max()))
        again = plmjac.contact_map(api, positions=(8, 21))
        np.testing.assert_allclose(again, some.contacts, atol=1e-5 * np.nanmax(np.abs(expected)))
        with pytest.raises(UsageError, match="positions"):
            predict(*line(fasta, part, "positions=8:20", f"rows_per_chunk={rows}"))


def test_all_positions_are_the_plain_run(predict: Predict, tmp_path: Path) -> None:
    """To the last bit, but for what the groups and arrays say of themselves."""
    path = tmp_path / "one.fasta"
    path.write_text(f">long\n{SEQUENCE}\n")
    plain, all_of_it = tmp_path / "plain.zarr", tmp_path / "all.zarr"
    assert predict(*line(path, plain)) == 0
    assert predict(*line(path, all_of_it, "positions=0:40")) == 0
    chunks = [{name: digest for name, digest in tree(store).items() if "/c/" in name} for store in (all_of_it, plain)]
    assert chunks[0] == chunks[1] and len(chunks[0]) == 4


def test_couplings_of_the_directions_that_there_are(predict: Predict, fasta: Path, tmp_path: Path) -> None:
    store = tmp_path / "part.zarr"
    with jacobian_in_float32():
        predict(*line(fasta, store, "positions=8:21", "keep=[contacts,jacobian]", "rows_per_chunk=4"))
        protein = open_store(store)["long"]
        rows = torch.from_numpy(protein.jacobian)
    for axis in (1, 2, 3):
        rows = rows - rows.mean(dim=axis, keepdim=True)
    rows = (rows - rows.sum(dim=0) / 40).numpy()
    np.testing.assert_allclose(protein.couplings(9, 30), rows[1, :, 30], atol=1e-5)
    np.testing.assert_allclose(protein.couplings(30, 9), rows[1, :, 30].T, atol=1e-5)
    np.testing.assert_allclose(protein.couplings(9, 17), (rows[1, :, 17] + rows[9, :, 9].T) / 2, atol=1e-5)
    with pytest.raises(StoreError, match=r"couplings of \(0, 30\) were not computed: neither .* positions 8:21"):
        protein.couplings(0, 30)


@pytest.mark.parametrize("substitutions", ["all", "mask", "subset"])
def test_fewer_substitutions_complexes_and_windows(predict: Predict, tmp_path: Path, substitutions: str) -> None:
    """Two chains with an index gap, in windows of 24: the rows are those of the same windows without `positions`."""
    path, words = tmp_path / "c.fasta", [f"substitutions={substitutions}", "keep=[contacts,jacobian,representation]"]
    path.write_text(f">pair\n{SEQUENCE[:26]}:{SEQUENCE[26:]}\n")
    words += ["+dataset=complex", f"dataset.path={path}", "dataset.index_gap=40", "model=debug", "threads=1"]
    words += ["max_length=24", "too_long=window", "rows_per_chunk=7"]
    assert predict(*words, f"store={tmp_path / 'whole.zarr'}") == 0
    assert predict(*words, f"store={tmp_path / 'part.zarr'}", "positions=20:33") == 0
    full, some = (open_store(tmp_path / name)["pair"] for name in ("whole.zarr", "part.zarr"))
    start, stop = some.positions or (0, 0)
    # The linker's residues count: positions are those of the sequence that is computed.
    assert full.sequence == some.sequence and some.windows == full.windows and len(some.windows) > 1
    scale = np.nanmax(np.abs(full.jacobian))
    np.testing.assert_allclose(some.jacobian, full.jacobian[start:stop], atol=1e-3 * scale)
    assert np.isnan(some.jacobian).any() and np.isfinite(some.contacts).any()
    known = np.isfinite(full.contacts)
    known[np.ix_(*2 * [[*range(start), *range(stop, len(full))]])] = False
    np.testing.assert_array_equal(np.isfinite(some.contacts), known)
    np.testing.assert_array_equal(np.isfinite(some.representation), known)
    assert verify(composed("verify", f"store={tmp_path / 'part.zarr'}", "deep=true")) == 0


def test_int8(predict: Predict, fasta: Path, tmp_path: Path) -> None:
    store = tmp_path / "int8.zarr"
    predict(*line(fasta, store, "positions=3:12", "keep=[contacts,jacobian_int8]", "rows_per_chunk=4"))
    protein = open_store(store)["long"]
    exact = plmjac.categorical_jacobian(load_model("debug"), SEQUENCE, positions=(3, 12))
    np.testing.assert_allclose(protein.jacobian, exact, atol=float(exact.abs().max()) / 127)
    assert verify(composed("verify", f"store={store}", "deep=true")) == 0


def test_a_run_that_failed_in_the_middle_goes_on_to_the_same_bytes(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plmjac.inference.jacobian_task.SAVE_SECONDS", -1.0)
    words = ("positions=8:21", "rows_per_chunk=4", "max_tokens=300")
    assert predict(*line(fasta, tmp_path / "whole.zarr", *words)) == 3
    from plmjac.inference import jacobian_task

    computed: list[int] = []
    changes = jacobian_task.changes

    def dies(*arguments: object, **named: object) -> object:
        computed.append(int(arguments[2]))  # type: ignore[call-overload]
        if len(computed) == 3:
            raise OSError(28, "no space left on device")
        return changes(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(jacobian_task, "changes", dies)
    store = tmp_path / "killed.zarr"
    with pytest.raises(OSError, match="no space"):
        predict(*line(fasta, store, *words))
    assert not (store / "proteins" / "long").exists()
    assert predict(*line(fasta, store, *words)) == 3
    assert computed == [8, 12, 16, 16, 20]  # blocks that were finished are not computed again
    assert tree(store) == tree(tmp_path / "whole.zarr")


def test_plan_counts_what_is_run(fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(composed("plan", *line(fasta, tmp_path / "p.zarr", "positions=8:21", "keep=[contacts,jacobian]"))) == 0
    said = capsys.readouterr().out
    assert "positions 8:21, counted from 0: 13 residues of each protein are mutated" in said
    assert f"forwards  {19 * 13 + 1:,}" in said and f"store     about {13 * 40 * (4 + 800) / 1e3:.1f} kB" in said
    assert "skipped   short: positions=8:21 end behind its 12 residues" in said


def test_positions_that_are_none() -> None:
    assert parse_positions("0:60") == (0, 60)
    for wrong in ("60", "5:5", "9:3", "-1:4", "a:b", "1:2:3", "750", "1-5"):
        with pytest.raises(ValueError, match="counted from 0 and STOP not among them"):
            parse_positions(wrong)
    for words in (
        ["keep=[couplings]"],
        ["substitutions=none", "keep=[logits]"],
        ["schedule=random", "segments=single"],
    ):
        with pytest.raises(UsageError, match="positions"):
            plan(composed("plan", "+dataset=demo", "model=debug", "positions=0:20", *words))
    with pytest.raises(ValueError, match="within them"):
        plmjac.categorical_jacobian(load_model("debug"), SEQUENCE, positions=(30, 41))
    with pytest.raises(ValueError, match=r"of positions 0:4 has the shape \(4, 20, L, 20\)"):
        plmjac.contact_map(torch.zeros(5, 20, 40, 20), positions=(0, 4))


def test_the_plan_has_the_rows_once() -> None:
    assert Limit(24, None, "window", (10, 30)).rows_of_windows(40) == [(10, 24), (10, 30), (16, 30)]
    row = ManifestRow("a", "a", 40, SEQUENCE, cost=20.0)
    items = work_items(row, 6, rows=(10, 30))
    assert [(item.start, item.stop) for item in items] == [(10, 16), (16, 22), (22, 28), (28, 30)]
    assert [item.is_first for item in items] == [True, False, False, False]
    assert [item.is_last for item in items] == [False, False, False, True]
    assert sum(item.cost for item in items) == pytest.approx(20.0)
