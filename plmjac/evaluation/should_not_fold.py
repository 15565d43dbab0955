"""Predicted structures of sequences that should not fold: is the fold kept, is the model sure, what does it lay bare?

The paper's first hypothesis (Zhang et al. PNAS 2024): a predictor that knew physics would not fold an isoform that
lacks part of its domain. Compares each predicted structure with that of the full-length protein: RMSD of the aligned
region, pLDDT, hydrophobic surface and SAP of the same residues. Runs no predictor: the files come from any program.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from Bio.Align import PairwiseAligner, substitution_matrices
from Bio.SVDSuperimposer import SVDSuperimposer
from jaxtyping import Float64, Int64
from pydantic import Field, PositiveFloat, PositiveInt

from plmjac.config import Keys
from plmjac.datasets import InputError
from plmjac.datasets.atoms import read_atoms
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Row
from plmjac.evaluation.tables import lines_of, not_scored, number
from plmjac.plots import Figure
from plmjac.plots.surfaces import Profile, surface_profiles, surface_summary
from plmjac.records import Atoms
from plmjac.surface import Surface, surface

READS_STRUCTURES = False


class Settings(Keys):
    """The keys of conf/evaluation/should_not_fold.yaml."""

    name: Literal["should_not_fold"]
    pairs: Path
    radius: PositiveFloat
    min_aligned: PositiveInt
    kept_rmsd: PositiveFloat
    bared: PositiveFloat
    sure_plddt: float = Field(ge=0, le=100)


COLUMNS = [
    "id", "predicted", "full_length", "residues", "full_residues", "aligned", "identity", "missing", "rmsd", "plddt",
    "hydrophobic_per_residue", "hydrophobic_per_residue_full", "hydrophobic_gain", "sap_sum", "sap_sum_full",
    "sap_gain", "judgement", "reason",
]  # fmt: skip
"""Areas in square angstrom, RMSD in angstrom; gains are of the aligned residues: prediction minus full length."""


def evaluate(inputs: Inputs, settings: Settings) -> Outcome:
    """Judge each pair of the table `pairs`; a pair that cannot be judged is a row with NaN and the reason."""
    if inputs.stores:
        raise EvaluationError("store has no effect on should_not_fold, which reads structure files; leave it out")
    pairs = read_pairs(settings.pairs)
    rows, residues, profiles = [], [], []
    for pair in pairs:
        try:
            row, table = compare(pair, settings)
        except InputError as error:
            rows.append({**pair, "reason": str(error)})
            continue
        rows.append(row)
        residues.append(table)
        profiles.append(
            Profile(row["id"], table["position"].to_numpy(), table["sap"].to_numpy(), table["sap_full"].to_numpy())
        )
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    per_residue = pd.concat(residues, ignore_index=True) if residues else pd.DataFrame()
    figures: dict[str, Callable[[], Figure]] = {}
    if profiles:
        figures = {
            "should_not_fold": lambda: surface_summary(table[table["reason"].isna()], settings.kept_rmsd),
            "sap_profiles": lambda: surface_profiles(profiles),
        }
    return Outcome({"should_not_fold": table, "residues": per_residue}, figures, _text(table, settings), len(residues))


def read_pairs(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with the columns predicted and full_length, and, if wanted, id and the chains of either.

    Paths are relative to the CSV. Raises InputError naming the file and what is missing.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#")
    except (OSError, ValueError) as error:
        raise InputError(f"evaluation.pairs={path} cannot be read as a CSV table: {error}") from error
    if lacking := {"predicted", "full_length"} - set(table.columns):
        raise InputError(f"{path} lacks the column(s) {sorted(lacking)}; its first line must name them")
    if table.empty:
        raise InputError(f"{path} has no row; give one pair of structures a line")
    known = {"id", "predicted", "full_length", "predicted_chain", "full_length_chain"}
    if strange := set(table.columns) - known:
        raise InputError(f"{path} has the unknown column(s) {sorted(strange)}; known: {sorted(known)}")
    rows = [{str(key): str(value).strip() for key, value in row.items()} for row in table.to_dict("records")]
    if empty := [number for number, row in enumerate(rows, 1) if not (row["predicted"] and row["full_length"])]:
        raise InputError(f"{path}: row {empty[0]} names no predicted or no full_length file")
    for row in rows:
        row["id"] = row.get("id") or Path(row["predicted"]).name
        row["folder"] = str(path.parent)
    return rows


def compare(pair: dict[str, str], settings: Settings) -> tuple[Row, pd.DataFrame]:
    """One pair: the row of the table, and the aligned residues one by one.

    Raises InputError where a file cannot be read or too few residues can be aligned.
    """
    predicted, full = (
        read_atoms(Path(pair["folder"]) / pair[name], pair.get(f"{name}_chain") or None)
        for name in ("predicted", "full_length")
    )
    ours, theirs = aligned(predicted.sequence, full.sequence)
    if len(ours) < settings.min_aligned:
        raise InputError(f"only {len(ours)} residues can be aligned, fewer than min_aligned={settings.min_aligned}")
    surfaces = surface(predicted, radius=settings.radius), surface(full, radius=settings.radius)
    table = _residues(pair["id"], (predicted, full), surfaces, ours, theirs)
    rmsd = superposed_rmsd(alphas(full)[theirs], alphas(predicted)[ours])
    confidence = plddt(predicted)
    gain = float((table["hydrophobic"] - table["hydrophobic_full"]).sum())
    row = {
        "id": pair["id"], "predicted": pair["predicted"], "full_length": pair["full_length"],
        "residues": len(predicted.sequence), "full_residues": len(full.sequence), "aligned": len(ours),
        "identity": float((table["letter"] == table["letter_full"]).mean()),
        "missing": len(full.sequence) - len(theirs), "rmsd": rmsd, "plddt": confidence,
        "hydrophobic_per_residue": float(surfaces[0].hydrophobic.mean()),
        "hydrophobic_per_residue_full": float(surfaces[1].hydrophobic.mean()),
        "hydrophobic_gain": gain,
        "sap_sum": float(np.clip(surfaces[0].sap, 0, None).sum()),
        "sap_sum_full": float(np.clip(surfaces[1].sap, 0, None).sum()),
        "sap_gain": float((table["sap"] - table["sap_full"]).sum()),
        "judgement": judgement(rmsd, confidence, gain / len(ours), settings),
    }  # fmt: skip
    return row, table


def judgement(rmsd: float, confidence: float, gain: float, settings: Settings) -> str:
    """The numbers in words: a kept fold that lays hydrophobic surface bare should not have folded.

    `gain` is the hydrophobic area gained per aligned residue in square angstrom.
    """
    if rmsd > settings.kept_rmsd:
        return "another fold"
    words = ["fold kept", "more hydrophobic surface" if gain >= settings.bared else "no more hydrophobic surface"]
    if not np.isnan(confidence):
        words.insert(1, "sure" if confidence >= settings.sure_plddt else "unsure")
    return ", ".join(words)


def aligned(sequence: str, full: str) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Aligned residues of a sequence and of the full-length one: global, BLOSUM62, long gaps cheap (isoforms)."""
    aligner = PairwiseAligner(mode="global", open_gap_score=-11, extend_gap_score=-0.2)
    aligner.substitution_matrix = substitution_matrices.load("BLOSUM62")
    aligner.end_gap_score = 0.0
    blocks = aligner.align(*(text.translate(str.maketrans("UO", "CK")) for text in (sequence, full)))[0].aligned
    ours, theirs = (
        np.concatenate(
            [np.arange(start, stop, dtype=np.int64) for start, stop in side] or [np.zeros(0, dtype=np.int64)]
        )
        for side in blocks
    )
    return ours, theirs


def alphas(atoms: Atoms) -> Float64[np.ndarray, "L 3"]:
    """The C-alpha of each residue."""
    chosen: Float64[np.ndarray, "L 3"] = atoms.position[np.array(atoms.name) == "CA"]
    return chosen


def superposed_rmsd(fixed: Float64[np.ndarray, "N 3"], moving: Float64[np.ndarray, "N 3"]) -> float:
    """Root mean square deviation of two sets of points in angstrom after the best superposition."""
    superimposer = SVDSuperimposer()
    superimposer.set(fixed, moving)
    superimposer.run()
    return float(superimposer.get_rms())


def plddt(atoms: Atoms) -> float:
    """Mean pLDDT over residues on the scale to 100 (ESMFold writes it to 1); NaN where all B-factors are one value."""
    values = atoms.b_factor[np.array(atoms.name) == "CA"]
    if np.ptp(values) == 0 or values.min() < 0 or values.max() > 100:
        return float("nan")
    return float(values.mean() * (100 if values.max() <= 1 else 1))


def _residues(
    identifier: str,
    atoms: tuple[Atoms, Atoms],
    surfaces: tuple[Surface, Surface],
    ours: Int64[np.ndarray, " N"],
    theirs: Int64[np.ndarray, " N"],
) -> pd.DataFrame:
    """One row for each aligned residue: position in the full-length chain (from 1), and its surface in either."""
    columns: dict[str, Any] = {"id": identifier, "position": theirs + 1}
    for suffix, structure, shown, index in zip(("", "_full"), atoms, surfaces, (ours, theirs), strict=True):
        columns[f"letter{suffix}"] = np.array(list(structure.sequence))[index]
        columns[f"area{suffix}"] = shown.area[index]
        columns[f"hydrophobic{suffix}"] = shown.hydrophobic[index]
        columns[f"sap{suffix}"] = shown.sap[index]
    return pd.DataFrame(columns)


def _text(table: pd.DataFrame, settings: Settings) -> str:
    forms = {"aligned": ".0f", "missing": ".0f"} | dict.fromkeys(
        ["rmsd", "plddt", "hydrophobic_gain", "sap_gain"], ".2f"
    )
    rows = [
        {"id": row["id"], **{key: number(row[key], forms[key]) for key in forms}, "judgement": row["judgement"]}
        for row in table[table["reason"].isna()].to_dict("records")
    ]
    return "\n".join(
        [
            "RMSD of the aligned C-alphas in A; gains of the aligned residues over the full length: area in A^2, SAP",
            f"fold kept: RMSD <= {settings.kept_rmsd:g} A; sure: mean pLDDT >= {settings.sure_plddt:g}; more surface: "
            f"{settings.bared:g} A^2 a residue; SAP radius {settings.radius:g} A",
            *(lines_of(rows) or ["no pair"]),
            *not_scored(table.assign(protein=table["id"]), "rmsd"),
        ]
    )
