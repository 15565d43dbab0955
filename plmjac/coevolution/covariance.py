"""The paper's baseline: couplings as the negative inverse covariance of a one-hot alignment, and their contact map.

No sequence weighting, no filtering, no pseudolikelihood: one matrix inverse, as in Zhang et al. (PNAS 2024), which is
why it takes a second where GREMLIN takes minutes. In float64 by default it needs `memory_needed(L)` bytes, 5 GB at
L = 600; in float32 half of that.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int8
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.coevolution.alignment import NUM_STATES
from plmjac.jacobian import corrected, frobenius_norm

SHRINKAGE = 4.5
"""The ridge on the covariance is this over the square root of the number of sequences."""

_BLOCK = 1024


def memory_needed(length: int, dtype: type[np.floating] = np.float64) -> int:
    """Bytes that couplings and map of this many columns take at their peak: four matrices of side 21 L."""
    return 4 * np.dtype(dtype).itemsize * (NUM_STATES * length) ** 2


def one_hot(alignment: Int8[np.ndarray, "N L"]) -> Float64[np.ndarray, "N L_21"]:
    """Each row of states as L x 21 zeros and ones, flattened with the state as the fast axis."""
    num_sequences, length = alignment.shape
    encoded = np.zeros((num_sequences, length, NUM_STATES))
    np.put_along_axis(encoded, alignment.astype(np.int64)[:, :, None], 1.0, axis=2)
    return encoded.reshape(num_sequences, length * NUM_STATES)


def covariance(
    alignment: Int8[np.ndarray, "N L"], dtype: type[np.floating] = np.float64
) -> Float[np.ndarray, "L_21 L_21"]:
    """The unbiased (N - 1) covariance of the one-hot alignment, a block of sequences at a time.

    Sums of zeros and ones are exact, so nothing is lost by subtracting the product of the means last. Raises ValueError
    for fewer than two sequences.
    """
    number, length = alignment.shape
    if number < 2:
        raise ValueError(f"a covariance needs two sequences or more; the alignment has {number}")
    both = np.zeros((length * NUM_STATES, length * NUM_STATES), dtype)
    counts = np.zeros(length * NUM_STATES)
    for start in range(0, number, _BLOCK):
        encoded = one_hot(alignment[start : start + _BLOCK]).astype(np.float32)  # counts below 2^24 are exact
        both += encoded.T @ encoded
        counts += encoded.sum(axis=0, dtype=np.float64)
    both -= np.outer(counts.astype(dtype), (counts / number).astype(dtype))
    both /= number - 1
    return both


def inverse_covariance(
    alignment: Int8[np.ndarray, "N L"], *, shrinkage: float = SHRINKAGE, dtype: type[np.floating] = np.float64
) -> Float[np.ndarray, "L 20 L 20"]:
    """Couplings between columns: minus the inverse of the shrunk covariance, the gap's rows and columns left out.

    `couplings[i, a, j, b]` is positive where a in column i and b in column j are found together more often than the
    other columns explain; same order of axes, letters and sign as the categorical Jacobian. The covariance is unbiased
    (N - 1) and has shrinkage / sqrt(N) added to its diagonal. Raises ValueError for fewer than two sequences.

    Source: Zhang et al. 2024, `inv_cov` of the authors' code.
    """
    number, length = alignment.shape
    matrix = torch.from_numpy(covariance(alignment, dtype))
    matrix.diagonal().add_(shrinkage / number**0.5)
    torch.linalg.cholesky(matrix, out=matrix)
    precision = torch.cholesky_inverse(matrix).neg_().reshape(length, NUM_STATES, length, NUM_STATES)
    couplings: Float[np.ndarray, "L 20 L 20"] = precision[:, :NUM_AMINO_ACIDS, :, :NUM_AMINO_ACIDS].numpy()
    return couplings


def partial_correlation(couplings: Float[np.ndarray, "L 20 L 20"]) -> Float[np.ndarray, "L 20 L 20"]:
    """Inverse-covariance couplings divided by the square root of both of their diagonal entries: -1 to 1.

    The correlation of two states given all other columns. Source: the variant of the same laboratory's MSA Pairformer.
    """
    length = len(couplings)
    square = couplings.reshape(length * NUM_AMINO_ACIDS, -1)
    scale = 1 / np.sqrt(-square.diagonal())
    scaled = square * scale[:, None]
    scaled *= scale
    correlation: Float[np.ndarray, "L 20 L 20"] = scaled.reshape(couplings.shape)
    return correlation


def coupling_map(couplings: Float[np.ndarray, "L A L A"] | Float[Tensor, "L A L A"]) -> Float64[np.ndarray, "L L"]:
    """The paper's contact map of inverse-covariance couplings: norm of each raw block, zero diagonal, APC.

    The steps are those of `plmjac.jacobian.contact_map` without its first two: the authors centre the Jacobian and not
    these couplings, which are symmetric as they are.
    """
    tensor = torch.as_tensor(couplings)
    contacts: Float64[np.ndarray, "L L"] = corrected(frobenius_norm(tensor).double()).numpy()
    return contacts


def coevolution(
    alignment: Int8[np.ndarray, "N L"], *, shrinkage: float = SHRINKAGE
) -> tuple[Float64[np.ndarray, "L 20 L 20"], Float64[np.ndarray, "L L"]]:
    """The couplings of an alignment and the contact map that they make: the baseline of the paper in one call."""
    couplings = inverse_covariance(alignment, shrinkage=shrinkage)
    return couplings, coupling_map(couplings)
