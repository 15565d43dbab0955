"""Behaviour common to all kinds of run; a new readout or kind of run takes one registration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
import torch
from support import composed

from plmjac import readouts
from plmjac.alphabet import AMINO_ACIDS, encode
from plmjac.config import Keys
from plmjac.inference.tasks import TASKS, Answer, Task, TaskSpec, register_task
from plmjac.plan import plan
from plmjac.readouts import READOUTS, ReadoutSpec, register_readout
from plmjac.records import WorkItem
from plmjac.store import PendingProtein, open_store, read_manifest, verify
from plmjac.workplan import ManifestRow, work_items

Predict = Callable[..., int]
ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "jacobian": ("keep=[contacts,jacobian,logits]", "rows_per_chunk=7"),
    "recovery": (
        "schedule=flanking",
        "segments=single",
        "segments.size=6",
        "segments.margin=2",
        "segments.threshold=0",
    ),
}
DEBUG = ("model=debug", "threads=1", "max_tokens=4096")


@pytest.fixture
def proteins(tmp_path: Path) -> Path:
    """Three proteins of 24 residues."""
    path = tmp_path / "three.fasta"
    path.write_text(">a\nMKTAYIAKQRQISFVKSHFSRQLE\n>b\nGSHMLEDPVDAFKLAAQWERTYGK\n>c\nACDEFGHIKLMNPQRSTVWYACDE\n")
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raised", [RuntimeError("the codec broke"), ValueError("the codec broke"), KeyError("broke")])
def test_an_error_while_writing_one_protein_ends_that_protein_alone(
    predict: Predict, proteins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, raised: Exception
) -> None:
    write = PendingProtein.write

    def broken(self: PendingProtein, *rest: Any) -> None:
        if self.attributes["id"] == "b":
            raise raised
        write(self, *rest)

    store = tmp_path / "run.zarr"
    arguments = ("+dataset=fasta", f"dataset.path={proteins}", *DEBUG, *KINDS[kind], f"store={store}")
    with monkeypatch.context() as patched:
        patched.setattr(PendingProtein, "write", broken)
        assert predict(*arguments) == 3
    assert {row.id: row.status for row in read_manifest(store)} == {"a": "done", "b": "failed", "c": "done"}
    failed = json.loads((store / "failed/b.json").read_bytes())
    assert "broke" in failed["reason"] and "in broken" in failed["trace"]
    assert not list((store / "pending").glob("b*")) and open_store(store).attributes["kind"] == kind
    assert predict(*arguments) == 0
    assert not any(damage for _, damage in verify(open_store(store), deep=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_ends_the_run(
    predict: Predict, proteins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PendingProtein, "write", full)
    with pytest.raises(OSError, match="No space left"):
        predict("+dataset=fasta", f"dataset.path={proteins}", *DEBUG, *KINDS[kind], f"store={tmp_path / 'run.zarr'}")


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Of the amino acids at each position, in nats."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def test_a_readout_is_one_registration(
    predict: Predict, proteins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the wild type, and of the mutants block by block: kept, forecast, read, verified and listed."""
    store = tmp_path / "run.zarr"
    arguments = ("+dataset=fasta", f"dataset.path={proteins}", *DEBUG, f"store={store}", "rows_per_chunk=7")
    with patch.dict(READOUTS):
        register_readout(ReadoutSpec("entropy", ("L",), reads=("logits",), make=entropy, description="in nats"))
        register_readout(
            ReadoutSpec(
                "largest",
                ("L", "L"),
                chunks=("rows", "L"),
                needs_mutants=True,
                is_map=True,
                make=lambda rows: rows.abs().amax((1, 3)),
                description="the largest change",
            )
        )
        assert plan(composed("plan", *arguments, "keep=[entropy,largest]")) == 0
        assert f"store     about {3 * (24 * 4 + 24 * 24 * 4) / 1000:.1f} kB" in capsys.readouterr().out
        assert "entropy          (L)  in nats" in readouts.table() and readouts.maps()[-1] == "largest"
        assert predict(*arguments, "keep=[entropy,largest,jacobian,logits]") == 0
        protein = open_store(store)["b"]
        np.testing.assert_allclose(protein.entropy, entropy(torch.from_numpy(protein.logits)), atol=1e-6)
        largest = np.abs(protein.jacobian.astype(np.float32)).max((1, 3))
        np.testing.assert_allclose(protein.largest, largest, rtol=1e-3, atol=1e-3)
        chunks = json.loads((protein.folder / "largest/zarr.json").read_text())["chunk_grid"]["configuration"]
        assert chunks["chunk_shape"] == [7, 24] and protein.largest.dtype == np.float32
        assert not any(damage for _, damage in verify(open_store(store), deep=True))
        with pytest.raises(ValueError, match="already"):
            register_readout(ReadoutSpec("entropy", ("L",)))
    with pytest.raises(AttributeError, match="no 'entropy'"):
        _ = open_store(store)["b"].entropy


class CountSchedule(Keys):
    """`schedule=count`."""

    name: Literal["count"]


class CountTask:
    """Counts the amino acids of a protein in two work items, with no forward at all."""

    certainty = " exactly"

    def identity(self) -> dict[str, Any]:
        return {"kind": "count"}

    def limit(self, limit: Any) -> None:
        """Any length."""

    def check(self, model: Any) -> None:
        pass

    def forwards(self, identifier: str, length: int) -> int:
        return 1

    def items(self, row: ManifestRow) -> list[WorkItem]:
        return work_items(row, row.length // 2)

    def setup(self, items: list[WorkItem]) -> None:
        pass

    def peak(self, length: int, max_tokens: int, model_size: Any, kind: str) -> int:
        return 0

    def compute(self, model: Any, item: WorkItem, max_tokens: int, on_forward: Callable[[float], None]) -> Answer:
        on_forward(1.0)
        if not item.is_last:
            return Answer(item, {}, {"half": item.stop})
        return Answer(item, {"counts": np.bincount(encode(item.sequence), minlength=20).astype(np.int32)})

    def num_bytes(self, identifier: str, length: int, model_size: Any) -> int:
        return 80

    def memory(self, rows: list[ManifestRow], settings: Any, model_size: Any) -> str:
        return "none to speak of"


def test_a_kind_of_run_is_one_registration(
    predict: Predict, proteins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "run.zarr"
    arguments = ("+dataset=fasta", f"dataset.path={proteins}", *DEBUG, f"store={store}", "++schedule.name=count")
    assert isinstance(CountTask(), Task)
    with patch.dict(READOUTS), patch.dict(TASKS):
        register_readout(ReadoutSpec("counts", ("20",), "int32", kinds=("count",), description="of each amino acid"))
        register_task("count", TaskSpec(CountSchedule, lambda *_: CountTask(), "count", ("counts",)))
        assert plan(composed("plan", *arguments)) == 0
        said = capsys.readouterr().out
        assert "forwards  3 exactly" in said and "memory    none to speak of" in said
        assert predict(*arguments) == 0
        opened = open_store(store)
        assert opened.attributes["kind"] == "count" and opened.attributes["keep"] == ["counts"]
        counted = [opened["c"].sequence.count(letter) for letter in AMINO_ACIDS]
        assert opened["c"].counts.tolist() == counted and sum(counted) == 24
        assert json.loads((opened["c"].folder / "zarr.json").read_bytes())["attributes"]["half"] == 12
        assert not any(damage for _, damage in verify(opened, deep=True))


def test_the_format_document_has_the_arrays_as_they_are() -> None:
    """Every row of the two tables in docs/format.md, against the table of readouts."""
    text = (ROOT / "docs/format.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    told = {name: cells[1:4] for *names, cells in ((*row[0].split(", "), row) for row in rows) for name in names}
    for name, spec in READOUTS.items():
        if name == "contacts":
            continue  # stands in both tables, once of a protein and once of its contexts
        shape = f"({', '.join(spec.shape)}{',' if len(spec.shape) == 1 else ''})"
        assert told[name] == [shape, ", ".join(spec.dimensions(len(spec.shape))), spec.dtype], name
