"""Structures that should not fold: real domains cut in silico, moved, and written as a folding program writes them."""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest
from support import SHARED, composed

from plmjac.datasets.atoms import read_atoms
from plmjac.evaluate import evaluate as run_evaluation
from plmjac.evaluation import should_not_fold
from plmjac.evaluation.base import Inputs

STRUCTURES = SHARED / "covariation" / "structures"
pytestmark = pytest.mark.skipif(not STRUCTURES.is_dir(), reason="the real structures are not here")


def write_cut(
    target: Path, source: str, removed: range, *, b_factors: tuple[float, float] = (60, 90), noise: float = 0
) -> None:
    """A structure without some residues, turned and moved, with pLDDT from the first to the second value along it."""
    structure = gemmi.read_structure(str(STRUCTURES / source))
    chain = structure[0][0]
    for number in sorted(removed, reverse=True):
        del chain[number]
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    for residue, value in zip(chain, np.linspace(*b_factors, len(chain)), strict=True):
        for atom in residue:
            xyz = turn @ np.array(atom.pos.tolist()) + 7.0 + noise * rng.normal(size=3)
            atom.pos, atom.b_iso = gemmi.Position(*xyz), float(value)
    structure.write_pdb(str(target))


def settings(pairs: Path) -> should_not_fold.Settings:
    return should_not_fold.Settings.model_validate(
        composed("evaluate", "+evaluation=should_not_fold", f"evaluation.pairs={pairs}", "store=null")["evaluation"]
    )


def judged(folder: Path, lines: list[str]) -> pd.DataFrame:
    (folder / "pairs.csv").write_text("\n".join(["id,predicted,full_length", *lines]) + "\n")
    outcome = should_not_fold.evaluate(Inputs((), lambda: []), settings(folder / "pairs.csv"))
    return outcome.tables["should_not_fold"].set_index("id")


def test_a_domain_without_a_strand_keeps_its_fold_and_bares_its_core(tmp_path: Path) -> None:
    full = STRUCTURES / "1TEN_A.pdb"
    residues = len(read_atoms(full).sequence)
    write_cut(tmp_path / "whole.pdb", "1TEN_A.pdb", range(0))
    write_cut(tmp_path / "cut.pdb", "1TEN_A.pdb", range(30, 42))
    write_cut(tmp_path / "esmfold.pdb", "1TEN_A.pdb", range(30, 42), b_factors=(0.6, 0.9))
    table = judged(tmp_path, [f"{name},{name}.pdb,{full}" for name in ("whole", "cut", "esmfold")])
    whole, cut = table.loc["whole"], table.loc["cut"]
    assert whole["aligned"] == residues and whole["missing"] == 0 and whole["rmsd"] < 1e-2
    # areas are sampled at 100 points an atom, which turn with the coordinates: equal to within a few percent
    assert abs(whole["hydrophobic_gain"]) < 0.05 * whole["hydrophobic_per_residue"] * residues
    assert cut["aligned"] == residues - 12 and cut["missing"] == 12 and cut["identity"] == 1.0
    assert cut["rmsd"] < 1e-2 and cut["hydrophobic_gain"] > 100 and cut["sap_gain"] > 0
    assert cut["plddt"] == pytest.approx(75, abs=0.5) == pytest.approx(table.loc["esmfold", "plddt"], abs=0.5)
    assert whole["judgement"] == "fold kept, sure, no more hydrophobic surface"
    assert cut["judgement"] == "fold kept, sure, more hydrophobic surface"


def test_rmsd_is_that_of_the_displacement(tmp_path: Path) -> None:
    write_cut(
        tmp_path / "shaken.pdb",
        "5P21_A.pdb" if (STRUCTURES / "5P21_A.pdb").exists() else "1MVO_A.pdb",
        range(0),
        noise=4,
    )
    full = STRUCTURES / ("5P21_A.pdb" if (STRUCTURES / "5P21_A.pdb").exists() else "1MVO_A.pdb")
    row = judged(tmp_path, [f"shaken,shaken.pdb,{full}"]).loc["shaken"]
    assert row["rmsd"] == pytest.approx(4 * np.sqrt(3), rel=0.12)
    assert row["judgement"] == "another fold"


def test_what_cannot_be_judged_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    full = STRUCTURES / "1TEN_A.pdb"
    write_cut(tmp_path / "good.pdb", "1TEN_A.pdb", range(5))
    write_cut(tmp_path / "tiny.pdb", "1TEN_A.pdb", range(10, 89))
    (tmp_path / "empty.pdb").write_text("")
    table = judged(tmp_path, [f"{name},{name}.pdb,{full}" for name in ("good", "tiny", "empty", "absent")])
    assert table["reason"].notna().tolist() == [False, True, True, True]
    assert "min_aligned=20" in table.loc["tiny", "reason"] and table.loc["tiny", ["rmsd", "sap_gain"]].isna().all()
    assert "empty.pdb" in table.loc["empty", "reason"] and "absent.pdb" in table.loc["absent", "reason"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("predicted\na.pdb\n", "full_length"),
        ("predicted,full_length\n", "no row"),
        ("predicted,full_length,chian\na,b,c\n", "chian"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        should_not_fold.evaluate(Inputs((), lambda: []), settings(tmp_path / "pairs.csv"))


def test_the_command_writes_tables_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cut(tmp_path / "cut.pdb", "1TEN_A.pdb", range(30, 42))
    (tmp_path / "pairs.csv").write_text(f"predicted,full_length\ncut.pdb,{STRUCTURES / '1TEN_A.pdb'}\n")
    arguments = ["+evaluation=should_not_fold", f"evaluation.pairs={tmp_path / 'pairs.csv'}", "store=null"]
    assert run_evaluation(composed("evaluate", *arguments, f"out={tmp_path / 'out'}")) == 0
    assert "more hydrophobic surface" in capsys.readouterr().out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"should_not_fold.csv", "residues.parquet", "should_not_fold.png", "sap_profiles.svg"} <= written
