"""What every evaluation is given and what it answers with; the shape that makes one module and one YAML enough.

An evaluation reads stores, structures or alignments and computes; it neither parses a command line nor writes a file.
`plmjac.evaluate` does both for all of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd
from pydantic import BaseModel

from plmjac.plots import Figure
from plmjac.records import Protein
from plmjac.store import JacobianStore


class EvaluationError(ValueError):
    """What an evaluation cannot do with what it was given; one sentence with the remedy, exit code 2."""


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
        """What it holds: jacobian, recovery."""
        return str(self.opened.attributes["kind"])

    @property
    def model(self) -> str:
        """The name of the model that filled it."""
        return str(self.opened.attributes["model"]["name"])


@dataclass(frozen=True)
class Inputs:
    """The stores that were named, in their order, and the proteins with structures to compare them with.

    `truth()` reads the dataset that was named, or else those that the stores were made from, anew at each call; it
    raises EvaluationError where neither is there.
    """

    stores: tuple[Store, ...]
    truth: Callable[[], Iterable[Protein]]

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
    """What an evaluation found.

    `tables` and `figures` are written under their names; `text` is printed; `files` are written as they are, under
    their names; `metrics` are the few numbers to compare runs by, for a logger (NaN where there is none).
    """

    tables: dict[str, pd.DataFrame]
    figures: dict[str, Callable[[], Figure]]
    text: str
    files: dict[str, bytes] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Evaluation(Protocol):
    """A module of plmjac.evaluation: the keys of its YAML, and what it does with them."""

    Settings: type[BaseModel]
    evaluate: Callable[[Inputs, Any], Outcome]
