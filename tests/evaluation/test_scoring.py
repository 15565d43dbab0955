"""The join of stores and structures: every way to match, columns against brute force, and reasons for the rest."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from structures import pdb_text, walk
from support import composed
from written_store import sequence_of, written_store

from plmjac.alphabet import AMINO_ACIDS
from plmjac.evaluate import evaluate as command
from plmjac.evaluation.inputs import inputs_of
from plmjac.evaluation.scoring import Unscored, labelled
from plmjac.evaluation.structures import Labelled, Structures, place, plain_id
from plmjac.records import Coordinates, Protein
from plmjac.report import report as report_command


def mutated(sequence: str, places: list[int], seed: int = 1) -> str:
    letters = list(sequence)
    rng = np.random.default_rng(seed)
    for at in places:
        letters[at] = str(rng.choice([letter for letter in AMINO_ACIDS if letter != letters[at]]))
    return "".join(letters)


def protein(identifier: str, sequence: str, seed: int = 0) -> Protein:
    xyz = walk(len(sequence), seed)
    return Protein(identifier, sequence, structure=Coordinates(xyz, xyz))


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("2QNIA", "2QNI_A", True), ("2qni_A", "2QNIA", True), ("2qni_A.pdb", "2QNI_A", True),
        ("pdb2qniA", "2QNI_A", True),
        ("2QNI_a", "2QNI_A", False), ("2QNI_A", "2QNI_B", False), ("2QNI", "2QNI_", True), ("P12345", "p12345", False),
        ("sp|P12345|X", "sp|P12345|X", True), ("1abc_AA", "1ABC_AA", True),
    ],
)  # fmt: skip
def test_ids_that_are_one(ours: str, theirs: str, same: bool) -> None:
    assert (plain_id(ours) == plain_id(theirs)) == same


def test_every_way_to_find_a_structure(tmp_path: Path) -> None:
    whole = {name: sequence_of(60, seed) for seed, name in enumerate("abcdefg")}
    changed = mutated(whole["c"][5:55], [3, 20, 41])
    structures = Structures([
        protein("1ABC_A", whole["a"], 1),
        protein("2DEF_B", whole["b"], 2),
        protein("3GHI_C", changed, 3),
        protein("4XYZ_D", mutated(whole["d"], list(range(0, 60, 4))), 4),
        protein("5IDS_E", whole["e"][:40], 5),
        Protein("6NON_F", whole["f"]),
        protein("7UNU_G", sequence_of(60, 99), 6),
    ])  # fmt: skip
    arrays = {name: {"contacts": np.zeros((60, 60))} for name in ("1abcA", "b", "c", "d", "5IDS_E", "6NON_F")}
    sequences = dict(zip(arrays, (whole[name] for name in "abcdef"), strict=True))
    store = written_store(tmp_path / "s.zarr", arrays, sequences=sequences, bad=("lost",))
    found = {item.id: item for item in labelled(store, structures)}
    told = {name: (item.match.structure, str(item.match)) for name, item in found.items() if isinstance(item, Labelled)}
    assert told == {
        "1abcA": ("1ABC_A", "id"), "b": ("2DEF_B", "sequence"), "c": ("3GHI_C", "alignment 94%"),
        "5IDS_E": ("5IDS_E", "id 100%"),
    }  # fmt: skip
    reasons = {name: item.reason for name, item in found.items() if isinstance(item, Unscored)}
    assert reasons["d"] == reasons["6NON_F"] == "no structure to compare with"
    assert reasons["lost"] == "failed: no residue"
    assert {name for name, reason in reasons.items() if reason == "not in the store"} == {"4XYZ_D", "7UNU_G"} | {
        "3GHI_C"
    } - {"3GHI_C"}
    contacts = found["c"].contacts("cb", 8.0)  # type: ignore[union-attr]
    xyz = walk(50, 3)
    touch = (np.linalg.norm(xyz[:, None] - xyz[None], axis=-1) < 8) & ~np.eye(50, dtype=bool)
    assert contacts.resolved.tolist() == [5 <= i < 55 for i in range(60)]
    assert np.array_equal(contacts.pairs[5:55, 5:55], touch) and contacts.pairs.sum() == touch.sum()


def test_an_id_with_another_sequence_is_a_reason_with_its_identity(tmp_path: Path) -> None:
    store = written_store(tmp_path / "s.zarr", {"1ABC_A": {"contacts": np.zeros((50, 50))}})
    (item,) = labelled(store, Structures([protein("1ABC_A", sequence_of(50, 7))]))
    assert isinstance(item, Unscored) and item.reason.startswith("the structure has another sequence than the store (")


def test_placed_residues_are_never_wrong() -> None:
    """Random insertions, deletions and substitutions: a residue has its own partner or none."""
    rng = np.random.default_rng(3)
    lost = 0
    for number in range(300):
        original = sequence_of(int(rng.integers(30, 120)), number)
        kept = [i for i in range(len(original)) if rng.random() > 0.04]
        if rng.random() < 0.5:  # a stretch that is missing
            start = int(rng.integers(0, len(kept)))
            kept = kept[:start] + kept[start + int(rng.integers(1, 12)) :]
        letters = mutated("".join(original[i] for i in kept), [k for k in range(len(kept)) if rng.random() < 0.03])
        columns, identity = place(original, letters)
        for column, partner in enumerate(columns):
            if partner < 0:
                lost += column in kept
            elif kept[partner] != column:  # only where both placements give the same letters
                assert original[column] == letters[partner] or identity < 0.9
    assert lost < 300 * 75 * 0.1


def test_repeats_are_not_guessed() -> None:
    """One of two equal copies is missing: which one, the letters do not say."""
    unit = "MKTAYIAKQR"
    columns, _ = place(unit + unit + "GGSSGGWLLV", unit + "GGSSGGWLLV")
    assert (columns[:20] < 0).sum() >= 10 and columns[20:].tolist() == list(range(10, 20))


def test_thousands_by_thousands(tmp_path: Path) -> None:
    """The prefilter finds each of 2,000 mutated sequences among 2,000, without aligning all with all."""
    sequences = [sequence_of(150, seed) for seed in range(2000)]
    structures = Structures(Protein(f"s{n}", sequence, structure=Coordinates(np.zeros((150, 3)), np.zeros((150, 3))))
                            for n, sequence in enumerate(sequences))  # fmt: skip
    rng = np.random.default_rng(0)
    for n in range(2000):
        changed = mutated(sequences[n], rng.choice(150, 14, replace=False).tolist(), n)
        assert structures._words.alike(changed)[0] == n


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """PDB files named as entries, and their sequences."""
    folder = tmp_path / "pdb"
    folder.mkdir()
    sequences = {"2QNI": sequence_of(70, 1), "1A8L": sequence_of(80, 2), "2GWG": sequence_of(64, 3)}
    for seed, (entry, sequence) in enumerate(sequences.items()):
        (folder / f"{entry}.pdb").write_text(pdb_text(sequence, seed))
    return folder, sequences


def test_a_fasta_store_is_scored_against_files_with_other_names(
    folder: tuple[Path, dict[str, str]], predict: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, sequences = folder
    first, second, _ = sequences.values()
    fasta = tmp_path / "mine.fasta"
    fasta.write_text(f">one\n{first}\n>two\n{mutated(second, [10, 30])[4:]}\n>three\n{sequence_of(50, 50)}\n")
    store = tmp_path / "mine.zarr"
    assert predict("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", f"store={store}") == 0  # type: ignore[operator]
    arguments = ["+evaluation=contact_precision", f"store={store}", "evaluation.bootstrap=10"]
    assert command(composed("evaluate", *arguments)) == 3
    assert "one, two, three: no structure to compare with" in capsys.readouterr().out
    assert command(composed("evaluate", *arguments, f"structures={path}")) == 0
    said = capsys.readouterr().out
    assert "structures found by identical sequence: one by 2QNI_A" in said
    assert "structures found by alignment: two by 1A8L_A (97%)" in said
    table = pd.read_parquet(f"{store}-evaluation/contact_precision.parquet").drop_duplicates("protein")
    assert table.set_index("protein")["match"].dropna().to_dict() == {"one": "sequence", "two": "alignment 97%"}
    assert set(table["protein"]) == {"one", "two", "three", "2GWG_A"}
    assert report_command(composed("report", f"store={store}", f"structures={path}")) == 0
    assert "found by sequence" in Path(f"{store}-report.html").read_text()


def test_the_papers_chains_are_scored_against_files_of_their_entries(
    folder: tuple[Path, dict[str, str]], predict: object, tmp_path: Path
) -> None:
    path, sequences = folder
    data = tmp_path / "data"
    data.mkdir()
    names = {f"{entry}A": sequence for entry, sequence in sequences.items()}
    (data / "full_seq_dict.json").write_text(str(names).replace("'", '"'))
    (data / "selected_protein.json").write_text(str(list(names)).replace("'", '"'))
    store = tmp_path / "paper.zarr"
    arguments = ("+dataset=zhang2024", f"dataset.path={data}", "model=debug", "threads=1", f"store={store}")
    assert predict(*arguments) == 0  # type: ignore[operator]
    for evaluation, table in (("contact_precision", "contact_precision"), ("interchain", None)):
        code = command(composed("evaluate", f"+evaluation={evaluation}", f"store={store}", f"structures={path}"))
        assert code == (0 if table else 3)
    found = pd.read_parquet(f"{store}-evaluation/contact_precision.parquet")
    assert set(found["match"]) == {"id"} and set(found["structure"]) == {"2QNI_A", "1A8L_A", "2GWG_A"}
    assert found.loc[(found["range"] == "all") & (found["atom"] == "ca"), "P@L"].notna().all()


def test_a_damaged_protein_is_a_row_with_its_reason(predict: object, tmp_path: Path) -> None:
    store = tmp_path / "demo.zarr"
    arguments = ("+dataset=demo", "dataset.ids=[1GUU_A,1BXY_A,2O9S_A]", "model=debug", "threads=1", f"store={store}")
    assert predict(*arguments, "keep=[contacts,attention_heads,jacobian]") == 0  # type: ignore[operator]
    (store / "proteins/1GUU_A/contacts/c/0/0").write_bytes(b"no chunk")
    (store / "proteins/1GUU_A/attention_heads/zarr.json").write_text("{")
    (store / "proteins/2O9S_A/zarr.json").write_text("{")
    keys = {"attention_heads": ["evaluation.k=2", "evaluation.range=all"]}
    for name in ("contact_precision", "attention_heads", "capacity"):
        job = ["+evaluation=" + name, f"store={store}", f"out={tmp_path / name}", *keys.get(name, [])]
        assert command(composed("evaluate", *job)) == 0
        file = {"attention_heads": "attention_heads_by_protein", "capacity": "couplings_above_noise"}.get(name, name)
        reasons = pd.read_parquet(tmp_path / name / f"{file}.parquet").groupby("protein")["reason"].first()
        assert "plmjac.verify" in reasons["1GUU_A"] and "zarr.json" in reasons["2O9S_A"] and not reasons["1BXY_A"]
    assert report_command(composed("report", f"store={store}")) == 0


def test_nothing_that_a_store_says_is_fetched_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plmjac import files

    monkeypatch.setattr(files, "_stream", lambda *_: pytest.fail("a store made evaluate fetch a URL"))
    monkeypatch.setenv("PLMJAC_CACHE", str(tmp_path / "cache"))
    store = written_store(tmp_path / "s.zarr", {"1ABC_A": {"contacts": np.zeros((50, 50))}})
    evil = tmp_path / "evil"
    for recorded in (
        {"name": "pdb", "ids": ["1ABC"], "cache": str(evil), "url": "http://127.0.0.1:9/"},
        {"name": "pdb", "ids": ["../../1ABC"], "path": None},
        {"name": "zhang2024", "cache": str(evil)},
        {"name": "proteome", "accession": "UP000000625", "cache": str(evil)},
        {"name": "pdb", "path": "/dev/zero"},
        {"name": "pdb", "path": "x\0y"},
        {"name": "os.system"},
        "text",
        None,
    ):
        store.opened.attributes["config"] = {"dataset": recorded}
        monkeypatch.setattr("plmjac.evaluation.inputs.open_store", lambda _: store.opened)
        assert list(inputs_of([store.path], None, None).truth()) == []
    assert not evil.exists() and not (tmp_path / "cache").exists()
