"""The first layer's attention over many substitutions of one protein, from one attention of that protein.

In the first layer a substitution changes one key, one value and one query. For all other queries the attention without
the changed position is the same for all substitutions there; the new key is added to it by its share of the softmax.
Nothing is subtracted, so nothing cancels. Worth it where there are few layers (8M: 4 % of a forward); it gives up
nothing but these lines.
"""

from collections.abc import Callable

import torch
from jaxtyping import Complex64, Float32, Int64
from torch import Tensor

Heads = tuple[Tensor, Tensor, Tensor]
MIN_PER_POSITION = 4
"""Substitutions of one position, on average, from which on this beats attending anew."""


def attend_swapped(
    ids: Int64[Tensor, "B T"],
    heads_of: Callable[[Tensor, Tensor], Heads],
    turn: Complex64[Tensor, "T 1 1 P"],
) -> Float32[Tensor, "B H T W"] | None:
    """Attended values of each sequence, or None if they are not single substitutions, several of each position.

    `heads_of(ids, turn)` gives queries, keys and values (B, H, T, W) of tokens (B, T) turned by position.
    """
    base = ids.mode(dim=0).values  # any sequence from which all others differ in at most one place
    changed = ids != base
    if bool((changed.sum(dim=1) > 1).any()):
        return None
    place = changed.int().argmax(dim=1)
    # A sequence that is the base itself is a substitution by the same token, at a place that others have.
    place = torch.where(changed.any(dim=1), place, place[changed.any(dim=1).int().argmax()])
    places, group = torch.unique(place, return_inverse=True)
    if len(places) * MIN_PER_POSITION > len(ids):
        return None
    rows = torch.arange(len(ids), device=ids.device)
    query, key, value = (each[0] for each in heads_of(base[None], turn))
    new_query, new_key, new_value = (each[0] for each in heads_of(ids[rows, place][None], turn[place]))
    scale = query.shape[-1] ** -0.5
    scores = query * scale @ key.transpose(1, 2)
    to_new = query * scale @ new_key.transpose(1, 2)  # (H, T, B)
    attended = value.new_empty(len(ids), len(base), *value.shape[::2])
    for number, at in enumerate(places.tolist()):
        chosen = rows[group == number]
        others = scores.clone()
        others[:, :, at] = -torch.inf
        weights = torch.softmax(others, dim=-1)
        share = torch.sigmoid(to_new[:, :, chosen] - others.logsumexp(dim=-1, keepdim=True))
        attended[chosen] = torch.lerp(
            (weights @ value).transpose(0, 1)[None], new_value[:, chosen].transpose(0, 1)[:, None],
            share.permute(2, 1, 0)[..., None],
        )  # fmt: skip
    own = new_query * scale @ key.transpose(1, 2)  # (H, B, T): the changed query looks at all
    own[:, rows, place] = (new_query * new_key).sum(-1) * scale
    weights = torch.softmax(own, dim=-1)
    correction = weights[:, rows, place][..., None] * (new_value - value[:, place])
    attended[rows, place] = (weights @ value + correction).transpose(0, 1)
    return attended.transpose(1, 2)
