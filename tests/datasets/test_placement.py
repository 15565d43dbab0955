"""Placing residues in SEQRES: no wrong column without a word, over drawn chains and over real files read elsewhere."""

import gzip
import io
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import THREE, fold, peptide, seqres, write

from plmjac.datasets.placement import place
from plmjac.datasets.residues import Residue
from plmjac.datasets.structure_file import read_chains
from plmjac.records import Protein, Rejected

LENGTH = 60
ATOMS = [fold(LENGTH, seed) for seed in range(20)]
DRAWS = 100


def drawn(seed: int) -> tuple[list[str], str, np.ndarray[Any, Any], list[str]]:
    """PDB lines of a chain mutated, with missing residues, numbered in some way and shuffled; and what it is.

    The sequence, C-alphas with NaN where the model has none, and the residue numbers.
    """
    draw = random.Random(seed)
    letters = draw.choice([*["ARNDCQEGHILKMFPSTWYV"] * 6, "AG", "A", "QP"])
    sequence = [draw.choice(letters) for _ in range(LENGTH)]
    model = list(sequence)
    for _ in range(draw.choice([0, 1, 2, 2, 3])):
        model[draw.randrange(LENGTH)] = draw.choice("ARNDCQEGHILKMFPSTWYV")
    missing = {place for start in (draw.randrange(-8, LENGTH) for _ in range(draw.randrange(4)))
               for place in range(start, start + draw.randint(1, 10))}  # fmt: skip
    kept = [place for place in range(LENGTH) if place not in missing]
    numbering = draw.choice(["true", "true", "moved", "in order", "insertions", "none"])
    numbers = [str(place + 1) for place in range(LENGTH)]
    if numbering == "moved":
        first = draw.choice([-30, 250])
        numbers = [str(place + first) for place in range(LENGTH)]
    elif numbering == "in order":
        numbers = [str(sum(other <= place for other in kept)) for place in range(LENGTH)]
    elif numbering == "insertions":
        numbers = [*numbers[:30], "30A", "30B", "30C", *numbers[30 : LENGTH - 3]]
    elif numbering == "none":
        numbers = [" "] * LENGTH
    atoms = ATOMS[seed % len(ATOMS)]
    order = list(kept)
    if numbering != "none" and draw.random() < 0.25:
        cut = draw.randrange(len(order))
        order = [*order[cut:], *order[:cut]]
    names = ["MSE" if model[place] == "M" and draw.random() < 0.5 else THREE[model[place]] for place in order]
    lines = peptide(names, atoms[order], draw.choice("AB "), [numbers[place] for place in order])
    alpha = np.full((LENGTH, 3), np.nan)
    alpha[kept] = atoms[kept, 1]
    chain = lines[0][21]
    return [*seqres([THREE[letter] for letter in sequence], chain), *lines], "".join(sequence), alpha, numbers


def outcome(path: Path, seed: int) -> str:
    """Right, said (a note that names what is not sure), refused, or wrong."""
    lines, sequence, alpha, numbers = drawn(seed)
    records = [each.record for each in read_chains(write(path, *lines))]
    if len(records) != 1 or isinstance(records[0], Rejected):
        return "refused" if all(isinstance(record, Rejected) for record in records) else "wrong"
    protein = records[0]
    assert protein.structure is not None
    is_right = protein.sequence == sequence and np.allclose(
        protein.structure.alpha, alpha, atol=2e-3, equal_nan=True  # type: ignore[attr-defined]
    )  # fmt: skip
    if is_right and numbers[0] != " ":
        resolved = np.isfinite(alpha[:, 0])
        assert protein.residue_numbers is not None
        assert all(protein.residue_numbers[place] == numbers[place] for place in np.flatnonzero(resolved))
    words = ("in several places", "left out, not in SEQRES", "the unbroken chain lacks")
    return "right" if is_right else "said" if any(word in protein.note for word in words) else "wrong"


def test_no_residue_in_a_wrong_column_without_a_word(tmp_path: Path) -> None:
    found = [outcome(tmp_path / "x.pdb", seed) for seed in range(DRAWS)]
    assert [seed for seed, each in enumerate(found) if each == "wrong"] == []
    assert found.count("right") > 0.85 * DRAWS


@pytest.mark.parametrize("seed", range(8))
def test_the_cheapest_of_all_placements(seed: int) -> None:
    """Against every placement there is, on chains so short that they can all be counted."""
    draw = random.Random(seed)
    table = [draw.choice("AGS") for _ in range(8)]
    kept = sorted(draw.sample(range(8), 5))
    residues = [_residue(table[place], place + 1, ATOMS[seed][place]) for place in kept]
    found = place(residues, "".join(table), [(THREE[letter],) for letter in table])
    assert found.columns.tolist() == kept or found.is_uncertain.any() or found.by_number.any()
    matches = [columns for columns in _all_columns(5, 8) if all(
        table[column] == residue.letter for column, residue in zip(columns, residues, strict=True)
    )]  # fmt: skip
    assert tuple(found.columns.tolist()) in matches


def _all_columns(count: int, length: int, start: int = 0) -> list[tuple[int, ...]]:
    if not count:
        return [()]
    return [(first, *rest) for first in range(start, length) for rest in _all_columns(count - 1, length, first + 1)]


def _residue(letter: str, number: int, atoms: Any) -> Residue:
    return Residue([THREE[letter]], [atoms], [np.zeros(1, dtype=np.int64)], number, "", "A", "", 0, "", "", 0, False, 0,
                   False, letter, True, False)  # fmt: skip


# ---------------------------------------------------------------- real files


def real_files(shared_data: Path) -> list[Path]:
    folders = shared_data / "covariation" / "structures", shared_data / "structures", shared_data / "kaib"
    return [
        file for folder in folders for file in sorted(folder.iterdir()) if ".pdb" in file.name or ".cif" in file.name
    ]


def biopython(file: Path) -> Any:
    from Bio.PDB import MMCIFParser, PDBParser

    content = file.read_bytes()
    text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
    parser = MMCIFParser(QUIET=True) if ".cif" in file.name else PDBParser(QUIET=True)
    return parser.get_structure("x", io.StringIO(text))


def resolved(protein: Protein) -> tuple[str, Any, Any, Any]:
    """Letters, numbers, C-alphas and C-betas of the residues that have a C-alpha."""
    structure: Any = protein.structure
    there = np.isfinite(structure.alpha[:, 0])
    numbers = np.array(protein.residue_numbers)[there]
    return "".join(np.array(list(protein.sequence))[there]), numbers, structure.alpha[there], structure.beta[there]


def test_agreement_with_biopython(shared_data: Path) -> None:
    """Letters, residue numbers, C-alpha, C-beta and contacts of every chain of every file."""
    from Bio.Data.PDBData import protein_letters_3to1_extended as letters

    files = real_files(shared_data)
    chains = 0
    for file in files:
        model = biopython(file)[0]
        for each in read_chains(file):
            assert isinstance(each.record, Protein) and each.chain is not None
            own = [residue for residue in model[each.chain] if residue.get_resname() in letters and "CA" in residue]
            sequence, numbers, alpha, beta = resolved(each.record)
            assert sequence == "".join(letters[residue.get_resname()] for residue in own), each.record.id
            assert numbers.tolist() == [f"{r.id[1]}{r.id[2].strip()}" for r in own]
            np.testing.assert_allclose(alpha, [residue["CA"].coord for residue in own], atol=1e-3)
            betas = np.array([(residue["CB"] if "CB" in residue else residue["CA"]).coord for residue in own])
            np.testing.assert_allclose(beta, betas, atol=1e-3)
            known = each.record.structure.contacts("cb", 8.0).pairs  # type: ignore[union-attr]
            there = np.isfinite(each.record.structure.alpha[:, 0])  # type: ignore[union-attr]
            distances = np.linalg.norm(betas[:, None] - betas[None], axis=-1)
            np.fill_diagonal(distances, np.inf)
            is_clear = abs(distances - 8.0) > 1e-3
            np.testing.assert_array_equal(known[there][:, there][is_clear], (distances < 8.0)[is_clear])
            chains += 1
    assert len(files) == 40 and chains == 57


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_round_trips_through_biopython_change_nothing(shared_data: Path, tmp_path: Path, suffix: str) -> None:
    from Bio.PDB import MMCIFIO, PDBIO

    warnings.simplefilter("ignore")
    for file in [file for file in real_files(shared_data) if file.suffix != ".gz"][::6]:
        writer = PDBIO() if suffix == "pdb" else MMCIFIO()
        writer.set_structure(biopython(file))
        writer.save(str(tmp_path / f"x.{suffix}"))
        before, after = read_chains(file), read_chains(tmp_path / f"x.{suffix}")
        assert [each.chain for each in before] == [each.chain for each in after]
        for first, second in zip(before, after, strict=True):
            assert isinstance(first.record, Protein) and isinstance(second.record, Protein)
            for one, other in zip(resolved(first.record), resolved(second.record), strict=True):
                assert np.all(one == other) if isinstance(one, str) or one.dtype.kind == "U" else np.allclose(
                    one, other, atol=2e-3
                )  # fmt: skip
