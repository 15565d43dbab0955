"""Long proteins: too_long=skip, error, crop and window, and windows joined to the numbers of each alone."""

import itertools
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import command, composed, tree

import plmjac
from plmjac.config import UsageError
from plmjac.limit import Limit
from plmjac.metrics import ranking
from plmjac.models import load_model
from plmjac.plan import plan
from plmjac.store import open_store, read_manifest
from plmjac.verify import verify

Predict = Callable[..., int]
SEQUENCE = "".join("ACDEFGHIKLMNPQRSTVWY"[k * k % 19] for k in range(50))


@given(st.integers(1, 400), st.integers(2, 60))
def test_windows_cover_a_protein_and_overlap_by_half(length: int, size: int) -> None:
    spans = Limit(size, None, "window").windows(length)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(stop - start == min(size, length) for start, stop in spans)
    assert all(a[0] < b[0] and 2 * (a[1] - b[0]) >= size - 1 for a, b in itertools.pairwise(spans))
    assert Limit(size, None, "skip").windows(length) == [(0, length)]


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "two.fasta"
    path.write_text(f">long\n{SEQUENCE}\n>short\n{SEQUENCE[:12]}\n")
    return path


def line(fasta: Path, store: Path, *more: str) -> tuple[str, ...]:
    keep = [] if any(word.startswith("keep") for word in more) else ["keep=[contacts,logits,jacobian,contact_head]"]
    return ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", f"store={store}", *keep, *more)


@pytest.mark.parametrize("rows", [7, 100])
def test_windows_are_joined_by_their_mean(predict: Predict, fasta: Path, tmp_path: Path, rows: int) -> None:
    """Against each window computed by itself through the API, pair by pair."""
    store = tmp_path / "w.zarr"
    words = line(fasta, store, "max_length=20", "too_long=window", f"rows_per_chunk={rows}")
    assert predict(*words) == 0
    protein, model = open_store(store)["long"], load_model("debug")
    spans = Limit(20, None, "window").windows(50)
    assert protein.windows == tuple(spans) == ((0, 20), (10, 30), (20, 40), (30, 50))
    total, count = np.zeros((50, 20, 50, 20)), np.zeros((50, 50))
    maps, logits, places = np.zeros((50, 50)), np.zeros((50, 20)), np.zeros(50)
    for start, stop in spans:
        jacobian = plmjac.categorical_jacobian(model, SEQUENCE[start:stop])
        total[start:stop, :, start:stop] += jacobian.numpy()
        maps[start:stop, start:stop] += plmjac.contact_map(jacobian).numpy()
        count[start:stop, start:stop] += 1
        tokens = torch.from_numpy(plmjac.api.encode(SEQUENCE[start:stop]))[None]
        logits[start:stop] += model.logits(tokens)[0].numpy()
        places[start:stop] += 1
    with np.errstate(invalid="ignore"):
        total, maps = total / count[:, None, :, None], maps / count
    np.testing.assert_allclose(protein.jacobian, total, atol=1e-3 * np.nanmax(np.abs(total)))
    np.testing.assert_allclose(protein.contacts, maps, atol=1e-5 * np.nanmax(np.abs(maps)))
    np.testing.assert_allclose(protein.logits, logits / places[:, None], atol=1e-5)
    assert np.isnan(protein.contacts[0, 30]) and np.isnan(protein.contact_head[0, 30])
    assert np.isfinite(protein.contacts[0, 19]) and (count == 0).sum() == np.isnan(protein.contacts).sum()
    first, second = ranking(protein.contacts)
    assert len(first) == (count > 0).sum() - 50 and count[first, second].all()
    assert verify(composed("verify", f"store={store}", "deep=true")) == 0
    notes = {row.id: row.reason for row in read_manifest(store)}
    assert notes == {"long": "in 4 windows of 20 residues", "short": ""}
    with pytest.raises(UsageError, match="too_long"):
        predict(*line(fasta, store, "max_length=24", "too_long=window", f"rows_per_chunk={rows}"))


@pytest.mark.parametrize("keep", ["contacts,jacobian,representation", "contacts,attention_heads,logits"])
def test_one_window_is_the_plain_map(predict: Predict, fasta: Path, tmp_path: Path, keep: str) -> None:
    plain, windowed = tmp_path / "plain.zarr", tmp_path / "windowed.zarr"
    assert predict(*line(fasta, plain, f"keep=[{keep}]")) == 0
    assert predict(*line(fasta, windowed, f"keep=[{keep}]", "too_long=window", "max_length=50")) == 0
    assert tree(plain) == tree(windowed)


@pytest.mark.parametrize("substitutions", ["mask", "subset"])
def test_fewer_substitutions_and_complexes_in_windows(predict: Predict, tmp_path: Path, substitutions: str) -> None:
    path, store = tmp_path / "c.fasta", tmp_path / "c.zarr"
    path.write_text(f">pair\n{SEQUENCE[:26]}:{SEQUENCE[26:]}\n")
    words = ("+dataset=complex", f"dataset.path={path}", "dataset.index_gap=40", "model=debug", "threads=1",
             f"substitutions={substitutions}", "keep=[contacts,jacobian,representation]", f"store={store}")  # fmt: skip
    assert predict(*words, "max_length=30", "too_long=window", "rows_per_chunk=11") == 0
    protein = open_store(store)["pair"]
    assert protein.windows and np.isnan(protein.contacts[0, -1]) and np.isnan(protein.representation[0, -1])
    assert verify(composed("verify", f"store={store}", "deep=true")) == 0


def test_skip_error_and_crop(predict: Predict, fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(*line(fasta, tmp_path / "s.zarr", "max_length=20")) == 3
    with pytest.raises(UsageError, match=r"long \[.*two.fasta.*\]: length 50 is over max_length=20; leave such out"):
        predict(*line(fasta, tmp_path / "e.zarr", "max_length=20", "too_long=error"))
    assert not (tmp_path / "e.zarr").exists()
    assert predict(*line(fasta, tmp_path / "c.zarr", "max_length=20", "too_long=crop")) == 0
    cropped = open_store(tmp_path / "c.zarr")["long"]
    assert cropped.sequence == SEQUENCE[:20]
    expected = plmjac.categorical_jacobian(load_model("debug"), SEQUENCE[:20])
    np.testing.assert_allclose(cropped.jacobian, expected, atol=1e-3 * float(expected.abs().max()))
    assert "the first 20 of 50 residues" in {row.reason for row in read_manifest(tmp_path / "c.zarr")}
    with pytest.raises(UsageError, match="too_long=window has no effect without a limit"):
        predict(*line(fasta, tmp_path / "n.zarr", "max_length=null", "too_long=window"))
    with pytest.raises(UsageError, match="too_long=window has no effect with schedule=random"):
        predict("+dataset=demo", "model=debug", "schedule=random", "segments=single", "too_long=window")
    capsys.readouterr()
    assert plan(composed("plan", *line(fasta, tmp_path / "p.zarr", "max_length=20", "too_long=window"))) == 0
    said = capsys.readouterr().out
    assert (
        "windows   4 of 20 residues, of 1 proteins" in said and f"forwards  {4 * (19 * 20 + 1) + 19 * 12 + 1:,}" in said
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size", "number"), [("debug", 256, 19), ("tiny", 64, 78)])
def test_a_long_protein_in_windows_is_killed_and_resumed_to_identical_bytes(
    predict: Predict, tmp_path: Path, model: str, size: int, number: int
) -> None:
    """2,500 residues; MASK alone, so that it takes seconds."""
    path = tmp_path / "titin.fasta"
    path.write_text(">long\n" + "".join("ACDEFGHIKLMNPQRSTVWY"[k * k % 1019 % 20] for k in range(2500)) + "\n")
    words = ("+dataset=fasta", f"dataset.path={path}", f"model={model}", "threads=1", f"max_length={size}",
             "too_long=window", "substitutions=mask", "max_tokens=4096", "keep=[contacts,logits]",
             "rows_per_chunk=100")  # fmt: skip
    assert predict(*words, f"store={tmp_path / 'whole.zarr'}") == 0
    store = tmp_path / "killed.zarr"
    process = subprocess.Popen(command(*words, f"store={store}"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (store / "pending" / "long").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (store / "proteins" / "long").exists()
    assert predict(*words, f"store={store}") == 0
    assert tree(store) == tree(tmp_path / "whole.zarr")
    protein = open_store(store)["long"]
    assert len(protein.windows) == number and 0.7 < np.isnan(protein.contacts).mean() < 1
