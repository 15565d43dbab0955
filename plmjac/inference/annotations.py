"""What a choice of segments has to know of proteins besides their sequences: lists from files, secondary structures.

Structures are read anew here, by every rank for its own proteins; the plan carries sequences only.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from plmjac.datasets import Record
from plmjac.datasets.by_id import ById
from plmjac.records import Coordinates, Protein
from plmjac.secondary_structure import secondary_structure
from plmjac.segments import AnyChoice, Listed, Pairs

Annotations = Callable[[Collection[str]], Mapping[str, Any]]
"""By protein id, for those of some ids: an entry of a list, a secondary structure, or nothing."""


def annotations(choice: AnyChoice, dataset: Iterable[Record]) -> Annotations:
    """Where the choice finds what it has to know. Raises InputError for a file that cannot be used."""
    if isinstance(choice, Listed):
        return _from_file(ById(choice.path))
    if isinstance(choice, Pairs) and choice.secondary_structure is not None:
        return _from_file(ById(choice.secondary_structure))
    if isinstance(choice, Pairs):
        return lambda identifiers: _assigned(dataset, identifiers)
    return lambda _: {}


def identity(choice: AnyChoice) -> dict[str, Any]:
    """What of the choice determines its segments: of a file the content, not where it lies."""
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
