"""The method on one sequence, for a notebook: text in, tensors out, nothing is written.

`python -m plmjac.predict` does the same for many proteins.
"""

from operator import index

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from plmjac import jacobian as method
from plmjac.alphabet import clean, encode
from plmjac.metrics import square
from plmjac.models import LanguageModel

DEFAULT_MAX_TOKENS = 4096


def contact_map(jacobian: Tensor | np.ndarray, *, positions: tuple[int, int] | None = None) -> Float[Tensor, "L L"]:
    """The paper's contact map of a Jacobian, from `categorical_jacobian` or from a store; computed in float32 at least.

    Takes (L, 20, L, 20), or (L, 1, L, 20) of MASK, and leaves it alone. Of a Jacobian of some `positions` (half-open,
    from 0) it takes these rows, and pairs without one of these residues are NaN. Raises ValueError for another shape;
    of a store of fewer amino acids give `store[id].completed`.
    """
    tensor = _checked(jacobian, positions)
    if tensor.shape[1] not in (1, 20):
        raise ValueError(
            f"these are rows of {tensor.shape[1]} amino acids; give them their places among all 20 first: "
            "store[id].completed, or plmjac.jacobian.among_all"
        )
    if positions is None:
        return method.contact_map(tensor)
    return torch.from_numpy(square(method.contact_map(tensor, positions[0]).cpu().numpy(), positions[0]))


def couplings(jacobian: Tensor | np.ndarray, i: int, j: int) -> Float[Tensor, "20 20"]:
    """The centred, symmetrised couplings of residues i and j (from 0): rows the amino acid at i, columns that at j.

    The same as `store[id].couplings(i, j)`, of a Jacobian in memory. Raises ValueError for another shape than
    (L, 20, L, 20), IndexError for a pair outside the protein.
    """
    tensor = _checked(jacobian)
    i, j, length = index(i), index(j), len(tensor)
    if tensor.shape[1] != 20:
        raise ValueError(f"couplings need all 20 amino acids at each position; these are rows of {tensor.shape[1]}")
    if not (0 <= i < length and 0 <= j < length):
        raise IndexError(f"the pair ({i}, {j}) is outside the {length} residues, counted from 0")
    centered = method.center(tensor)
    return (centered[i, :, j] + centered[j, :, i].T) / 2


def _checked(jacobian: Tensor | np.ndarray, positions: tuple[int, int] | None = None) -> Float[Tensor, "R A L 20"]:
    """A Jacobian as a tensor of float32 or float64. Raises ValueError for what has another shape."""
    tensor = method.as_tensor(jacobian)
    if tensor.ndim != 4 or tensor.shape[3] != 20:
        raise ValueError(f"a Jacobian has the shape (L, 20, L, 20), this has {tuple(tensor.shape)}")
    first, last = _within(positions, tensor.shape[2])
    if len(tensor) != last - first:
        rows, part = (str(last - first), f" of positions {first}:{last}") if positions else ("L", "")
        raise ValueError(f"a Jacobian{part} has the shape ({rows}, 20, L, 20), this has {tuple(tensor.shape)}")
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _within(positions: tuple[int, int] | None, length: int) -> tuple[int, int]:
    """The positions, or all. Raises ValueError where they are not START < STOP within the protein."""
    first, last = positions or (0, length)
    if not 0 <= first < last <= length:
        raise ValueError(f"positions ({first}, {last}) of {length} residues: half-open, counted from 0, within them")
    return first, last


def categorical_jacobian(
    model: LanguageModel,
    sequence: str,
    *,
    positions: tuple[int, int] | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
) -> Float[Tensor, "R 20 L 20"]:
    """The categorical Jacobian of a sequence: [i, a, j, b], change of the logit of b at j when i is set to a.

    float32, on the model's device, amino acids in the order of `plmjac.alphabet.AMINO_ACIDS`. With `positions`
    (half-open, from 0) only these residues are mutated: row 0 is that of the first of them. `max_tokens` bounds the
    tokens of one forward and changes speed and memory only. Raises ValueError for a letter that is no residue, and for
    positions outside the sequence.
    """
    if not isinstance(model, LanguageModel):
        raise ValueError(f"the model is what plmjac.load_model returns, not of type {type(model).__name__}")
    letters, _ = clean(sequence)
    tokens = torch.from_numpy(encode(letters)).to(model.device)
    rows = _within(positions, len(letters))
    return method.categorical_jacobian(model.logits, tokens, rows=rows, max_tokens=max_tokens)
