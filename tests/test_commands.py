"""plan, verify and evaluate, and the jobs the README shows, on stores that predict made."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import SHARED, composed, run_command

from plmjac.evaluate import evaluate
from plmjac.evaluation import contact_precision
from plmjac.plan import duration, plan, size, stored_bytes
from plmjac.records import ContactList, Contacts, Protein
from plmjac.store import open_store, read_manifest
from plmjac.verify import verify

Predict = Callable[..., int]


@pytest.fixture
def store(predict: Predict, tmp_path: Path) -> Path:
    """Two demo domains under the debug model."""
    path = tmp_path / "demo.zarr"
    assert predict(
        "+dataset=demo", "dataset.ids=[1GUU_A,1BXY_A]", "model=debug", "threads=1", f"store={path}",
        "keep=[contacts,contact_head,jacobian]",
    ) == 0  # fmt: skip
    return path


def test_plan_counts_what_predict_would_do(
    fasta: Path, tmp_path: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", f"store={tmp_path / 'run.zarr'}")
    assert plan(composed("plan", *arguments)) == 0
    said = capsys.readouterr().out
    residues = 18 + 22 + 3 + 11
    assert f"forwards  {19 * residues + 4:,}" in said
    assert "4 will be computed" in said and "1 have the sequence of another record" in said
    assert not (tmp_path / "run.zarr").exists()
    assert predict(*arguments, "threads=1") == 0
    assert plan(composed("plan", *arguments)) == 0
    said = capsys.readouterr().out
    assert "5 already in the store" in said and "forwards" not in said


def test_plan_needs_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(composed("plan", "+dataset=demo", "model=esm2_650m", "keep=[contacts,jacobian]")) == 0
    said = capsys.readouterr().out
    assert "651.0 M" in said and "forwards  15,343" in said and "FLOPs     1.77e+15" in said


def test_units() -> None:
    assert [duration(0.2), duration(5), duration(300), duration(7200), duration(200_000)] == [
        "under 1 s", "about 5 s", "about 5.0 minutes", "about 2.0 hours", "about 2.3 days"
    ]  # fmt: skip
    assert size(52_428_800) == "52.4 MB"
    assert stored_bytes(256, ["jacobian"]) == 52_428_800


def test_verify_exits_with_1_and_says_how_to_mend(
    store: Path, predict: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(composed("verify", f"store={store}", "deep=true")) == 0
    chunk = store / "proteins/1GUU_A/jacobian/c/0/0/0/0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    assert verify(composed("verify", f"store={store}")) == 1
    said = capsys.readouterr().out
    assert "damaged: 1GUU_A: jacobian/c/0/0/0/0 has changed" in said and "1 proteins intact, 1 damaged" in said
    shutil.rmtree(store / "proteins/1GUU_A")
    assert predict(
        "+dataset=demo", "dataset.ids=[1GUU_A,1BXY_A]", "model=debug", "threads=1", f"store={store}",
        "keep=[contacts,contact_head,jacobian]",
    ) == 0  # fmt: skip
    assert verify(composed("verify", f"store={store}", "deep=true")) == 0


def test_evaluate_writes_tables_and_figures(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(composed("evaluate", "+evaluation=contact_precision", f"store={store}")) == 0
    said = capsys.readouterr().out
    assert "1GUU_A" in said and "mean of 2" in said and "P@L/5" in said and "model debug" in said
    out = store.with_name("demo.zarr-evaluation")
    table = pd.read_parquet(out / "contact_precision.parquet")
    assert set(table["map"]) == {"contacts", "contact_head"} and set(table["range"]) == {
        "all",
        "short",
        "medium",
        "long",
    }
    assert len(table) == 2 * 2 * 4 and len(pd.read_csv(out / "contact_precision.csv")) == len(table)
    assert (out / "contact_maps.png").stat().st_size > 10_000 and (out / "contact_maps.svg").exists()


def test_evaluate_on_a_store_without_a_structure_says_so(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protein = open_store(store)["1BXY_A"]
    length = len(protein)
    contacts = Contacts(np.zeros((length, length), bool), np.ones(length, bool))
    truth = [
        Protein("1BXY_A", protein.sequence, structure=ContactList({("cb", 8.0): contacts})),
        Protein("9XYZ_A", "MKV"),
    ]
    table = contact_precision(open_store(store), truth)
    reasons = dict(zip(table["protein"], table["reason"], strict=True))
    assert reasons["1GUU_A"] == "no structure to compare with" and reasons["9XYZ_A"] == "not in the store"
    assert "no contact in this range" in reasons["1BXY_A"]
    assert table["P@L"].isna().all()
    other = [Protein("1BXY_A", "MKV", structure=truth[0].structure)]
    assert "another sequence" in contact_precision(open_store(store), other)["reason"].iloc[1]


def test_the_right_map_scores_one(store: Path) -> None:
    """The truth made from the map itself: its L/5 best pairs are contacts, so P@L/5 is 1."""
    protein = open_store(store)["1BXY_A"]
    scores, length = protein.contacts.copy(), len(protein)
    i, j = np.triu_indices(length, 6)
    best = np.argsort(-scores[i, j], kind="stable")[: length // 5]
    pairs = np.zeros((length, length), bool)
    pairs[i[best], j[best]] = pairs[j[best], i[best]] = True
    truth = Protein("1BXY_A", protein.sequence, structure=ContactList(
        {("cb", 8.0): Contacts(pairs, np.ones(length, bool))}))  # fmt: skip
    table = contact_precision(open_store(store), [truth])
    row = table[(table["map"] == "contacts") & (table["range"] == "all")].iloc[0]
    assert row["P@L/5"] == 1.0 and row["P@L"] == pytest.approx(length // 5 / length)


def test_a_folder_with_broken_files(predict: Predict, tmp_path: Path) -> None:
    """20 files, 3 of them broken: exit code 3, 17 in the store, each of the three named with its reason."""
    structures = SHARED / "covariation" / "structures"
    if not structures.exists():
        pytest.skip(f"the real structures are not here ({structures})")
    folder = tmp_path / "pdb"
    folder.mkdir()
    for path in sorted(structures.glob("*.pdb"), key=lambda path: path.stat().st_size)[:17]:
        shutil.copy(path, folder)
    (folder / "empty.pdb").write_text("")
    (folder / "letter.cif").write_text("Dear reader,\nthis is no structure.\n")
    atoms = [
        f"ATOM  {n + 1:5d}  P    DA A{n + 1:4d}    {n * 6.0:8.3f}{0:8.3f}{0:8.3f}  1.00 10.00           P"
        for n in range(5)
    ]
    (folder / "dna.pdb").write_text("\n".join([*atoms, "END", ""]))
    store = tmp_path / "run.zarr"
    done = predict(
        "+dataset=pdb", f"dataset.path={folder}", "model=debug", "threads=1", f"store={store}", "max_tokens=20000"
    )
    assert done == 3
    assert len(open_store(store)) == 17
    failed = {Path(row.source.split(",")[0]).name: row.reason for row in read_manifest(store) if row.status == "failed"}
    assert set(failed) == {"empty.pdb", "letter.cif", "dna.pdb"}
    assert "nucleic" in failed["dna.pdb"] and all(failed.values())


def test_verify_from_the_command_line(store: Path) -> None:
    good = run_command(f"store={store}", module="plmjac.verify")
    assert good.returncode == 0 and "2 proteins intact, 0 damaged" in good.stdout
    nothing = run_command("store=nowhere.zarr", module="plmjac.verify")
    assert nothing.returncode == 2 and "no plmjac store" in nothing.stderr
