"""Reading one structure file: hand-made files whose truth stands beside them, damaged ones, and real ones."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from handmade import atom, backbone, check, mmcif, only, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plmjac.datasets.pdb import PdbDataset
from plmjac.records import Protein, Rejected

NAN = (np.nan, np.nan, np.nan)


def test_missing_loop_keeps_its_columns(tmp_path: Path) -> None:
    file = write(
        tmp_path / "1abc.pdb",
        "SEQRES   1 A    5  ALA GLY LEU LYS TRP",
        *backbone("A", ["ALA", "GLY"]),
        *backbone("A", ["TRP"], first=5),
        "TER",
    )
    protein = only(file)
    assert (protein.id, protein.sequence, protein.note) == ("1ABC_A", "AGLKW", "")
    check(
        protein,
        alpha=[(3.8, 0, 0), (7.6, 0, 0), NAN, NAN, (19, 0, 0)],
        beta=[(3.8, 1.5, 0), (7.6, 0, 0), NAN, NAN, (19, 1.5, 0)],
    )


def test_alternative_locations(tmp_path: Path) -> None:
    file = write(
        tmp_path / "alt.pdb",
        # B is the more occupied, although A comes first.
        atom("CA", "SER", "A", 1, (1, 0, 0), altloc="A", occupancy=0.3),
        atom("CA", "SER", "A", 1, (2, 0, 0), altloc="B", occupancy=0.7),
        # A tie goes to the first letter, although B stands first in the file.
        atom("CA", "VAL", "A", 2, (5, 0, 0), altloc="B", occupancy=0.5),
        atom("CA", "VAL", "A", 2, (6, 0, 0), altloc="A", occupancy=0.5),
        atom("CB", "VAL", "A", 2, (6, 2, 0), altloc="A", occupancy=0.5),
    )
    protein = only(file)
    assert (protein.id, protein.sequence) == ("alt_A", "SV")
    check(protein, alpha=[(2, 0, 0), (6, 0, 0)], beta=[(2, 0, 0), (6, 2, 0)])


def test_insertion_codes_are_residues_of_their_own(tmp_path: Path) -> None:
    lines = [
        atom("CA", "ALA", "H", 52, (0, 0, 0)),
        atom("CA", "CYS", "H", 52, (3.8, 0, 0), insertion="A"),
        atom("CA", "ASP", "H", 52, (7.6, 0, 0), insertion="B"),
        atom("CA", "GLU", "H", 53, (11.4, 0, 0)),
    ]
    truth = [(0, 0, 0), (3.8, 0, 0), (7.6, 0, 0), (11.4, 0, 0)]
    protein = only(write(tmp_path / "x.pdb", *lines))
    assert protein.sequence == "ACDE"
    check(protein, truth, truth)
    assert "C-alpha only" in protein.note
    with_seqres = only(write(tmp_path / "y.pdb", "SEQRES   1 H    5  TRP ALA CYS ASP GLU", *lines, "TER"))
    assert with_seqres.sequence == "WACDE"
    check(with_seqres, [NAN, *truth], [NAN, *truth])


def test_modified_residues_are_read_by_their_parents(tmp_path: Path) -> None:
    file = write(
        tmp_path / "m.pdb",
        "SEQRES   1 A    5  MSE SEP ZZZ UNK SEC",
        "MODRES 1ABC ZZZ A    3  LYS  SOMETHING NEW",
        *(
            atom("CA", name, "A", number, (number, 0, 0), kind="HETATM")
            for number, name in enumerate(["MSE", "SEP", "ZZZ", "UNK", "SEC"], start=1)
        ),
        "TER",
    )
    protein = only(file)
    assert protein.sequence == "MSKXU"
    assert "MSE as M" in protein.note and "ZZZ as K" in protein.note and "1 unknown residue" in protein.note
    assert np.isfinite(protein.structure.alpha[:, 0]).all()


def test_microheterogeneity_takes_the_first(tmp_path: Path) -> None:
    """Two residues at one place: the sequence and the coordinates are those of the first in entity_poly_seq."""
    rows = [
        "ATOM 1 C CA . ALA A 1 1 ? 1 0 0 1.0 1 A 1",
        "ATOM 2 C CA A SER A 1 2 ? 5 0 0 0.6 2 A 1",
        "ATOM 3 C CA B LEU A 1 2 ? 6 0 0 0.4 2 A 1",
    ]
    protein = only(
        mmcif(tmp_path / "h.cif", "polypeptide(L)", ["ALA", "LEU", "SER", "GLY"], rows, numbers=[1, 2, 2, 3])
    )
    assert protein.sequence == "ALG"
    check(protein, [(1, 0, 0), (6, 0, 0), NAN], [(1, 0, 0), (6, 0, 0), NAN])


def test_mmcif_goes_by_label_numbers_and_author_chains(tmp_path: Path) -> None:
    rows = [
        "ATOM 1 C CA . ALA A 1 2 ? 1 0 0 1.0 107 X 1",
        "ATOM 2 C CB . ALA A 1 2 ? 1 1 0 1.0 107 X 1",
        "ATOM 3 C CA . GLY A 1 4 ? 9 0 0 1.0 12 X 1",
        "ATOM 4 C CA . GLY A 1 4 ? 0 0 7 1.0 12 X 2",
        "ATOM 5 C CA . LYS B 1 1 ? 3 3 3 1.0 1 aa 1",
    ]
    first, second = PdbDataset(
        path=str(mmcif(tmp_path / "2xyz.cif", "polypeptide(L)", ["LYS", "ALA", "TRP", "GLY"], rows))
    )
    assert isinstance(first, Protein) and isinstance(second, Protein)
    assert (first.id, second.id) == ("2XYZ_X", "2XYZ_aa")
    assert first.sequence == second.sequence == "KAWG"
    assert "model 1 of 2" in first.note
    check(first, [NAN, (1, 0, 0), NAN, (9, 0, 0)], [NAN, (1, 1, 0), NAN, (9, 0, 0)])
    check(second, [(3, 3, 3), NAN, NAN, NAN], [(3, 3, 3), NAN, NAN, NAN])


def test_ensemble_gives_its_first_model(tmp_path: Path) -> None:
    file = write(
        tmp_path / "nmr.pdb",
        "MODEL        1",
        atom("CA", "ALA", "A", 1, (1, 2, 3)),
        "ENDMDL",
        "MODEL        2",
        atom("CA", "ALA", "A", 1, (7, 8, 9)),
        "ENDMDL",
    )
    protein = only(file)
    check(protein, [(1, 2, 3)], [(1, 2, 3)])
    assert "model 1 of 2" in protein.note


def test_only_protein_chains_are_records(tmp_path: Path) -> None:
    dna = [atom("C1'", name, "D", n, (6.0 * n, 20, 0)) for n, name in enumerate(["DA", "DG", "DC"], start=1)]
    ligand = [atom("C1", "GOL", "A", 90, (30, 0, 0), kind="HETATM")]
    water = [atom("O", "HOH", "W", 1, (40, 0, 0), kind="HETATM", element="O")]
    both = [*backbone("A", ["ALA", "CYS"]), "TER", *backbone("B", ["ASP", "GLU"]), "TER"]
    records = list(PdbDataset(path=str(write(tmp_path / "c.pdb", *both, *dna, "TER", *ligand, *water))))
    assert [(r.id, r.sequence) for r in records if isinstance(r, Protein)] == [("c_A", "AC"), ("c_B", "DE")]
    assert len(records) == 2
    rejected = only(write(tmp_path / "dna.pdb", *dna, "TER", *water))
    assert rejected == Rejected("dna", "dna.pdb: no protein chain, only nucleic acid", str(tmp_path / "dna.pdb"))
    assert "only ligands" in only(write(tmp_path / "w.pdb", *water)).reason


def test_wrong_seqres_is_rejected_and_a_small_conflict_noted(tmp_path: Path) -> None:
    names = ["ALA", "CYS", "ASP", "GLU", "PHE", "GLY", "HIS", "ILE", "LYS", "LEU"]
    model = backbone("A", names)
    wrong = "SEQRES   1 A   10  TRP TRP TRP TRP TRP TRP TRP TRP TRP TRP"
    rejected = only(write(tmp_path / "w.pdb", wrong, *model, "TER"))
    assert isinstance(rejected, Rejected) and rejected.id == "w_A"
    assert "w.pdb" in rejected.reason and "SEQRES" in rejected.reason
    close = "SEQRES   1 A   10  ALA CYS ASP GLU PHE GLY HIS ILE LYS MET"
    protein = only(write(tmp_path / "c.pdb", close, *model, "TER"))
    assert protein.sequence == "ACDEFGHIKM" and "1 residues differ" in protein.note


def test_chain_break_without_seqres_is_noted(tmp_path: Path) -> None:
    lines = [*backbone("A", ["ALA", "CYS"]), *backbone("A", ["ASP"], first=9)]
    assert "no SEQRES" in only(write(tmp_path / "b.pdb", *lines)).note
    assert "1 chain break" in only(write(tmp_path / "b.pdb", *lines)).note


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.pdb", b"", "empty"),
        ("empty.cif.gz", gzip.compress(b""), "empty"),
        ("text.pdb", b"hello\nworld\n", "no atoms"),
        ("text.cif", b"data_x\n_a.b 1\n", "no atoms"),
        ("half.cif", b"data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n1 C 2\n", "not a PDB or mmCIF"),
        ("page.cif", b"<html><body>404</body></html>", "no atoms"),
        ("noise.ent", bytes(range(256)) * 20, "structure"),
        ("cut.pdb.gz", gzip.compress(b"ATOM" * 5000)[:40], "cut or damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_files_are_rejected_by_name(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    record = only(tmp_path / name)
    assert isinstance(record, Rejected)
    assert record.id == name.split(".")[0] and name in record.reason and reason in record.reason


def test_residues_without_a_number(tmp_path: Path) -> None:
    """They compare unequal to themselves in gemmi, which once made the reader run for ever."""
    lines = [line[:22] + "    " + line[26:] for line in backbone("A", ["ALA", "CYS"])]
    assert isinstance(only(write(tmp_path / "n.pdb", *lines)), Protein | Rejected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_structures_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    seqres = "SEQRES   1 A    5  ALA GLY LEU MSE TRP"
    text = bytearray("\n".join([seqres, *backbone("A", ["ALA", "GLY", "LEU", "MSE", "TRP"]), "TER"]).encode())
    for _ in range(data.draw(st.integers(1, 10))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=5))
        text = text or bytearray(b"x")
    (tmp_path / "d.pdb").write_bytes(text)
    records = list(PdbDataset(path=str(tmp_path / "d.pdb")))
    assert len({record.id for record in records}) == len(records) > 0


def test_unknown_residues_only(tmp_path: Path) -> None:
    record = only(write(tmp_path / "u.pdb", atom("CA", "UNK", "A", 1, (0, 0, 0))))
    assert isinstance(record, Rejected) and "UNK" in record.reason


def test_5p21(shared_data: Path) -> None:
    """Against the columns of the file, read here without gemmi."""
    file = shared_data / "structures" / "5P21.pdb"
    lines = file.read_text().splitlines()
    atoms = {
        (line[12:16].strip(), int(line[22:26])): [float(line[i : i + 8]) for i in (30, 38, 46)]
        for line in lines
        if line.startswith("ATOM") and line[16] in " A"
    }
    protein = only(file)
    assert protein.id == "5P21_A" and len(protein) == 166 and protein.sequence.startswith("MTEYKLVVVGAGGVGKSALTIQ")
    alpha = [atoms["CA", n] for n in range(1, 167)]
    check(protein, alpha, [atoms.get(("CB", n), atoms["CA", n]) for n in range(1, 167)])


def test_4uv3(shared_data: Path) -> None:
    """Against a plain reading of the mmCIF table: chains, resolved residues and every C-alpha."""
    file = shared_data / "structures" / "4uv3.cif.gz"
    with gzip.open(file, "rt") as text:
        lines = text.read().splitlines()
    fields = [line.strip().split(".")[1] for line in lines if line.startswith("_atom_site.")]
    rows = [dict(zip(fields, line.split(), strict=True)) for line in lines if line.startswith("ATOM ")]
    alphas = [row for row in rows if row["label_atom_id"] == "CA"]
    expected = {row["auth_asym_id"] for row in rows}
    proteins = {record.id: record for record in PdbDataset(path=str(file))}
    assert set(proteins) == {f"4UV3_{chain}" for chain in expected} and len(expected) == 18
    resolved = 0
    for protein in proteins.values():
        assert isinstance(protein, Protein) and len(protein) == 262 and protein.structure is not None
        resolved += int(np.isfinite(protein.structure.alpha[:, 0]).sum())  # type: ignore[attr-defined]
    assert resolved == len({(row["auth_asym_id"], row["label_seq_id"]) for row in alphas})
    for row in alphas:
        got = proteins[f"4UV3_{row['auth_asym_id']}"].structure.alpha[int(row["label_seq_id"]) - 1]  # type: ignore
        assert (
            np.allclose(got, [float(row[f"Cartn_{axis}"]) for axis in "xyz"], atol=1e-3) or row["label_alt_id"] != "."
        )
