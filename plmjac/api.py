"""The method on one sequence, for a notebook: text in, tensors out.

What `python -m plmjac.predict` does for many proteins, with nothing written anywhere.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from plmjac import jacobian as method
from plmjac.alphabet import clean, encode
from plmjac.models import LanguageModel

DEFAULT_MAX_TOKENS = 4096

contact_map = method.contact_map


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
