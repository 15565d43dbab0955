"""Proteins under way when a process died, so that one that kills its process does not keep the others waiting.

Each rank writes the work item that it begins into a file of its own; a run that ends by itself or by a signal removes
it. A note that is found at the next start is a process that died, counted by protein, from 1 again where it got further
than the time before. Notes are not forced to the disk: a process that dies leaves them, a power cut is no such death.
"""

import json
import os
from collections.abc import Collection
from pathlib import Path

from plmjac.files import read_object, write_whole
from plmjac.records import WorkItem
from plmjac.store.layout import PENDING, to_json

NOTE, DEATHS = "under_way.", "deaths.json"

LAST, REFUSED = 2, 3
"""So many deaths over a protein without a block more: it is computed after all others; it is recorded as failed."""


class UnderWay:
    """The note of one process, by its role (that of the store's lock) and its rank."""

    def __init__(self, store: Path, role: str, rank: int) -> None:
        self._path = store / PENDING / f"{NOTE}{role}.{rank}"

    def begin(self, item: WorkItem) -> None:
        """Note that this item is begun."""
        self._path.write_text(json.dumps({"key": item.key, "start": item.start}))

    def clear(self) -> None:
        """Nothing is under way any more; called when a run ends otherwise than by a death."""
        self._path.unlink(missing_ok=True)


def count_deaths(store: Path, role: str | None, open_keys: Collection[str]) -> dict[str, int]:
    """Count the notes of dead processes, of one role or (None) of all: deaths over each protein that is still open.

    Only under the store's lock.
    """
    path = store / PENDING / DEATHS
    before = _deaths(store)
    found: dict[str, dict[str, int]] = {}
    for note in (store / PENDING).glob(f"{NOTE}{role or ''}*"):
        if role is None or note.name.rpartition(".")[0] == NOTE + role:
            said = read_object(note)
            key, start = said.get("key"), said.get("start")
            if isinstance(key, str) and isinstance(start, int):
                # Of a protein that several share there may be several notes, of rows far apart.
                found.setdefault(key, {})[str(start)] = 1 + before.get(key, {}).get(str(start), 0)
            os.unlink(note)
    known = {key: starts for key, starts in (before | found).items() if key in open_keys}
    if not known:
        path.unlink(missing_ok=True)
    elif known != before:
        write_whole(path, to_json(known))
    return {key: max(starts.values()) for key, starts in known.items()}


def goes_last(store: Path) -> set[str]:
    """The proteins that are computed after all others."""
    return {key for key, starts in _deaths(store).items() if max(starts.values()) >= LAST}


def refusal(store: Path, deaths: int) -> str:
    """The reason of a protein that is not begun again."""
    return (
        f"{deaths} processes died while they computed it and got no block further, for lack of memory as a rule; "
        f"give them more (plmjac.plan says how much) and delete {store / PENDING / DEATHS} to have it tried again"
    )


def _deaths(store: Path) -> dict[str, dict[str, int]]:
    """The deaths that were counted, by protein and by the first row of the block that was under way."""
    found = {}
    for key, starts in read_object(store / PENDING / DEATHS).items():
        counts = starts.items() if isinstance(starts, dict) else ()
        if good := {start: n for start, n in counts if start.isdecimal() and isinstance(n, int)}:
            found[key] = good
    return found
