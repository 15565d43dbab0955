"""The interface of every dataset: an iterable of records that can be read twice, and the one error that stops it.

A dataset here holds no sequences; it reads its source again at every iteration, in an order that depends only on the
source. It knows nothing of models, chunks or ranks.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from plmjac.files import UsageError
from plmjac.records import Filtered, Protein, Rejected

Record = Protein | Rejected | Filtered
"""Yielded by a dataset, exactly one for each record of its source."""


class InputError(UsageError):
    """The dataset as a whole cannot be used; the message names the source, the record and the remedy.

    A single bad record is never an InputError: it becomes a `Rejected`, and the others are computed.
    """


@runtime_checkable
class Dataset(Protocol):
    """Proteins to compute, and a reason for each record that cannot be."""

    def __iter__(self) -> Iterator[Record]:
        """Read the source from its beginning.

        Raises InputError where the source as a whole turns out to be unusable; records already given stay valid.
        """
        ...


def as_list(value: str | list[str] | None) -> list[str]:
    """One name or several as a list, so that `dataset.ids=1TEN` and `dataset.ids=[1TEN]` mean the same."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
