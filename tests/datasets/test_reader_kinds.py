"""Files as programs write them: each kind of file with the one thing that it should be read as."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import SEQUENCE, THREE, cif, cif_rows, fold, only, other, peptide, seqres, write

from plmjac.datasets.pdb import PdbDataset
from plmjac.records import Protein, Rejected

NAMES = [THREE[letter] for letter in SEQUENCE]
ATOMS = fold(len(SEQUENCE))
APART = ATOMS + np.array([0.0, 0.0, 70.0])
"""The same chain elsewhere."""


def read(path: Path, *lines: str) -> dict[str, Any]:
    """The records of a PDB file of these lines, by what stands behind the file's name in their ids."""
    write(path / "x.pdb", *lines)
    return {record.id.removeprefix("x").removeprefix("_"): record for record in PdbDataset(path=str(path / "x.pdb"))}


def is_whole(protein: Any, atoms: Any = ATOMS, sequence: str = SEQUENCE, without: range = range(0)) -> None:
    """Every residue in its column, with its C-alpha and C-beta, but for columns that are not resolved."""
    assert isinstance(protein, Protein), protein
    assert protein.sequence == sequence
    alpha, beta = atoms[:, 1].copy(), atoms[:, 4].copy()
    glycines = [place for place, letter in enumerate(sequence) if letter == "G"]
    beta[glycines] = alpha[glycines]
    alpha[list(without)] = beta[list(without)] = np.nan
    np.testing.assert_allclose(protein.structure.alpha, alpha, atol=1e-3)  # type: ignore[union-attr]
    np.testing.assert_allclose(protein.structure.beta, beta, atol=1e-3)  # type: ignore[union-attr]


def without(gap: range, *, numbers: list[str] | None = None, names: list[str] = NAMES) -> list[str]:
    """The chain without the residues of a gap, counted from 0."""
    rest = [place for place in range(len(names)) if place not in gap]
    numbers = numbers or [str(place + 1) for place in range(len(names))]
    return peptide([names[place] for place in rest], ATOMS[rest], "A", [numbers[place] for place in rest])


@pytest.mark.parametrize("name", ["ACY", "HOH", "ATP", "LIG"])
def test_what_is_no_residue_never_cuts_a_chain(tmp_path: Path, name: str) -> None:
    chain = peptide(NAMES, ATOMS)
    inside = next(place for place, line in enumerate(chain) if line[22:26] == "  17")
    for lines in (
        [*chain[:inside], other(name, "A", 200), *chain[inside:]],
        [other(name, "A", 500), *chain, "TER"],
        [*chain, other(name, "A", 101), other(name, "A", 102), "TER"],
        [*chain, other(name, "A", 101, kind="ATOM")],
        [*seqres(NAMES), *chain, other(name, "A", 101), "TER"],
    ):
        (protein,) = read(tmp_path, *lines).values()
        is_whole(protein)


def test_a_peptide_behind_its_own_waters(tmp_path: Path) -> None:
    waters = [other("HOH", "P", 100 + number, "O") for number in range(3)]
    found = read(tmp_path, *peptide(NAMES, ATOMS), "TER", *waters, *peptide(NAMES[:9], APART[:9], "P"), "TER")
    is_whole(found["A"])
    is_whole(found["P"], APART[:9], SEQUENCE[:9])


@pytest.mark.parametrize("cap", ["first", "last"])
def test_caps_are_no_residues(tmp_path: Path, cap: str) -> None:
    chain = peptide(NAMES, ATOMS, numbers=[str(number) for number in range(2, len(NAMES) + 2)])
    name, number = ("ACE", 1) if cap == "first" else ("NME", len(NAMES) + 2)
    line = other(name, "A", number, "C", kind="ATOM")
    is_whole(read(tmp_path, *([line, *chain] if cap == "first" else [*chain, line]))["A"])


def test_a_free_amino_acid_is_a_ligand_and_is_told(tmp_path: Path) -> None:
    free = peptide(["GLU"], fold(1, at=60), numbers=["264"], hetero=("GLU",))
    for lines in ([*peptide(NAMES, ATOMS), *free], [*peptide(NAMES, ATOMS), "TER", *free]):
        protein = read(tmp_path, *lines)["A"]
        is_whole(protein)
        assert "GLU 264" in protein.note


FORCE_FIELD_NAMES = ["HID", "HIE", "HIP", "HSD", "HSE", "HSP", "CYX", "CYM", "ASH", "GLH", "LYN"]
FORCE_FIELD_NAMES += ["NMET", "CVAL", "LYSH", "HISB"]


@pytest.mark.parametrize("name", FORCE_FIELD_NAMES)
def test_names_of_force_fields(tmp_path: Path, name: str) -> None:
    letter = {"N": "M", "L": "K", "A": "D", "G": "E"}.get(name[0], "V" if name == "CVAL" else name[0])
    place = SEQUENCE.index(letter) if letter in SEQUENCE else 0
    names = [*NAMES[:place], name, *NAMES[place + 1 :]]
    found = read(tmp_path, *peptide(names, ATOMS))
    assert list(found) == ["A"]
    is_whole(found["A"], sequence=SEQUENCE[:place] + letter + SEQUENCE[place + 1 :])


def test_homoserine_is_told_from_a_histidine_by_its_atoms(tmp_path: Path) -> None:
    """HSE is CHARMM's histidine and the component dictionary's homoserine."""
    place = SEQUENCE.index("H")
    lines = peptide([*NAMES[:place], "HSE", *NAMES[place + 1 :]], ATOMS)
    is_whole(read(tmp_path, *lines)["A"])
    side = other("HSE", "A", place + 1, "O3")
    end = 1 + max(row for row, line in enumerate(lines) if line[17:20] == "HSE")
    is_whole(read(tmp_path, *lines[:end], side, *lines[end:])["A"], sequence=SEQUENCE.replace("H", "S", 1))


@pytest.mark.parametrize("name", ["HED", "HDD", "CYN"])
def test_a_ligand_is_no_amino_acid_of_a_force_field(tmp_path: Path, name: str) -> None:
    (protein,) = read(tmp_path, *peptide(NAMES, ATOMS), other(name, "A", 40, "C"), other(name, "A", 40, "N")).values()
    is_whole(protein)
    assert "left out" not in protein.note


def test_beads_are_residues_without_a_place(tmp_path: Path) -> None:
    """A coarse-grained model: the sequence is whole, and nothing in it is resolved."""
    names = ["HSP" if name == "HIS" else name for name in NAMES]
    beads = [line[:12] + " BB " + line[16:] for line in peptide(names, ATOMS, kept=("CA",))]
    protein = read(tmp_path, *beads)["A"]
    is_whole(protein, without=range(32))
    assert "every residue counts as unresolved" in protein.note


def test_two_letter_chains_are_not_four_letter_residues(tmp_path: Path) -> None:
    lines = [line[:20] + "BA" + line[22:] for line in peptide(NAMES, ATOMS)]
    is_whole(read(tmp_path, *lines)["BA"])


def test_chains_without_a_letter(tmp_path: Path) -> None:
    first, second = peptide(NAMES, ATOMS, " "), peptide(NAMES, APART, " ")
    later = peptide(NAMES, APART, " ", [str(33 + place) for place in range(32)])
    for lines in ([*first, "TER", *second], [*first, "TER", *later], [*first, *second]):
        found = read(tmp_path, *lines)
        assert list(found) == ["1", "2"]
        is_whole(found["1"])
        is_whole(found["2"], APART)
    segments = [*peptide(NAMES, ATOMS, " ", segment="PROA"), *peptide(NAMES, APART, " ", segment="PROB")]
    found = read(tmp_path, *segments, other("SOL", " ", 1, "O"))
    assert list(found) == ["PROA", "PROB"]
    assert list(read(tmp_path, *first)) == [""]


def test_a_letter_used_twice_gives_two_chains(tmp_path: Path) -> None:
    found = read(tmp_path, *peptide(NAMES, ATOMS), "TER", *peptide(NAMES, APART), "TER")
    is_whole(found["A"])
    is_whole(found["A.2"], APART)
    assert "2 that the file calls A" in found["A.2"].note
    chain, between = peptide(NAMES, ATOMS), peptide(NAMES, APART, "B")
    found = read(tmp_path, *chain[:60], *between, *chain[60:])
    is_whole(found["A"])
    is_whole(found["B"], APART)


@pytest.mark.parametrize("cut", [15, 16])
def test_ter_within_a_chain_does_not_end_it(tmp_path: Path, cut: int) -> None:
    bonded = [*peptide(NAMES[:cut], ATOMS[:cut]), "TER",
              *peptide(NAMES[cut:], ATOMS[cut:], numbers=[str(n + 1) for n in range(cut, 32)])]  # fmt: skip
    is_whole(read(tmp_path, *bonded)["A"])
    gap = without(range(13, 18))
    is_whole(read(tmp_path, *seqres(NAMES), *gap[:65], "TER", *gap[65:])["A"], without=range(13, 18))


def test_residues_in_any_order(tmp_path: Path) -> None:
    """By their bonds: selenomethionines behind TER, and the second half of the chain first."""
    names = ["MSE" if place in (0, 15) else name for place, name in enumerate(NAMES)]
    lines = peptide(names, ATOMS)
    sequence = "M" + SEQUENCE[1:15] + "M" + SEQUENCE[16:]
    atoms = [line for line in lines if line.startswith("ATOM")]
    is_whole(read(tmp_path, *atoms, "TER", *(line for line in lines if line not in atoms))["A"], sequence=sequence)
    lines = peptide(NAMES, ATOMS)
    half = next(place for place, line in enumerate(lines) if line[22:26] == "  17")
    is_whole(read(tmp_path, *lines[half:], *lines[:half])["A"])
    gap = without(range(13, 18))
    is_whole(read(tmp_path, *seqres(NAMES), *gap[65:], *gap[:65])["A"], without=range(13, 18))
    note = read(tmp_path, *gap[65:], *gap[:65])["A"].note
    assert "residue numbers go back at MET 1" in note


def test_atoms_of_a_residue_that_stand_apart(tmp_path: Path) -> None:
    lines = [line for each in peptide(NAMES, ATOMS) for line in (each, other("HOH", "A", 900, "O"))]
    hydrogens = [line[:12] + " HA " + line[16:] for line in peptide(NAMES, ATOMS, kept=("CA",))]
    is_whole(read(tmp_path, *lines, "TER", *hydrogens)["A"])


def test_water_between_alternative_locations_that_lie_far_apart(tmp_path: Path) -> None:
    place = 16
    lines = peptide(NAMES, ATOMS)
    start = next(row for row, line in enumerate(lines) if line[22:26] == f"{place + 1:4d}")
    own = lines[start : start + 4 + (NAMES[place] != "GLY")]
    moved = peptide([NAMES[place]], ATOMS[[place]] + np.array([0.0, 0.0, 4.2]), numbers=[str(place + 1)])
    both = [
        line[:16] + letter + line[17:54] + f"{occupancy:6.2f}" + line[60:]
        for pair in zip(own, moved, strict=True)
        for line, letter, occupancy in zip(pair, "AB", (0.6, 0.4), strict=True)
    ]
    both[3:3] = [other("HOH", "A", 900, "O")]
    is_whole(read(tmp_path, *lines[:start], *both, *lines[start + len(own) :])["A"])


def test_residues_without_numbers_or_insertion_codes(tmp_path: Path) -> None:
    is_whole(read(tmp_path, *peptide(NAMES, ATOMS, numbers=[" "] * 32))["A"])
    numbers = [str(min(place, 10) + max(0, place - 14)) for place in range(32)]
    is_whole(read(tmp_path, *peptide(NAMES, ATOMS, numbers=numbers))["A"])


@pytest.mark.parametrize("change", ["BOM", "CR", "old columns", "lower case", "charge", "PDBQT", "UTF-16"])
def test_texts(tmp_path: Path, change: str) -> None:
    lines = [*seqres(NAMES), *peptide(NAMES, ATOMS), "END", ""]
    if change == "old columns":
        lines = ["HEADER    TEST", *(f"{line[:72]}1ABC{number:4d}" for number, line in enumerate(lines[3:-2]))]
    if change == "charge":
        lines = [f"{line[:78]}+1" if line.startswith("ATOM") else line for line in lines]
    if change == "PDBQT":
        lines = [f"{line[:66]}    {number / 1000:6.3f} C" for number, line in enumerate(lines[3:-2])]
    if change == "lower case":
        lines = [line.lower() for line in lines]
    text = ("\r" if change == "CR" else "\n").join(lines)
    encoding = {"BOM": "utf-8-sig", "UTF-16": "utf-16"}.get(change, "ascii")
    (tmp_path / "x.pdb").write_bytes(text.encode(encoding))
    is_whole(only(tmp_path / "x.pdb"))


def test_models_without_endmdl(tmp_path: Path) -> None:
    first, second = peptide(NAMES, ATOMS), peptide(NAMES, APART)
    for lines in (["MODEL 1", *first, "TER", "MODEL 2", *second], [*first, "END", *second]):
        protein = read(tmp_path, *lines)["A"]
        is_whole(protein)
        assert "model 1 of 2" in protein.note
    found = read(tmp_path, *first, "END", *peptide(NAMES, APART, "B"))  # two files, one behind the other
    is_whole(found["B"], APART)


# ---------------------------------------------------------------- SEQRES


@pytest.mark.parametrize("places", [(2, 4), (10, 20), (20, 25), (0, 31)])
def test_substitutions_against_seqres_keep_every_column(tmp_path: Path, places: tuple[int, int]) -> None:
    model = ["TRP" if place in places else name for place, name in enumerate(NAMES)]
    protein = read(tmp_path, *seqres(NAMES), *peptide(model, ATOMS))["A"]
    is_whole(protein)
    assert (
        f"2 residues differ from SEQRES: TRP {places[0] + 1} for {NAMES[places[0]]}, TRP {places[1] + 1}"
        in protein.note
    )


def test_too_much_disagreement_is_refused_with_the_count(tmp_path: Path) -> None:
    model = ["TRP" if place % 5 == 0 else name for place, name in enumerate(NAMES)]
    record = read(tmp_path, *seqres(NAMES), *peptide(model, ATOMS))["A"]
    assert isinstance(record, Rejected) and "only 25 of the 32 residues" in record.reason


def test_numbers_decide_where_letters_do_not(tmp_path: Path) -> None:
    alanines = ["ALA"] * 20
    atoms = fold(20, seed=3)
    kept = [place for place in range(20) if place not in (7, 8, 9)]
    numbers = [str(place + 1) for place in kept]
    lines = peptide([alanines[place] for place in kept], atoms[kept], numbers=numbers)
    protein = read(tmp_path, *seqres(alanines), *lines)["A"]
    is_whole(protein, atoms, "A" * 20, range(7, 10))
    assert "the residue numbers decide" in protein.note
    assert protein.residue_numbers == tuple(str(place + 1) for place in range(20))
    unnumbered = peptide([alanines[place] for place in kept], atoms[kept], numbers=[" "] * len(kept))
    assert "in several places equally well" in read(tmp_path, *seqres(alanines), *unnumbered)["A"].note


def test_numbers_decide_the_order_where_letters_do_not(tmp_path: Path) -> None:
    alanines, atoms = ["ALA"] * 20, fold(20, seed=3)
    order = [*range(12, 20), *range(9)]
    lines = peptide(["ALA"] * len(order), atoms[order], numbers=[str(place + 1) for place in order])
    protein = read(tmp_path, *seqres(alanines), *lines)["A"]
    is_whole(protein, atoms, "A" * 20, range(9, 12))
    assert "fit SEQRES in two orders" in protein.note


def test_a_missing_loop_whose_ends_are_near(tmp_path: Path) -> None:
    """C-alphas as near as neighbours, C and N too far apart for a bond: either may be, and the letters say which."""
    atoms, gap = ATOMS.copy(), range(26, 29)
    atoms[29:] += atoms[25, 1] + np.array([0.0, 3.0, 3.0]) - atoms[29, 1]
    kept = [place for place in range(32) if place not in gap]
    for numbers in ([str(number) for number in range(1, 30)], [str(place + 1) for place in kept]):
        model = peptide([NAMES[place] for place in kept], atoms[kept], numbers=numbers)
        protein = read(tmp_path, *seqres(NAMES), *model)["A"]
        is_whole(protein, atoms, without=gap)
        assert "the unbroken chain lacks" in protein.note


def test_a_sequence_without_a_model_is_told(tmp_path: Path) -> None:
    lines = [*seqres(NAMES), *seqres(NAMES[:20], "B"), *seqres(["DA", "DG"], "C"), *peptide(NAMES, ATOMS)]
    (protein,) = read(tmp_path, *lines).values()
    is_whole(protein)
    assert "SEQRES has a protein that the model lacks: chain B" in protein.note
    refused = only(write(tmp_path / "none.pdb", *seqres(NAMES), other("ATP", "A", 1)))
    assert isinstance(refused, Rejected) and "the model lacks: chain A" in refused.reason
    rows = cif_rows(NAMES, ATOMS, label_asym_id="A", label_entity_id="1", auth_asym_id="A",
                    label_seq_id=[str(place + 1) for place in range(32)])  # fmt: skip
    asyms = "loop_\n_struct_asym.id\n_struct_asym.entity_id\nA 1\nB 1"
    protein = only(cif(tmp_path / "y.cif", rows, poly_seq(NAMES), asyms))
    is_whole(protein)
    assert "entity_poly_seq has a protein that the model lacks: chain B" in protein.note


def test_numbers_that_jump_in_a_bonded_chain_open_no_gap(tmp_path: Path) -> None:
    numbers = [str(place + (1 if place < 10 else 4)) for place in range(32)]
    lines = without(range(21, 23), numbers=numbers)
    is_whole(read(tmp_path, *seqres(NAMES), *lines)["A"], without=range(21, 23))


def test_seqres_of_another_chain_is_not_forced_on_it(tmp_path: Path) -> None:
    lines = peptide(NAMES, ATOMS)
    for chain in "B ":
        is_whole(read(tmp_path, *seqres(NAMES, chain), *lines)["A"])
    both = [*seqres(NAMES), *lines, "TER", *peptide(NAMES[3:12], APART[3:12], numbers=[str(n) for n in range(1, 10)])]
    found = read(tmp_path, *both)
    is_whole(found["A"])
    assert isinstance(found["A.2"], Protein)


def test_residue_numbers_live_on(tmp_path: Path) -> None:
    numbers = [*(str(place + 20) for place in range(10)), "29A", "29B", *(str(place + 18) for place in range(12, 32))]
    protein = read(tmp_path, *seqres(["GLY", "SER", *NAMES]), *without(range(20, 23), numbers=numbers))["A"]
    assert protein.residue_numbers == ("", "", *numbers)  # the gap is told by its ends, the start by nothing


# ---------------------------------------------------------------- mmCIF


def poly_seq(names: list[str], entity: str = "1") -> str:
    rows = "\n".join(f"{entity} {number} {name}" for number, name in enumerate(names, start=1))
    return f"loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n{rows}"


def test_mmcif_as_biopython_writes_it(tmp_path: Path) -> None:
    """Each run of HETATM records has a label_asym_id of its own, and no label_seq_id."""
    names = ["MSE" if place in (0, 15) else name for place, name in enumerate(NAMES)]
    asym = ["A" if place == 0 else "C" if place == 15 else "B" if place < 15 else "D" for place in range(32)]
    label = ["." if place in (0, 15) else str(place if place < 15 else place - 15) for place in range(32)]
    rows = cif_rows(names, ATOMS, label_asym_id=asym, label_entity_id="?", label_seq_id=label, auth_asym_id="A",
                    auth_seq_id=[str(place + 1) for place in range(32)])  # fmt: skip
    rows.sort(key=lambda row: row["group_PDB"], reverse=True)
    is_whole(only(cif(tmp_path / "x.cif", rows)), sequence="M" + SEQUENCE[1:15] + "M" + SEQUENCE[16:])


@pytest.mark.parametrize("start", [1, 501])
def test_two_polymers_under_one_author_chain(tmp_path: Path, start: int) -> None:
    both = [
        cif_rows(NAMES[:count], atoms[:count], label_asym_id=name, label_entity_id=entity, auth_asym_id="A",
                 label_seq_id=[str(place + 1) for place in range(count)],
                 auth_seq_id=[str(place + first) for place in range(count)])
        for count, atoms, name, entity, first in ((32, ATOMS, "A", "1", 1), (10, APART, "B", "2", start))
    ]  # fmt: skip
    tables = poly_seq(NAMES) + "\n" + "\n".join(f"2 {number} {name}" for number, name in enumerate(NAMES[:10], start=1))
    first, second = PdbDataset(path=str(cif(tmp_path / "x.cif", [*both[0], *both[1]], tables)))
    assert (first.id, second.id) == ("x_A", "x_A.2")
    is_whole(first)
    is_whole(second, APART[:10], SEQUENCE[:10])


@pytest.mark.parametrize("tables", ["entity_poly_seq", "scheme", "one letter codes", "label_seq_id"])
def test_mmcif_gives_the_columns(tmp_path: Path, tables: str) -> None:
    kept = [place for place in range(32) if place not in (9, 10, 11)]
    rows = cif_rows([NAMES[place] for place in kept], ATOMS[kept], label_asym_id="A", label_entity_id="1",
                    label_seq_id=[str(place + 1) for place in kept], auth_asym_id="H",
                    auth_seq_id=[str(place + 101) for place in kept])  # fmt: skip
    scheme = ("loop_\n_pdbx_poly_seq_scheme.asym_id\n_pdbx_poly_seq_scheme.seq_id\n_pdbx_poly_seq_scheme.mon_id\n"
              "_pdbx_poly_seq_scheme.pdb_seq_num\n_pdbx_poly_seq_scheme.pdb_ins_code\n"
              + "\n".join(f"A {place + 1} {name} {place + 101} ." for place, name in enumerate(NAMES)))  # fmt: skip
    codes = ("loop_\n_entity_poly.entity_id\n_entity_poly.type\n_entity_poly.pdbx_seq_one_letter_code\n"
             f"1 'polypeptide(L)' {SEQUENCE}")  # fmt: skip
    loop = {"entity_poly_seq": [poly_seq(NAMES)], "scheme": [scheme], "one letter codes": [codes], "label_seq_id": []}
    protein = only(cif(tmp_path / "x.cif", rows, *loop[tables]))
    sequence = SEQUENCE if tables != "label_seq_id" else SEQUENCE[:9] + "XXX" + SEQUENCE[12:]
    is_whole(protein, sequence=sequence, without=range(9, 12))
    assert protein.id == "x_H" and protein.residue_numbers == tuple(str(place + 101) for place in range(32))


# ---------------------------------------------------------------- files too large


@pytest.mark.parametrize("content", [b"\0", b"ATOM\n", b"data_x\n#\n"])
def test_a_bomb_is_refused_by_its_size_and_the_others_are_read(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "good.pdb", *peptide(NAMES, ATOMS))
    bomb = gzip.compress(content * (64 * 2**20 // len(content)))
    (tmp_path / "bomb.pdb.gz").write_bytes(bomb)
    assert len(bomb) < 2**20
    refused, good = PdbDataset(path=str(tmp_path))
    is_whole(good)
    assert isinstance(refused, Rejected) and "more than 32 MB when unpacked" in refused.reason
    assert "not a PDB" not in refused.reason and "bomb.pdb.gz" in refused.reason


def test_memory_that_runs_out_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.pdb", *peptide(NAMES, ATOMS))
    monkeypatch.setattr("plmjac.datasets.structure_file.read_table", _raise_memory_error)
    record = only(tmp_path / "x.pdb")
    assert isinstance(record, Rejected) and "not enough memory" in record.reason
    assert "not a PDB" not in record.reason


def _raise_memory_error(_: bytes) -> None:
    raise MemoryError
