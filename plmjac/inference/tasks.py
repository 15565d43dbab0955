"""Kinds of run. A task says which work items a protein has and how many forwards they take, and computes one.

A kind of run is a class with the methods of `Task`, and one call of `register_task` that names the schedule it answers
to (`schedule=NAME`). Nothing else depends on the kind. Imports no torch, so that the settings can read the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from plmjac.limit import Limit
from plmjac.records import WorkItem
from plmjac.workplan import ManifestRow

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from plmjac.datasets import Dataset
    from plmjac.inference.launch import Kind
    from plmjac.inference.settings import PredictSettings
    from plmjac.models import LanguageModel, ModelSize


@dataclass(frozen=True, eq=False)
class Answer:
    """The result of one work item: arrays by the names of their readouts, and attributes of the protein.

    Arrays are whole, but for readouts that come in blocks, of which these are the rows of the item.
    """

    item: WorkItem
    arrays: "Mapping[str, Tensor | np.ndarray]"
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Passed:
    """A work item of which nothing goes to the store now: it is kept for later, or another process sees to it."""

    item: WorkItem


@runtime_checkable
class Task(Protocol):
    """A kind of run. Made of the settings alone; `check` is called with the model before anything is computed."""

    def identity(self) -> dict[str, Any]:
        """The part of the store's identity that this kind of run adds: `kind`, and all that determines its numbers."""
        ...

    def check(self, model: "LanguageModel") -> None:
        """Raises UsageError, with the remedy, where the model cannot give what is asked for."""
        ...

    def limit(self, limit: Limit) -> None:
        """Set the limit of lengths; proteins over it that are skipped or cropped never come here."""
        ...

    def forwards(self, identifier: str, length: int) -> int:
        """Forward passes for a protein, exactly or at most."""
        ...

    def items(self, row: ManifestRow) -> list[WorkItem]:
        """The work items of a protein, in order; together they cover every residue exactly once."""
        ...

    def setup(self, items: list[WorkItem]) -> None:
        """Get ready for this rank's share of the items."""
        ...

    def compute(
        self, model: "LanguageModel", item: WorkItem, max_tokens: int, on_forward: Callable[[float], None]
    ) -> Answer:
        """Compute one item with forwards of at most `max_tokens` tokens.

        Items of a protein come in order. `on_forward(share)` is called after each forward with the share of the item's
        forwards that it was. An error ends this protein and no other.
        """
        ...

    def num_bytes(self, identifier: str, length: int, size: "ModelSize") -> int:
        """Bytes of a protein's arrays in the store before compression."""
        ...

    def memory(self, rows: list[ManifestRow], settings: "PredictSettings", size: "ModelSize") -> str:
        """Memory that the run needs, in words, for a forecast."""
        ...

    def peak(self, length: int, max_tokens: int, size: "ModelSize", kind: "Kind") -> int:
        """Bytes that a protein takes on a cpu or cuda at its peak, weights included; 0 where that is not known."""
        ...

    @property
    def certainty(self) -> str:
        """The certainty of `forwards`, in words that follow the number."""
        ...


@runtime_checkable
class Shareable(Protocol):
    """A task whose proteins several processes may share: their rows are computed apart and put together later."""

    @property
    def can_share(self) -> bool:
        """False where this run computes nothing worth sharing."""
        ...

    def compute_apart(
        self, model: "LanguageModel", item: WorkItem, max_tokens: int, on_forward: Callable[[float], None]
    ) -> None:
        """Compute one item, whichever came before, and keep it on disk for the process that completes the protein."""
        ...


def blocks(task: Task, row: ManifestRow) -> list[WorkItem]:
    """The items of a protein that ranks and shards may share; none where its task has no such."""
    return task.items(row) if isinstance(task, Shareable) and task.can_share else []


@dataclass(frozen=True)
class TaskSpec:
    """The task for a schedule: the keys of conf/schedule/NAME.yaml, and the task, or "module:function" that makes it.

    `kind` is the kind of store; readouts name the kinds that they are of. `check` raises ValueError for settings that
    do not go together. `may_compile` is True for settings whose forwards a compiled model can make: some read no maps.
    """

    schema: type[BaseModel]
    build: "str | Callable[[PredictSettings, Dataset], Task]"
    kind: str
    default_keep: tuple[str, ...]
    check: "Callable[[PredictSettings], None]" = lambda settings: None
    may_compile: "Callable[[PredictSettings], bool]" = lambda settings: False


TASKS: dict[str, TaskSpec] = {}
"""By the name of the schedule."""


def register_task(schedule: str, spec: TaskSpec) -> None:
    """Make a kind of run known. Raises ValueError for a schedule that another one answers to."""
    if TASKS.setdefault(schedule, spec) is not spec:
        raise ValueError(f"there is a task for schedule={schedule} already")


def build_task(settings: "PredictSettings", dataset: "Dataset") -> Task:
    """The task that the settings ask for."""
    build = TASKS[settings.schedule.name].build
    if isinstance(build, str):
        module, _, function = build.partition(":")
        build = getattr(import_module(module), function)
    return build(settings, dataset)
