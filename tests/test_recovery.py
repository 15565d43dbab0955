"""Recovery runs against the plain computation on the same masked tokens, and their stores against kills and ranks."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT, SHARED, command, composed, tree, undisturbed_tree
from test_resume import ENVIRONMENT, start, torchrun, wait_for

from plmjac.alphabet import MASK, decode, encode
from plmjac.config import UsageError
from plmjac.datasets.demo import DemoDataset
from plmjac.inference.recovery_task import RecoveryTask, blocks_at, masked
from plmjac.inference.settings import parse_predict
from plmjac.inference.tasks import Answer
from plmjac.models import load_model
from plmjac.models.debug import LinearModel
from plmjac.plan import plan
from plmjac.records import Protein, WorkItem
from plmjac.schedules import Random
from plmjac.segments import Listed, recoveries
from plmjac.store import CorruptStoreError, open_store, read_manifest, verify

Predict = Callable[..., int]

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ"
LISTED: list[Any] = [[12, 40], [20, 44]]
SMALL = ("model=debug", "segments.size=8", "segments.margin=2", "segments.threshold=1", "threads=1")


def settings(readout: str = "contact_head", keep: tuple[str, ...] = ("blocks",), **schedule: Any) -> RecoveryTask:
    """Two pairs of windows of 9 residues, from a list, under a random schedule with two draws a step."""
    drawn = {"name": "random", "draws": "fresh", "repeats": 2, "stride": 3, "max_step": 9, **schedule}
    choice = Listed(name="list", path="none.json", kind="pairs", size=9, gap=None)
    return RecoveryTask(Random(**drawn), choice, readout, 5, keep, lambda _: {"p": LISTED, "q": [[6, 15]]})  # type: ignore[arg-type]


def run(model: Any, task: RecoveryTask, max_tokens: int = 500, length: int = len(SEQUENCE)) -> Answer:
    item = WorkItem("p" if length == len(SEQUENCE) else "q", SEQUENCE[:length], 0, length)
    task.setup([item])
    return task.compute(model, item, max_tokens)


def fair_esm_contacts(model: Any, text: str) -> np.ndarray:
    """fair-esm's own call on a string with <mask> in it, as the authors make it; `#` stands for <mask>."""
    import esm

    alphabet = esm.data.Alphabet.from_architecture("ESM-1b")
    _, _, tokens = alphabet.get_batch_converter()([("p", text.replace("#", "<mask>"))])
    with torch.no_grad():
        contacts: np.ndarray = model.esm.predict_contacts(tokens)[0].numpy()
    return contacts


@pytest.mark.parametrize("fast", [False, True])
def test_recovery_equals_fair_esm_on_the_same_masked_sequence(fast: bool) -> None:
    plain, model = load_model("debug", fast=False), load_model("debug", fast=fast)
    recovery = run(model, settings(keep=("blocks", "contacts")))
    arrays = recovery.arrays
    full = fair_esm_contacts(plain, SEQUENCE)
    assert arrays["step"].tolist() == [0, 3, 6, 0, 3, 6, 0, 3, 0, 3] and len(recovery.attributes["outcomes"]) == 2
    for row in range(len(arrays["step"])):
        start1, stop1, start2, stop2 = arrays["segments"][arrays["segment"][row]]
        shown = arrays["visible"][row]
        assert shown.sum() == 18 + 2 * arrays["step"][row]
        text = "".join(letter if visible else "#" for letter, visible in zip(SEQUENCE, shown, strict=True))
        contacts = fair_esm_contacts(plain, text)
        before, after = (each[start1:stop1, start2:stop2] for each in (full, contacts))
        np.testing.assert_allclose(arrays["contacts"][row], contacts, atol=1e-5)
        np.testing.assert_allclose(arrays["blocks"][row], after, atol=1e-5)
        assert arrays["recovery"][row] == pytest.approx((before * after).sum() / (before**2).sum(), abs=1e-5)
    assert arrays["recovery"].std() > 1e-3


@pytest.mark.parametrize(("fast", "readout"), [(False, "contact_head"), (True, "contact_head"), (True, "jacobian")])
def test_full_batches_give_what_one_at_a_time_gives(fast: bool, readout: str) -> None:
    model, length = load_model("debug", fast=fast), 24 if readout == "jacobian" else len(SEQUENCE)
    asked = settings(readout, max_step=None, repeats=1)
    one, many = (run(model, asked, max_tokens=tokens, length=length).arrays for tokens in (1, 4096))
    assert one.keys() == many.keys() and len(one["step"]) > 0
    for name in one:
        np.testing.assert_allclose(
            one[name], many[name], rtol=1e-5, atol=1e-5 * max(1.0, np.abs(one["reference"]).max())
        )


def test_bos_and_eos_masked_is_the_variant_without_them() -> None:
    with_ends, without = (run(load_model("debug", bos_eos=ends), settings()).arrays for ends in ("keep", "mask"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(with_ends["visible"], without["visible"])
    assert np.abs(with_ends["recovery"] - without["recovery"]).max() > 1e-3


def test_couplings_that_do_not_depend_on_the_context_come_back_whole() -> None:
    """The Jacobian of a linear model is the same whatever is masked, once centred, so every recovery is exactly 1."""
    couplings = torch.randn(24, 26, 24, 20, generator=torch.Generator().manual_seed(0))
    recovery = run(LinearModel(couplings), settings("jacobian", stride=1), length=24)
    assert len(recovery.arrays["recovery"]) == 4
    np.testing.assert_allclose(recovery.arrays["recovery"], 1.0, atol=1e-5)
    assert np.abs(recovery.arrays["reference"]).max() > 0.1
    with pytest.raises(ValueError, match="readout=jacobian"):
        settings().check(LinearModel(couplings))


def test_masked_tokens_and_blocks() -> None:
    tokens = torch.from_numpy(encode("MKVLA"))
    visible = torch.tensor([[True, False, True, True, False], [False] * 5])
    assert [decode(row.numpy()) for row in masked(tokens, visible)] == ["M#VL#", "#####"] and MASK not in tokens
    maps = torch.arange(2 * 49.0).view(2, 7, 7)
    blocks = blocks_at(maps, torch.tensor([[1, 4], [3, 3]]), 2)
    assert torch.equal(blocks, torch.stack([maps[0, 1:3, 4:6], maps[1, 3:5, 3:5]]))


def test_recoveries_of_segments_without_contacts_are_an_error() -> None:
    reference, blocks = np.zeros((1, 2, 2), np.float32), np.ones((3, 2, 2), np.float32)
    with pytest.raises(ValueError, match="nothing to recover"):
        recoveries(reference, blocks, np.zeros(3, np.int32))
    reference[0, 0, 1] = 0.5
    np.testing.assert_allclose(recoveries(reference, blocks, np.zeros(3, np.int32)), 2.0)


# ---------------------------------------------------------------- the command


@pytest.fixture
def input_file(tmp_path: Path) -> Path:
    """Eleven proteins: nine of 40 to 72 residues, one too short for any segment, and a copy."""
    return write_fasta(tmp_path / "proteins.fasta")


def write_fasta(path: Path) -> Path:
    chance = random.Random(7)
    records = {f"p{n}": "".join(chance.choices("LAGVSERTIDPKQNFYMHWC", k=40 + 4 * n)) for n in range(9)}
    records |= {"short": "MKVLA", "copy": records["p3"]}
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return path


@pytest.mark.parametrize(
    "schedule", [("flanking",), ("random", "schedule.repeats=2"), ("random_avoiding_30", "schedule.distance=6")]
)
def test_a_run_and_its_store(predict: Predict, input_file: Path, tmp_path: Path, schedule: tuple[str, ...]) -> None:
    store = tmp_path / "run.zarr"
    line = ("+dataset=fasta", f"dataset.path={input_file}", f"schedule={schedule[0]}", *schedule[1:], *SMALL)
    assert predict(*line, f"store={store}") == 0
    opened = open_store(store)
    assert opened.attributes["kind"] == "recovery" and opened.attributes["schedule"]["name"] == schedule[0]
    assert opened.attributes["segments"]["name"] == "single" and opened.attributes["readout"] == "contact_head"
    assert opened.attributes["repeats"] == (2 if schedule[0] == "random" else 1) and opened.attributes["seed"] == 0
    assert len(opened) == 11
    for identifier in opened:
        check(opened[identifier], repeats=opened.attributes["repeats"])
    assert opened["short"].array("segments").shape == (0, 4) and opened["short"].outcomes == ()
    ends = {outcome for identifier in opened for outcome in opened[identifier].outcomes}
    assert ends <= {"end of the protein", "too few residues left"} and "end of the protein" in ends
    assert ("too few residues left" in ends) == (schedule[0] == "random_avoiding_30")
    assert not any(damages for _, damages in verify(opened, deep=True))
    before = tree(store)
    assert predict(*line, f"store={store}") == 0 and tree(store) == before


def check(protein: Any, repeats: int) -> None:
    """Shapes, dtypes and what one array says of another, for one protein of a recovery store (docs/format.md)."""
    arrays = {name: protein.array(name) for name in protein.names}
    assert set(arrays) == {"segments", "reference", "segment", "step", "repeat", "recovery", "visible", "blocks"}
    number, contexts = len(arrays["segments"]), len(arrays["step"])
    assert arrays["visible"].shape == (contexts, len(protein)) and arrays["visible"].dtype == bool
    assert {arrays[name].dtype for name in ("segments", "segment", "step", "repeat")} == {np.dtype("int32")}
    assert len(arrays["reference"]) == number == len(protein.outcomes) and len(arrays["blocks"]) == contexts
    assert {arrays[name].dtype for name in ("reference", "recovery", "blocks")} == {np.dtype("float32")}
    for row in range(number):
        mine = arrays["segment"] == row
        steps = arrays["step"][mine]
        assert sorted(steps) == sorted(list(range(steps.max() + 1)) * repeats)
        start, stop, *again = arrays["segments"][row]
        assert [start, stop] == again and arrays["visible"][mine][:, start:stop].all()
        np.testing.assert_array_equal(arrays["visible"][mine].sum(1), stop - start + 2 * steps)


def test_the_seed_chooses_segments_and_residues(predict: Predict, input_file: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        store = tmp_path / f"{seed}.zarr"
        line = ("+dataset=fasta", f"dataset.path={input_file}", "dataset.ids=[p8]", "schedule=random", *SMALL)
        assert predict(*line, f"store={store}", f"seed={seed}", "model.seed=0") == 0
        found.append(open_store(store)["p8"])
    assert not np.array_equal(found[0].array("segments"), found[1].array("segments"))
    with pytest.raises(UsageError, match="seed: the store has 1"):
        predict(*line, f"store={store}", "seed=2", "model.seed=0")


def test_listed_segments(
    predict: Predict, input_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exactly what the list says, by the authors' names too; what has no room is named; a bad entry fails alone."""
    said = {"p0": [10, 0, 30], "p_1.pdb": [9], "p2": ["x"], "nobody": [3]}
    (tmp_path / "list.json").write_text(json.dumps(said))
    line = (
        "+dataset=fasta", f"dataset.path={input_file}", "dataset.ids=[p0,p1,p2,p3]", "schedule=flanking",
        "segments=list", f"segments.path={tmp_path / 'list.json'}", "segments.kind=single", "segments.size=12",
        "model=debug", "threads=1",
    )  # fmt: skip
    assert predict(*line, f"store={tmp_path / 'run.zarr'}") == 3
    store = open_store(tmp_path / "run.zarr")
    assert store["p0"].array("segments").tolist() == [[10, 22, 10, 22]]
    assert json.loads((store["p0"].folder / "zarr.json").read_text())["attributes"]["left_out"] == [
        [0, 12, 0, 12],
        [30, 42, 30, 42],
    ]
    assert store["p1"].array("segments").tolist() == [[9, 21, 9, 21]] and len(store["p3"].array("segments")) == 0
    reasons = {row.id: row.reason for row in read_manifest(tmp_path / "run.zarr")}
    assert "kind=single expects" in reasons["p2"]

    assert plan(composed("plan", *line, f"store={tmp_path / 'other.zarr'}")) == 0
    assert f"forwards  {4 + (10 + 0 + 9):,} exactly" in capsys.readouterr().out


KEYS = ("+dataset=demo", "model=debug")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("segments=single",), "add schedule=flanking"),
        (("readout=jacobian",), "add schedule=flanking"),
        (("keep=[blocks,contacts]",), "schedule=full"),
        (("schedule=flanking", "keep=[jacobian]"), "keep blocks or contacts"),
        (("schedule=flanking", "rows_per_chunk=4"), "no effect"),
        (("schedule=flanking", "substitutions=mask"), "no effect"),
        (("schedule=flanking", "schedule.direction=inward"), "needs pairs"),
        (("schedule=flanking", "schedule.direction=up"), "schedule"),
        (("schedule=random", "segments=list", "segments.kind=single", "segments.path=nowhere.json"), "nowhere.json"),
    ],
)
def test_what_has_no_effect_is_an_error(predict: Predict, tmp_path: Path, line: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        predict(*KEYS, *line, f"store={tmp_path / 'run.zarr'}")


def test_a_list_whose_entry_is_no_list_is_a_sentence() -> None:
    listed = Listed(name="list", path="mine.json", kind="single", size=12, gap=None)
    with pytest.raises(ValueError, match=r"mine.json: 5 is no list of segments; write \[5\]"):
        listed.possible(60, 5)


def test_the_default_store_is_named_after_what_is_run() -> None:
    names = {
        (): "runs/demo_debug.zarr",
        ("schedule=flanking",): "runs/demo_debug_flanking.zarr",
        ("schedule=random", "segments=pairs", "seed=3"): "runs/demo_debug_random_pairs_50_100_seed3.zarr",
    }
    for line, name in names.items():
        assert parse_predict(composed("predict", *KEYS, *line)).store == Path(name)


def test_pairs_by_secondary_structure(predict: Predict, tmp_path: Path) -> None:
    """Real structures give their own; where there are no coordinates a file has to say it, or the protein fails."""
    folder = SHARED / "covariation" / "structures"
    if not folder.exists():
        pytest.skip(f"the real structures are not here ({folder})")
    pairs = (
        "schedule=flanking", "segments=pairs", "segments.size=5", "segments.min_separation=20", "segments.margin=2",
        "segments.threshold=0", "model=debug", "threads=1",
    )  # fmt: skip
    path = folder / "1TEN_A.pdb"
    assert predict("+dataset=pdb", f"dataset.path={path}", *pairs, f"store={tmp_path / 'pdb.zarr'}") == 0
    segments = open_store(tmp_path / "pdb.zarr")["1TEN_A"].array("segments")
    assert len(segments) == 3 and (segments[:, 2] - segments[:, 0] > 20).all()
    demo = ("+dataset=demo", "dataset.ids=[1TEN_A]", *pairs, f"store={tmp_path / 'demo.zarr'}")
    assert predict(*demo) == 3
    assert "segments.secondary_structure" in read_manifest(tmp_path / "demo.zarr")[0].reason
    (domain,) = DemoDataset("1TEN_A")
    assert isinstance(domain, Protein)
    letters = {"1TENA.pdb": ("EEEEEE----" * 20)[: len(domain)]}
    (tmp_path / "letters.json").write_text(json.dumps(letters))
    given = (
        *demo[:-1],
        f"segments.secondary_structure={tmp_path / 'letters.json'}",
        f"store={tmp_path / 'given.zarr'}",
    )
    assert predict(*given) == 0
    found = open_store(tmp_path / "given.zarr")["1TEN_A"].array("segments")
    assert len(found) == 3 and ((found[:, 0] + 2) % 10 == 3).all()


# ---------------------------------------------------------------- kills and ranks


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = write_fasta(tmp_path_factory.mktemp("input") / "proteins.fasta")
    return ["+dataset=fasta", f"dataset.path={path}", "schedule=random", "keep=[blocks,contacts]", *SMALL]


@pytest.fixture(scope="module")
def undisturbed(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes that every other run has to come to."""
    return undisturbed_tree(tmp_path_factory.mktemp("undisturbed") / "run.zarr", *arguments)


def test_killed_and_finished_by_two_ranks(arguments: list[str], undisturbed: dict[str, str], tmp_path: Path) -> None:
    store, chance = tmp_path / "run.zarr", random.Random(3)
    for kill in (0, 1):
        process = start(*command(*arguments, f"store={store}"))
        try:
            wait_for(store, 1 + 3 * kill, process)
            time.sleep(chance.random() * 0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        there = tree(store)
        assert {name: undisturbed.get(name) for name in there} == there
    assert len(read_manifest(store)) == 11
    finished = subprocess.run(
        torchrun(*arguments, f"store={store}"), cwd=ROOT, env=ENVIRONMENT, timeout=200, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    assert tree(store) == undisturbed
    assert not any(damages for _, damages in verify(open_store(store), deep=True))


def test_damage_is_found(predict: Predict, input_file: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    line = ("+dataset=fasta", f"dataset.path={input_file}", "dataset.ids=[p5]", "schedule=flanking", *SMALL)
    assert predict(*line, f"store={store}") == 0
    chunk = store / "proteins/p5/visible/c/0/0"
    chunk.unlink()
    with pytest.raises(CorruptStoreError, match="missing"):
        open_store(store)["p5"].array("visible")
    (problems,) = [[damage.problem for damage in damages] for _, damages in verify(open_store(store)) if damages]
    assert problems == ["visible/c/0/0 is gone"]
