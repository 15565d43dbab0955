"""Any bytes in a file name, an id or a header: that record is computed or rejected, and nothing else is touched."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import composed

from plmjac.datasets import build
from plmjac.files import UsageError
from plmjac.records import Filtered, Protein, Rejected, plain
from plmjac.store import open_store, read_manifest

Predict = Callable[..., int]
DEBUG = ("model=debug", "threads=1")

ATOMS = (("N", -1.4), ("CA", 0.0), ("C", 1.5), ("O", 2.5), ("CB", -0.7))
STRUCTURE = "".join(
    f"ATOM  {serial:5d}  {name:<3} ALA A{number:4d}    {3.8 * number:8.3f}{x:8.3f}{0:8.3f}{1:6.2f}{10:6.2f}"
    f"          {name[0]:>2}\n"
    for number in range(1, 7)
    for serial, (name, x) in enumerate(ATOMS, start=5 * number)
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1TEN_A", "1TEN_A"),
        ("p$^$", "p$^$"),
        ("caf\udce9", "café"),
        ("naïve_日本", "naïve_日本"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("a\r\nb", "a\\r\\nb"),
        ("a\u202eb", "a\\u202eb"),
        ("\ud800", "\\ud800"),
        ("a\x9bb", "a\\x9bb"),
        ("\udc9b", "\\x9b"),
    ],
)
def test_a_name_is_plain_text(text: str, shown: str) -> None:
    assert plain(text) == shown and plain(shown) == shown
    assert Protein(text, "MK", text, text).id == Rejected(text, text, text).reason == Filtered(text, text).id == shown
    shown.encode()


def test_latin1_ids_that_differ_in_one_letter_stay_two(predict: Predict, tmp_path: Path) -> None:
    path, store = tmp_path / "latin1.fasta", tmp_path / "run.zarr"
    path.write_bytes(b">prot\xe9\nMKV\n>prot\xe8\nMKVL\n>\xe2\x82\xac\nMKVLA\n>a\x1b[31m\nMKVLAA\n")
    assert predict("+dataset=fasta", f"dataset.path={path}", f"store={store}", *DEBUG) == 0
    assert list(open_store(store)) == ["proté", "protè", "€", "a\\x1b[31m"]


def test_a_structure_with_any_name_is_computed_and_the_others_with_it(predict: Predict, tmp_path: Path) -> None:
    folder, store = tmp_path / "structures", tmp_path / "run.zarr"
    folder.mkdir()
    for name in (b"caf\xe9.pdb", b"p$^$.pdb", b"new\nline.pdb", b"=SUM(A1).pdb", b"good.pdb"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text(STRUCTURE)
    assert predict("+dataset=pdb", f"dataset.path={folder}", f"store={store}", *DEBUG) == 0
    ids = {row.id for row in read_manifest(store)}
    assert ids == {"café_A", "p$^$_A", "new\\nline_A", "=SUM(A1)_A", "good_A"}
    assert set(open_store(store)) == ids


def test_the_store_itself_may_lie_under_any_name(predict: Predict, tmp_path: Path, fasta: Path) -> None:
    from plmjac.verify import verify

    folder = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9 \xff"))
    folder.mkdir()
    (folder / "in.fasta").write_bytes(fasta.read_bytes())
    configuration = composed("predict", "+dataset=fasta", *DEBUG, "dataset.path=x")
    configuration |= {"store": str(folder / "run.zarr"), "dataset": {"name": "fasta", "path": str(folder / "in.fasta")}}
    from plmjac.predict import predict as run

    assert run(configuration) == 0 and run(configuration) == 0
    assert len(open_store(folder / "run.zarr")) == 5
    assert verify({"store": str(folder / "run.zarr"), "deep": True, "repair": False}) == 0


@pytest.mark.parametrize("dataset", ["fasta", "pdb"])
def test_a_named_pipe_is_refused_and_not_waited_for(dataset: str, tmp_path: Path) -> None:
    pipe = tmp_path / "in.pdb"
    os.mkfifo(pipe)
    if dataset == "fasta":
        with pytest.raises(UsageError, match="named pipe"):
            list(build("fasta", path=str(pipe)))
    else:
        (record,) = build("pdb", path=str(pipe))
        assert isinstance(record, Rejected) and "named pipe" in record.reason
