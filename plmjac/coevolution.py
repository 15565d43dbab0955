"""The paper's baseline: couplings as the negative inverse covariance of a one-hot alignment, and their contact map.

No sequence weighting, no filtering, no pseudo-likelihood: one matrix inverse, as in Zhang et al. (PNAS 2024), which is
why it takes a second where GREMLIN takes minutes. Plain numpy in float64; the memory is three square matrices of side
21 L (1.3 GB each at L = 600).
"""

from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Float64, Int8, Int64

from plmjac.alphabet import AMINO_ACIDS, NUM_AMINO_ACIDS

GAP = NUM_AMINO_ACIDS
"""State 20 of an alignment: a gap, or a letter that is none of the 20 amino acids."""

NUM_STATES = NUM_AMINO_ACIDS + 1

SHRINKAGE = 4.5
"""The ridge on the covariance is this over the square root of the number of sequences."""

_STATE_OF_BYTE = np.full(256, GAP, dtype=np.int8)
_STATE_OF_BYTE[np.frombuffer(AMINO_ACIDS.encode("ascii"), dtype=np.uint8)] = np.arange(NUM_AMINO_ACIDS)


def read_alignment(path: str | Path) -> Int8[np.ndarray, "N L"]:
    """Read an aligned FASTA or an a3m as states: 0 to 19 in the order of AMINO_ACIDS, 20 for a gap or anything else.

    Lower-case letters and `.` are insertions relative to the first sequence (a3m) and are dropped, so that every row
    has the columns of the first. Raises ValueError for a file without records and for rows of unequal length, naming
    the record.
    """
    with open(path, encoding="utf-8") as file:
        rows = _rows(file)
    if not rows:
        raise ValueError(f"{path} has no FASTA record (no line that starts with '>')")
    length = len(rows[0][1])
    for name, row in rows:
        if len(row) != length:
            raise ValueError(f"{path}: {name!r} has {len(row)} columns and the first record {length}: is it aligned?")
    text = "".join(row for _, row in rows).encode("ascii", errors="replace")
    states: Int8[np.ndarray, "N L"] = _STATE_OF_BYTE[np.frombuffer(text, dtype=np.uint8)].reshape(len(rows), length)
    return states


def _rows(file: IO[str]) -> list[tuple[str, str]]:
    """The records of an aligned FASTA without their insertions, in file order."""
    records: list[tuple[str, list[str]]] = []
    for line in file:
        if line.startswith(">"):
            records.append((line[1:].strip(), []))
        elif records:
            records[-1][1].append("".join(letter for letter in line.strip() if letter != "." and not letter.islower()))
    return [(name, "".join(lines)) for name, lines in records]


def columns_of_query(query: str) -> Int64[np.ndarray, " L"]:
    """Which columns of an alignment the query has a residue in, given the query's aligned row (`-` for a gap)."""
    return np.flatnonzero([letter not in "-." for letter in query])


def one_hot(alignment: Int8[np.ndarray, "N L"]) -> Float64[np.ndarray, "N L_21"]:
    """Each row of states as L x 21 zeros and ones, flattened with the state as the fast axis."""
    num_sequences, length = alignment.shape
    encoded = np.zeros((num_sequences, length, NUM_STATES))
    np.put_along_axis(encoded, alignment.astype(np.int64)[:, :, None], 1.0, axis=2)
    return encoded.reshape(num_sequences, length * NUM_STATES)


def inverse_covariance(
    alignment: Int8[np.ndarray, "N L"], *, shrinkage: float = SHRINKAGE
) -> Float64[np.ndarray, "L 20 L 20"]:
    """Couplings between columns: minus the inverse of the shrunk covariance, the gap's rows and columns left out.

    `couplings[i, a, j, b]` is positive where a in column i and b in column j are found together more often than the
    other columns explain; same order of axes, letters and sign as the categorical Jacobian. The covariance is unbiased
    (N - 1) and has shrinkage / sqrt(N) added to its diagonal. Raises ValueError for fewer than two sequences.

    Source: Zhang et al. 2024, `inv_cov` of the authors' code.
    """
    num_sequences, length = alignment.shape
    if num_sequences < 2:
        raise ValueError(f"a covariance needs two sequences or more; the alignment has {num_sequences}")
    encoded = one_hot(alignment)
    encoded -= encoded.mean(axis=0)
    covariance = encoded.T @ encoded / (num_sequences - 1)
    covariance[np.diag_indices_from(covariance)] += shrinkage / np.sqrt(num_sequences)
    precision = np.linalg.inv(covariance).reshape(length, NUM_STATES, length, NUM_STATES)
    couplings: Float64[np.ndarray, "L 20 L 20"] = -precision[:, :NUM_AMINO_ACIDS, :, :NUM_AMINO_ACIDS]
    return couplings


def coupling_map(couplings: Float[np.ndarray, "L A L A"]) -> Float64[np.ndarray, "L L"]:
    """From couplings to a contact map: norm of each raw block (not centred), zero diagonal, APC, zero diagonal."""
    norms = np.sqrt(np.square(couplings, dtype=np.float64).sum(axis=(1, 3)))
    np.fill_diagonal(norms, 0.0)
    total = norms.sum()
    if total > 0:
        norms -= norms.sum(axis=1, keepdims=True) * norms.sum(axis=0, keepdims=True) / total
    np.fill_diagonal(norms, 0.0)
    contacts: Float64[np.ndarray, "L L"] = (norms + norms.T) / 2
    return contacts


def coevolution(
    alignment: Int8[np.ndarray, "N L"], *, shrinkage: float = SHRINKAGE
) -> tuple[Float64[np.ndarray, "L 20 L 20"], Float64[np.ndarray, "L L"]]:
    """The couplings of an alignment and the contact map that they make: the baseline of the paper in one call."""
    couplings = inverse_covariance(alignment, shrinkage=shrinkage)
    return couplings, coupling_map(couplings)
