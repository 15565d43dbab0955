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
    known = read_object(path)
    before = json.dumps(known, sort_keys=True)
    for note in (store / PENDING).glob(f"{NOTE}{role or ''}*"):
        if role is None or note.name.rpartition(".")[0] == NOTE + role:
            said = read_object(note)
            key, start = said.get("key"), said.get("start")
            if isinstance(key, str) and isinstance(start, int):
                earlier = known.get(key)
                same = isinstance(earlier, dict) and earlier.get("start") == start
                known[key] = {"start": start, "deaths": 1 + (earlier["deaths"] if same else 0)}  # type: ignore[index]
            os.unlink(note)
    known = {key: count for key, count in known.items() if key in open_keys}
    if not known:
        path.unlink(missing_ok=True)
    elif json.dumps(known, sort_keys=True) != before:
        write_whole(path, to_json(known))
    return {key: count["deaths"] for key, count in known.items() if isinstance(count, dict)}


def goes_last(store: Path) -> set[str]:
    """The proteins that are computed after all others."""
    known = read_object(store / PENDING / DEATHS)
    return {key for key, count in known.items() if isinstance(count, dict) and count.get("deaths", 0) >= LAST}


def refusal(store: Path, deaths: int) -> str:
    """The reason of a protein that is not begun again."""
    return (
        f"{deaths} processes died while they computed it and got no block further, for lack of memory as a rule; "
        f"give them more (plmjac.plan says how much) and delete {store / PENDING / DEATHS} to have it tried again"
    )
