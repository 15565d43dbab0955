"""Inputs and outcome of an evaluation: the interface that makes one module and one YAML a new one.

An evaluation reads stores, structures or alignments and computes; it neither parses a command line nor writes a file.
`plmjac.evaluate` does both for all of them.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from pydantic import BaseModel

from plmjac.evaluation.structures import Structures
from plmjac.files import UsageError
from plmjac.models.caution import caution
from plmjac.plots import Figure
from plmjac.records import Protein
from plmjac.store import JacobianStore

log = logging.getLogger("plmjac.evaluate")

Row = dict[str, Any]
"""A row of a table by column; what is missing is NaN there."""


class EvaluationError(UsageError):
    """Stores, structures or settings that an evaluation cannot use; one sentence with the remedy, exit code 2."""


@dataclass(frozen=True, eq=False)
class Store:
    """A store opened for reading, under the name that tables and figures call it by (its folder's, made unique)."""

    name: str
    opened: JacobianStore

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.opened.path

    @property
    def kind(self) -> str:
        """The kind of run that filled it: jacobian, recovery."""
        return str(self.opened.attributes.get("kind"))

    @property
    def model(self) -> str:
        """The name of the model that filled it."""
        model = self.opened.attributes.get("model")
        return str(model["name"]) if isinstance(model, dict) and "name" in model else "unknown"

    @property
    def recorded(self) -> dict[str, dict[str, Any]]:
        """The groups of the configuration that the store recorded; they are not to be trusted."""
        config = self.opened.attributes.get("config")
        groups = config.items() if isinstance(config, dict) else ()
        return {str(name): group for name, group in groups if isinstance(group, dict)}

    @property
    def caution(self) -> str:
        """The warning that the model knows nothing of these proteins; empty where it may."""
        dataset, model = self.recorded.get("dataset", {}), self.recorded.get("model", {})
        return caution(self.model, str(dataset.get("name")), model.get("checkpoint"))


@dataclass(frozen=True)
class Inputs:
    """The stores that were named, in their order, and proteins with structures to compare them with.

    `truth()` reads the structures anew at each call; it raises EvaluationError where it is not said where they are.
    """

    stores: tuple[Store, ...]
    truth: Callable[[], Iterable[Protein]]

    @cached_property
    def structures(self) -> Structures:
        """The structures, to find by id, sequence or alignment; read once."""
        return Structures(self.truth())

    @cached_property
    def structures_if_any(self) -> Structures:
        """The structures, none where they cannot be read: for results that do not need them."""
        try:
            return self.structures
        except (OSError, UsageError) as error:
            log.warning("no structures: %s", error)
            return Structures([])

    @property
    def caution(self) -> str:
        """The warnings of the stores, each once."""
        return "\n".join(dict.fromkeys(store.caution for store in self.stores if store.caution))

    def of_kind(self, kind: str) -> tuple[Store, ...]:
        """All stores, of which there must be one and all of this kind; EvaluationError with the remedy if not."""
        if not self.stores:
            raise EvaluationError("store is needed: give store=FOLDER, or store=[FIRST,SECOND] to compare several")
        for store in self.stores:
            if store.kind != kind:
                raise EvaluationError(f"{store.path} is a store of kind {store.kind!r}; this evaluation reads {kind!r}")
        return self.stores


@dataclass(frozen=True)
class Outcome:
    """The results of an evaluation.

    `tables` and `figures` are written under their names; `text` is printed; `scored` counts the proteins, pairs or
    segments that have a result: 0 is exit code 3. `files` are written as they are, under their names; `metrics` are the
    few numbers to compare runs by, for a logger (NaN where there is none). `pictures` are figures of single proteins,
    each drawn and written under its key when it is its turn.
    """

    tables: dict[str, pd.DataFrame]
    figures: dict[str, Callable[[], Figure]]
    text: str
    scored: int
    files: dict[str, bytes] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Callable[[], Figure]] = field(default_factory=dict)


@runtime_checkable
class Evaluation(Protocol):
    """A module of plmjac.evaluation: `Settings`, the keys of its YAML, and `evaluate`.

    With `READS_STRUCTURES = False` it is refused structures=... and dataset=..., which would have no effect.
    """

    Settings: type[BaseModel]
    evaluate: Callable[[Inputs, Any], Outcome]
