"""Contacts of crystal structures: the contact head fitted on some of them, and the table of all families.

Scores are P@L/2 of pairs |i - j| >= 6, a contact being C-beta (C-alpha of glycine) < 8 angstrom. What it gives up: one
structure a family, so that a row is coarse; means over families say more.
"""

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import torch
from esm.model.esm2 import ESM2
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from plmjac.alphabet import AMINO_ACIDS
from plmjac.coevolution import coevolution, columns_of_query, read_alignment
from plmjac.jacobian import categorical_jacobian, contact_map
from tiny.data import CLS, EOS, FIRST_AMINO_ACID, read_queries
from tiny.network import fast_logits

MIN_SEPARATION = 6
CONTACT_ANGSTROM = 8.0
MAX_SEQUENCES = 8000
"""Alignments are cut to this many sequences for inverse covariance, as in the published averages of the data set."""


@dataclass(frozen=True)
class Domain:
    """A crystal structure's chain and the part of it that is the family's domain."""

    family: str
    structure: str
    sequence: str
    start: int
    stop: int
    contacts: Bool[np.ndarray, "L L"]
    inverse_covariance: Float64[np.ndarray, "L L"]


def read_chain(path: Path) -> tuple[str, Float64[np.ndarray, "L 3"]]:
    """Sequence and C-beta (C-alpha of glycine) positions, in angstrom, of the first chain's resolved residues."""
    chain = gemmi.read_structure(str(path))[0][0]
    letters, positions = [], []
    for residue in chain:
        info = gemmi.find_tabulated_residue(residue.name)
        atom = residue.find_atom("CB", "*") or residue.find_atom("CA", "*")
        if info.is_amino_acid() and atom is not None:
            letters.append(info.one_letter_code.upper())
            positions.append(atom.pos.tolist())
    return "".join(letters), np.array(positions)


def load_domain(folder: Path, name: str) -> Domain:
    """Structure, contacts of the domain, and inverse covariance of the family's alignment."""
    structure, aligned = read_queries(folder)[name]
    query = aligned.replace("-", "")
    sequence, positions = read_chain(folder / "structures" / f"{structure}.pdb")
    start = sequence.find(query)
    if start < 0:
        raise SystemExit(f"train_tiny: the query of {name} is no part of the chain of {structure}")
    inside = positions[start : start + len(query)]
    contacts = np.linalg.norm(inside[:, None] - inside[None], axis=-1) < CONTACT_ANGSTROM
    alignment = read_alignment(folder / "alignments" / f"{name}.fasta", MAX_SEQUENCES)
    baseline = coevolution(np.ascontiguousarray(alignment[:, columns_of_query(aligned)]))[1]
    return Domain(name, structure, sequence, start, start + len(query), contacts, baseline)


def precision(scores: Float[np.ndarray, "L L"], contacts: Bool[np.ndarray, "L L"], divisor: float = 2) -> float:
    """Share of contacts among the L / divisor best pairs of |i - j| >= 6."""
    first, second = np.triu_indices(len(contacts), MIN_SEPARATION)
    best = np.argsort(-scores[first, second], kind="stable")[: max(1, int(len(contacts) // divisor))]
    return float(contacts[first, second][best].mean())


def esm_tokens(sequence: str) -> Int64[Tensor, " T"]:
    """BOS, the 20 amino acids as ESM-2 tokens (anything else X), EOS."""
    letters = [
        FIRST_AMINO_ACID + (AMINO_ACIDS + "X").find(letter if letter in AMINO_ACIDS else "X") for letter in sequence
    ]
    return torch.tensor([CLS, *letters, EOS])


@torch.no_grad()
def jacobian_map(model: ESM2, sequence: str) -> Float64[np.ndarray, "L L"]:
    """The categorical Jacobian's contact map of a sequence."""
    ends = torch.tensor([[CLS], [EOS]])

    def logits(tokens: Tensor) -> Tensor:
        number = len(tokens)
        framed = torch.cat([ends[:1].expand(number, 1), tokens + FIRST_AMINO_ACID, ends[1:].expand(number, 1)], dim=1)
        return fast_logits(model, framed)[:, 1:-1]

    jacobian = categorical_jacobian(logits, esm_tokens(sequence)[1:-1] - FIRST_AMINO_ACID)
    return contact_map(jacobian, overwrite=True).double().numpy()


@torch.no_grad()
def attention_features(model: ESM2, sequence: str) -> Float[np.ndarray, "L L F"]:
    """APC-corrected symmetrised attention of all layers and heads, layer the slow axis, BOS and EOS cut off.

    The input of ESM-2's contact head (`esm.modules.ContactPredictionHead`).
    """
    attentions = model(esm_tokens(sequence)[None], need_head_weights=True)["attentions"][0, :, :, 1:-1, 1:-1]
    maps = attentions.flatten(0, 1)
    maps = maps + maps.transpose(1, 2)
    expected = maps.sum(dim=1, keepdim=True) * maps.sum(dim=2, keepdim=True) / maps.sum(dim=(1, 2), keepdim=True)
    features: Float[np.ndarray, "L L F"] = (maps - expected).permute(1, 2, 0).numpy()
    return features


def fit_contact_head(model: ESM2, domains: list[Domain], seed: int) -> tuple[Float64[np.ndarray, " F"], float]:
    """Weights and bias of the contact head by the protocol of Rao et al. 2021.

    L1-penalised logistic regression (C = 0.15, liblinear) over the pairs |i - j| >= 6 of all `domains`.
    """
    from sklearn.linear_model import LogisticRegression

    rows, labels = [], []
    for domain in domains:
        features = attention_features(model, domain.sequence[domain.start : domain.stop])
        first, second = np.triu_indices(len(domain.contacts), MIN_SEPARATION)
        rows.append(features[first, second])
        labels.append(domain.contacts[first, second])
    regression = LogisticRegression(penalty="l1", C=0.15, solver="liblinear", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn 1.8 renamed `penalty` to what 1.4 does not know
        regression.fit(np.concatenate(rows), np.concatenate(labels))
    return regression.coef_[0].astype(np.float64), float(regression.intercept_[0])


def table(
    model: ESM2, domains: list[Domain], head: tuple[Float64[np.ndarray, " F"], float], fitted: set[str]
) -> list[dict[str, Any]]:
    """P@L/2 per family of the Jacobian (domain alone, and in the whole chain), head, inverse covariance, chance."""
    rows = []
    for domain in domains:
        part = slice(domain.start, domain.stop)
        features = attention_features(model, domain.sequence[part])
        maps = {
            "jacobian": jacobian_map(model, domain.sequence[part]),
            "jacobian_in_chain": jacobian_map(model, domain.sequence)[part, part],
            "contact_head": features @ head[0] + head[1],
            "inverse_covariance": domain.inverse_covariance,
        }
        upper = domain.contacts[np.triu_indices(len(domain.contacts), MIN_SEPARATION)]
        scores = {name: round(precision(scores, domain.contacts), 4) for name, scores in maps.items()}
        rows.append(
            {"family": domain.family, "structure": domain.structure, "length": domain.stop - domain.start, **scores,
             "chance": round(float(upper.mean()), 4), "head_fitted_here": domain.family in fitted}
        )  # fmt: skip
    return rows


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """The table as CSV, and on the screen with its means."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text(encoding="utf-8"))
    for name in ("jacobian", "jacobian_in_chain", "contact_head", "inverse_covariance", "chance"):
        print(f"mean {name}: {np.mean([row[name] for row in rows]):.3f}")
    unseen = [row["contact_head"] for row in rows if not row["head_fitted_here"]]
    if unseen:
        print(f"mean contact_head where it was not fitted: {np.mean(unseen):.3f}")
