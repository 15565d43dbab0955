"""The method on one sequence, for a notebook: text in, tensors out, nothing is written.

`python -m plmjac.predict` does the same for many proteins.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from plmjac import jacobian as method
from plmjac.alphabet import clean, encode
from plmjac.models import LanguageModel

DEFAULT_MAX_TOKENS = 4096


def contact_map(jacobian: Tensor | np.ndarray) -> Float[Tensor, "L L"]:
    """The paper's contact map of a Jacobian, from `categorical_jacobian` or from a store; computed in float32 at least.

    Takes (L, 20, L, 20), or (L, 1, L, 20) of MASK, and leaves it alone. Raises ValueError for another shape; of a store
    of fewer amino acids give `store[id].completed`.
    """
    tensor = torch.as_tensor(jacobian)
    if tensor.ndim != 4 or tensor.shape[0] != tensor.shape[2] or tensor.shape[3] != 20:
        raise ValueError(f"a Jacobian has the shape (L, 20, L, 20), this has {tuple(tensor.shape)}")
    if tensor.shape[1] not in (1, 20):
        raise ValueError(
            f"these are rows of {tensor.shape[1]} amino acids; give them their places among all 20 first: "
            "store[id].completed, or plmjac.jacobian.among_all"
        )
    return method.contact_map(tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float())


def categorical_jacobian(
    model: LanguageModel, sequence: str, *, max_tokens: int = DEFAULT_MAX_TOKENS
) -> Float[Tensor, "L 20 L 20"]:
    """The categorical Jacobian of a sequence: [i, a, j, b], change of the logit of b at j when i is set to a.

    float32, on the model's device, amino acids in the order of `plmjac.alphabet.AMINO_ACIDS`. `max_tokens` bounds the
    tokens of one forward and changes speed and memory only. Raises ValueError for a letter that is no residue.
    """
    letters, _ = clean(sequence)
    tokens = torch.from_numpy(encode(letters)).to(model.device)
    return method.categorical_jacobian(model.logits, tokens, max_tokens=max_tokens)
