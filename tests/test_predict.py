"""From input to store in one process: what is written, what is said, and what the exit code is."""

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import SHARED, run_command, tree

import plmjac
from plmjac.config import UsageError
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.inference.loop import PredictModule
from plmjac.inference.tasks import Answer
from plmjac.interruption import Interrupted
from plmjac.models import LanguageModel, load_model
from plmjac.models.esm2_fast import Esm2Fast
from plmjac.records import Failure, WorkItem
from plmjac.store import open_store, read_manifest
from plmjac.substitutions import AllSubstitutions

Predict = Callable[..., int]
DEBUG = ("model=debug", "threads=1")
FULL = "keep=[contacts,jacobian,logits,contact_head]"


def test_the_store_holds_what_the_api_computes(predict: Predict, fasta: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    assert predict("+dataset=fasta", f"dataset.path={fasta}", f"store={store}", FULL, *DEBUG, "rows_per_chunk=5") == 0
    model = load_model("debug")
    opened = open_store(store)
    assert list(opened) == ["a", "b", "c", "copy_of_a", "d"]
    for identifier in opened:
        protein = opened[identifier]
        jacobian = plmjac.categorical_jacobian(model, protein.sequence)
        scale = float(jacobian.abs().max())
        np.testing.assert_allclose(protein.jacobian, jacobian, atol=1e-3 * scale)
        contacts = plmjac.contact_map(jacobian).numpy()
        np.testing.assert_allclose(protein.contacts, contacts, atol=1e-5 * max(1.0, np.abs(contacts).max()))
        tokens = torch.from_numpy(plmjac.api.encode(protein.sequence))[None]
        wild_type = model.read(tokens, ["logits", "contact_head"])
        np.testing.assert_allclose(protein.logits, wild_type["logits"][0], atol=1e-5)
        np.testing.assert_allclose(protein.contact_head, wild_type["contact_head"][0], atol=1e-5)
    assert opened.attributes["model"]["weights_sha256"] == model.weights_sha256
    assert opened.attributes["run"]["max_tokens"] == 4096
    row = next(row for row in read_manifest(store) if row.id == "copy_of_a")
    assert row.alias_of == "a" and not (store / "proteins/copy_of_a").exists()


def test_running_again_computes_nothing(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", f"store={tmp_path / 'run.zarr'}", *DEBUG)
    assert predict(*arguments) == 0
    before = tree(tmp_path / "run.zarr")
    monkeypatch.setattr(PredictModule, "predict_step", lambda *_: pytest.fail("something was computed again"))
    assert predict(*arguments) == 0
    assert tree(tmp_path / "run.zarr") == before


def test_new_records_are_added_and_old_ones_remembered(predict: Predict, fasta: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    assert predict("+dataset=fasta", f"dataset.path={fasta}", f"store={store}", *DEBUG) == 0
    other = tmp_path / "other.fasta"
    other.write_text(">e\nMKVWW\n>a_under_another_name\nMKTAYIAKQRQISFVKSH\n")
    before = tree(store)
    assert predict("+dataset=fasta", f"dataset.path={other}", f"store={store}", *DEBUG) == 0
    assert set(open_store(store)) == {"a", "b", "c", "copy_of_a", "d", "e", "a_under_another_name"}
    after = tree(store)
    assert {name: after[name] for name in before} == before
    assert not (store / "proteins/a_under_another_name").exists()


def test_what_an_interrupted_run_left_is_not_computed_unasked(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", f"store={tmp_path / 'run.zarr'}", *DEBUG)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(PredictModule, "predict_step", lambda *_: (_ for _ in ()).throw(Interrupted))
        predict(*arguments)
    assert predict(*arguments, "dataset.ids=[b]") == 0
    assert list(open_store(tmp_path / "run.zarr")) == ["b"]
    assert predict(*arguments) == 0
    assert len(open_store(tmp_path / "run.zarr")) == 5


def test_another_configuration_is_refused(predict: Predict, fasta: Path, tmp_path: Path) -> None:
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", f"store={tmp_path / 'run.zarr'}", *DEBUG)
    assert predict(*arguments) == 0
    for change, key in (
        ("seed=1", "model.weights_sha256"),
        ("keep=[contacts]", "keep"),
        ("rows_per_chunk=2", "rows_per"),
    ):
        with pytest.raises(UsageError, match=key):
            predict(*arguments, change)


@pytest.mark.parametrize("max_tokens", [1, 60, 100_000])
def test_batches_do_not_change_the_numbers(predict: Predict, fasta: Path, tmp_path: Path, max_tokens: int) -> None:
    contacts = []
    for name, budget in (("one", 4096), ("two", max_tokens)):
        store = tmp_path / f"{name}.zarr"
        predict("+dataset=fasta", f"dataset.path={fasta}", f"store={store}", *DEBUG, f"max_tokens={budget}")
        contacts.append(open_store(store)["b"].contacts)
    np.testing.assert_allclose(contacts[0], contacts[1], atol=1e-5 * np.abs(contacts[0]).max())


def test_bad_records_are_reported_and_the_others_computed(
    predict: Predict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "some.fasta"
    path.write_text(
        ">good\nMKV\n>gaps\nM-KV\n>empty\n>long\n" + "M" * 40 + "\n>good\nMKVV\n>odd/name\nXBUZO\n>lower\nmkvj\n"
    )
    store = tmp_path / "run.zarr"
    caplog.set_level(logging.INFO)
    assert predict("+dataset=fasta", f"dataset.path={path}", f"store={store}", *DEBUG, "max_length=20") == 3
    status = {row.id: row.status for row in read_manifest(store)}
    assert status["gaps"] == status["empty"] == "failed" and status["long"] == "skipped"
    assert set(open_store(store)) == {"good", "odd/name", "lower"}
    assert open_store(store)["lower"].sequence == "MKVX"
    for reason in ("Remove the gaps", "is empty", "max_length=20", "used before for another sequence"):
        assert reason in caplog.text
    assert {json.loads(path.read_bytes())["id"] for path in (store / "failed").iterdir()} == {"gaps", "empty", "good"}


def test_a_protein_that_fails_takes_nothing_with_it(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN in one protein: that one is reported, the rest is in the store, and the next run tries it again."""
    original = JacobianTask.compute

    def sabotaged(self: JacobianTask, model: LanguageModel, item: WorkItem, *rest: Any) -> Answer:
        answer = original(self, model, item, *rest)
        if item.key == "b" and item.start > 0:
            raise FloatingPointError("the model gave logits that are not finite")
        return answer

    arguments = (
        "+dataset=fasta", f"dataset.path={fasta}", f"store={tmp_path / 'run.zarr'}", *DEBUG, "rows_per_chunk=4", FULL
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(JacobianTask, "compute", sabotaged)
        assert predict(*arguments) == 3
    assert "b" not in open_store(tmp_path / "run.zarr")
    failed = json.loads((tmp_path / "run.zarr/failed/b.json").read_bytes())
    assert "not finite" in failed["reason"] and "sabotaged" in failed["trace"]
    assert not list((tmp_path / "run.zarr/pending").glob("b*"))
    assert predict(*arguments) == 0
    assert "b" in open_store(tmp_path / "run.zarr")
    assert not list((tmp_path / "run.zarr/failed").iterdir())


def test_an_alias_of_a_failed_protein_fails_with_it(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PredictModule.predict_step
    monkeypatch.setattr(
        PredictModule, "predict_step",
        lambda self, item, *rest: Failure(item, "no luck") if item.key == "a" else original(self, item, *rest),
    )  # fmt: skip
    store = tmp_path / "run.zarr"
    assert predict("+dataset=fasta", f"dataset.path={fasta}", f"store={store}", *DEBUG) == 3
    rows = {row.id: row for row in read_manifest(store)}
    assert rows["copy_of_a"].status == "failed" and "no luck" in rows["copy_of_a"].reason


def test_errors_of_the_machine_stop_the_run(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Answer:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(JacobianTask, "compute", broken)
    with pytest.raises(RuntimeError, match="CUDA error"):
        predict("+dataset=fasta", f"dataset.path={fasta}", f"store={tmp_path / 'run.zarr'}", *DEBUG)


def test_a_model_that_fails_on_everything_is_told_for_each(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JacobianTask, "compute", lambda *_: (_ for _ in ()).throw(KeyError("always")))
    store = tmp_path / "run.zarr"
    assert predict("+dataset=fasta", f"dataset.path={fasta}", f"store={store}", *DEBUG) == 3
    assert all(row.status == "failed" and "always" in row.reason for row in read_manifest(store))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_single_logit_that_is_not_finite_fails_its_protein(
    value: float, predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One number of one mutant, with one of the opposite sign beside it, is enough; other proteins are computed."""
    read = Esm2Fast.read

    def spoilt(self: Esm2Fast, tokens: torch.Tensor, *rest: Any) -> dict[str, torch.Tensor]:
        results = read(self, tokens, *rest)
        if tokens.shape == (3 * 19, 3):  # the mutants of protein c
            results["logits"][40, 1, 7], results["logits"][41, 1, 7] = value, -value
        return results

    monkeypatch.setattr(Esm2Fast, "read", spoilt)
    store = tmp_path / "run.zarr"
    assert predict("+dataset=fasta", f"dataset.path={fasta}", f"store={store}", *DEBUG) == 3
    failed = {row.id: row.reason for row in read_manifest(store) if row.status == "failed"}
    assert list(failed) == ["c"] and "the model gave logits that are not finite" in failed["c"]


def test_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("debug")
    module = PredictModule(model, JacobianTask(AllSubstitutions(), {"jacobian"}), max_tokens=400)
    item = WorkItem("a", "MKTAYIAKQR", 0, 10)
    plain = module.predict_step(item)
    sizes: list[int] = []
    read = model.read

    def small(tokens: torch.Tensor, *rest: object) -> dict[str, torch.Tensor]:
        sizes.append(len(tokens))
        if len(tokens) > 10:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return read(tokens, *rest)

    monkeypatch.setattr(module.model, "read", small)
    again = module.predict_step(item)
    assert isinstance(plain, Answer) and isinstance(again, Answer)
    torch.testing.assert_close(plain.arrays["jacobian"], again.arrays["jacobian"], atol=1e-3, rtol=1e-3)
    assert module.max_tokens == 100 and sizes[:4] == [1, 33, 1, 16] and max(sizes[4:]) <= 10
    module.max_tokens = 12
    monkeypatch.setattr(module.model, "read", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("no")))
    failure = module.predict_step(item)
    assert isinstance(failure, Failure) and "one sequence of 10 residues" in failure.reason


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"which dataset\?.*\+dataset=pdb"),
        (("+dataset=fasta",), "dataset.path"),
        (("+dataset=fasta", "dataset.path=nowhere.fasta"), "nowhere.fasta"),
        (("+dataset=fasta", "+dataset.pth=x"), "did you mean 'path'"),
        (("+dataset=demo", "+storee=x"), "did you mean 'store'"),
        (("+dataset=demo", "keep=[contacts,contact_hed]"), "contact_head"),
        (("+dataset=demo", "+logger.foo=1"), "no key 'logger.none.foo'"),
        (("+dataset=demo", "model.seed=abc"), "valid integer"),
        (("+dataset=demo", "++model.token_dropout=maybe"), "valid boolean"),
        (("+dataset=fasta", "dataset.path=x.fasta", "dataset.ids=[]"), "empty list"),
        (("+dataset=demo", "keep=[logits]"), "keep must hold contacts or jacobian"),
        (("+dataset=demo", "max_length=0"), "greater than 0"),
        (("+dataset=demo", "max_tokens=many"), "valid integer"),
        (("+dataset=demo", "trainer.devices=2"), "torchrun --nproc-per-node 2 -m plmjac.predict"),
        (("+dataset=demo", "trainer=ddp"), "torchrun"),
        (("+dataset=demo", "trainer=slurm", "trainer.accelerator=cpu"), "needs srun"),
        (("+dataset=demo", "trainer=gpu"), "sees none"),
        (("+dataset=demo", "model=esm2_8m", "model.checkpoint=nowhere.pt"), "nowhere.pt"),
        (("+dataset=demo", "+model.presicion=fp32"), "did you mean 'precision'"),
    ],
)
def test_mistakes_are_named(predict: Predict, tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    if "trainer=gpu" in overrides and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    store = tmp_path / "run.zarr"
    model = () if any(text.startswith("model=") for text in overrides) else DEBUG
    with pytest.raises(UsageError, match=message):
        predict(*overrides, *model, f"store={store}")
    assert not store.exists()


def test_every_chain_of_real_structures(predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SHARED / "structures"
    if not folder.exists():
        pytest.skip(f"the real structures are not here ({folder})")
    store = tmp_path / "run.zarr"
    arguments = ("+dataset=pdb", f"dataset.path={folder}", *DEBUG, f"store={store}")
    assert predict(*arguments, "dataset.chains=[5P21_A]") == 0
    assert list(open_store(store)) == ["5P21_A"]
    assert len(open_store(store)["5P21_A"]) == 166
    # The 18 chains of 4UV3 have one sequence: one of them is computed (here by a stand-in), the others point to it.
    monkeypatch.setattr(
        JacobianTask,
        "_changes",
        lambda self, model, item, *_: [torch.ones(item.stop - item.start, 20, len(item.sequence), 20)],
    )
    assert predict(*arguments) == 0
    rows = read_manifest(store)
    assert sum(row.id.startswith("4UV3_") for row in rows) == 18 and {row.status for row in rows} == {"done"}
    assert len(list((store / "proteins").glob("*/"))) == 2 and len(open_store(store)) == 19


@pytest.mark.parametrize("manifest", ["kept", "deleted"])
def test_a_name_never_comes_to_mean_another_sequence(
    predict: Predict, tmp_path: Path, manifest: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, store = tmp_path / "in.fasta", tmp_path / "run.zarr"
    arguments = ("+dataset=fasta", f"dataset.path={path}", *DEBUG, f"store={store}")
    path.write_text(">A\nMKVLA\n>a\nMKVLC\n>copy\nMKVLA\n")
    assert predict(*arguments) == 0
    before = tree(store)
    if manifest == "deleted":
        (store / "manifest.parquet").unlink()
    path.write_text(">A\nMKVLA\n>a\nWWWWW\n>b\nMKVLC\n>copy\nMKVLA\n")
    assert predict(*arguments) == 3
    assert "holds another sequence under the id 'a'" in caplog.text
    assert tree(store) == before
    opened = open_store(store)
    assert opened["A"].sequence == opened["copy"].sequence == "MKVLA" and opened["b"].sequence == "MKVLC"
    if manifest == "kept":
        assert opened["a"].sequence == "MKVLC"


def test_a_half_deleted_protein_is_computed_again(predict: Predict, fasta: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", *DEBUG, f"store={store}")
    assert predict(*arguments) == 0
    before = tree(store)
    (store / "proteins/b/zarr.json").unlink()
    assert "b" not in open_store(store) or open_store(store).rows
    assert predict(*arguments) == 0
    assert tree(store) == before


@pytest.mark.parametrize("store", [".", "/", "/proc/nothing.zarr", "in.fasta/run.zarr"])
def test_a_store_that_cannot_be_is_a_usage_error(
    predict: Predict, fasta: Path, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.fasta").write_bytes(fasta.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"store|written"):
        predict("+dataset=fasta", f"dataset.path={fasta}", f"store={store}", *DEBUG)


def test_threads_asked_for_on_resuming_are_used_and_said(
    predict: Predict, fasta: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", f"store={tmp_path / 'run.zarr'}")
    try:
        assert predict(*arguments, "threads=2", "dataset.ids=[a]") == 0
        assert predict(*arguments, "threads=1", "dataset.ids=[b]") == 0
        assert torch.get_num_threads() == 1 and "threads=1: results agree" in caplog.text
        caplog.clear()
        assert predict(*arguments) == 0
        assert torch.get_num_threads() == 2 and "results agree" not in caplog.text
    finally:
        torch.set_num_threads(1)


def test_compressed_input_from_the_command_line_with_every_exit_code(tmp_path: Path) -> None:
    """The whole command, in a process of its own: 0, then 3, 2 and 2."""
    path = tmp_path / "two.fasta.gz"
    path.write_bytes(gzip.compress(b">a\nMKVLAA\n>b\nMKVLAAW\n"))
    good = run_command("+dataset=fasta", f"dataset.path={path}", "model=debug", "store=run.zarr", cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    assert "2 done" in good.stderr and (tmp_path / "run.zarr/proteins/a/contacts").is_dir()
    path.write_bytes(gzip.compress(b">a\nMKVLAA\n>c\nMK-VLAAW\n"))
    some = run_command("+dataset=fasta", f"dataset.path={path}", "model=debug", "store=run.zarr", cwd=tmp_path)
    assert some.returncode == 3 and "failed c" in some.stderr
    wrong = run_command("dataset=fasta", "datset.path=x", cwd=tmp_path)
    assert wrong.returncode == 2 and "did you mean 'dataset.path'" in wrong.stderr, wrong.stderr
    none = run_command(cwd=tmp_path)
    assert none.returncode == 2 and "+dataset=pdb" in none.stderr and "Traceback" not in none.stderr
