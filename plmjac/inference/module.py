"""The LightningModule: one work item in, one chunk of the Jacobian out, and a failure that stays with its protein.

Forward passes are grouped by a token budget here and nowhere else. Keeps one thing between steps: the wild type of the
protein under way and its letters, so that its forward is made once and not once a chunk.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS, encode
from plmjac.attention import Head, attention_map, attention_scores
from plmjac.inference.step import StepModule
from plmjac.jacobian import changes
from plmjac.models import LanguageModel
from plmjac.records import WorkItem
from plmjac.store import SavedRows
from plmjac.substitutions import Substitutions

SAVE_SECONDS = 20.0
"""A block that took longer is kept on disk until its protein is complete."""


@dataclass(frozen=True, eq=False)
class WildType:
    """What the chunks of one protein share: tokens, residue indices, letters, and what mutants are compared to."""

    key: str
    tokens: Int64[Tensor, " L"]
    positions: Int64[Tensor, " L"] | None
    letters: Int64[Tensor, "L A"]
    compared: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class JacobianChunk:
    """The answer to a `WorkItem`: its rows of the raw Jacobian in float32, on the device that made them.

    The first chunk of a protein also carries the wild type's readouts (logits (L, 20), contact_head (L, L), ...).
    `strength` is the norm of the change of the hidden state, averaged over the substitutions, where that is kept.
    """

    item: WorkItem
    rows: Float[Tensor, "R A L 20"]
    readouts: dict[str, Tensor] = field(default_factory=dict)
    strength: Float[Tensor, "R L"] | None = None

    def __post_init__(self) -> None:
        expected = (self.item.stop - self.item.start, len(self.item.sequence), 20)
        shape = tuple(self.rows.shape)
        if (shape[0], *shape[2:]) != expected:
            raise ValueError(f"{self.item.key}: a chunk of shape {shape} for rows {self.item.start}:{self.item.stop}")


class JacobianModule(StepModule[JacobianChunk]):
    """Computes chunks of categorical Jacobians with a language model.

    Peak device memory: weights, one forward of `max_tokens` tokens, one chunk in float32; the writer adds the whole
    Jacobian of one protein where a contact map is kept. After running out of memory it goes on with half the tokens a
    forward, and says so.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        substitutions: Substitutions,
        readouts: Collection[str],
        heads: Sequence[Head] | None = None,
        max_tokens: int | None = None,
        threads: int | None = None,
        saved: SavedRows | None = None,
        on_forward: Callable[[WorkItem, int], None] = lambda _item, _count: None,
    ) -> None:
        """`readouts` are those to keep; `representation` among them is compared between mutants, as logits are;
        `attention` is that of the `heads`."""
        super().__init__(max_tokens, threads)
        self.model = model
        self.substitutions = substitutions
        self.heads = heads
        self.readouts = sorted({"logits", *("attention" if name == "attention_heads" else name for name in readouts)})
        self.compared = sorted({"logits"} | ({"representation"} & set(readouts)))
        self.saved = saved
        self.on_forward = on_forward
        self._wild_type: WildType | None = None

    def compute(self, item: WorkItem) -> JacobianChunk:
        """Compute one block of rows; the first of a protein brings the wild type's readouts."""
        readouts: dict[str, Tensor] = {}
        if item.is_first or self._wild_type is None or self._wild_type.key != item.key:
            self._wild_type, readouts = self._read_wild_type(item)
            self.on_forward(item, 1)
        rows, strength = self._rows(item, self._wild_type)
        return JacobianChunk(item, rows, readouts, strength)

    def _read_wild_type(self, item: WorkItem) -> tuple[WildType, dict[str, Tensor]]:
        """The wild type's own forward: what mutants are compared to, and what of it goes to the store."""
        residues = encode(item.sequence)
        tokens = torch.from_numpy(residues).to(self.device)
        indices = item.chains.positions() if item.chains else None
        positions = None if indices is None else torch.from_numpy(indices).to(self.device)
        read = self.model.read(tokens[None], self.readouts, positions, self.heads)
        readouts = {name: value[0] for name, value in read.items()}
        if "attention" in readouts:
            readouts |= self._corrected_attention(readouts.pop("attention"))
        chosen = self.substitutions.letters(residues, readouts["logits"].float().cpu().numpy())
        letters = torch.from_numpy(chosen).to(self.device)
        compared = {name: readouts[name].float() for name in self.compared}
        readouts.pop("representation", None)  # (L, D); what is kept is the map of its changes
        if self.substitutions.keeps_letters:
            readouts["letters"] = letters
        return WildType(item.key, tokens, positions, letters, compared), readouts

    def _corrected_attention(self, maps: Tensor) -> dict[str, Tensor]:
        """Of the K chosen heads (K, L, L) the contact map; of all (layers, heads, L, L) one each, to choose by."""
        if self.heads is not None:
            return {"attention": attention_map(maps.float())}
        return {"attention_heads": attention_scores(maps.float().flatten(0, 1)).view_as(maps)}

    def _rows(self, item: WorkItem, wild_type: WildType) -> tuple[Tensor, Tensor | None]:
        """The block itself, rows (R, A, L, 20) and, where the representation is compared, its strengths (R, L).

        From an earlier run that was killed after it, or computed, and kept if that took long.
        """
        shapes = self._shapes(item, wild_type)
        earlier = self.saved.load(item, shapes) if self.saved else None
        if earlier is not None:
            self.on_forward(item, self.substitutions.forwards_per_residue * (item.stop - item.start))
            blocks = [torch.from_numpy(block).to(self.device) for block in earlier]
        else:
            began = time.monotonic()
            blocks = self._computed(item, wild_type)
            takes_long = time.monotonic() - began > SAVE_SECONDS
            if self.saved and takes_long and not (item.is_first and item.is_last):
                self.saved.save(item, *(block.cpu().numpy() for block in blocks))
        return blocks[0], blocks[1] if len(blocks) > 1 else None

    def _computed(self, item: WorkItem, wild_type: WildType) -> list[Tensor]:
        made = changes(
            lambda batch: self.model.read(batch, self.compared, wild_type.positions),
            wild_type.tokens,
            item.start,
            item.stop,
            wild_type=wild_type.compared,
            letters=wild_type.letters,
            max_tokens=self.max_tokens,
            on_forward=lambda count: self.on_forward(item, count),
        )
        # A sum is finite only where everything is, and makes no copy of the block.
        if not all(bool(block.sum().isfinite()) for block in made.values()):
            raise FloatingPointError("the model gave logits that are not finite; try a higher precision")
        return [made["logits"], *(made[name].mean(dim=1) for name in self.compared if name != "logits")]

    def _shapes(self, item: WorkItem, wild_type: WildType) -> list[tuple[int, ...]]:
        rows, length = item.stop - item.start, len(item.sequence)
        each = [(rows, wild_type.letters.shape[1], length, NUM_AMINO_ACIDS), (rows, length)]
        return each[: len(self.compared)]
