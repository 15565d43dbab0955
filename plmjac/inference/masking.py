"""Contact recovery under masking: one protein in, all its masked contexts and what of the contacts came back out.

All contexts of a protein have one length, so they fill whole forwards by the token budget, masked on the device; only
the segment's block of each contact map leaves it, unless the whole maps are to be kept. Gives up blocks of work within
a protein: a kill loses the protein under way. Knows no Lightning and no store.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from plmjac.alphabet import MASK, encode
from plmjac.inference.recovery_settings import RecoverySettings
from plmjac.jacobian import categorical_jacobian, contact_map, mutants_per_forward
from plmjac.models import LanguageModel
from plmjac.records import Recovery, Segment, WorkItem
from plmjac.schedules import Contexts, Schedule, contexts, is_usable
from plmjac.secondary_structure import fitted
from plmjac.segments import Choice, Known, recoveries

Maps = Callable[[Int64[Tensor, "B L"]], Float[Tensor, "B L L"]]
"""Contact maps of a batch of sequences of one protein."""


class MaskingExperiment:
    """Masks a protein by a schedule and reads its contacts with a language model.

    Peak device memory: weights and one forward of `max_tokens` tokens. Raises ValueError where the segments cannot be
    chosen, FloatingPointError where the model gives contacts that are not finite.
    """

    def __init__(
        self,
        model: LanguageModel,
        settings: RecoverySettings,
    ) -> None:
        self.model = model
        self.schedule: Schedule = settings.schedule
        self.choice: Choice = settings.segments
        self.readout = settings.readout
        self.seed = settings.seed
        self.keep = frozenset(settings.keep)

    def run(
        self,
        item: WorkItem,
        identifier: str,
        annotation: Any,
        *,
        max_tokens: int,
        on_forward: Callable[[float], None] = lambda _: None,
    ) -> Recovery:
        """Every context of one protein. `annotation`: its entry of a list, or its secondary structure.

        `on_forward(share)` is called after each forward with the share of the protein's contexts that it was.
        """
        tokens = torch.from_numpy(encode(item.sequence)).to(self.model.device)
        maps = self._maps(item, max_tokens)
        full = maps(tokens[None])[0].float().cpu().numpy()
        length, key = len(item.sequence), (self.seed, identifier)
        chosen = self.choice.choose(self._known(item, tokens, annotation, full), key)
        usable = [segment for segment in chosen if is_usable(self.schedule, segment, length)]
        planned = contexts(self.schedule, usable, length=length, key=key)
        size = mutants_per_forward(length, max_tokens) if self.readout == "contact_head" else 1
        blocks, whole = self._read(maps, tokens, usable, planned, size, on_forward)
        arrays = _arrays(usable, planned, full, blocks)
        kept = {"blocks": blocks, "contacts": whole} if "contacts" in self.keep else {"blocks": blocks}
        arrays |= {name: values for name, values in kept.items() if name in self.keep}
        left_out = tuple(segment for segment in chosen if segment not in usable)
        return Recovery(item, arrays, planned.outcomes, left_out)

    def _known(
        self, item: WorkItem, tokens: Int64[Tensor, " L"], annotation: Any, full: Float32[np.ndarray, "L L"]
    ) -> Known:
        """What the segments are chosen from; always the contact head's map, where there is one to choose by."""
        contacts = full if self.readout == "contact_head" else None
        if contacts is None and self.choice.name != "list" and "contact_head" in self.model.readouts:
            contacts = self._contact_head(item)(tokens[None])[0].float().cpu().numpy()
        structure = fitted(annotation, item.sequence) if self.choice.name == "pairs" and annotation else None
        listed = annotation if self.choice.name == "list" else None
        return Known(len(item.sequence), contacts, structure, listed)

    def _read(
        self,
        maps: Maps,
        tokens: Int64[Tensor, " L"],
        segments: list[Segment],
        planned: Contexts,
        size: int,
        on_forward: Callable[[float], None],
    ) -> tuple[Float32[np.ndarray, "N W W"], Float32[np.ndarray, "kept L L"]]:
        """The segment's block of every context's map, and the whole maps where they are kept (else none)."""
        number, length = len(planned), len(tokens)
        width = segments[0].size if segments else 0
        blocks = np.zeros((number, width, width), dtype=np.float32)
        whole = np.zeros((number if "contacts" in self.keep else 0, length, length), dtype=np.float32)
        starts = torch.tensor([(s.start1, s.start2) for s in segments], dtype=torch.long).view(-1, 2)
        corners = starts[planned.segment].to(tokens.device)
        visible = torch.from_numpy(planned.visible).to(tokens.device)
        for at in range(0, number, size):
            batch = slice(at, at + size)
            read = maps(masked(tokens, visible[batch])).float()
            blocks[batch] = blocks_at(read, corners[batch], width).cpu().numpy()
            if len(whole):
                whole[batch] = read.cpu().numpy()
            on_forward(len(read) / number)
        if not number:
            on_forward(1.0)
        return blocks, whole

    def _maps(self, item: WorkItem, max_tokens: int) -> Maps:
        """How contacts are read: the model's contact head, or the categorical Jacobian of each context."""
        return self._contact_head(item) if self.readout == "contact_head" else self._jacobian(item, max_tokens)

    def _contact_head(self, item: WorkItem) -> Maps:
        positions = self._positions(item)
        return lambda tokens: self.model.read(tokens, ("contact_head",), positions)["contact_head"]

    def _jacobian(self, item: WorkItem, max_tokens: int) -> Maps:
        """All positions are substituted, the masked ones too."""
        positions = self._positions(item)

        def logits(tokens: Int64[Tensor, "B L"]) -> Float[Tensor, "B L 20"]:
            return self.model.logits(tokens, positions)

        return lambda tokens: torch.stack(
            [contact_map(categorical_jacobian(logits, each, max_tokens=max_tokens), overwrite=True) for each in tokens]
        )

    def _positions(self, item: WorkItem) -> Int64[Tensor, " L"] | None:
        indices = item.chains.positions() if item.chains else None
        return None if indices is None else torch.from_numpy(indices).to(self.model.device)


def masked(tokens: Int64[Tensor, " L"], visible: Bool[Tensor, "B L"]) -> Int64[Tensor, "B L"]:
    """One copy of the sequence per row, MASK where it is not visible."""
    return torch.where(visible, tokens, MASK)


def blocks_at(maps: Float[Tensor, "B L L"], corners: Int64[Tensor, "B 2"], width: int) -> Float[Tensor, "B W W"]:
    """The width x width block of each map whose upper left corner is at (row, column) `corners`."""
    inner = torch.arange(width, device=maps.device)
    rows, columns = corners[:, :1] + inner, corners[:, 1:] + inner
    batch = torch.arange(len(maps), device=maps.device)
    return maps[batch[:, None, None], rows[:, :, None], columns[:, None, :]]


def _arrays(
    segments: list[Segment], planned: Contexts, full: Float32[np.ndarray, "L L"], blocks: Float32[np.ndarray, "N W W"]
) -> dict[str, np.ndarray]:
    """What every recovery store holds, by name."""
    bounds = [(s.start1, s.stop1, s.start2, s.stop2) for s in segments]
    width = segments[0].size if segments else 0
    cut = [full[s.start1 : s.stop1, s.start2 : s.stop2] for s in segments]
    reference = np.array(cut, dtype=np.float32).reshape(len(segments), width, width)
    if not (np.isfinite(full).all() and np.isfinite(blocks).all()):
        raise FloatingPointError("the model gave contacts that are not finite; try a higher precision")
    return {
        "segments": np.array(bounds, dtype=np.int32).reshape(-1, 4),
        "reference": reference,
        "segment": planned.segment,
        "step": planned.step,
        "repeat": planned.repeat,
        "visible": planned.visible,
        "recovery": recoveries(reference, blocks, planned.segment),
    }
