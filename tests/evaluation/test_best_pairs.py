"""Best pairs read back: by pandas, by the rules of CASP, and against the atoms of the structure that scripts name."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from Bio.PDB import PDBParser
from structures import pdb_text
from support import composed
from written_store import sequence_of, written_store

from plmjac.evaluate import evaluate
from plmjac.evaluation.exports import BestPair, BestPairs, casp_rr, chimerax, pymol

LENGTH = 60


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two proteins, one with a structure whose numbers begin at -3, exported by the command."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "pdb").mkdir()
    sequences = {"2QNIA": sequence_of(LENGTH, 1), "=cmd|x": sequence_of(LENGTH, 2)}
    (folder / "pdb" / "2QNI.pdb").write_text(pdb_text(sequences["2QNIA"], 1, first=-3))
    scores = np.random.default_rng(0).normal(size=(LENGTH, LENGTH))
    written_store(folder / "s.zarr", {name: {"contacts": scores + scores.T} for name in sequences}, sequences=sequences)
    job = ["+evaluation=best_pairs", f"store={folder / 's.zarr'}", f"structures={folder / 'pdb'}", "evaluation.atom=ca"]
    assert evaluate(composed("evaluate", *job)) == 0
    return folder


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "s.zarr-evaluation/best_pairs.parquet")


def test_the_table_is_the_map_ranked_by_loops(exported: Path) -> None:
    from plmjac import open_store

    table = table_of(exported)
    assert len(list((exported / "s.zarr-evaluation/proteins").glob("*.contacts.png"))) == 2
    scores = open_store(exported / "s.zarr")["2QNIA"].contacts
    ranked = sorted((-scores[i, j], i, j) for i in range(LENGTH) for j in range(i + 6, LENGTH))[:LENGTH]
    rows = table[table["protein"] == "2QNIA"]
    assert list(zip(rows["i"], rows["j"], strict=True)) == [(i, j) for _, i, j in ranked]
    assert rows["rank"].tolist() == list(range(1, LENGTH + 1))
    model = PDBParser(QUIET=True).get_structure("x", str(exported / "pdb/2QNI.pdb"))[0]["A"]
    for row in rows.to_dict("records"):
        first, second = (model[int(row[f"number_{side}"])] for side in "ij")
        assert row["distance"] == pytest.approx(first["CA"] - second["CA"], abs=0.01)
        assert row["contact"] == (row["distance"] < 8) and row["number_i"] == str(row["i"] - 3)
    assert table.loc[table["protein"] == "=cmd|x", "distance"].isna().all()


def test_a_spreadsheet_meets_no_formula_in_any_csv(exported: Path) -> None:
    files = sorted((exported / "s.zarr-evaluation").rglob("*.csv"))
    rows = [row for file in files for row in csv.reader(file.open(encoding="utf-8"))]
    cells = [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@")]
    assert any(cell == "'=cmd|x" for row in rows for cell in row) and len(files) >= 3
    assert all(cell.lstrip("+-").replace(".", "").replace("e-", "").isdigit() for cell in cells), cells


def test_casp_rr_by_its_rules(exported: Path) -> None:
    lines = (exported / "s.zarr-evaluation/pairs/2QNIA.contacts.rr").read_text().splitlines()
    assert lines[0] == "PFRMAT RR" and lines[1] == "TARGET 2QNIA" and lines[-1] == "END" and "MODEL 1" in lines
    assert all(len(line) <= 80 for line in lines)
    body = lines[lines.index("MODEL 1") + 1 : -1]
    sequence = "".join(line for line in body if line.isalpha())
    assert sequence == sequence_of(LENGTH, 1) and max(len(line) for line in body if line.isalpha()) <= 50
    pairs = [line.split() for line in body if not line.isalpha()]
    values = [(int(i), int(j), int(low), int(high), float(p)) for i, j, low, high, p in pairs]
    assert all(1 <= i < j <= LENGTH and (low, high) == (0, 8) and 0 <= p <= 1 for i, j, low, high, p in values)
    assert [p for *_, p in values] == sorted((p for *_, p in values), reverse=True)
    rows = table_of(exported).query("protein == '2QNIA'")
    assert [(i - 1, j - 1) for i, j, *_ in values] == list(zip(rows["i"], rows["j"], strict=True))


def test_evcouplings_csv_reads_back(exported: Path) -> None:
    found = pd.read_csv(exported / "s.zarr-evaluation/pairs/2QNIA.contacts.evcouplings.csv")
    assert list(found.columns) == ["i", "A_i", "j", "A_j", "fn", "cn"]
    rows = table_of(exported).query("protein == '2QNIA'").reset_index(drop=True)
    assert found["i"].tolist() == (rows["i"] + 1).tolist() and found["A_j"].tolist() == rows["residue_j"].tolist()
    np.testing.assert_allclose(found["cn"], rows["score"], rtol=1e-6)


def test_scripts_name_atoms_that_are_there(exported: Path) -> None:
    model = PDBParser(QUIET=True).get_structure("x", str(exported / "pdb/2QNI.pdb"))[0]
    folder = exported / "s.zarr-evaluation/pairs"
    said = (folder / "2QNIA.contacts.pml").read_text()
    assert f"cmd.load('{exported / 'pdb/2QNI.pdb'}', 'structure')" in said
    by_pymol = re.findall(r"distance (\w+), \(structure and chain (\w) and resi (\\?-?\d+) and name CA\), "
                          r"\(structure and chain \w and resi (\\?-?\d+) and name CA\)", said)  # fmt: skip
    said = (folder / "2QNIA.contacts.cxc").read_text()
    assert f'open "{exported / "pdb/2QNI.pdb"}"' in said
    by_chimerax = re.findall(r"pbond #1/(\w):(-?\d+)@CA #1/\w:(-?\d+)@CA color .* name (\w+)", said)
    assert len(by_pymol) == len(by_chimerax) == LENGTH
    for (group, chain, first, second), (other_chain, a, b, other) in zip(by_pymol, by_chimerax, strict=True):
        ends = [int(number.replace("\\", "")) for number in (first, second)]
        assert (group, chain, ends) == (other, other_chain, [int(a), int(b)])
        near = model[chain][ends[0]]["CA"] - model[chain][ends[1]]["CA"] < 8
        assert group == ("right" if near else "wrong")
    assert not list(folder.glob("*cmd*.pml"))  # no structure, no script


def test_ids_cannot_become_commands() -> None:
    best = BestPairs("x\nload evil.py", "contacts", "m", "A" * 10, [BestPair(0, 8, 1, 0.5)], ["1"] * 10)
    for text in (pymol(best), chimerax(best), casp_rr(best)):
        assert not any(line.startswith("load evil") for line in text.splitlines())
