"""PdbDataset against hand-made files whose truth is written beside them, and against real structures."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plmjac.datasets import InputError, build
from plmjac.datasets.pdb import PdbDataset
from plmjac.records import Filtered, Protein, Rejected

NAN = (np.nan, np.nan, np.nan)
Atom = Callable[..., str]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def only(path: Path, **arguments: Any) -> Any:
    """The one record of a file."""
    (record,) = PdbDataset(path=str(path), **arguments)
    return record


def backbone(atom: Atom, chain: str, names: list[str], first: int = 1) -> list[str]:
    """C-alphas 3.8 A apart along x, with a C-beta 1.5 A above each but glycine's."""
    lines = []
    for number, name in enumerate(names, start=first):
        lines.append(atom("CA", name, chain, number, (3.8 * number, 0, 0)))
        if name != "GLY":
            lines.append(atom("CB", name, chain, number, (3.8 * number, 1.5, 0)))
    return lines


def check(protein: Protein, alpha: list[Any], beta: list[Any]) -> None:
    assert protein.structure is not None
    np.testing.assert_allclose(protein.structure.alpha, alpha)  # type: ignore[attr-defined]
    np.testing.assert_allclose(protein.structure.beta, beta)  # type: ignore[attr-defined]


def test_missing_loop_keeps_its_columns(tmp_path: Path, atom_line: Atom) -> None:
    file = write(
        tmp_path / "1abc.pdb",
        "SEQRES   1 A    5  ALA GLY LEU LYS TRP",
        *backbone(atom_line, "A", ["ALA", "GLY"]),
        *backbone(atom_line, "A", ["TRP"], first=5),
        "TER",
    )
    protein = only(file)
    assert (protein.id, protein.sequence, protein.note) == ("1ABC_A", "AGLKW", "")
    check(
        protein,
        alpha=[(3.8, 0, 0), (7.6, 0, 0), NAN, NAN, (19, 0, 0)],
        beta=[(3.8, 1.5, 0), (7.6, 0, 0), NAN, NAN, (19, 1.5, 0)],
    )


def test_alternative_locations(tmp_path: Path, atom_line: Atom) -> None:
    file = write(
        tmp_path / "alt.pdb",
        # B is the more occupied, although A comes first.
        atom_line("CA", "SER", "A", 1, (1, 0, 0), altloc="A", occupancy=0.3),
        atom_line("CA", "SER", "A", 1, (2, 0, 0), altloc="B", occupancy=0.7),
        # A tie goes to the first letter, although B stands first in the file.
        atom_line("CA", "VAL", "A", 2, (5, 0, 0), altloc="B", occupancy=0.5),
        atom_line("CA", "VAL", "A", 2, (6, 0, 0), altloc="A", occupancy=0.5),
        atom_line("CB", "VAL", "A", 2, (6, 2, 0), altloc="A", occupancy=0.5),
    )
    protein = only(file)
    assert (protein.id, protein.sequence) == ("alt_A", "SV")
    check(protein, alpha=[(2, 0, 0), (6, 0, 0)], beta=[(2, 0, 0), (6, 2, 0)])


def test_insertion_codes_are_residues_of_their_own(tmp_path: Path, atom_line: Atom) -> None:
    lines = [
        atom_line("CA", "ALA", "H", 52, (0, 0, 0)),
        atom_line("CA", "CYS", "H", 52, (3.8, 0, 0), insertion="A"),
        atom_line("CA", "ASP", "H", 52, (7.6, 0, 0), insertion="B"),
        atom_line("CA", "GLU", "H", 53, (11.4, 0, 0)),
    ]
    truth = [(0, 0, 0), (3.8, 0, 0), (7.6, 0, 0), (11.4, 0, 0)]
    protein = only(write(tmp_path / "x.pdb", *lines))
    assert protein.sequence == "ACDE"
    check(protein, truth, truth)
    assert "C-alpha only" in protein.note
    with_seqres = only(write(tmp_path / "y.pdb", "SEQRES   1 H    5  TRP ALA CYS ASP GLU", *lines, "TER"))
    assert with_seqres.sequence == "WACDE"
    check(with_seqres, [NAN, *truth], [NAN, *truth])


def test_modified_residues_are_read_by_their_parents(tmp_path: Path, atom_line: Atom) -> None:
    file = write(
        tmp_path / "m.pdb",
        "SEQRES   1 A    5  MSE SEP ZZZ UNK SEC",
        "MODRES 1ABC ZZZ A    3  LYS  SOMETHING NEW",
        *(
            atom_line("CA", name, "A", number, (number, 0, 0), kind="HETATM")
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


ATOM_FIELDS = ["group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id",
               "label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy",
               "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num"]  # fmt: skip


def mmcif(path: Path, kind: str, names: list[str], rows: list[str], numbers: list[int] | None = None) -> Path:
    """A minimal mmCIF file of one polymer entity."""
    numbers = numbers or list(range(1, len(names) + 1))
    path.write_text(
        "data_TEST\nloop_\n_entity.id\n_entity.type\n1 polymer\n"
        f"loop_\n_entity_poly.entity_id\n_entity_poly.type\n1 '{kind}'\n"
        "loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n"
        + "".join(f"1 {number} {name}\n" for number, name in zip(numbers, names, strict=True))
        + "loop_\n_struct_asym.id\n_struct_asym.entity_id\n"
        + "".join(f"{label} 1\n" for label in sorted({row.split()[6] for row in rows}))
        + "loop_\n"
        + "".join(f"_atom_site.{field}\n" for field in ATOM_FIELDS)
        + "\n".join(rows)
        + "\n"
    )
    return path


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


def test_ensemble_gives_its_first_model(tmp_path: Path, atom_line: Atom) -> None:
    file = write(
        tmp_path / "nmr.pdb",
        "MODEL        1",
        atom_line("CA", "ALA", "A", 1, (1, 2, 3)),
        "ENDMDL",
        "MODEL        2",
        atom_line("CA", "ALA", "A", 1, (7, 8, 9)),
        "ENDMDL",
    )
    protein = only(file)
    check(protein, [(1, 2, 3)], [(1, 2, 3)])
    assert "model 1 of 2" in protein.note


def test_only_protein_chains_are_records(tmp_path: Path, atom_line: Atom) -> None:
    dna = [atom_line("C1'", name, "D", n, (6.0 * n, 20, 0)) for n, name in enumerate(["DA", "DG", "DC"], start=1)]
    ligand = [atom_line("C1", "GOL", "A", 90, (30, 0, 0), kind="HETATM")]
    water = [atom_line("O", "HOH", "W", 1, (40, 0, 0), kind="HETATM", element="O")]
    both = [*backbone(atom_line, "A", ["ALA", "CYS"]), "TER", *backbone(atom_line, "B", ["ASP", "GLU"]), "TER"]
    records = list(PdbDataset(path=str(write(tmp_path / "c.pdb", *both, *dna, "TER", *ligand, *water))))
    assert [(r.id, r.sequence) for r in records if isinstance(r, Protein)] == [("c_A", "AC"), ("c_B", "DE")]
    assert len(records) == 2
    rejected = only(write(tmp_path / "dna.pdb", *dna, "TER", *water))
    assert rejected == Rejected("dna", "dna.pdb: no protein chain, only nucleic acid", str(tmp_path / "dna.pdb"))
    assert "only ligands" in only(write(tmp_path / "w.pdb", *water)).reason


def test_wrong_seqres_is_rejected_and_a_small_conflict_noted(tmp_path: Path, atom_line: Atom) -> None:
    names = ["ALA", "CYS", "ASP", "GLU", "PHE", "GLY", "HIS", "ILE", "LYS", "LEU"]
    model = backbone(atom_line, "A", names)
    wrong = "SEQRES   1 A   10  TRP TRP TRP TRP TRP TRP TRP TRP TRP TRP"
    rejected = only(write(tmp_path / "w.pdb", wrong, *model, "TER"))
    assert isinstance(rejected, Rejected) and rejected.id == "w_A"
    assert "w.pdb" in rejected.reason and "SEQRES" in rejected.reason
    close = "SEQRES   1 A   10  ALA CYS ASP GLU PHE GLY HIS ILE LYS MET"
    protein = only(write(tmp_path / "c.pdb", close, *model, "TER"))
    assert protein.sequence == "ACDEFGHIKM" and "1 residues differ" in protein.note


def test_chain_break_without_seqres_is_noted(tmp_path: Path, atom_line: Atom) -> None:
    lines = [*backbone(atom_line, "A", ["ALA", "CYS"]), *backbone(atom_line, "A", ["ASP"], first=9)]
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


def test_residues_without_a_number(tmp_path: Path, atom_line: Atom) -> None:
    """They compare unequal to themselves in gemmi, which once made the reader run for ever."""
    lines = [line[:22] + "    " + line[26:] for line in backbone(atom_line, "A", ["ALA", "CYS"])]
    assert isinstance(only(write(tmp_path / "n.pdb", *lines)), Protein | Rejected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_structures_never_crash(tmp_path: Path, atom_line: Atom, data: st.DataObject) -> None:
    seqres = "SEQRES   1 A    5  ALA GLY LEU MSE TRP"
    text = bytearray(
        "\n".join([seqres, *backbone(atom_line, "A", ["ALA", "GLY", "LEU", "MSE", "TRP"]), "TER"]).encode()
    )
    for _ in range(data.draw(st.integers(1, 10))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=5))
        text = text or bytearray(b"x")
    (tmp_path / "d.pdb").write_bytes(text)
    records = list(PdbDataset(path=str(tmp_path / "d.pdb")))
    assert len({record.id for record in records}) == len(records) > 0


def test_unknown_residues_only(tmp_path: Path, atom_line: Atom) -> None:
    record = only(write(tmp_path / "u.pdb", atom_line("CA", "UNK", "A", 1, (0, 0, 0))))
    assert isinstance(record, Rejected) and "UNK" in record.reason


def test_broken_links_and_folders(tmp_path: Path, atom_line: Atom) -> None:
    write(tmp_path / "a.pdb", *backbone(atom_line, "A", ["ALA"]))
    (tmp_path / "b.pdb").symlink_to(tmp_path / "gone.pdb")
    (tmp_path / "c.pdb").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    records = list(PdbDataset(path=str(tmp_path)))
    assert [(type(r), r.id) for r in records] == [(Protein, "a_A"), (Rejected, "b")]


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("1ten_A.pdb", ["1TEN_A", "1TEN_B"]),
        ("1TEN_A.ent", ["1TEN_A", "1TEN_B"]),
        ("pdb1ten.ent", ["1TEN_A", "1TEN_B"]),
        ("1ten.PDB", ["1TEN_A", "1TEN_B"]),
        ("my_model.pdb", ["my_model_A", "my_model_B"]),
        ("my_model_C.pdb", ["my_model_C_A", "my_model_C_B"]),
        ("a_b_A.v2.pdb", ["a_b_A.v2_A", "a_b_A.v2_B"]),
    ],
)
def test_ids_from_file_names(tmp_path: Path, atom_line: Atom, name: str, ids: list[str]) -> None:
    file = write(tmp_path / name, *backbone(atom_line, "A", ["ALA"]), "TER", *backbone(atom_line, "B", ["CYS"]))
    assert [record.id for record in PdbDataset(path=str(file))] == ids
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert [record.id for record in PdbDataset(path=str(packed))] == ids


def test_same_id_twice(tmp_path: Path, atom_line: Atom) -> None:
    files = [
        write(tmp_path / "1abc.pdb", *backbone(atom_line, "A", ["ALA", "CYS"])),
        write(tmp_path / "1ABC.ent", *backbone(atom_line, "A", ["ALA", "CYS"])),
        write(tmp_path / "pdb1abc.ent", *backbone(atom_line, "A", ["ALA", "TRP"])),
    ]
    first, same, other = PdbDataset(path=[str(file) for file in files])
    assert isinstance(first, Protein) and isinstance(same, Filtered) and isinstance(other, Rejected)
    assert "another sequence" in other.reason and str(files[0]) in other.reason
    assert len({first.id, same.id, other.id}) == 3


@pytest.fixture
def folder(tmp_path: Path, atom_line: Atom) -> str:
    for name in ("1aaa", "1bbb"):
        chains = [[*backbone(atom_line, chain, ["ALA", "CYS"]), "TER"] for chain in "ABb"]
        write(tmp_path / f"{name}.pdb", *(line for chain in chains for line in chain))
    (tmp_path / "1ccc.pdb").write_text("")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ids": ["1aaa"]}, ["1AAA_A", "1AAA_B", "1AAA_b"]),
        ({"ids": "1bbb_B"}, ["1BBB_B"]),
        ({"ids": ["1BBB_b", "1AAA_a"]}, ["1AAA_A", "1BBB_b"]),
        ({"ids": ["1ccc_A", "1AAA_A"]}, ["1AAA_A", "1CCC"]),
        ({"chains": ["A"]}, ["1AAA_A", "1BBB_A", "1CCC"]),
        ({"chains": ["1AAA_b", "1bbb_A"]}, ["1AAA_b", "1BBB_A"]),
        ({"ids": ["1AAA"], "chains": ["B"]}, ["1AAA_B"]),
    ],
)
def test_selection(folder: str, arguments: dict[str, Any], expected: list[str]) -> None:
    assert [record.id for record in PdbDataset(path=folder, **arguments)] == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({}, "dataset.path"),
        ({"ids": ["tenascin"]}, "not a PDB id"),
        ({"ids": ["../../etc/passwd"]}, "not a PDB id"),
    ],
)
def test_unusable_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build("pdb", **arguments)


def test_unusable_folders_and_unknown_names(folder: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no chain Z; there are 1AAA_A, 1AAA_B"):
        list(PdbDataset(path=folder, chains=["A", "Z"]))
    with pytest.raises(InputError, match="nothing found for 1aab"):
        list(PdbDataset(path=folder, ids=["1aab"]))
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="it is empty"):
        PdbDataset(path=str(tmp_path / "sub"))
    (tmp_path / "sub" / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"holds a\.txt"):
        PdbDataset(path=str(tmp_path / "sub"))


def test_fetched_entries(server: Any, tmp_path: Path, atom_line: Atom) -> None:
    """Fetched once into the cache, an unknown entry told, the others not stopped by it."""
    content = gzip.compress(write(tmp_path / "x", *backbone(atom_line, "A", ["ALA", "CYS"])).read_bytes())
    server.answers = {
        "/1ABC.cif.gz": [server.status(503), server.body(content)],
        "/4CUT.cif.gz": [server.body(content[:60])],
    }
    arguments = {"ids": ["1abc_A", "9ZZZ", "4cut", "1ABC"], "cache": str(tmp_path / "cache"), "url": server.url}
    protein, unknown, cut = build("pdb", **arguments)
    assert isinstance(protein, Protein) and (protein.id, protein.sequence) == ("1ABC_A", "AC")
    assert isinstance(unknown, Rejected) and unknown.id == "9ZZZ" and "no such entry" in unknown.reason
    assert isinstance(cut, Rejected) and cut.id == "4CUT" and "damaged" in cut.reason
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["1ABC.cif.gz"]
    requests = len(server.requests)
    assert [record.id for record in build("pdb", **{**arguments, "ids": ["1ABC"]})] == ["1ABC_A"]
    assert len(server.requests) == requests


def test_without_network_the_remedy_is_named(tmp_path: Path) -> None:
    dataset = PdbDataset(ids=["1TEN"], cache=str(tmp_path), url="http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"dataset\.path"):
        list(dataset)


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


def test_covariation_structures(shared_data: Path) -> None:
    records = list(PdbDataset(path=str(shared_data / "covariation" / "structures")))
    assert len(records) == 36 and all(isinstance(record, Protein) for record in records)
    assert [record.id for record in records] == sorted(
        f.stem for f in (shared_data / "covariation/structures").iterdir()
    )
