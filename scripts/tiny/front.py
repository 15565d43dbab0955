"""A front of layers that knows a domain's columns in any surroundings, for a model that knows the domain alone.

A model that learnt from domains alone counts columns from the ends of the sequence. Its last two layers hold what cost
the most to learn: which columns are coupled, and how. They are kept and get a new front, one layer deeper, which looks
at neighbours from the start (`look_around`) and is taught two things: to name the columns of sequences with flanks, and
to hand over at each residue what the old front does where there are no flanks. What it gives up: the two are not equal,
and the last layers have to be trained on afterwards.
"""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tiny.data import CLS, EOS, PAD, Batch, Corpus
from tiny.network import LOOKING_LAYERS, column_loss, hidden_states, new_model
from tiny.teacher import Lesson
from tiny.training import Settings, TinyModule, load_checkpoint


class FrontModule(TinyModule):
    """A model whose last two layers are those of the checkpoint `alone`; the layers before them are trained."""

    parts = ("column", "unlikeness")

    def __init__(self, settings: Settings, corpus: Corpus, alone: Path) -> None:
        super().__init__(settings, corpus)
        checkpoint = load_checkpoint(alone)
        layers = checkpoint["settings"]["layers"]
        old = new_model(layers, settings.width, settings.heads, settings.seed)
        state = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("model.")}
        old.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
        self._old = (old.requires_grad_(False),)  # in a tuple, so that no checkpoint holds it
        for number in LOOKING_LAYERS:
            self.model.layers[number].load_state_dict(old.layers[number].state_dict())
        for part in ("embed_tokens", "emb_layer_norm_after", "lm_head"):
            getattr(self.model, part).load_state_dict(getattr(old, part).state_dict())
        self.requires_grad_(False)
        self.column_head.requires_grad_(True)
        self.model.layers[: LOOKING_LAYERS[0]].requires_grad_(True)

    def training_step(self, given: tuple[Batch, Lesson], batch_index: int) -> dict[str, Tensor]:
        """Cross-entropy of the columns, and how unlike the old front's output the new one's is."""
        batch, _ = given
        layers = len(self.model.layers) + LOOKING_LAYERS[0]
        states = hidden_states(self.model, batch.tokens, self.tables(batch.tokens.shape[1]), layers=layers)[0]
        column = column_loss(self.column_head, states[-1], batch, self.first_columns)
        unlike = unlikeness(states[-1], *self._wanted(batch))
        return {"loss": column + unlike, "parts": torch.stack([column, unlike]).detach()}

    def _wanted(self, batch: Batch) -> tuple[Float[Tensor, "R T D"], Bool[Tensor, "R T"]]:
        """The old front's output for the sequences without their flanks, and the places that have one."""
        own = batch.residue >= 0
        wild_types = len(self.settings.families or self.first_columns) * self.settings.per_family
        each = (len(batch.tokens) - len(own)) // wild_types
        own = torch.cat([own, own[:wild_types].repeat_interleave(each, dim=0)])
        whole = torch.cat([batch.whole, batch.whole[:wild_types].repeat_interleave(each)])
        plain, place = without_flanks(batch.tokens, own)
        layers = len(self._old[0].layers) + LOOKING_LAYERS[0]
        states = hidden_states(self._old[0], plain, layers=layers)[0][-1]
        wanted = states.gather(1, place.clamp(min=0)[..., None].expand(-1, -1, states.shape[-1]))
        return wanted, (place >= 0) & whole[:, None]


def without_flanks(
    tokens: Int64[Tensor, "R T"], own: Bool[Tensor, "R T"]
) -> tuple[Int64[Tensor, "R P"], Int64[Tensor, "R T"]]:
    """The sequences of the `own` places alone, and where each place of BOS, EOS and `own` is in them (-1: nowhere)."""
    number = own.sum(dim=1, keepdim=True)
    place = torch.where(own, own.cumsum(dim=1), -1)
    place = torch.where(tokens == CLS, 0, torch.where(tokens == EOS, number + 1, place))
    plain = torch.full((len(tokens), int(number.max()) + 2), PAD)
    row, at = torch.nonzero(place >= 0, as_tuple=True)
    plain[row, place[row, at]] = tokens[row, at]
    return plain, place


def unlikeness(
    states: Float[Tensor, "R T D"], wanted: Float[Tensor, "R T D"], taught: Bool[Tensor, "R T"]
) -> Float[Tensor, ""]:
    """Mean squared difference at the places that are taught, over the variance of what is wanted there."""
    wanted = wanted[taught]
    spread = (wanted - wanted.mean(dim=0)).square().mean()
    return (states[taught] - wanted).square().mean() / spread
