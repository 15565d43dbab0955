"""The Jacobian run: computes the categorical Jacobian of a protein in blocks of rows, and the readouts to keep.

Mutants are batched up to `max_tokens` tokens. Between the blocks of a protein, the wild type's readouts, the letters
and the reduction to a contact map stay on the device. Peak device memory: weights, one forward of `max_tokens` tokens,
one block in float32, and the whole Jacobian of one protein if a contact map is kept.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS, encode
from plmjac.attention import Head, attention_scores, read_heads
from plmjac.datasets import Dataset
from plmjac.files import UsageError
from plmjac.inference.forecast import jacobian_memory
from plmjac.inference.launch import Kind
from plmjac.inference.memory import forecast
from plmjac.inference.settings import PredictSettings
from plmjac.inference.tasks import Answer
from plmjac.inference.windows import ProteinState, Window, array_of_protein, joined, joined_rows
from plmjac.jacobian import (
    BLOCK_BYTES,
    Reduction,
    among_all,
    changes,
    num_pairs,
    pairs_by_score,
    representation_map,
)
from plmjac.limit import Limit
from plmjac.models import LanguageModel, ModelSize
from plmjac.readouts import READOUTS, kept_for
from plmjac.records import WorkItem
from plmjac.store import SavedRows
from plmjac.substitutions import Substitutions
from plmjac.workplan import ManifestRow, forwards, work_items

COUPLINGS_PER_RESIDUE = 2.0
"""Default number of pairs, times L, whose couplings are kept."""

SAVE_SECONDS = 1.0
"""A block that took longer is saved to disk until its protein is complete; writing one takes a tenth of that."""
SAVE_EVERY_SECONDS = 5.0
"""This long after the last saved block, or the beginning of the protein, a block is saved however quick it was, so that
a run that is stopped again and again makes progress."""


def build(settings: PredictSettings, dataset: Dataset) -> "JacobianTask":
    """Build the task from the settings; it does not depend on the dataset."""
    return JacobianTask(
        settings.substitutions,
        settings.keep,
        heads_file=settings.heads,
        rows_per_chunk=settings.rows_per_chunk,
        couplings_per_residue=settings.couplings_per_residue or COUPLINGS_PER_RESIDUE,
        saved=SavedRows(settings.store),
    )


def every_head(maps: Float[Tensor, "layers heads L L"]) -> Float[Tensor, "layers heads L L"]:
    """Contact map of every attention head, for choosing heads."""
    return attention_scores(maps.flatten(0, 1)).view_as(maps)


class JacobianTask:
    """Computes blocks of categorical Jacobians and reduces them to contact maps on the device."""

    certainty = ""

    def __init__(
        self,
        substitutions: Substitutions,
        keep: Collection[str],
        *,
        heads_file: Path | None = None,
        rows_per_chunk: int | None = None,
        couplings_per_residue: float = COUPLINGS_PER_RESIDUE,
        saved: SavedRows | None = None,
    ) -> None:
        """`heads_file` lists the attention heads for `keep=attention`; `saved` stores blocks that took long."""
        self.substitutions = substitutions
        self.keep = frozenset(keep)
        self.heads_file = heads_file
        self.heads: tuple[Head, ...] | None = None
        self.rows_per_chunk = rows_per_chunk
        self.couplings_per_residue = couplings_per_residue
        self.saved = saved
        specs = kept_for(self.keep)
        self.of_wild_type = [spec for spec in specs if not spec.needs_mutants]
        self.of_blocks = [spec for spec in specs if spec.is_in_blocks]
        self.read = sorted({"logits", *(name for spec in specs for name in spec.reads)})
        self.compared = sorted({"logits"} | ({"representation"} & self.keep))
        self._limit = Limit()
        self._protein: ProteinState | None = None

    def limit(self, limit: Limit) -> None:
        """Set the limit, which may cut long proteins into windows."""
        self._limit = limit

    def identity(self) -> dict[str, Any]:
        """Substitutions, rows per chunk, and the chosen attention heads."""
        heads = {"heads": [list(head) for head in self.heads]} if self.heads else {}
        return {
            "kind": "jacobian",
            "substitutions": self.substitutions.identity(),
            "rows_per_chunk": self.rows_per_chunk,
            "sign": "mutant - wild type",
            **heads,
            **({"couplings_per_residue": self.couplings_per_residue} if "couplings" in self.keep else {}),
        }

    def check(self, model: LanguageModel) -> None:
        """Raises UsageError if the model lacks a readout, or the heads were chosen for another model."""
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
        """Forward passes in all windows: the wild type and its mutants."""
        per_residue = self.substitutions.forwards_per_residue
        return sum(forwards(last - first, per_residue) for first, last in self._limit.rows_of_windows(length))

    def items(self, row: ManifestRow) -> list[WorkItem]:
        """Blocks of rows, each one chunk of the store."""
        rows = self._limit.rows(row.length)
        return work_items(row, self.rows_per_chunk, self.substitutions.num_letters, rows)

    def setup(self, items: list[WorkItem]) -> None:
        """Needs no preparation."""

    def num_bytes(self, identifier: str, length: int, size: ModelSize) -> int:
        """Bytes of the arrays in the store, before compression."""
        letters = self.substitutions.num_letters
        first, last = self._limit.rows(length)
        sizes = {
            "L": length, "R": last - first, "P": num_pairs(length, self.couplings_per_residue), "A": letters,
            "layers": size.num_layers, "heads": size.num_heads,
        }  # fmt: skip
        return sum(spec.num_bytes(sizes) for spec in kept_for(self.keep))

    def memory(self, rows: list[ManifestRow], settings: PredictSettings, size: ModelSize) -> str:
        """Peak memory in words, tensor by tensor."""
        longest = max(row.length for row in rows)
        most = max(last - first for first, last in self._limit.rows_of_windows(longest))
        told = jacobian_memory(min(longest, self._limit.window or longest), most, settings, size)
        return told if len(self._limit.windows(longest)) == 1 else f"{told}, of one window; up to three are held"

    def peak(self, length: int, max_tokens: int, size: ModelSize, kind: Kind) -> int:
        """Peak bytes; for a protein in windows those of two windows, held together, and of the joined maps."""
        windows, rows = self._limit.windows(length), self._limit.rows_of_windows(length)
        each = forecast(
            size, max(stop - start for start, stop in windows), self.substitutions, self.keep, max_tokens,
            self.rows_per_chunk, kind=kind, mutated=max(last - first for first, last in rows),
        )  # fmt: skip
        return each.peak if len(windows) == 1 else each.peak + each.jacobian + 3 * 4 * length**2

    @property
    def can_share(self) -> bool:
        """True if there are mutants to run."""
        return self.substitutions.forwards_per_residue > 0

    def compute_apart(
        self,
        model: LanguageModel,
        item: WorkItem,
        max_tokens: int,
        on_forward: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Compute one block of rows, in any order, and save it for the process that completes the protein."""
        if self._protein is None or self._protein.key != item.key:
            self._protein = None
            self._protein, _ = self._begin(model, item)
        per_forward = self._per_forward(item)
        self._parts(model, item, self._protein, max_tokens, lambda count: on_forward(count * per_forward))

    def compute(
        self,
        model: LanguageModel,
        item: WorkItem,
        max_tokens: int,
        on_forward: Callable[[float], None] = lambda _: None,
    ) -> Answer:
        """Compute one block of rows; the first of a protein adds the wild type's readouts, the last contact maps."""
        arrays: dict[str, Tensor] = {}
        per_forward = self._per_forward(item)
        if item.is_first:
            self._protein = None  # frees its memory before the next protein is begun
            self._protein, arrays = self._begin(model, item)
            on_forward(per_forward)
        protein = self._protein
        if protein is None or protein.key != item.key:
            raise RuntimeError(f"the blocks of {item.key} do not begin with its first")
        parts = self._parts(model, item, protein, max_tokens, lambda count: on_forward(count * per_forward))
        rows = joined_rows(item, parts)
        for spec in self.of_blocks:  # copies, since the reduction centers the rows in place
            arrays[spec.name] = spec.computed(rows).to(getattr(torch, spec.dtype), copy=True)
        try:
            for window, blocks in parts:
                self._reduce(item, protein, window, blocks)
            if item.is_last:
                self._protein = None
                shape = (item.rows[1] - item.rows[0], len(item.sequence))
                places = [window.place(item) for window in protein.windows]
                arrays |= {name: joined(maps, places, shape) for name, maps in protein.maps.items()}
                arrays |= protein.couplings
        except torch.cuda.OutOfMemoryError as error:  # smaller forwards would not help here
            raise RuntimeError(f"out of memory for the Jacobian of {len(item.sequence)} residues: {error}") from None
        return Answer(item, arrays, self._limit.attributes(len(item.sequence)))

    def _per_forward(self, item: WorkItem) -> float:
        """Share of one forward in the forwards of an item."""
        of_windows = self._limit.rows_of_windows(len(item.sequence))
        number = sum(max(0, min(item.stop, last) - max(item.start, first)) for first, last in of_windows)
        return 1 / max(1, self.substitutions.forwards_per_residue * number)

    def _begin(self, model: LanguageModel, item: WorkItem) -> tuple[ProteinState, dict[str, Tensor]]:
        """Run the wild type; returns the state of its protein, and its readouts for the store."""
        residues = encode(item.sequence)
        tokens = torch.from_numpy(residues).to(model.device)
        told = item.chains.positions() if item.chains else None
        indices = None if told is None else torch.from_numpy(told).to(model.device)
        length = len(residues)
        windows: list[Window] = []
        logits: list[Tensor] = []
        parts: dict[str, list[Tensor]] = {spec.name: [] for spec in self.of_wild_type}
        spans = self._limit.windows(length)
        for (start, stop), rows in zip(spans, self._limit.rows_of_windows(length), strict=True):
            part, places = tokens[start:stop], None if indices is None else indices[start:stop]
            read = {name: value[0] for name, value in model.read(part[None], self.read, places, self.heads).items()}
            for spec in self.of_wild_type:
                parts[spec.name].append(spec.computed(*(read[name].float() for name in spec.reads)))
            compared = {name: read[name].float() for name in self.compared}
            logits.append(compared["logits"])
            if rows[0] < rows[1]:
                windows.append(Window(start, stop, rows, part, places, compared))
        arrays = {
            spec.name: array_of_protein(parts[spec.name], spans, spec.shape, length) for spec in self.of_wild_type
        }
        of_protein = array_of_protein(logits, spans, ("L", "20"), length)
        chosen = self.substitutions.letters(residues, of_protein.cpu().numpy())
        letters = torch.from_numpy(chosen).to(model.device)
        if self.substitutions.keeps_letters:
            arrays["letters"] = letters[slice(*item.rows)]
        return ProteinState(item.key, letters, windows), arrays

    def _parts(
        self,
        model: LanguageModel,
        item: WorkItem,
        protein: ProteinState,
        max_tokens: int,
        on_forward: Callable[[int], None],
    ) -> list[tuple[Window, list[Tensor]]]:
        """For each window with rows in the block, these rows (R, A, W, 20) and, if the representation is kept, the
        strengths (R, W) of its changes.

        Loaded from disk if an earlier, killed run or another process saved them for the same letters; otherwise
        computed, and saved if that took long or the protein is shared.
        """
        there = [window for window in protein.windows if range(*window.rows_in(item))]
        shapes: list[tuple[int, ...]] = []
        for window in there:
            first, last = window.rows_in(item)
            each = [(last - first, protein.letters.shape[1], len(window), NUM_AMINO_ACIDS), (last - first, len(window))]
            shapes += each[: len(self.compared)]
        size = len(self.compared)
        letters = protein.letters[item.start : item.stop].cpu().numpy().astype(np.float32)
        earlier = self.saved.load(item, [letters.shape, *shapes]) if self.saved else None
        if earlier is not None and np.array_equal(earlier.pop(0), letters):
            on_forward(self.substitutions.forwards_per_residue * sum(shape[0] for shape in shapes[::size]))
            loaded = [torch.from_numpy(block).to(model.device) for block in earlier]
            return [(window, loaded[size * at : size * (at + 1)]) for at, window in enumerate(there)]
        began = time.monotonic()
        parts = [(window, self._changes(model, item, protein, window, max_tokens, on_forward)) for window in there]
        now = time.monotonic()
        takes_long = now - began > SAVE_SECONDS or now - protein.kept > SAVE_EVERY_SECONDS
        is_worth_it = takes_long and not (item.is_first and item.is_last)
        if self.saved and (is_worth_it or item.role == "shared"):
            self.saved.save(item, letters, *(block.cpu().numpy() for _, blocks in parts for block in blocks))
            protein.kept = time.monotonic()
        return parts

    def _changes(
        self,
        model: LanguageModel,
        item: WorkItem,
        protein: ProteinState,
        window: Window,
        max_tokens: int,
        on_forward: Callable[[int], None],
    ) -> list[Tensor]:
        """Compute the rows of the block that are in one window. Raises FloatingPointError for NaN or Inf logits."""
        first, last = window.rows_in(item)
        made = changes(
            lambda batch: model.read(batch, self.compared, window.indices),
            window.tokens,
            first - window.start,
            last - window.start,
            wild_type=window.compared,
            letters=protein.letters[window.start : window.stop],
            max_tokens=max_tokens,
            on_forward=on_forward,
        )
        # A sum is finite only if every term is, and it makes no copy of the block.
        if not all(bool(block.sum().isfinite()) for block in made.values()):
            raise FloatingPointError("the model gave logits that are not finite; try a higher precision")
        return [made["logits"], *(made[name].mean(dim=1) for name in self.compared if name != "logits")]

    def _reduce(self, item: WorkItem, protein: ProteinState, window: Window, blocks: list[Tensor]) -> None:
        """Add rows to the maps of a window; after its last row, add its maps to those of the protein."""
        rows, (first, last) = blocks[0], window.rows_in(item)
        begin, at = window.rows[0] - window.start, first - window.rows[0]
        if self.keep & {"contacts", "couplings"}:
            if window.reduction is None:
                is_whole = len(rows) == window.num_rows and not self.substitutions.keeps_letters
                number = NUM_AMINO_ACIDS if self.substitutions.keeps_letters else rows.shape[1]
                buffer = rows if is_whole else rows.new_empty(window.num_rows, number, *rows.shape[2:])
                window.reduction = Reduction(buffer, begin)
            self._add(protein, window, window.reduction, at, rows)
        if len(blocks) > 1:
            if window.strength is None:
                window.strength = blocks[1].new_empty(window.num_rows, len(window))
            window.strength[at : at + len(rows)] = blocks[1]
        if last < window.rows[1]:
            return
        if window.reduction is not None:
            scores = window.reduction.contact_map()
            if "contacts" in self.keep:
                protein.maps.setdefault("contacts", []).append(scores)
            if "couplings" in self.keep:  # the settings allow these for whole proteins only
                best, partner = pairs_by_score(scores, self.couplings_per_residue)
                protein.couplings = {
                    "coupled_pairs": torch.stack([best, partner], dim=1),
                    "couplings": window.reduction.couplings(best, partner),
                }
        if window.strength is not None:
            protein.maps.setdefault("representation", []).append(representation_map(window.strength, begin))
        window.reduction = window.strength = None

    def _add(self, protein: ProteinState, window: Window, reduction: Reduction, at: int, rows: Tensor) -> None:
        """Add rows to a reduction; rows of fewer amino acids are expanded to all 20, a few rows at a time."""
        if not self.substitutions.keeps_letters:
            reduction.add(at, rows)
            return
        mutated = slice(*window.rows)
        letters, tokens = protein.letters[mutated], window.tokens[mutated.start - window.start :][: window.num_rows]
        step = max(1, BLOCK_BYTES // (4 * NUM_AMINO_ACIDS**2 * len(window)))
        for done in range(0, len(rows), step):
            some = rows[done : done + step]
            here = slice(at + done, at + done + len(some))
            reduction.add(at + done, among_all(some, letters[here], tokens[here]))
