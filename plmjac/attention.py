"""Contacts from attention: the mean of a model's best heads, from one forward (Thorstenson, arXiv 2606.21876).

The best heads are chosen once, on a few proteins with known structures, and kept in a small JSON file together with the
hash of the weights. There are no couplings: an attention map says that two residues matter to one another, not which
amino acids.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from plmjac.jacobian import apc, zero_diagonal

Head = tuple[int, int]
"""(layer, head), both counted from 0."""

KIND = "plmjac attention heads"


def attention_scores(maps: Float[Tensor, "K L L"]) -> Float[Tensor, "K L L"]:
    """Each attention map as a contact map: mean with its transpose, APC, zero diagonal.

    The maps are of residues only, without BOS and EOS; the diagonal stays in the sums of APC.
    """
    return torch.stack([zero_diagonal(apc((each + each.T) / 2)) for each in maps])


def attention_map(maps: Float[Tensor, "K L L"]) -> Float[Tensor, "L L"]:
    """The contact map of K heads: the mean of their `attention_scores`, symmetric to the last bit."""
    scores = attention_scores(maps).mean(dim=0)
    return (scores + scores.T) / 2


@dataclass(frozen=True)
class HeadChoice:
    """The K heads that find contacts best, best first, of the model with these weights.

    They were chosen by `scores`, which `settings` define (P@L/2 of which range, atom and cutoff), on `proteins`.
    """

    model: str
    weights_sha256: str
    heads: tuple[Head, ...]
    scores: tuple[float, ...]
    proteins: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.heads or len(set(self.heads)) < len(self.heads) or len(self.scores) != len(self.heads):
            raise ValueError("a choice of heads names one head or more, each once, with a score for each")

    def to_json(self) -> bytes:
        """The file's content: model, k, [layer, head, score] for each head, and how they were chosen."""
        rows = [[*head, score] for head, score in zip(self.heads, self.scores, strict=True)]
        document = {"kind": KIND, "k": len(rows), **asdict(self), "heads": rows}
        del document["scores"]
        return (json.dumps(document, indent=1) + "\n").encode()


def read_heads(path: Path, weights_sha256: str, model: str) -> HeadChoice:
    """Read the choice of heads for the model with these weights.

    Raises ValueError where the file cannot be read, is something else, or was chosen for other weights.
    """
    remedy = "make one with `python -m plmjac.evaluate +evaluation=attention_heads store=...`"
    try:
        document = json.loads(path.read_bytes())
        if document.pop("kind") != KIND or document.pop("k") != len(document["heads"]):
            raise ValueError("not the kind, or not the number of heads, that it says")
        rows: Sequence[tuple[int, int, float]] = document.pop("heads")
        heads = tuple((int(layer), int(head)) for layer, head, _ in rows)
        document["proteins"] = tuple(document["proteins"])
        choice = HeadChoice(heads=heads, scores=tuple(float(score) for _, _, score in rows), **document)
    except OSError as error:
        raise ValueError(f"heads={path} cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"heads={path} is no choice of attention heads ({error}); {remedy}") from None
    if choice.weights_sha256 != weights_sha256:
        raise ValueError(
            f"heads={path} were chosen for {choice.model} with weights {choice.weights_sha256[:12]}..., and this is "
            f"{model} with weights {weights_sha256[:12]}...: heads mean nothing in another model; {remedy}"
        )
    return choice
