"""plan, verify and evaluate, and the jobs the README shows, on stores that predict made."""

import inspect
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
from support import SHARED, composed, run_command

from plmjac.config import UsageError, run
from plmjac.evaluate import evaluate
from plmjac.evaluation import names
from plmjac.inference.forecast import duration, in_bytes
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.models import size_of
from plmjac.plan import plan
from plmjac.store import open_store, read_manifest
from plmjac.substitutions import AllSubstitutions, MaskOnly
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
    assert "5 already in the store" in said and ": 5 records" in said and "forwards" not in said


def test_plan_needs_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(composed("plan", "+dataset=demo", "model=esm2_650m", "keep=[contacts,jacobian]")) == 0
    said = capsys.readouterr().out
    assert "651.0 M" in said and "forwards  11,885" in said and "FLOPs     1.03e+15" in said
    for choice, per_residue in ((["mask"], 1), (["subset", "substitutions.k=4"], 4)):
        assert plan(composed("plan", "+dataset=demo", f"substitutions={choice[0]}", *choice[1:])) == 0
        assert f"forwards  {10 + per_residue * 625:,}" in capsys.readouterr().out


def test_units() -> None:
    assert [duration(0.2), duration(5), duration(300), duration(7200), duration(200_000)] == [
        "under 1 s", "about 5 s", "about 5.0 minutes", "about 2.0 hours", "about 2.3 days"
    ]  # fmt: skip
    assert in_bytes(52_428_800) == "52.4 MB"
    model = size_of("esm2_8m")
    assert JacobianTask(AllSubstitutions(), ["jacobian"]).num_bytes("p", 256, model) == 52_428_800
    assert JacobianTask(MaskOnly(), ["contacts", "jacobian"]).num_bytes("p", 256, model) == 256 * 256 * (4 + 40)


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


def test_evaluate_writes_tables_and_figures(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Of two stores at once, with everything in the logger as well."""
    arguments = ("+evaluation=contact_precision", "evaluation.bootstrap=50", "logger=wandb", "logger.mode=offline")
    other = shutil.copytree(store, tmp_path / "other.zarr")
    assert evaluate(composed("evaluate", *arguments, f"store=[{store},{other}]")) == 0
    said = capsys.readouterr().out
    assert "1GUU_A" in said and "P@L/5" in said and "model debug (demo), debug (other)" in said
    out = tmp_path / "demo+other-evaluation"
    table = pd.read_parquet(out / "contact_precision.parquet")
    assert set(table["map"]) == {"contacts", "contact_head"}
    assert set(table["range"]) == {"all", "short", "medium", "long"} and set(table["store"]) == {"demo", "other"}
    assert len(table) == 2 * 2 * 2 * 2 * 4 and len(pd.read_csv(out / "contact_precision.csv")) == len(table)
    assert (out / "contact_maps.png").stat().st_size > 10_000 and (out / "contact_maps.svg").exists()
    media = tmp_path / "demo+other-evaluation-logs/wandb/latest-run/files/media"
    assert len(list(media.rglob("contact_precision*.table.json"))) == 1 and len(list(media.rglob("*.png"))) == 3


def test_evaluations_of_a_store_leave_each_others_files_alone(predict: Predict, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    assert (
        predict("+dataset=demo", "dataset.ids=[1GUU_A]", "model=debug", f"store={store}", "keep=[contacts,jacobian]")
        == 0
    )
    run = lambda name: evaluate(composed("evaluate", f"+evaluation={name}", f"store={store}"))  # noqa: E731
    assert run("contact_precision") == 0
    out = tmp_path / "a.zarr-evaluation"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert run("best_pairs") == 0
    assert before == {path: path.read_bytes() for path in before} and len(list(out.rglob("*"))) > len(before) + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["store=nowhere.zarr"], "no plmjac store"),
        ([], "store is needed"),
        (["store=x", "evaluation.cutof=3"], "did you mean 'evaluation.cutoff'"),
        (["store=x", "evaluation.range=far"], "evaluation.range"),
        (["+evaluation=capacity", "structures=pdb/"], "structures and dataset have no effect on +evaluation=capacity"),
    ],
)
def test_what_evaluate_cannot_do_is_a_sentence(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    named = [] if any(each.startswith("+evaluation") for each in arguments) else ["+evaluation=contact_precision"]
    monkeypatch.setattr("sys.argv", ["evaluate", *named, *arguments])
    assert run("evaluate", evaluate) == 2
    assert said in caplog.text


def test_an_unknown_evaluation_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["evaluate", "+evaluation=contact_precison", "store=x"])
    assert run("evaluate", evaluate) == 2
    assert "did you mean 'contact_precision'" in caplog.text
    with pytest.raises(UsageError, match=r"\+evaluation=contact_precision"):
        evaluate(composed("evaluate", "store=x"))


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


def test_a_shipped_model_on_other_proteins_says_so(
    fasta: Path, predict: Predict, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    words = ["+dataset=fasta", f"dataset.path={fasta}", "model=debug", "substitutions=none", "keep=[logits]"]
    plan(composed("plan", *words))
    assert "WARNING: the model `debug` has random weights" in capsys.readouterr().out
    with caplog.at_level("INFO"):
        assert predict(*words, f"store={tmp_path / 'a.zarr'}") == 0
    assert "WARNING: the model `debug`" in caplog.text
    plan(composed("plan", "+dataset=demo", "model=debug"))
    assert "WARNING" not in capsys.readouterr().out


def test_evaluations_that_read_no_structures_are_those_that_refuse_them() -> None:
    """By their source: where structures= would have no effect, it is an error."""
    for name in names():
        module = import_module(f"plmjac.evaluation.{name}")
        text = inspect.getsource(module)
        reads = any(word in text for word in ("inputs.structures", "inputs.truth"))
        assert getattr(module, "READS_STRUCTURES", True) == reads, name
