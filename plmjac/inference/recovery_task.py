"""Contact recovery under masking: all masked contexts of a protein, and how much of its contacts each recovers.

A protein is one work item. All its contexts have one length, so they fill whole forwards by the token budget, masked on
the device; only the segment's block of each contact map leaves it, unless the whole maps are to be kept. A protein is
not cut into blocks: a kill loses the one under way.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from plmjac.alphabet import MASK, encode
from plmjac.datasets import Dataset, Record
from plmjac.datasets.by_id import ById
from plmjac.files import UsageError
from plmjac.inference.forecast import in_bytes
from plmjac.inference.launch import Kind
from plmjac.inference.memory import forecast
from plmjac.inference.settings import PredictSettings
from plmjac.inference.tasks import Answer
from plmjac.jacobian import categorical_jacobian, contact_map, mutants_per_forward
from plmjac.limit import Limit
from plmjac.models import LanguageModel, ModelSize
from plmjac.readouts import READOUTS
from plmjac.records import Coordinates, Protein, Segment, WorkItem
from plmjac.schedules import Contexts, Schedule, contexts, is_usable, num_contexts
from plmjac.secondary_structure import fitted, secondary_structure
from plmjac.segments import AnySegments, Evidence, Listed, Pairs, recoveries
from plmjac.substitutions import AllSubstitutions
from plmjac.workplan import ManifestRow, work_items

log = logging.getLogger(__name__)

Maps = Callable[[Int64[Tensor, "B L"]], Float[Tensor, "B L L"]]
"""Contact maps of a batch of sequences of one protein."""

Annotations = Callable[[Collection[str]], Mapping[str, Any]]
"""For proteins of some ids what their segments are chosen by besides contacts: an entry of a list, a secondary
structure, or nothing."""


def build(settings: PredictSettings, dataset: Dataset) -> "RecoveryTask":
    """The task of these settings. Raises InputError for a file that cannot be used."""
    assert settings.segments is not None
    return RecoveryTask(
        settings.schedule,
        settings.segments,
        settings.readout or "contact_head",
        settings.seed,
        settings.keep,
        annotations(settings.segments, dataset),
    )


class RecoveryTask:
    """Masks a protein by a schedule and reads its contacts with a language model.

    Peak device memory: weights and one forward of `max_tokens` tokens. An item fails with ValueError where segments
    cannot be chosen, with FloatingPointError where the model gives contacts that are not finite.
    """

    def __init__(
        self,
        schedule: Schedule,
        segments: AnySegments,
        readout: Literal["contact_head", "jacobian"],
        seed: int,
        keep: Collection[str],
        annotations: Annotations = lambda _: {},
    ) -> None:
        self.schedule = schedule
        self.segments = segments
        self.readout = readout
        self.seed = seed
        self.keep = frozenset(keep)
        self.annotations = annotations
        self.annotated: Mapping[str, Any] = {}
        self._most_contexts = cache(lambda length: self._contexts(length, None))

    def identity(self) -> dict[str, Any]:
        """Schedule, segments, readout and seed."""
        return {
            "kind": "recovery",
            "schedule": self.schedule.identity(),
            "segments": identity(self.segments),
            "readout": self.readout,
            "seed": self.seed,
            "repeats": self.schedule.repeats,
        }

    def limit(self, limit: Limit) -> None:
        """Nothing: a masking run has no windows."""

    def check(self, model: LanguageModel) -> None:
        """Raises UsageError where the model has no contact head and one is needed."""
        if "contact_head" in model.readouts:
            return
        if self.readout == "contact_head":
            raise UsageError(
                f"model {model.name} has no trained contact head to read contacts with; "
                "use readout=jacobian segments=list"
            )
        if not self.is_exact:
            raise UsageError(f"model {model.name} has no trained contact head to choose segments by; use segments=list")

    @property
    def is_exact(self) -> bool:
        """True where the segments, and so the forwards, are known before the contacts are."""
        return isinstance(self.segments, Listed)

    @property
    def certainty(self) -> str:
        """The certainty of `forwards`, in words that follow the number."""
        return " exactly" if self.is_exact else " at most: segments are chosen by contacts that are not known yet"

    def num_contexts(self, identifier: str, length: int) -> int:
        """Contexts of one protein: exactly for a list, else at most, as if segments were found in the best places."""
        if not self.is_exact:
            return self._most_contexts(length)
        return self._contexts(length, self.annotations({identifier}).get(identifier))

    def _contexts(self, length: int, listed: Any) -> int:
        try:
            return num_contexts(self.schedule, self.segments.possible(length, listed), length)
        except ValueError:  # an entry that is no segment; the protein will fail with that reason
            return 0

    def forwards(self, identifier: str, length: int) -> int:
        """Forwards for the full sequence and every context."""
        one = 1 if self.readout == "contact_head" else 1 + 19 * length
        return (1 + self.num_contexts(identifier, length)) * one

    def items(self, row: ManifestRow) -> list[WorkItem]:
        """The whole protein."""
        return work_items(row, row.length)

    def setup(self, items: list[WorkItem]) -> None:
        """Read what is known of this rank's proteins besides their sequences."""
        self.annotated = self.annotations({item.id for item in items})
        if self.is_exact and items and not any(self.annotated.values()):
            log.warning("segments.path names none of the %d proteins to be computed: they get no segment", len(items))

    def num_bytes(self, identifier: str, length: int, size: ModelSize) -> int:
        """Bytes of one protein's arrays before compression."""
        possible = self.segments.possible(length, None)
        number, width = self.num_contexts(identifier, length), possible[0].size if possible else 22
        sizes = {"N": 1, "W": width, "L": length, "R": length}
        return number * (16 + length + sum(READOUTS[name].num_bytes(sizes) for name in self.keep))

    def memory(self, rows: list[ManifestRow], settings: PredictSettings, size: ModelSize) -> str:
        """Memory of one protein, besides model and forward."""
        if self.readout == "jacobian":
            longest = max(row.length for row in rows)
            return f"{in_bytes(1600 * longest**2)} for the Jacobian of the longest protein, besides model and forward"
        most = max(self.num_bytes(row.id, row.length, size) for row in rows)
        return f"{in_bytes(most)} for the contexts of one protein, besides model and forward"

    def peak(self, length: int, max_tokens: int, size: ModelSize, kind: Kind) -> int:
        """Bytes at the peak: of a Jacobian of the whole protein, or of one forward with contacts."""
        if self.readout == "jacobian":
            return forecast(size, length, AllSubstitutions(), ("contacts",), max_tokens, length, kind=kind).peak
        return size.weights + size.of_maps(length, every_head=False)

    def compute(
        self,
        model: LanguageModel,
        item: WorkItem,
        max_tokens: int,
        on_forward: Callable[[float], None] = lambda _: None,
    ) -> Answer:
        """Every context of one protein."""
        tokens = torch.from_numpy(encode(item.sequence)).to(model.device)
        maps = self._maps(model, item, max_tokens)
        full = maps(tokens[None])[0].float().cpu().numpy()
        length, key = len(item.sequence), (self.seed, item.id)
        chosen = self.segments.choose(self._evidence(model, item, tokens, full), key)
        usable = [segment for segment in chosen if is_usable(self.schedule, segment, length)]
        planned = contexts(self.schedule, usable, length=length, key=key)
        size = mutants_per_forward(length, max_tokens) if self.readout == "contact_head" else 1
        blocks, whole = self._read(maps, tokens, usable, planned, size, on_forward)
        kept = {name: values for name, values in (("blocks", blocks), ("contacts", whole)) if name in self.keep}
        left_out = [[s.start1, s.stop1, s.start2, s.stop2] for s in chosen if s not in usable]
        attributes = {"outcomes": list(planned.outcomes), "left_out": left_out}
        return Answer(item, {**_arrays(usable, planned, full, blocks), **kept}, attributes)

    def _evidence(
        self, model: LanguageModel, item: WorkItem, tokens: Int64[Tensor, " L"], full: Float32[np.ndarray, "L L"]
    ) -> Evidence:
        """The grounds for choosing segments; always the contact head's map, where the model has one."""
        annotation = self.annotated.get(item.id)
        contacts = full if self.readout == "contact_head" else None
        if contacts is None and not self.is_exact and "contact_head" in model.readouts:
            contacts = _contact_head(model, item)(tokens[None])[0].float().cpu().numpy()
        structure = fitted(annotation, item.sequence) if isinstance(self.segments, Pairs) and annotation else None
        return Evidence(len(item.sequence), contacts, structure, annotation if self.is_exact else None)

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

    def _maps(self, model: LanguageModel, item: WorkItem, max_tokens: int) -> Maps:
        """The function that reads contacts: the model's contact head, or the categorical Jacobian of each context.

        For the Jacobian all positions are substituted, the masked ones too.
        """
        if self.readout == "contact_head":
            return _contact_head(model, item)
        positions = _positions(model, item)

        def logits(tokens: Int64[Tensor, "B L"]) -> Float[Tensor, "B L 20"]:
            return model.logits(tokens, positions)

        return lambda tokens: torch.stack(
            [contact_map(categorical_jacobian(logits, each, max_tokens=max_tokens), overwrite=True) for each in tokens]
        )


def _contact_head(model: LanguageModel, item: WorkItem) -> Maps:
    positions = _positions(model, item)
    return lambda tokens: model.read(tokens, ("contact_head",), positions)["contact_head"]


def _positions(model: LanguageModel, item: WorkItem) -> Int64[Tensor, " L"] | None:
    indices = item.chains.positions() if item.chains else None
    return None if indices is None else torch.from_numpy(indices).to(model.device)


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
    """The arrays that every recovery store has, by name."""
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


def annotations(choice: AnySegments, dataset: Iterable[Record]) -> Annotations:
    """Looks up lists or secondary structures to choose segments by, in a file or in the structures of the dataset.

    Structures are read anew, by every rank for its own proteins; the plan carries sequences only. Raises InputError for
    a file that cannot be used.
    """
    if isinstance(choice, Listed):
        return _from_file(ById(choice.path))
    if isinstance(choice, Pairs) and choice.secondary_structure is not None:
        return _from_file(ById(choice.secondary_structure))
    if isinstance(choice, Pairs):
        return lambda identifiers: _assigned(dataset, identifiers)
    return lambda _: {}


def identity(choice: AnySegments) -> dict[str, Any]:
    """The settings that determine the segments: of a file the sha256 of its content, not where it lies."""
    said = choice.model_dump()
    for name in ("path", "secondary_structure"):
        if said.get(name) is not None:
            said[name] = "sha256:" + sha256(Path(said[name]).expanduser().read_bytes()).hexdigest()
    return said


def _from_file(file: ById) -> Annotations:
    return lambda identifiers: {identifier: file.get(identifier) for identifier in identifiers}


def _assigned(dataset: Iterable[Record], identifiers: Collection[str]) -> dict[str, str]:
    """The secondary structures of those proteins whose structures show it."""
    return {
        record.id: secondary_structure(record.structure.backbone)
        for record in dataset
        if isinstance(record, Protein) and record.id in identifiers
        if isinstance(record.structure, Coordinates) and record.structure.backbone is not None
    }
