"""The ordinary run: the categorical Jacobian of a protein, block of rows by block of rows, and what is kept of it.

Forward passes are grouped by a token budget here. Between the blocks of a protein its wild type's forward, the letters
and the reduction to a contact map are kept, on the device. Peak device memory: weights, one forward of `max_tokens`
tokens, one block in float32, and the whole Jacobian of one protein where a contact map is kept.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS, encode
from plmjac.attention import Head, attention_scores, read_heads
from plmjac.datasets import Dataset
from plmjac.files import UsageError
from plmjac.inference.forecast import jacobian_memory
from plmjac.inference.settings import PredictSettings
from plmjac.inference.tasks import Answer
from plmjac.jacobian import BLOCK_BYTES, Reduction, among_all, changes, representation_map
from plmjac.models import LanguageModel, ModelSize
from plmjac.readouts import READOUTS
from plmjac.records import WorkItem
from plmjac.store import SavedRows
from plmjac.substitutions import Substitutions
from plmjac.workplan import ManifestRow, forwards, work_items

SAVE_SECONDS = 1.0
"""A block that took longer is kept on disk until its protein is complete: writing one takes a tenth of that."""
SAVE_EVERY_SECONDS = 5.0
"""So long after the last one that was kept, or the protein's beginning, a block is kept however quick it was: then a
run that is stopped again and again gets further each time."""


def build(settings: PredictSettings, dataset: Dataset) -> "JacobianTask":
    """The task of these settings; the dataset has nothing to add."""
    return JacobianTask(
        settings.substitutions,
        settings.keep,
        heads_file=settings.heads,
        rows_per_chunk=settings.rows_per_chunk,
        saved=SavedRows(settings.store),
    )


def every_head(maps: Float[Tensor, "layers heads L L"]) -> Float[Tensor, "layers heads L L"]:
    """The contact map of every attention head, to choose heads by."""
    return attention_scores(maps.flatten(0, 1)).view_as(maps)


@dataclass(eq=False)
class _Protein:
    """Shared by the blocks of one protein: the wild type and its readouts, the letters, and the maps so far."""

    key: str
    tokens: Int64[Tensor, " L"]
    positions: Int64[Tensor, " L"] | None
    letters: Int64[Tensor, "L A"]
    compared: dict[str, Tensor]
    reduction: Reduction | None = None
    strength: Float[Tensor, "L L"] | None = None
    kept: float = field(default_factory=time.monotonic)
    """When a block was last kept on disk, or the protein begun."""


class JacobianTask:
    """Computes blocks of categorical Jacobians, and reduces them to contact maps where they are made."""

    certainty = ""

    def __init__(
        self,
        substitutions: Substitutions,
        keep: Collection[str],
        *,
        heads_file: Path | None = None,
        rows_per_chunk: int | None = None,
        saved: SavedRows | None = None,
    ) -> None:
        """`heads_file` names the attention heads of `keep=attention`; `saved` keeps blocks that took long."""
        self.substitutions = substitutions
        self.keep = frozenset(keep)
        self.heads_file = heads_file
        self.heads: tuple[Head, ...] | None = None
        self.rows_per_chunk = rows_per_chunk
        self.saved = saved
        specs = [READOUTS[name] for name in sorted(self.keep)]
        self.of_wild_type = [spec for spec in specs if not spec.needs_mutants]
        self.of_blocks = [spec for spec in specs if spec.is_in_blocks]
        self.read = sorted({"logits", *(name for spec in specs for name in spec.reads)})
        self.compared = sorted({"logits"} | ({"representation"} & self.keep))
        self._protein: _Protein | None = None

    def identity(self) -> dict[str, Any]:
        """Substitutions, rows of a chunk, and the chosen attention heads."""
        heads = {"heads": [list(head) for head in self.heads]} if self.heads else {}
        return {
            "kind": "jacobian",
            "substitutions": self.substitutions.identity(),
            "rows_per_chunk": self.rows_per_chunk,
            "sign": "mutant - wild type",
            **heads,
        }

    def check(self, model: LanguageModel) -> None:
        """Raises UsageError where the model has no such readout, or the heads were chosen for another model."""
        missing = [name for name in self.keep if not set(READOUTS[name].reads) <= model.readouts]
        if missing:
            raise UsageError(
                f"keep={sorted(missing)}: model {model.name} has no such readout; it has {sorted(model.readouts)}"
            )
        try:
            if self.heads_file is not None:
                self.heads = read_heads(self.heads_file, model.weights_sha256, model.name).heads
        except ValueError as error:
            raise UsageError(str(error)) from error

    def forwards(self, identifier: str, length: int) -> int:
        """The wild type's forward, and those of the mutants at every position."""
        return forwards(length, self.substitutions.forwards_per_residue)

    def items(self, row: ManifestRow) -> list[WorkItem]:
        """Blocks of rows, each a chunk of the store."""
        return work_items(row, self.rows_per_chunk, self.substitutions.num_letters)

    def setup(self, items: list[WorkItem]) -> None:
        """Nothing is needed beforehand."""

    def num_bytes(self, identifier: str, length: int, size: ModelSize) -> int:
        """Bytes of the arrays that are kept, before compression."""
        letters = self.substitutions.num_letters
        sizes = {"L": length, "A": letters, "layers": size.num_layers, "heads": size.num_heads}
        return sum(READOUTS[name].num_bytes(sizes) for name in self.keep)

    def memory(self, rows: list[ManifestRow], settings: PredictSettings, size: ModelSize) -> str:
        """Memory at the peak, tensor by tensor."""
        return jacobian_memory(max(row.length for row in rows), settings, size)

    def compute(
        self,
        model: LanguageModel,
        item: WorkItem,
        max_tokens: int,
        on_forward: Callable[[float], None] = lambda _: None,
    ) -> Answer:
        """One block of rows; the first of a protein brings the wild type's readouts, the last its contact maps."""
        per_forward = 1 / max(1, self.substitutions.forwards_per_residue * (item.stop - item.start))
        arrays: dict[str, Tensor] = {}
        if item.is_first:
            self._protein = None  # its memory goes before that of the next is taken
            self._protein, arrays = self._begin(model, item)
            on_forward(per_forward)
        protein = self._protein
        if protein is None or protein.key != item.key:
            raise RuntimeError(f"the blocks of {item.key} do not begin with its first")
        blocks = self._blocks(model, item, protein, max_tokens, lambda count: on_forward(count * per_forward))
        rows = blocks[0]
        for spec in self.of_blocks:  # copies, since the reduction centers the rows in place
            arrays[spec.name] = spec.computed(rows).to(getattr(torch, spec.dtype), copy=True)
        try:
            arrays |= self._reduce(item, protein, rows, blocks[1] if len(blocks) > 1 else None)
        except torch.cuda.OutOfMemoryError as error:  # which smaller forwards would not mend
            raise RuntimeError(f"out of memory for the Jacobian of {len(item.sequence)} residues: {error}") from None
        return Answer(item, arrays)

    def _begin(self, model: LanguageModel, item: WorkItem) -> tuple[_Protein, dict[str, Tensor]]:
        """The wild type's own forward: what mutants are compared to, and what of it goes to the store."""
        residues = encode(item.sequence)
        tokens = torch.from_numpy(residues).to(model.device)
        indices = item.chains.positions() if item.chains else None
        positions = None if indices is None else torch.from_numpy(indices).to(model.device)
        read = {name: value[0] for name, value in model.read(tokens[None], self.read, positions, self.heads).items()}
        arrays = {spec.name: spec.computed(*(read[name].float() for name in spec.reads)) for spec in self.of_wild_type}
        chosen = self.substitutions.letters(residues, read["logits"].float().cpu().numpy())
        letters = torch.from_numpy(chosen).to(model.device)
        if self.substitutions.keeps_letters:
            arrays["letters"] = letters
        compared = {name: read[name].float() for name in self.compared}
        return _Protein(item.key, tokens, positions, letters, compared), arrays

    def _blocks(
        self,
        model: LanguageModel,
        item: WorkItem,
        protein: _Protein,
        max_tokens: int,
        on_forward: Callable[[int], None],
    ) -> list[Tensor]:
        """The rows (R, A, L, 20) and, where the representation is compared, the strengths (R, L) of its changes.

        From an earlier run that was killed after it, or computed, and kept if that took long.
        """
        rows, length = item.stop - item.start, len(item.sequence)
        shapes = [(rows, protein.letters.shape[1], length, NUM_AMINO_ACIDS), (rows, length)][: len(self.compared)]
        earlier = self.saved.load(item, shapes) if self.saved else None
        if earlier is not None:
            on_forward(self.substitutions.forwards_per_residue * rows)
            return [torch.from_numpy(block).to(model.device) for block in earlier]
        began = time.monotonic()
        made = changes(
            lambda batch: model.read(batch, self.compared, protein.positions),
            protein.tokens,
            item.start,
            item.stop,
            wild_type=protein.compared,
            letters=protein.letters,
            max_tokens=max_tokens,
            on_forward=on_forward,
        )
        # A sum is finite only where everything is, and makes no copy of the block.
        if not all(bool(block.sum().isfinite()) for block in made.values()):
            raise FloatingPointError("the model gave logits that are not finite; try a higher precision")
        blocks = [made["logits"], *(made[name].mean(dim=1) for name in self.compared if name != "logits")]
        now = time.monotonic()
        takes_long = now - began > SAVE_SECONDS or now - protein.kept > SAVE_EVERY_SECONDS
        if self.saved and takes_long and not (item.is_first and item.is_last):
            self.saved.save(item, *(block.cpu().numpy() for block in blocks))
            protein.kept = time.monotonic()
        return blocks

    def _reduce(self, item: WorkItem, protein: _Protein, rows: Tensor, strength: Tensor | None) -> dict[str, Tensor]:
        """Add a block to the maps that are kept; with the last, the maps."""
        length = len(item.sequence)
        if "contacts" in self.keep:
            if protein.reduction is None:
                is_whole = item.is_first and item.is_last and not self.substitutions.keeps_letters
                number = NUM_AMINO_ACIDS if self.substitutions.keeps_letters else rows.shape[1]
                buffer = rows if is_whole else rows.new_empty(length, number, *rows.shape[2:])
                protein.reduction = Reduction(buffer)
            self._add(item, protein, protein.reduction, rows)
        if strength is not None:
            if protein.strength is None:
                protein.strength = strength.new_empty(length, length)
            protein.strength[item.start : item.stop] = strength
        if not item.is_last:
            return {}
        self._protein = None
        maps = {}
        if protein.reduction is not None:
            maps["contacts"] = protein.reduction.contact_map()
        if protein.strength is not None:
            maps["representation"] = representation_map(protein.strength)
        return maps

    def _add(self, item: WorkItem, protein: _Protein, reduction: Reduction, rows: Tensor) -> None:
        """Rows of fewer amino acids take their places among all 20, some at a time."""
        if not self.substitutions.keeps_letters:
            reduction.add(item.start, rows)
            return
        step = max(1, BLOCK_BYTES // (4 * NUM_AMINO_ACIDS**2 * len(item.sequence)))
        for start in range(item.start, item.stop, step):
            stop = min(start + step, item.stop)
            some = rows[start - item.start : stop - item.start]
            reduction.add(start, among_all(some, protein.letters[start:stop], protein.tokens[start:stop]))
